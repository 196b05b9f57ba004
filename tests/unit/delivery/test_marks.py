"""Checkpoints of a stream: below their places nothing is missing, and all rows above are known."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import msgspec
import pytest

from bqstream import Checkpoint, UsageError
from bqstream.clock import Clock
from bqstream.config import Buffer
from bqstream.delivery.ask import Answer
from bqstream.delivery.backfill import Ask, Sleep, Window
from bqstream.delivery.closing import Start
from bqstream.delivery.counting import Known
from bqstream.delivery.cursor import Cursor
from bqstream.delivery.document import Document
from bqstream.delivery.history import SPAN
from bqstream.delivery.marks import known_of, windows_of
from bqstream.delivery.plan import Plan
from bqstream.delivery.stream import Stream

BLOCKS = "subscription { EVM { A: Blocks { Block { Number Hash } } B: Blocks { Block { Number Hash } } } }"
EPOCH = 1_700_000_000.0


class Answering(Plan):
    """A plan whose answers come ready made."""

    def read(self, ask: Ask, data: Any) -> dict[str, Answer]:
        answers: dict[str, Answer] = data
        return answers


def row(block: int) -> str:
    return json.dumps({"Block": {"Number": str(block), "Hash": hex(block)}})


class Story:
    """One stream of two cubes, its time, and who reads it."""

    def __init__(self, start: Start | None = None, lag: float = 0.5, *, joined: bool = True) -> None:
        self.now = 0.0
        plan = Plan.make(Document.parse(BLOCKS))
        self.stream = Stream(
            Buffer(),
            Clock(monotonic=lambda: self.now, wall=lambda: EPOCH + self.now),
            on_gap=lambda gap: None,
            on_parked=lambda resumed: None,
            on_ready=lambda: None,
            on_room=lambda: None,
            plan=Answering(**{one.name: getattr(plan, one.name) for one in fields(plan)}),
            cubes=("A", "B"),
            fingerprint="these",
            start=start,
            lag=lag,
        )
        if joined:
            self.stream.joined(1, self.now, grace=lag, served=EPOCH)

    def bring(self, block: int, cube: str = "A") -> None:
        found = {"A": "", "B": "", cube: row(block)}
        raw = f'{{"data":{{"EVM":{{"A":[{found["A"]}],"B":[{found["B"]}]}}}}}}'
        self.stream.payloads(1, [raw.encode()], self.now)

    def query(self, blocks: range, head: int, *, late: float = 0.0) -> None:
        """Both cubes' queries are answered alike, until something waits; the head is ``late`` seconds old."""
        rows = [msgspec.Raw(row(block).encode()) for block in blocks]
        for _ in range(20):
            time = int(EPOCH + self.now - late)
            answer = Answer(rows, Cursor("number", head), time, None, None)
            match self.stream.step(self.now):
                case Sleep(seconds):
                    self.now += seconds
                case Ask(ranges) as asked:
                    answers: Any = dict.fromkeys(ranges, answer)
                    self.stream.answered(asked, answers, self.now)
            if self.stream.waiting_messages:
                return


def test_before_a_minute_has_passed_a_checkpoint_begins_with_the_subscription_and_knows_every_row() -> None:
    story = Story()
    for block in range(5):
        story.bring(block)
        story.now += 1
    while (message := story.stream.take()) is not None:
        newest = message
    mark = newest.checkpoint.cubes["A"]
    assert (mark.low, mark.since) == (None, int(EPOCH - SPAN)), "a block that began before may go on"
    assert list(mark.beyond) == ["0", "1", "2", "3", "4"]


def test_later_it_begins_above_blocks_that_are_whole_and_stays_small() -> None:
    story = Story()
    for block in range(1000):
        story.bring(block)
        message = story.stream.take()
        story.now += 1
    assert message is not None
    mark = message.checkpoint.cubes["A"]
    assert mark.low == ("number", "969")
    assert list(mark.beyond) == [str(block) for block in range(969, 1000)]
    assert message.checkpoint.cubes["B"].low == mark.low, "it had no rows, and stands where the others do"


def test_a_checkpoint_between_two_cubes_rows_of_one_answer_does_not_say_that_both_have_come() -> None:
    low = Window(low=Cursor("number", 10))
    story = Story(Start({"A": low, "B": low}, {}, "resumed", "", 0.0))
    story.query(range(10, 15), head=13, late=99)
    first = story.stream.take()
    assert first is not None
    assert [len(first.data["EVM"][cube]) for cube in "AB"] == [3, 0]
    marks = first.checkpoint.cubes
    assert list(marks["A"].beyond) == ["10", "11", "12"]
    assert (marks["B"].low, list(marks["B"].beyond)) == (("number", "10"), [])


