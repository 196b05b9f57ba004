"""How long the session waits before it dials again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.config import Backoff
from bqstream.protocol import Action, Kind, Verdict
from bqstream.session.backoff import Schedule

BROKE = Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why="it broke")
LIMITED = Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why="rate limit", floor=5.0)


def waits(schedule: Schedule, count: int, verdict: Verdict = BROKE) -> list[float | None]:
    return [schedule.failed(verdict) for _ in range(count)]


def exact(**settings: float) -> Schedule:
    return Schedule(Backoff(initial=1, maximum=60, jitter=0, **settings))  # type: ignore[arg-type]


def test_waits_double_from_the_initial_to_the_maximum() -> None:
    assert waits(exact(), 8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_full_jitter_draws_from_nothing_to_the_whole_wait() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    waits(Schedule(Backoff(initial=1, maximum=60, jitter=1), uniform=uniform), 3)
    assert drawn == [(0, 1), (0, 2), (0, 4)]


def test_a_part_of_jitter_leaves_the_rest_of_the_wait_certain() -> None:
    schedule = Schedule(Backoff(initial=8, maximum=60, jitter=0.25), uniform=lambda low, high: low)
    assert waits(schedule, 2) == [6, 12]


def test_a_rate_limit_doubles_from_its_floor_and_is_jittered_upwards_only() -> None:
    schedule = Schedule(Backoff(initial=0.5, maximum=60), uniform=lambda low, high: low)
    assert waits(schedule, 6, LIMITED) == [5, 10, 20, 40, 60, 60]
    schedule = Schedule(Backoff(initial=0.5, maximum=60), uniform=lambda low, high: high)
    assert waits(schedule, 2, LIMITED) == [pytest.approx(5.5), pytest.approx(11)]


def test_a_floor_above_the_maximum_is_kept() -> None:
    assert waits(
        Schedule(Backoff(initial=0.1, maximum=1, jitter=0), uniform=lambda low, high: low), 3, LIMITED
    ) == [
        5,
        5,
        5,
    ]


@pytest.mark.parametrize("asked", [2.0, 600.0])
def test_what_the_server_asks_for_wins_over_every_other_wait(asked: float) -> None:
    schedule = exact()
    waits(schedule, 6)
    verdict = Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why="wait", floor=5.0, retry_after=asked)
    assert schedule.failed(verdict) == asked


def test_a_server_that_asks_for_no_wait_is_not_hammered() -> None:
    verdict = Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why="wait", retry_after=0.0)
    assert waits(exact(), 3, verdict) == [1, 2, 4]


def test_the_allowed_attempts_are_used_up_by_so_many_failures_in_a_row() -> None:
    schedule = exact(attempts=3)
    assert waits(schedule, 3) == [1, 2, None]
    schedule = exact(attempts=3)
    waits(schedule, 2)
    schedule.proved(lived=30, messages=0, slow=False)
    assert waits(schedule, 3) == [1, 2, None]


def test_without_a_limit_it_never_gives_up_however_often_it_failed() -> None:
    for verdict in (BROKE, LIMITED):
        assert all(wait is not None and wait >= 1 for wait in waits(exact(), 3000, verdict))


@pytest.mark.parametrize(
    ("lived", "messages", "slow", "anew"),
    [
        (0.1, 0, False, False),  # acknowledged and closed at once (protocol.md, item 35)
        (29.9, 0, False, False),
        (30.0, 0, False, True),
        (0.1, 1, False, False),  # greeted and closed at once
        (5.0, 1, False, True),
        (5.0, 900, True, False),  # shed with 1013: that it brought data is what it was shed for
        (30.0, 900, True, True),
    ],
)
def test_only_health_starts_the_schedule_anew(lived: float, messages: int, slow: bool, anew: bool) -> None:
    schedule = exact()
    waits(schedule, 4)
    assert schedule.proved(lived=lived, messages=messages, slow=slow) is anew
    assert schedule.failed(BROKE) == (1 if anew else 16)


@given(
    seed=st.integers(),
    initial=st.floats(0.01, 10),
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1),
    floors=st.lists(st.sampled_from([0.0, 5.0]), max_size=80),
)
def test_every_wait_is_between_the_floor_and_the_maximum(
    seed: int, initial: float, factor: float, jitter: float, floors: list[float]
) -> None:
    backoff = Backoff(initial=initial, maximum=initial * factor, jitter=jitter)
    schedule = Schedule(backoff, uniform=random.Random(seed).uniform)
    for floor in floors:
        wait = schedule.failed(
            Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why="it broke", floor=floor)
        )
        assert wait is not None
        assert floor <= wait <= 1.1 * max(backoff.maximum, floor) + 1e-9
