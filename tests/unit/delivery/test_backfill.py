"""The walk through a gap: pages, blocks that fill one, a query side that lags, a floor, an end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from bqstream.delivery.ask import Answer, Range
from bqstream.delivery.backfill import LAST_LOOK, LEAST_CAP, STUCK, Ask, Backfill, Sleep, Window
from bqstream.delivery.cursor import Cursor
from bqstream.delivery.enlarge import Reader

READER = Reader(kind="number", at=("n",))


def at(block: int) -> Cursor:
    return Cursor("number", block)


def answer(
    blocks: Iterable[int],
    head: int | None,
    time: int | None = None,
    floor: int | None = None,
    floor_time: int | None = None,
) -> Answer:
    rows = [msgspec.Raw(b'{"n":%d,"i":%d}' % (block, place)) for place, block in enumerate(blocks)]
    return Answer(
        rows,
        None if head is None else at(head),
        time if time is not None else head,
        None if floor is None else at(floor),
        floor_time,
    )


class Story:
    """One cube's backfill and what it gave."""

    def __init__(self, window: Window, **options: Any) -> None:
        self.now = 0.0
        self.below: list[tuple[str, Cursor, Cursor]] = []
        self.walk = Backfill(
            {"A": window},
            {"A": READER, "B": READER},
            now=0.0,
            begin=0.0,
            below=lambda *told: self.below.append(told),
            **options,
        )
        self.got: list[int] = []

    def asked(self) -> Range:
        """What it asks next, however long it sleeps first."""
        while isinstance(step := self.walk.step(self.now), Sleep):
            self.now += step.seconds
        assert isinstance(step, Ask), step
        self.ask = step
        return step.ranges["A"]

    def answered(self, given: Answer) -> None:
        self.asked()
        for _, rows in self.walk.answered(self.ask, {"A": given}, self.now, self.now):
            self.got += [row.block for row in rows if row.block is not None]


def test_two_answers_that_agree_close_a_window_whose_end_the_head_is_past() -> None:
    story = Story(Window(low=at(5), till=9))
    for _ in range(2):
        assert story.asked() == Range(low=at(5), till=9)
        story.answered(answer([5, 7, 7], head=10))
    assert story.walk.over
    assert story.got == [5, 7, 7]
    assert story.walk.step(story.now) is None


def test_an_answer_that_grows_is_asked_for_again() -> None:
    story = Story(Window(low=at(5), till=9))
    for blocks in ([5], [5, 6], [5, 6]):
        story.answered(answer(blocks, head=10))
    assert story.walk.over
    assert sorted(story.got) == [5, 6]


def test_an_empty_answer_proves_nothing_before_the_head_is_past_the_end() -> None:
    story = Story(Window(low=at(5), till=9))
    for _ in range(4):
        story.answered(answer([], head=9))
    assert not story.walk.over
    for _ in range(2):
        story.answered(answer([9], head=10))
    assert story.got == [9]
    assert story.walk.over


def test_a_head_that_is_not_known_proves_nothing() -> None:
    story = Story(Window(since=5, till=9))
    for _ in range(4):
        story.answered(answer([], head=None))
    assert not story.walk.over


def test_blocks_below_the_head_count_while_the_end_is_not_reached() -> None:
    story = Story(Window(low=at(5), till=100))
    for _ in range(2):
        story.answered(answer([5, 6, 7], head=7))
    assert story.got == [5, 6], "the head's own block may be half there"
    assert story.asked().low == at(7)


def test_a_page_that_may_be_cut_is_followed_from_its_last_block() -> None:
    first = [5] * LEAST_CAP + [6] * 10
    story = Story(Window(low=at(5), till=9))
    for _ in range(2):
        story.answered(answer(first, head=20))
    assert story.got == [5] * LEAST_CAP
    assert story.asked() == Range(low=at(6), till=9)
    for _ in range(2):
        story.answered(answer([6] * 11, head=20))
    assert story.got == [5] * LEAST_CAP + [6] * 11
    assert story.walk.over


def test_a_block_that_fills_a_page_is_paged_inside_from_its_beginning() -> None:
    story = Story(Window(low=at(5), till=9))
    story.answered(answer([5] * LEAST_CAP, head=20))
    for _ in range(2):
        assert story.asked() == Range(low=at(5), till=9, block=at(5), offset=0)
        story.answered(answer([5] * LEAST_CAP, head=20))
        assert story.asked().offset == LEAST_CAP
        story.answered(answer([5] * 30, head=20))
        story.answered(answer([], head=20))
        if not story.got:
            story.answered(answer([5] * LEAST_CAP, head=20))  # the range again, since one answer is none
    assert story.got == [5] * (LEAST_CAP + 30)
    assert story.asked().low == at(6)