def test_what_waits_is_in_no_checkpoint_and_what_is_in_hand_in_that_of_the_message_alone() -> None:
    story = Story()
    for block in (1, 2, 3):
        story.bring(block)
    story.stream.take()
    message = story.stream.take()
    assert message is not None
    assert list(message.checkpoint.cubes["A"].beyond) == ["1", "2"]
    assert list(story.stream.safe().cubes["A"].beyond) == ["1"]
    story.stream.take()
    story.stream.take()
    assert list(story.stream.safe().cubes["A"].beyond) == ["1", "2", "3"]


def test_an_older_checkpoint_can_be_had_after_a_newer_one_and_a_very_old_one_not_at_all() -> None:
    story = Story()
    messages = []
    for block in range(300):
        story.bring(block)
        messages.append(story.stream.take())
        story.now += 1
        if block in (100, 200):
            messages[-1].checkpoint  # type: ignore[union-attr]  # noqa: B018
    newest, older = messages[-1], messages[-20]
    assert newest is not None
    assert older is not None
    assert "299" in newest.checkpoint.cubes["A"].beyond
    assert list(older.checkpoint.cubes["A"].beyond)[-1] == "280"
    oldest = messages[0]
    assert oldest is not None
    with pytest.raises(UsageError, match="too old for a checkpoint"):
        oldest.checkpoint  # noqa: B018


def test_a_checkpoint_that_was_stored_says_the_same() -> None:
    story = Story()
    story.bring(7)
    story.bring(7, "B")
    story.stream.take()
    message = story.stream.take()
    assert message is not None
    loaded = Checkpoint.loads(message.checkpoint.dumps())
    assert loaded == message.checkpoint
    window = Window(since=int(EPOCH - SPAN), about=int(EPOCH + SPAN))
    assert windows_of(loaded) == {"A": window, "B": window}
    assert [(block, count) for block, _, count in known_of(loaded)["A"]] == [(7, 1)]


def test_a_checkpoint_never_begins_earlier_than_one_before() -> None:
    """In the first minute after a gap was closed it would begin with the subscription: what was whole, is."""
    low = Window(low=Cursor("number", 10))
    story = Story(Start({"A": low, "B": low}, {}, "resumed", "", 0.0))
    places = []
    for blocks, late in ((range(10, 14), 99.0), (range(13, 17), 99.0), (range(16, 18), -9.0)):
        story.query(blocks, head=blocks[-1], late=late)
        while (message := story.stream.take()) is not None:
            places.append(message.checkpoint.cubes["A"].low)
    assert not story.stream.closing
    assert ("number", "16") in places
    story.bring(50)
    last = story.stream.take()
    assert last is not None
    mark = last.checkpoint.cubes["A"]
    assert mark.low == ("number", "16")
    assert list(mark.beyond) == ["16", "17", "50"]


def test_a_checkpoint_made_while_a_gap_since_another_is_closed_still_knows_the_rows_of_that() -> None:
    before = Story()
    before.bring(11)
    earlier = before.stream.take()
    assert earlier is not None
    low = Window(low=Cursor("number", 10))
    story = Story(Start({"A": low, "B": low}, known_of(earlier.checkpoint), "resumed", "", 0.0))
    story.query(range(10, 15), head=13, late=99)
    message = story.stream.take()
    assert message is not None
    assert [row["Block"]["Number"] for row in message.rows("A")] == ["10", "12"]
    known = message.checkpoint.cubes["A"].beyond
    assert list(known) == ["11", "10", "12"]
    assert known["11"] == earlier.checkpoint.cubes["A"].beyond["11"]


def test_before_the_service_was_asked_for_anything_a_checkpoint_says_what_it_was_resumed_from() -> None:
    low = Window(low=Cursor("number", 10))
    known: dict[str, list[Known]] = {"A": [(11, b"123456789", 1)]}
    story = Story(Start({"A": low, "B": low}, known, "resumed", "", 0.0), joined=False)
    checkpoint = story.stream.safe()
    assert windows_of(checkpoint) == {"A": low, "B": low}
    assert known_of(checkpoint) == known
