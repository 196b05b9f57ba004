from __future__ import annotations

from typing import Any

import pytest

from bqstream.protocol import LEGACY, Alive, Completed, machine_for

from .helpers import DOCUMENT, payload, ready, said, started, waiting, wire


def test_an_operation_is_started_with_start() -> None:
    """Item 13."""
    operation, frame = ready(LEGACY).subscribe(b'{"query":"subscription { a }"}')
    assert said(frame) == {"id": operation, "type": "start", "payload": {"query": "subscription { a }"}}


def test_an_operation_is_stopped_in_both_ways_that_servers_know() -> None:
    """Items 19 and 20."""
    machine, operation = started(LEGACY)
    assert [said(frame) for frame in machine.unsubscribe(operation)] == [
        {"type": "stop", "id": operation},
        {"type": "complete", "id": operation},
    ]


@pytest.mark.parametrize("named", [True, False])
def test_apollos_error_about_complete_is_swallowed(named: bool) -> None:
    """Item 20."""
    machine, operation = started(LEGACY)
    other, _ = machine.subscribe(DOCUMENT)
    machine.unsubscribe(operation)
    assert machine.receive(wire("complete", id=operation)) == Alive()
    fields = {"id": operation} if named else {}
    assert machine.receive(wire("error", payload={"message": "Invalid message type!"}, **fields)) == Alive()
    assert machine.receive(wire("complete", id=other)) == Completed(other)


@pytest.mark.parametrize("state", [machine_for, waiting, ready])
def test_ka_is_the_sign_of_life(state: Any) -> None:
    """Items 9 and 25: the idle limit applies once one was seen."""
    assert state(LEGACY).receive(wire("ka")) == Alive(keepalive=True)


@pytest.mark.parametrize("type_", ["ping", "pong"])
@pytest.mark.parametrize("state", [machine_for, waiting, ready])
def test_ping_and_pong_are_no_words_here_and_are_neither_answered_nor_a_beat(state: Any, type_: str) -> None:
    """Item 28."""
    assert state(LEGACY).receive(wire(type_)) == Alive()


def test_a_ping_is_never_sent() -> None:
    """Item 28."""
    assert ready(LEGACY).ping() is None


def test_next_is_no_word_here() -> None:
    """Item 28."""
    machine, operation = started(LEGACY)
    assert machine.receive(wire("next", id=operation, payload={"data": {}})) == Alive()
    assert machine.receive(payload(machine, operation, data={})) != Alive()


def test_the_connection_is_terminated_before_it_is_closed() -> None:
    """Item 33."""
    assert [said(frame) for frame in ready(LEGACY).terminate()] == [{"type": "connection_terminate"}]
