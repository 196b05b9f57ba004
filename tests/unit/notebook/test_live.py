"""What a view keeps of what it is told, without a stream, a clock or a browser."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from bqstream import Message, Status, events
from bqstream.delivery.decoding import decoder
from bqstream.message import Arrival
from bqstream.notebook import live
from bqstream.notebook.live import Live
from bqstream.timeline import SAMPLES

START = 1_800_000_000.0
STATUS = Status(
    state="live", token_expires_at=None, rotations=0, reconnects=0, unproven=0, links=(), subscriptions=()
)


class Origin:
    """A stream's part that messages need: its monotonic clock is the wall clock."""

    cubes: tuple[str, ...] = ("Transfers",)
    hides = False
    into = None
    decode = staticmethod(decoder(None))

    def ahead(self) -> float:
        return 0.0

    def shown(self, raw: bytes) -> bytes:
        return raw

    def checkpoint(self, number: int) -> Any:
        raise NotImplementedError

    forks = checkpoint


def message(at: float, *rows: Any, **others: Any) -> Message[Any]:
    raw = json.dumps({"data": {"EVM": {"Transfers": rows, **others}}}).encode()
    return Message(Arrival(raw, at, 1), Origin(), 0)


def row(amount: Any = "1.5", number: int = 7, time: float | None = None) -> dict[str, Any]:
    block: dict[str, Any] = {"Number": str(number)}
    if time is not None:
        block["Time"] = datetime.fromtimestamp(time, UTC).isoformat()
    return {"Block": block, "Transfer": {"Amount": amount}}


def shown(view: Live, now: float) -> dict[str, Any]:
    view.look(now, STATUS)
    return view.picture(now, None, state="open", why="", viewed=0, read=False)


def test_rows_are_counted_by_the_second_and_seconds_without_any_are_none() -> None:
    view = Live(1, "Transfers", START)
    view.came([message(START, row(), row()), message(START, row())])
    view.look(START + 1, STATUS)
    view.look(START + 3.5, STATUS)
    assert [(sample.at - START, sample.rate) for sample in view.samples] == [(0, 3), (1, 0), (2, 0)]
    assert view.seen == 3
    assert view.rate == 1.0


def test_what_waited_before_the_view_is_seen_and_is_no_rate() -> None:
    view = Live(1, "Transfers", START)
    view.came([message(START - 2, row())])
    view.look(START + 1, STATUS)
    assert (view.seen, view.samples[-1].rate) == (1, 0)


def test_the_newest_rows_are_shown_by_table_and_their_numbers_as_points() -> None:
    view = Live(1, "Transfers", START)
    view.came([message(START + n / 10, row(f"{n}.5", n)) for n in range(30)])
    picture = shown(view, START + 4)
    rows = picture["rows"]["Transfers"]
    assert len(rows) == live.ROWS
    assert rows[-1].cells == (("Block_Number", "29"), ("Transfer_Amount", "29.5"))
    assert picture["column"] == "Transfer_Amount"
    assert picture["columns"] == ("Block_Number", "Transfer_Amount")
    assert [point.value for point in picture["points"]["Transfer_Amount"]] == [n + 0.5 for n in range(30)]


def test_another_column_is_drawn_once_it_is_chosen_and_one_that_there_is_not_is_passed_over() -> None:
    view = Live(1, "Transfers", START)
    view.came([message(START, row())])
    view.look(START, STATUS)
    view.choose("Block_Number")
    view.choose("<nothing>")
    view.came([message(START, {"Transfer": {"Value": "9"}})])
    assert list(shown(view, START)["points"]) == ["Block_Number"]


def test_columns_of_several_cubes_say_which() -> None:
    view = Live(1, "Transfers, Calls", START)
    view.came([message(START, row(), Calls=[{"Gas": 5}])])
    picture = shown(view, START)
    assert picture["columns"] == ("Transfers: Block_Number", "Transfers: Transfer_Amount", "Calls: Gas")
    assert list(picture["rows"]) == ["Transfers", "Calls"]


def test_lag_is_now_less_the_newest_block_and_none_where_rows_do_not_say() -> None:
    view = Live(1, "Transfers", START)
    view.came([message(START, row())])
    assert shown(view, START)["lag"] is None
    view.came([message(START, row(time=START - 3), row(time=START - 5))])
    assert shown(view, START + 1)["lag"] == 4


def test_all_that_is_kept_is_bounded() -> None:
    view = Live(1, "many", START)
    wide = {f"column{n}": n for n in range(100)}
    for second in range(1200):
        cubes = {f"cube{second % 20}": [wide]}
        view.came([message(START + second, *([row()] * 40), **cubes)])
        view.look(START + second, STATUS)
    assert len(view.samples) == SAMPLES
    assert len(view.rows) == live.TABLES
    assert max(map(len, view.rows.values())) == live.ROWS
    assert len(view.points) == live.COLUMNS
    assert max(map(len, view.points.values())) == live.POINTS
    assert view.seen == 1200 * 41


def test_of_many_large_messages_the_newest_are_decoded() -> None:
    view = Live(1, "Transfers", START)
    large = row("x" * live.BYTES)
    view.came([message(START, row("1")), message(START, large), message(START, row("2"))])
    rows = shown(view, START)["rows"]["Transfers"]
    assert [dict(one.cells)["Transfer_Amount"] for one in rows] == ["x" * 199 + "…", "2"]
    assert view.seen == 3


def test_a_payload_that_cannot_be_decoded_or_has_no_cubes_stops_nothing() -> None:
    view = Live(1, "Transfers", START)
    broken = Message[Any](Arrival(b"[1]", START, 1), Origin(), 0)
    scalar = Message[Any](Arrival(b'{"data":{"tick":5}}', START, 1), Origin(), 0)
    view.came([broken, scalar])
    assert shown(view, START)["rows"]["Transfers"][-1].cells == (("tick", "5"),)


def test_events_of_other_subscriptions_are_passed_over() -> None:
    view = Live(1, "Transfers", START)
    at = datetime.fromtimestamp(START, UTC)
    view.event(events.Connected(at=at, link=3, subprotocol="graphql-transport-ws"))
    view.event(events.Parked(at=at, operation=2, resumed=False))
    view.event(events.Parked(at=at, operation=1, resumed=False))
    picture = shown(view, START)
    assert [one.text for one in picture["events"]] == [
        "connected: link 3, graphql-transport-ws",
        "Transfers parked: its reader is slow",
    ]
