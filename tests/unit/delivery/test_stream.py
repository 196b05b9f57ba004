"""The stream's two ends: what the session tells it, and what a subscription reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bqstream.clock import Clock
from bqstream.config import Buffer
from bqstream.delivery.buffer import OVERRUN_MESSAGES
from bqstream.delivery.stream import Stream
from bqstream.errors import BufferOverflow, OperationFailed
from bqstream.message import Gap


def raw(number: int, size: int = 0) -> bytes:
    return json.dumps({"data": {"EVM": {"Blocks": [{"n": number, "fill": "x" * size}]}}}).encode()


class Bench:
    """One stream with a clock of its own, and everything that it called."""

    def __init__(self, **buffer: Any) -> None:
        self.now = 0.0
        self.gaps: list[Gap] = []
        self.parked: list[bool] = []
        self.ready = 0
        self.room = 0
        self.stream = Stream(
            Buffer(**buffer),
            Clock(monotonic=lambda: self.now, wall=lambda: 1000.0 + self.now),
            on_gap=self.gaps.append,
            on_parked=self.parked.append,
            on_ready=self._ready,
            on_room=self._room,
        )
        self.stream.joined(1, 0.0, grace=5.0, served=0.0)

    def _ready(self) -> None:
        self.ready += 1

    def _room(self) -> None:
        self.room += 1

    def bring(self, *found: int, size: int = 0) -> bool:
        room = True
        for number in found:
            self.now += 1
            room = self.stream.payloads(1, [raw(number, size)], self.now)
        return room

    def take(self, count: int = 10**6) -> list[int]:
        taken: list[int] = []
        while len(taken) < count and (message := self.stream.take()) is not None:
            taken += [row["n"] for row in message.rows()]
        return taken


def test_messages_are_read_in_the_order_they_came_and_the_first_one_wakes_the_reader() -> None:
    bench = Bench()
    assert bench.bring(1, 2, 3)
    assert (bench.ready, bench.stream.waiting_messages) == (1, 3)
    assert bench.stream.waiting_bytes == 3 * len(raw(1))
    assert bench.take() == [1, 2, 3]
    assert (bench.stream.messages, bench.stream.waiting_bytes) == (3, 0)
    assert bench.stream.take() is None


def test_a_message_says_when_and_on_which_link_it_came() -> None:
    bench = Bench()
    bench.bring(1)
    bench.now = 50.0
    message = bench.stream.take()
    assert message is not None
    assert (message.received, message.link, message.raw, message.replayed) == (1001.0, 1, raw(1), False)


def test_a_completed_stream_ends_after_what_waited() -> None:
    bench = Bench()
    bench.bring(1)
    bench.stream.completed(2.0)
    assert not bench.stream.ended
    assert bench.bring(2)
    assert bench.take() == [1]
    assert bench.stream.ended
    assert bench.stream.error is None


def test_a_failed_stream_gives_its_error_after_what_waited() -> None:
    bench, error = Bench(), OperationFailed("no")
    bench.bring(1)
    bench.stream.failed(error, 2.0)
    bench.stream.failed(OperationFailed("later"), 3.0)
    assert bench.stream.error is None
    assert bench.take() == [1]
    assert bench.stream.error is error
    assert bench.ready == 2


def test_an_ended_stream_names_no_gap_for_what_happens_to_its_links() -> None:
    bench = Bench()
    bench.stream.completed(1.0)
    bench.stream.joined(2, 1.0, grace=5.0, served=0.0)
    bench.stream.lost(1, 1.0, "closed")
    bench.stream.park(1.0)
    assert bench.stream.crossed(2, 1.0, beaten=None)
    assert bench.stream.cross(2, 1.0).proven
    assert bench.gaps == []


# ---------------------------------------------------------------------- block


def test_a_full_buffer_asks_the_link_to_stop_until_it_is_half_empty() -> None:
    bench = Bench(messages=4)
    assert bench.bring(1, 2, 3)
    assert not bench.bring(4)
    assert bench.take(1) == [1]
    assert bench.room == 0
    assert bench.take(1) == [2]
    assert bench.room == 1
    assert bench.bring(5)
    assert bench.take() == [3, 4, 5]
    assert (bench.room, bench.gaps, bench.stream.dropped) == (1, [], 0)


def test_a_buffer_is_full_by_bytes_as_well() -> None:
    bench = Bench(messages=100, bytes=3 * len(raw(1)))
    assert bench.bring(1, 2)
    assert not bench.bring(3)


def test_a_message_larger_than_the_whole_buffer_is_taken_in_when_nothing_waits() -> None:
    bench = Bench(bytes=50)
    assert not bench.bring(1, size=500)
    assert bench.take() == [1]
    assert bench.room == 1


def test_messages_that_were_on_their_way_to_a_full_buffer_are_taken_in() -> None:
    bench = Bench(messages=2)
    assert not bench.bring(*range(66))
    assert (bench.parked, bench.gaps) == ([], [])
    assert bench.take() == list(range(66))


def test_more_messages_on_their_way_than_are_allowed_park_the_stream() -> None:
    bench = Bench(messages=2)
    allowed = 2 + OVERRUN_MESSAGES
    assert bench.bring(*range(allowed + 1))
    assert bench.parked == [False]
    assert bench.take() == list(range(allowed))


def test_the_overrun_is_bounded_in_bytes() -> None:
    bench = Bench(messages=100, bytes=1000)
    bench.bring(1, size=1000)
    bench.bring(2, size=600_000)
    assert bench.parked == []
    bench.bring(3, size=600_000)
    assert bench.parked == [False]
    assert bench.take() == [1, 2]


def test_a_parked_stream_lets_messages_go_and_names_them_until_it_is_half_empty() -> None:
    bench = Bench(messages=4)
    bench.bring(1, 2, 3, 4)
    bench.stream.park(4.0)
    bench.stream.park(4.5)
    assert bench.stream.parked
    assert bench.parked == [False]
    (gap,) = bench.stream.gaps
    assert (gap.cause, gap.start.timestamp(), gap.end) == ("parked", 1004.0, None)
    assert bench.bring(5, 6), "a parked stream does not hold its link"
    assert bench.stream.dropped == 2
    assert bench.take(2) == [1, 2]
    assert bench.parked == [False, True]
    (gap,) = bench.stream.gaps
    assert gap.end is not None
    assert gap.end.timestamp() == 1006.0
    assert bench.bring(7)
    assert bench.take() == [3, 4, 7]
    assert len(bench.gaps) == 2, "named once, closed once"


def test_a_stream_in_which_nothing_waits_cannot_be_parked() -> None:
    bench = Bench()
    bench.stream.park(1.0)
    assert bench.bring(1)
    assert (bench.take(), bench.parked, bench.gaps) == ([1], [], [])


def test_what_was_let_go_while_parked_counts_as_brought_for_the_next_link() -> None:
    bench = Bench(messages=2)
    bench.bring(1, 2)
    bench.stream.park(2.0)
    bench.stream.joined(2, 2.0, grace=5.0, served=0.0)
    bench.bring(3)
    bench.stream.payloads(2, [raw(3)], 3.0)
    bench.stream.lost(1, 3.0, "gone")
    assert bench.stream.merged == 1


# ---------------------------------------------------------------------- drop_oldest, error


def test_the_oldest_go_and_one_gap_names_them_all() -> None:
    bench = Bench(messages=4, overflow="drop_oldest")
    assert bench.bring(*range(1, 11))
    assert bench.stream.dropped == 6
    (gap,) = bench.stream.gaps
    assert (gap.cause, gap.start.timestamp(), gap.end) == ("dropped", 1001.0, None)
    assert bench.take() == [7, 8, 9, 10]
    (gap,) = bench.stream.gaps
    assert gap.end is not None
    assert gap.end.timestamp() == 1010.0


def test_each_time_that_the_reader_is_slow_is_a_gap_of_its_own() -> None:
    bench = Bench(messages=2, overflow="drop_oldest")
    for _ in range(3):
        bench.bring(1, 2, 3)
        bench.take()
    assert len(bench.stream.gaps) == 3


def test_an_overflow_ends_the_stream_where_that_was_asked_for() -> None:
    bench = Bench(messages=2, overflow="error")
    assert bench.bring(1, 2, 3, 4)
    assert bench.take() == [1, 2]
    assert bench.stream.ended
    assert isinstance(bench.stream.error, BufferOverflow)
    assert [(gap.cause, gap.end) for gap in bench.stream.gaps] == [("dropped", None)]


# ---------------------------------------------------------------------- gaps


def test_gaps_are_bounded_and_those_that_fell_off_are_counted() -> None:
    bench = Bench()
    for number in range(1, 1101):
        bench.bring(number)
        bench.stream.lost(number, bench.now, "closed")
        bench.stream.joined(1, bench.now, grace=5.0, served=0.0)
        bench.stream.lost(1, bench.now, "closed")
        bench.stream.joined(1, bench.now, grace=5.0, served=0.0)
        bench.take()
    assert len(bench.stream.gaps) == 1024
    assert bench.stream.gaps_forgotten == 1100 - 1024


@pytest.mark.parametrize("cause", ["lost", "replaced"])
def test_a_gap_says_why_and_is_told_when_it_opens_and_when_it_closes(cause: Any) -> None:
    bench = Bench()
    bench.bring(1)
    bench.stream.lost(1, 2.0, "the wire was cut", cause=cause)
    assert bench.stream.unproven
    bench.stream.joined(2, 3.0, grace=5.0, served=0.0)
    bench.now = 4.0
    bench.stream.payloads(2, [raw(2)], 4.0)
    opened, closed = bench.gaps
    assert (opened.cause, opened.detail, opened.end) == (cause, "the wire was cut", None)
    assert closed.end is not None
    assert (closed.start.timestamp(), closed.end.timestamp()) == (1001.0, 1004.0)
    assert bench.stream.gaps == (closed,)
    assert not bench.stream.unproven


# ---------------------------------------------------------------------- paused


def test_while_paused_no_source_is_listened_to_what_waits_is_read_and_one_gap_is_open() -> None:
    bench = Bench()
    bench.bring(1)
    bench.stream.joined(2, 2.0, grace=5.0, served=0.0)
    bench.stream.pause(3.0)
    assert bench.stream.paused
    bench.bring(4)
    bench.stream.payloads(2, [raw(5)], 5.0)
    assert bench.take() == [1]
    (gap,) = bench.stream.gaps
    assert (gap.cause, gap.start.timestamp(), gap.end) == ("paused", 1001.0, None)
    assert not bench.stream.ended


def test_the_same_source_may_be_joined_again_after_a_pause_and_the_gap_ends_with_what_it_brings() -> None:
    bench = Bench()
    bench.bring(1)
    bench.stream.pause(2.0)
    bench.stream.resume()
    bench.stream.joined(1, 3.0, grace=5.0, served=0.0)
    bench.now = 6.0
    bench.bring(7)
    assert bench.take() == [1, 7]
    (gap,) = bench.stream.gaps
    assert gap.end is not None
    assert (gap.cause, gap.end.timestamp()) == ("paused", 1007.0)
    assert not bench.stream.paused


def test_a_pause_where_the_source_had_gone_before_belongs_to_the_gap_that_is_open() -> None:
    bench = Bench()
    bench.bring(1)
    bench.stream.lost(1, 2.0, "the wire was cut")
    bench.stream.pause(3.0)
    assert [gap.cause for gap in bench.stream.gaps] == ["lost"]


def test_what_ends_while_paused_is_paused_no_more_and_cannot_be() -> None:
    bench = Bench()
    bench.stream.pause(1.0)
    bench.stream.completed(2.0)
    assert (bench.stream.ended, bench.stream.paused) == (True, False)
    bench.stream.pause(3.0)
    assert not bench.stream.paused
