from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bqstream import Checkpoint, UsageError
from bqstream.checkpoint import Mark
from bqstream.collect import Column, Stored, Table
from bqstream.collect.rewind import Place, Rewind, places_of
from bqstream.collect.state import State
from bqstream.delivery.cursor import Cursor

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TABLE = Table("trades", "DEXTrades", (Column("Block_Number", ("Block", "Number"), "integer"),))
TRADES = Mark(low=("number", "100"), since=17, beyond={"101": "abcdefghijkl"}, told="told")
YET_TO_COME = Mark(since=1_767_323_045, beyond={"": "abcdefghijkl"})
PRICES = Mark(low=("timestamp", "2026-01-02T03:04:00Z"), beyond={"1767323041": "abcdefghijkl"})


def stored(**cubes: Mark) -> Stored:
    checkpoint = Checkpoint("fingerprint", AT, cubes).dumps()
    return Stored(7, State(run="before", checkpoint=checkpoint, tables=(TABLE,), dead_letters=12).dumps())


def gone_back(to: Place, **cubes: Mark) -> Checkpoint:
    return Checkpoint.loads(Rewind.of(stored(**cubes), to).state.checkpoint)


@pytest.mark.parametrize("to", [0, 99, 100])
def test_a_block_that_was_reached_is_gone_on_from_with_nothing_known_beyond(to: int) -> None:
    back = gone_back(to, DEXTrades=TRADES)
    assert back.cubes["DEXTrades"] == Mark(low=("number", str(to)), told="told")
    assert (back.fingerprint, back.at) == ("fingerprint", AT)


def test_the_commit_follows_the_last_one_and_keeps_all_else() -> None:
    back = Rewind.of(stored(DEXTrades=TRADES), 50)
    commit = back.commit("trades")
    assert (commit.subscription, commit.number, commit.steps, commit.gaps) == ("trades", 8, (), ())
    state = State.loads(commit.state)
    assert (state.tables, state.dead_letters) == ((TABLE,), 12)
    assert state.run != "before"  # so that nobody takes it for a commit of that process
    assert back.moved == {"DEXTrades": Cursor("number", 100)}


@pytest.mark.parametrize(("mark", "to"), [(TRADES, 101), (PRICES, NOON), (YET_TO_COME, NOON)])
def test_what_has_not_come_as_far_is_refused_since_rows_in_between_would_be_left_out(
    mark: Mark, to: Place
) -> None:
    with pytest.raises(UsageError, match=r"Cube stands at .+ leave out"):
        Rewind.of(stored(Cube=mark), to)


@pytest.mark.parametrize(("mark", "to"), [(TRADES, AT), (PRICES, 100), (YET_TO_COME, 100)])
def test_a_block_is_no_place_for_what_stands_by_time_nor_the_other_way_round(mark: Mark, to: Place) -> None:
    with pytest.raises(UsageError, match=r"--to takes a .+ the sink stands with Cube at"):
        Rewind.of(stored(Cube=mark), to)


def test_what_stands_by_time_goes_back_to_a_time_and_the_others_stay() -> None:
    to = datetime(2026, 1, 2, 3, tzinfo=UTC)
    back = gone_back(to, Prices=PRICES, Quiet=YET_TO_COME, DEXTrades=TRADES)
    assert back.cubes["Prices"] == Mark(low=("timestamp", "2026-01-02T03:00:00Z"))
    assert back.cubes["Quiet"] == Mark(since=int(to.timestamp()))
    assert back.cubes["DEXTrades"] == TRADES
    assert back.at == to
    assert {key: str(place) for key, place in places_of(back).items()} == {
        "Prices": "2026-01-02T03:00:00Z",
        "Quiet": "2026-01-02T03:00:00Z",
        "DEXTrades": "number 100",
    }


def test_what_cannot_be_asked_for_again_has_no_way_back() -> None:
    with pytest.raises(UsageError, match="no way back"):
        Rewind.of(stored(), 1)
