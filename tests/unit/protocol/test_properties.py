"""Whatever a server sends, a machine answers with one event; and an operation lives once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from bqstream.protocol import (
    LEGACY,
    MODERN,
    SUBPROTOCOLS,
    Acked,
    Alive,
    Broken,
    Completed,
    Errored,
    Event,
    Machine,
    Next,
    machine_for,
)

from .helpers import DOCUMENT, payload, ready, started, waiting, wire

TYPES = st.sampled_from(
    [
        "connection_ack",
        "connection_error",
        "next",
        "data",
        "error",
        "complete",
        "ping",
        "pong",
        "ka",
        "start_ack",
        "start",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
RESULTS = st.fixed_dictionaries(
    {}, optional={"data": JSON, "errors": JSON, "message": JSON, "extensions": JSON}
)
ENVELOPES = st.fixed_dictionaries(
    {"type": TYPES | JSON},
    optional={"id": st.sampled_from(["1", "2", "3"]) | JSON, "payload": RESULTS | JSON, "x": JSON},
)
FRAMES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | ENVELOPES.map(lambda value: json.dumps(value).encode())
    | st.tuples(ENVELOPES, st.integers(0, 100), st.binary(max_size=3)).map(
        lambda parts: (
            (text := json.dumps(parts[0], ensure_ascii=False).encode(errors="replace"))[: parts[1]]
            + parts[2]
            + text[parts[1] :]
        )
    )
)
STATES = st.sampled_from([machine_for, waiting, ready, lambda subprotocol: started(subprotocol)[0]])


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@settings(max_examples=150, deadline=None)
@given(
    state=STATES,
    frames=st.lists(st.tuples(FRAMES, st.integers(0, 20)), min_size=1, max_size=8),
    code=st.integers(),
)
def test_any_bytes_give_one_event_each_and_never_raise(
    subprotocol: str, state: Any, frames: list[tuple[bytes, int]], code: int
) -> None:
    machine: Machine = state(subprotocol)
    broken = False
    for frame, dice in frames:
        event = machine.receive(frame, binary=dice == 0)
        assert isinstance(event, Acked | Next | Errored | Completed | Alive | Broken)
        assert not broken or event == Alive()
        broken = broken or isinstance(event, Broken)
        if isinstance(event, Alive) and event.reply is not None:
            json.loads(event.reply)
        if isinstance(event, Next):
            json.loads(event.payloads[0])
        if isinstance(event, Errored):
            assert all(isinstance(error, dict) for error in event.errors)
    machine.closed(code, frames[0][0].decode(errors="replace"))


class Operations(RuleBasedStateMachine):
    """One connection against a model: the operations that are live, and those that are over."""

    live = Bundle("live")
    over = Bundle("over")

    @initialize(subprotocol=st.sampled_from([MODERN, LEGACY]))
    def connect(self, subprotocol: str) -> None:
        self.machine = ready(subprotocol)
        self.seen: set[str] = set()
        self.unanswered: list[str] = []
        self.stray = 0

    def receive(self, frame: bytes) -> Event:
        (event,) = self.machine.read([frame])
        return event

    def end(self, operation: str) -> str:
        if operation in self.unanswered:
            self.unanswered.remove(operation)
        return operation

    @rule(target=live)
    def subscribe(self) -> str:
        operation, frame = self.machine.subscribe(DOCUMENT)
        assert json.loads(frame)["id"] == operation
        assert operation not in self.seen
        self.seen.add(operation)
        self.unanswered.append(operation)
        return operation

    @rule(operation=live)
    def bring(self, operation: str) -> None:
        event = self.receive(payload(self.machine, operation, data={"n": 1}))
        assert event == Next(operation, [b'{"data":{"n":1}}'])
        self.end(operation)

    @rule(target=over, operation=consumes(live))
    def unsubscribe(self, operation: str) -> str:
        assert self.machine.unsubscribe(operation)
        return self.end(operation)

    @rule(target=over, operation=consumes(live))
    def complete(self, operation: str) -> str:
        assert self.receive(wire("complete", id=operation)) == Completed(operation)
        return self.end(operation)

    @rule(target=over, operation=consumes(live))
    def fail(self, operation: str) -> str:
        event = self.receive(wire("error", id=operation, payload=[{"message": "x"}]))
        assert event == Errored(operation, ({"message": "x"},))
        return self.end(operation)

    @rule(target=over, operation=consumes(live))
    def refuse(self, operation: str) -> str:
        event = self.receive(payload(self.machine, operation, errors=[{"message": "x"}]))
        assert event == Errored(operation, ({"message": "x"},))
        return self.end(operation)

    @rule(operation=over, type_=st.sampled_from(["complete", "error"]))
    def end_again(self, operation: str, type_: str) -> None:
        assert self.receive(wire(type_, id=operation)) == Alive()

    @rule(operation=over)
    def unsubscribe_again(self, operation: str) -> None:
        assert self.machine.unsubscribe(operation) == ()

    @rule(operation=over)
    def bring_too_late(self, operation: str) -> None:
        assert self.receive(payload(self.machine, operation, data={})) == Alive()
        self.stray += 1

    @rule(target=over)
    def acknowledge_again(self) -> Any:
        assert self.receive(wire("connection_ack")) == Alive()
        return multiple()

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.machine.stray == self.stray
        assert self.machine.newest_unanswered == (self.unanswered[-1] if self.unanswered else None)


def test_an_operation_lives_once_and_nothing_comes_after_its_end() -> None:
    run_state_machine_as_test(
        Operations, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