def test_a_window_with_an_upper_place_ends_when_the_head_is_above_it() -> None:
    story = Story(Window(low=at(5), high=at(6), till=99))
    assert story.asked() == Range(low=at(5), high=at(6))
    for _ in range(2):
        story.answered(answer([6], head=7, time=1))
    assert story.walk.over


def test_what_lies_below_the_floor_is_told_and_not_asked_for() -> None:
    story = Story(Window(low=at(5), till=9), floor=True)
    story.asked()
    assert story.ask.floor
    story.answered(answer([8], head=10, floor=7))
    assert story.below == [("A", at(5), at(7))]
    story.asked()
    assert story.ask.floor, "it moves on"


def test_rows_that_the_dataset_lets_go_between_two_answers_are_taken_from_the_first() -> None:
    story = Story(Window(low=at(5), till=9), floor=True)
    story.answered(answer([5, 6, 8], head=9, floor=5))
    assert story.got == []
    for _ in range(2):
        story.answered(answer([8], head=10, floor=7))
    assert story.below == [("A", at(5), at(7))]
    assert story.walk.over
    assert sorted(story.got) == [5, 6, 8]


def test_what_is_missing_since_a_time_before_the_floor_is_told_too() -> None:
    story = Story(Window(since=100, till=9), floor=True)
    story.answered(answer([8], head=10, floor=7, floor_time=150))
    assert story.below == [("A", Cursor("time", 100), at(7))]
    assert story.asked().low == at(7)


def test_what_is_only_to_be_safe_is_not_told_where_the_floor_is_above_it() -> None:
    story = Story(Window(since=100, till=9, about=160), floor=True)
    story.answered(answer([8], head=10, floor=7, floor_time=150))
    assert not story.below
    assert story.asked().since == 100


def test_what_lies_below_the_floor_is_asked_of_the_older_dataset_last() -> None:
    story = Story(Window(low=at(5), till=9), floor=True, older=True)
    for _ in range(3):
        story.answered(answer([8], head=10, floor=7))
    assert not story.below
    assert not story.walk.over
    assert story.asked() == Range(low=at(5), high=at(7))
    assert story.ask.older
    for _ in range(2):
        story.answered(answer([6], head=10))
    assert story.walk.over
    assert sorted(story.got) == [6, 8]


def test_a_window_that_is_widened_keeps_what_it_has_and_goes_on() -> None:
    story = Story(Window(low=at(5), till=9))
    story.answered(answer([5], head=10))
    story.walk.widen({"A": Window(low=at(7), till=12), "B": Window(low=at(1), till=12)}, story.now, story.now)
    assert story.asked() == Range(low=at(5), till=12)


def test_a_query_side_that_stands_still_is_given_up_after_a_while_and_one_that_moves_is_not() -> None:
    story = Story(Window(low=at(5), till=900))
    for head in range(10, 100):
        story.answered(answer([], head=head))
        assert not story.walk.stuck(story.now)
    assert story.now > STUCK
    while not story.walk.stuck(story.now):
        story.answered(answer([], head=99))
    assert story.now < 4 * STUCK + 90 * 4


def test_an_interval_of_which_rows_come_on_and_on_is_closed_with_what_two_answers_hold() -> None:
    story = Story(Window(low=at(6), high=at(6), till=3), by_time=["A"])
    rows = 1
    while not story.walk.over:
        assert story.now < 3 + 4 * LAST_LOOK
        story.asked()
        rows += story.now > 3  # what is published after the window comes on the link
        story.answered(answer([6] * rows, head=6))
    assert 0 < len(story.got) < rows


def test_intervals_that_run_for_long_are_closed_by_time_though_the_head_stays_where_it_is() -> None:
    story = Story(Window(low=at(5), high=at(6), till=3), by_time=["A"])
    while not story.walk.over:
        assert story.now < 3 + 3 * LAST_LOOK, "the next interval begins in an hour"
        low = story.asked().low
        story.answered(answer([block for block in (5, 6) if low is not None and block >= low.value], head=6))
    assert story.now > 3 + LAST_LOOK
    assert sorted(story.got) == [5, 6]
