from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bqstream import Checkpoint, UsageError
from bqstream.checkpoint import Mark
from bqstream.collect import Column, Stored, Table
from bqstream.collect.rewind import Place, Rewind, standings
from bqstream.collect.state import State
from bqstream.delivery.cursor import CursorKind

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
THREE = datetime(2026, 1, 2, 3, tzinfo=UTC)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TABLE = Table("trades", "DEXTrades", (Column("Block_Number", ("Block", "Number"), "integer"),))
ROW = "abcdefghijkl"
TRADES = Mark(low=("number", "100"), since=17, beyond={"": ROW, "101": ROW, "103": ROW * 2}, told="told")
FIRST_MINUTE = Mark(since=int(AT.timestamp()), beyond={"100": ROW, "101": ROW})
PRICES = Mark(low=("timestamp", "2026-01-02T03:04:00Z"), beyond={str(int(AT.timestamp())): ROW})
KINDS: dict[str, CursorKind | None] = {"Trades": "number", "Young": "number", "Prices": "timestamp"}


def stored(**cubes: Mark) -> Stored:
    checkpoint = Checkpoint("fingerprint", AT, cubes).dumps()
    return Stored(7, State(run="before", checkpoint=checkpoint, tables=(TABLE,), dead_letters=12).dumps())


def gone_back(to: Place, **cubes: Mark) -> Checkpoint:
    return Checkpoint.loads(Rewind.of(stored(**cubes), to, KINDS).state.checkpoint)


@pytest.mark.parametrize("to", [0, 99, 100])
def test_below_where_all_is_whole_a_block_is_gone_on_from_with_nothing_known_beyond(to: int) -> None:
    back = gone_back(to, Trades=TRADES)
    assert back.cubes["Trades"] == Mark(low=("number", str(to)), told="told")
    assert (back.fingerprint, back.at) == ("fingerprint", AT)


def test_above_it_only_the_rows_from_there_on_are_unknown_again_since_earlier_ones_may_be_missing() -> None:
    back = gone_back(102, Trades=TRADES, Young=Mark(since=5, beyond={"101": ROW, "102": ROW}))
    assert back.cubes["Trades"] == Mark(
        low=("number", "100"), since=17, beyond={"": ROW, "101": ROW}, told="told"
    )
    assert back.cubes["Young"] == Mark(since=5, beyond={"101": ROW})


def test_the_commit_follows_the_last_one_and_keeps_all_else() -> None:
    back = Rewind.of(stored(Trades=TRADES), 50, KINDS)
    commit = back.commit("trades")
    assert (commit.subscription, commit.number, commit.steps, commit.gaps) == ("trades", 8, (), ())
    state = State.loads(commit.state)
    assert (state.tables, state.dead_letters) == ((TABLE,), 12)
    assert state.run != "before"  # so that nobody takes it for a commit of that process
    assert str(back.moved["Trades"]) == "whole below number 100, and 4 of the rows beyond up to 103"


@pytest.mark.parametrize(
    ("cube", "mark", "to"),
    [
        ("Trades", TRADES, 104),
        ("Trades", Mark(low=("number", "100")), 101),
        ("Young", FIRST_MINUTE, 102),
        ("Young", FIRST_MINUTE, NOON),
        ("Prices", PRICES, NOON),
    ],
)
def test_what_has_not_come_as_far_is_refused_since_rows_in_between_would_be_left_out(
    cube: str, mark: Mark, to: Place
) -> None:
    with pytest.raises(UsageError, match=f"{cube} is whole below .+ leave out"):
        Rewind.of(stored(**{cube: mark}), to, KINDS)


@pytest.mark.parametrize(("cube", "mark", "to"), [("Trades", TRADES, AT), ("Prices", PRICES, 100)])
def test_a_block_is_no_place_for_what_goes_by_time_nor_the_other_way_round(
    cube: str, mark: Mark, to: Place
) -> None:
    with pytest.raises(UsageError, match=r"the way back is to a (block's number|time)"):
        Rewind.of(stored(**{cube: mark}), to, KINDS)


def test_to_a_time_goes_back_what_stands_by_one_and_the_others_stay() -> None:
    back = Rewind.of(stored(Prices=PRICES, Young=FIRST_MINUTE, Trades=TRADES), THREE, KINDS)
    checkpoint = Checkpoint.loads(back.state.checkpoint)
    assert checkpoint.cubes["Prices"] == Mark(low=("timestamp", "2026-01-02T03:00:00Z"))
    assert checkpoint.cubes["Young"] == Mark(since=int(THREE.timestamp()))
    assert checkpoint.cubes["Trades"] == TRADES
    assert checkpoint.at == THREE
    assert (list(back.moved), list(back.stay)) == (["Prices", "Young"], ["Trades"])
    assert [str(one.whole) for one in standings(checkpoint).values()] == [
        "2026-01-02T03:00:00Z",
        "2026-01-02T03:00:00Z",
        "number 100",
    ]


def test_what_cannot_be_asked_for_again_has_no_way_back() -> None:
    with pytest.raises(UsageError, match="no way back"):
        Rewind.of(stored(), 1, KINDS)
