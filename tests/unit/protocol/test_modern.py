from __future__ import annotations

from typing import Any

import pytest

from bqstream.protocol import MODERN, Alive, machine_for

from .helpers import DOCUMENT, payload, ready, said, started, waiting, wire


def test_an_operation_is_started_with_subscribe() -> None:
    """Item 13."""
    operation, frame = ready(MODERN).subscribe(b'{"query":"subscription { a }"}')
    assert said(frame) == {"id": operation, "type": "subscribe", "payload": {"query": "subscription { a }"}}


def test_an_operation_is_stopped_with_one_complete() -> None:
    """Item 19."""
    machine, operation = started(MODERN)
    (frame,) = machine.unsubscribe(operation)
    assert said(frame) == {"type": "complete", "id": operation}


@pytest.mark.parametrize("state", [machine_for, waiting, ready])
@pytest.mark.parametrize("fields", [{}, {"payload": {"at": 1, "n": [None]}}, {"payload": None}], ids=repr)
def test_a_ping_is_answered_at_once_with_its_payload(state: Any, fields: dict[str, Any]) -> None:
    """Items 9 and 23."""
    event = state(MODERN).receive(wire("ping", **fields))
    assert isinstance(event, Alive)
    assert event.keepalive
    assert said(event.reply) == {"type": "pong", **fields}


@pytest.mark.parametrize("state", [machine_for, waiting, ready])
def test_a_pong_that_nobody_asked_for_is_a_sign_of_life_and_our_pings_go_on(state: Any) -> None:
    """Item 24; Bitquery's sign of life."""
    machine = state(MODERN)
    for _ in range(3):
        assert machine.receive(wire("pong", payload={"x": 1})) == Alive(keepalive=True)
        assert said(machine.ping()) == {"type": "ping"}


def test_ka_is_no_word_here_but_a_beat_all_the_same() -> None:
    """Item 28; Hasura."""
    assert ready(MODERN).receive(wire("ka")) == Alive(keepalive=True)


def test_data_is_no_word_here() -> None:
    """Item 28."""
    machine, operation = started(MODERN)
    assert machine.receive(wire("data", id=operation, payload={"data": {}})) == Alive()
    assert machine.newest_unanswered == operation


def test_nothing_is_said_before_the_close() -> None:
    """Item 33: a connection_terminate would be closed with 4400."""
    assert ready(MODERN).terminate() == ()


def test_a_stopped_operation_does_not_stop_its_neighbour() -> None:
    """Item 19."""
    machine, operation = started(MODERN)
    other, _ = machine.subscribe(DOCUMENT)
    machine.unsubscribe(operation)
    assert machine.receive(payload(machine, other, data={})) != Alive()
