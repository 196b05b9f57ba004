"""The pure machine of a handover: every input in every phase, and every sequence of inputs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.session.handover import (
    _TABLE,
    CAP_MESSAGES,
    OVERLAP_MAXIMUM,
    Decision,
    Handover,
    Input,
    Phase,
    Sight,
)

GRACE = 5.0
MARGIN = 1.0
DECISIVE = {Decision.CROSS, Decision.PROMOTE, Decision.RETRY, Decision.REPLACE, Decision.RECONNECT}
CROSSED = Sight(crossed=True, old_late=9, new_messages=9)
WAITING = Sight(crossed=False, old_late=9, new_messages=9)
SILENT = Sight(crossed=False, old_late=CAP_MESSAGES, new_messages=0)

# How each phase is reached.
PATHS: dict[Phase, tuple[Input, ...]] = {
    Phase.DIALING: (),
    Phase.OVERLAP: (Input.NEW_ACKED,),
    Phase.ALONE: (Input.OLD_ENDED,),
    Phase.OVER: (Input.NEW_ACKED, Input.ALL_CROSSED),
}


def handover(expires_at: float = 600.0) -> Handover:
    return Handover(now=0.0, expires_at=expires_at, margin=MARGIN, grace=GRACE)


def overlapping(expires_at: float = 600.0, at: float = 0.0) -> Handover:
    machine = handover(expires_at)
    assert machine.tell(at, Input.NEW_ACKED) is Decision.START
    return machine


@pytest.mark.parametrize("what", Input)
@pytest.mark.parametrize("phase", Phase)
def test_every_input_in_every_phase_is_in_the_table_or_changes_nothing(phase: Phase, what: Input) -> None:
    machine = handover()
    for step in PATHS[phase]:
        machine.tell(0.0, step)
    assert machine.phase is phase
    deadline = machine.deadline
    expected = _TABLE.get((phase, what), (phase, Decision.NOTHING))
    assert machine.tell(0.0, what) is expected[1]
    assert machine.phase is expected[0]
    if expected[1] is not Decision.START:
        assert machine.deadline == deadline


def test_a_decision_that_leaves_nothing_to_do_ends_the_handover_and_no_other_does() -> None:
    for (phase, _), (after, decision) in _TABLE.items():
        assert (after is Phase.OVER) == (decision in DECISIVE)
        assert phase is not Phase.OVER


def test_nothing_is_stopped_on_the_old_link_while_no_successor_is_acknowledged() -> None:
    for (phase, _), (_, decision) in _TABLE.items():
        if decision in (Decision.CROSS, Decision.REPLACE):
            assert phase is Phase.OVERLAP


@given(inputs=st.lists(st.tuples(st.floats(0, 30), st.sampled_from(Input)), max_size=30))
def test_whatever_happens_it_ends_at_most_once_and_decides_nothing_afterwards(
    inputs: list[tuple[float, Input]],
) -> None:
    machine, now, decided = handover(), 0.0, 0
    for wait, what in inputs:
        now += wait
        over = machine.phase is Phase.OVER
        decision = machine.tell(now, what)
        decided += decision in DECISIVE
        assert not over or decision is Decision.NOTHING
        assert machine.observe(now, [WAITING]) is Decision.NOTHING or machine.phase is Phase.OVER
    assert decided <= 1


@given(
    expires=st.one_of(st.just(math.inf), st.floats(-100, 4000)),
    acked=st.floats(0, 100),
    looks=st.lists(
        st.tuples(
            st.floats(0.01, 20),
            st.lists(
                st.builds(
                    Sight,
                    crossed=st.booleans(),
                    old_late=st.integers(0, 5),
                    new_messages=st.one_of(st.none(), st.integers(0, 3)),
                ),
                max_size=3,
            ),
        ),
        max_size=40,
    ),
)
def test_an_overlap_ends_by_its_deadline_and_only_for_a_reason(
    expires: float, acked: float, looks: list[tuple[float, list[Sight]]]
) -> None:
    machine = overlapping(expires, acked)
    assert acked < machine.deadline <= acked + max(OVERLAP_MAXIMUM, 2 * GRACE)
    now, ended = acked, False
    for wait, sights in looks:
        now += wait
        decision = machine.observe(now, sights)
        if ended:
            assert decision is Decision.NOTHING
            continue
        capped = any(s.old_late >= CAP_MESSAGES and s.new_messages == 0 for s in sights)
        if capped:
            assert decision is Decision.REPLACE
        elif all(s.crossed for s in sights) or now >= machine.deadline:
            assert decision is Decision.CROSS
        else:
            assert decision is Decision.NOTHING
        ended = decision is not Decision.NOTHING


# ---------------------------------------------------------------------- the deadline


def test_the_old_link_goes_a_margin_before_its_token_expires() -> None:
    machine = overlapping(expires_at=30.0)
    assert machine.deadline == 30.0 - MARGIN
    assert machine.observe(28.9, [WAITING]) is Decision.NOTHING
    assert machine.observe(29.0, [WAITING]) is Decision.CROSS


def test_a_token_that_never_expires_still_bounds_the_overlap() -> None:
    assert overlapping(expires_at=math.inf).deadline == OVERLAP_MAXIMUM


def test_a_long_grace_has_room_for_two_of_it() -> None:
    machine = Handover(now=0.0, expires_at=math.inf, margin=MARGIN, grace=100.0)
    machine.tell(0.0, Input.NEW_ACKED)
    assert machine.deadline == 200.0
    assert machine.grace == 100.0


@pytest.mark.parametrize("left", [0.1, 0.0, -50.0])
def test_a_token_that_is_as_good_as_expired_is_read_on_for_a_whole_grace(left: float) -> None:
    machine = overlapping(expires_at=MARGIN + left)
    assert machine.deadline == GRACE
    assert machine.grace == GRACE


def test_a_short_time_that_is_left_shortens_the_grace_to_what_there_is() -> None:
    machine = overlapping(expires_at=MARGIN + 2.0)
    assert machine.deadline == 2.0
    assert machine.grace == 2.0


def test_time_that_is_up_before_a_successor_is_live_ends_nothing() -> None:
    machine = handover(expires_at=1.0)
    assert machine.tell(50.0, Input.TIME_UP) is Decision.NOTHING
    assert machine.phase is Phase.DIALING
    assert machine.observe(50.0, [WAITING]) is Decision.NOTHING


# ---------------------------------------------------------------------- crossing and the cap


def test_it_crosses_once_every_operation_has() -> None:
    machine = overlapping()
    assert machine.observe(1.0, [CROSSED, WAITING]) is Decision.NOTHING
    assert machine.observe(2.0, [CROSSED, CROSSED]) is Decision.CROSS
    assert machine.observe(3.0, [CROSSED, CROSSED]) is Decision.NOTHING


def test_silence_on_the_new_link_beside_late_messages_on_the_old_is_the_cap() -> None:
    machine = overlapping()
    almost = Sight(crossed=False, old_late=CAP_MESSAGES - 1, new_messages=0)
    assert machine.observe(6.0, [almost]) is Decision.NOTHING
    assert machine.observe(7.0, [CROSSED, SILENT]) is Decision.REPLACE


def test_one_message_on_the_new_link_shows_that_there_is_no_cap() -> None:
    machine = overlapping()
    spoken = Sight(crossed=False, old_late=1000, new_messages=1)
    assert machine.observe(7.0, [spoken]) is Decision.NOTHING


def test_an_operation_that_does_not_run_on_the_new_link_says_nothing_about_the_cap() -> None:
    machine = overlapping()
    refused = Sight(crossed=False, old_late=1000, new_messages=None)
    assert machine.observe(7.0, [refused]) is Decision.NOTHING
    assert machine.observe(OVERLAP_MAXIMUM, [refused]) is Decision.CROSS
