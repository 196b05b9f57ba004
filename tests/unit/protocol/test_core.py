"""What holds on both subprotocols."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from bqstream.protocol import (
    SUBPROTOCOLS,
    Acked,
    Action,
    Alive,
    Broken,
    Completed,
    Errored,
    Kind,
    Next,
    machine_for,
)
from bqstream.protocol.core import TRANSITIONS, State
from bqstream.protocol.legacy import Legacy
from bqstream.protocol.modern import Modern

from .helpers import DOCUMENT, NEXT, payload, ready, said, started, waiting, wire

both = pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)


# ---------------------------------------------------------------------- init


@both
def test_init_is_the_first_frame_and_sent_once(subprotocol: str) -> None:
    """Item 6."""
    machine = machine_for(subprotocol)
    assert said(machine.init(None)) == {"type": "connection_init"}
    with pytest.raises(RuntimeError):
        machine.init(None)


@both
def test_init_carries_its_payload_as_an_object(subprotocol: str) -> None:
    """Item 6."""
    frame = machine_for(subprotocol).init({"headers": {"Authorization": "Bearer x"}})
    assert said(frame) == {"type": "connection_init", "payload": {"headers": {"Authorization": "Bearer x"}}}


@both
def test_no_operation_is_started_before_the_ack(subprotocol: str) -> None:
    """Item 7."""
    for machine in (machine_for(subprotocol), waiting(subprotocol)):
        with pytest.raises(RuntimeError):
            machine.subscribe(DOCUMENT)


@both
@pytest.mark.parametrize("type_", ["ping", "pong", "ka", "start_ack", "next", "data", "complete", "whatever"])
def test_frames_before_the_ack_count_as_life_and_the_ack_is_still_taken(subprotocol: str, type_: str) -> None:
    """Item 9, and Hasura's ``ka`` and ``ping`` before the ack, and Bitquery's opening ``pong`` and ``ka``."""
    machine = waiting(subprotocol)
    assert isinstance(machine.receive(wire(type_, id="1", payload={})), Alive)
    assert isinstance(machine.receive(wire("connection_ack")), Acked)


@both
@pytest.mark.parametrize(
    ("fields", "payload_"),
    [
        ({}, {}),
        ({"payload": None}, {}),
        ({"payload": {"connectionTimeoutMs": 300_000}}, {"connectionTimeoutMs": 300_000}),
    ],
)
def test_an_ack_has_no_payload_or_null_or_an_object(
    subprotocol: str, fields: dict[str, Any], payload_: dict[str, Any]
) -> None:
    """Item 10; item 25's AppSync limit is handed on."""
    assert waiting(subprotocol).receive(wire("connection_ack", **fields)) == Acked(payload_)


@both
def test_an_ack_with_a_payload_of_the_wrong_type_is_still_an_ack(subprotocol: str) -> None:
    """Item 10."""
    assert waiting(subprotocol).receive(wire("connection_ack", payload=["x"])) == Acked({})


@both
def test_a_repeated_ack_is_ignored(subprotocol: str) -> None:
    """Item 11."""
    machine, operation = started(subprotocol)
    assert machine.receive(wire("connection_ack")) == Alive()
    assert isinstance(machine.receive(payload(machine, operation, data={})), Next)


@both
def test_an_ack_before_init_is_none(subprotocol: str) -> None:
    machine = machine_for(subprotocol)
    assert machine.receive(wire("connection_ack")) == Alive()
    machine.init(None)
    assert isinstance(machine.receive(wire("connection_ack")), Acked)


@both
@pytest.mark.parametrize(
    "shape", [{"message": "Unauthorized"}, "Unauthorized", {}, None, {"message": "go away"}]
)
def test_a_connection_error_before_the_ack_means_the_token_and_is_counted_once(
    subprotocol: str, shape: Any
) -> None:
    """Item 12: Apollo closes with 1011 a moment later, which is the same refusal."""
    machine = waiting(subprotocol)
    event = machine.receive(wire("connection_error", payload=shape))
    assert isinstance(event, Broken)
    assert (event.verdict.action, event.verdict.kind) == (Action.REFRESH, Kind.TOKEN)
    assert machine.closed(1011, "") is event.verdict


@both
def test_a_connection_error_that_names_billing_is_no_matter_of_tokens(subprotocol: str) -> None:
    """Refusals: error frames naming points or billing."""
    event = waiting(subprotocol).receive(
        wire("connection_error", payload={"message": "No active billing period"})
    )
    assert isinstance(event, Broken)
    assert (event.verdict.action, event.verdict.kind) == (Action.END_CLIENT, Kind.PLAN)


@both
def test_a_connection_error_after_the_ack_is_logged_and_the_connection_stays(
    subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Item 12."""
    machine, operation = started(subprotocol)
    with caplog.at_level(logging.WARNING, "bqstream.protocol"):
        event = machine.receive(
            wire("connection_error", payload={"message": "cannot parse, token=verysecret"})
        )
    assert event == Alive()
    assert "cannot parse" in caplog.text
    assert "verysecret" not in caplog.text
    assert isinstance(machine.receive(payload(machine, operation, data={})), Next)


# ---------------------------------------------------------------------- operations


@both
def test_ids_are_strings_and_never_used_twice(subprotocol: str) -> None:
    """Item 14."""
    machine = ready(subprotocol)
    ids = []
    for _ in range(5):
        operation, frame = machine.subscribe(DOCUMENT)
        assert said(frame)["id"] == operation
        ids.append(operation)
        machine.unsubscribe(operation)
    assert len(set(ids)) == 5
    assert all(isinstance(operation, str) and operation for operation in ids)


@both
def test_a_payload_is_handed_on_as_the_bytes_that_came(subprotocol: str) -> None:
    machine, operation = started(subprotocol)
    text = b'{ "data": {"EVM": {"DEXTrades": [{"Amount": 1.50}]}} }'
    frame = b'{"payload":%s,"type":"%s","id":"%s"}' % (text, NEXT[subprotocol].encode(), operation.encode())
    assert machine.receive(frame) == Next(operation, [text])


@both
@pytest.mark.parametrize(
    "result",
    [
        {"data": {"EVM": {}}, "errors": [{"message": "x"}]},
        {"errors": [{"message": "x"}], "data": {"EVM": {}}},
        {"errors": [{"message": "x"}], "data": None},
        {"data": None, "errors": [{"message": "a resolver failed"}]},
        {"data": {}},
        {"data": None},
        {"extensions": {}, "data": {"a": 1}, "errors": None},
        {},
        {"data": {"errors": [1]}},
        {"data": {"tick": 1}},
    ],
    ids=json.dumps,
)
def test_data_with_errors_is_a_partial_result_and_the_stream_goes_on(subprotocol: str, result: Any) -> None:
    """Item 15."""
    machine, operation = started(subprotocol)
    for _ in range(2):
        event = machine.receive(payload(machine, operation, **result))
        assert isinstance(event, Next)
        assert json.loads(event.payloads[0]) == result


@both
def test_payloads_that_came_at_once_are_one_event_for_each_operation(subprotocol: str) -> None:
    machine, operation = started(subprotocol)
    other = machine.subscribe(DOCUMENT)[0]

    def texts(*numbers: int) -> list[bytes]:
        results = [{"data": {"EVM": {"N": [n], "text": "é"}}, "extensions": {}} for n in numbers]
        return [json.dumps(result, separators=(",", ":")).encode() for result in results]

    def frames(name: str, *numbers: int) -> list[bytes]:
        return [wire(NEXT[subprotocol], id=name, payload=json.loads(text)) for text in texts(*numbers)]

    for first in (0, 10):  # the second time, what stands before a payload is known
        came = [
            *frames(operation, first),
            *frames(other, first),
            *frames(operation, first + 1, first + 2),
            wire("ka"),
            *frames(other, first + 3),
        ]
        assert machine.read(came) == [
            Next(operation, texts(first, first + 1, first + 2)),
            Next(other, texts(first)),
            Alive(keepalive=True),
            Next(other, texts(first + 3)),
        ]


@both
def test_what_comes_for_an_operation_after_its_end_is_not_read(subprotocol: str) -> None:
    machine, operation = started(subprotocol)
    frame = payload(machine, operation, data={"a": 1})
    for _ in range(2):
        assert machine.read([frame]) == [Next(operation, [b'{"data":{"a":1}}'])]
    events = machine.read([frame, wire("complete", id=operation), frame])
    assert events == [Next(operation, [b'{"data":{"a":1}}']), Completed(operation), Alive()]
    assert machine.stray == 1


@both
@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"%s","id":"%s","payload":{"data":{"a":1}},"more":{}}',
        b'{"type":"%s","id":"%s","payload":{"data":{"a":1}} }',
        b'{"payload":{"data":{"a":1}},"type":"%s","id":"%s"}',
        b'{"type":"%s","id":"%s","payload": {"data":{"a":1}}}',
    ],
)
def test_frames_with_more_behind_the_payload_are_read_whole_each_time(subprotocol: str, frame: bytes) -> None:
    machine, operation = started(subprotocol)
    for _ in range(3):
        frame_ = frame % (NEXT[subprotocol].encode(), operation.encode())
        assert machine.read([frame_]) == [Next(operation, [b'{"data":{"a":1}}'])]


@both
def test_a_half_of_a_surrogate_pair_is_mended_in_every_payload(subprotocol: str) -> None:
    machine, operation = started(subprotocol)
    words = NEXT[subprotocol].encode(), operation.encode()
    for text in (b"", b"\\ud800", b"\\ud800"):
        frame = b'{"type":"%s","id":"%s","payload":{"data":{"a":"%s"}}}' % (*words, text)
        (event,) = machine.read([frame])
        assert isinstance(event, Next)
        assert json.loads(event.payloads[0]) == {"data": {"a": "\ufffd" if text else ""}}


@both
def test_a_torn_frame_breaks_the_connection_also_after_whole_ones(subprotocol: str) -> None:
    """Item 31."""
    machine, operation = started(subprotocol)
    whole = payload(machine, operation, data={"a": {"b": 1}})
    assert machine.read([whole])
    for end in range(1, len(whole) - 2):
        machine, operation = started(subprotocol)
        _, event = machine.read([whole, whole[:end]])
        assert isinstance(event, Broken), whole[:end]


@both
@pytest.mark.parametrize("fields", [{}, {"extensions": {"data": 1}}])
def test_errors_without_data_are_a_request_error(subprotocol: str, fields: dict[str, Any]) -> None:
    """Item 15, the ``complete`` that follows included."""
    machine, operation = started(subprotocol)
    event = machine.receive(payload(machine, operation, errors=[{"message": "Variable missing"}], **fields))
    assert event == Errored(operation, ({"message": "Variable missing"},))
    assert machine.receive(wire("complete", id=operation)) == Alive()
    assert machine.unsubscribe(operation) == ()


@both
@pytest.mark.parametrize(
    "message",
    ["Unauthorized", "points limit exceeded", "too many concurrent subscriptions", "Cannot query field 'x'"],
)
def test_null_data_with_errors_that_can_only_mean_the_request_is_a_request_error(
    subprotocol: str, message: str
) -> None:
    """Item 15: servers in Go write ``data: null`` for those as well."""
    machine, operation = started(subprotocol)
    assert machine.receive(payload(machine, operation, data=None, errors=[{"message": message}])) == Errored(
        operation, ({"message": message},)
    )


@both
@pytest.mark.parametrize("fields", [{}, {"payload": None}, {"payload": []}, {"payload": "x"}], ids=repr)
def test_a_result_that_is_no_object_fails_its_operation_only(
    subprotocol: str, fields: dict[str, Any]
) -> None:
    """Item 16."""
    machine, operation = started(subprotocol)
    other, _ = machine.subscribe(DOCUMENT)
    event = machine.receive(wire(NEXT[subprotocol], id=operation, **fields))
    assert isinstance(event, Errored)
    assert event.id == operation
    assert isinstance(machine.receive(payload(machine, other, data={})), Next)


@both
@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"payload": [{"message": "a"}]}, ({"message": "a"},)),
        ({"payload": {"message": "a"}}, ({"message": "a"},)),
        ({"payload": {"errors": [{"message": "a"}]}}, ({"message": "a"},)),
        ({"payload": "a"}, ({"message": "a"},)),
        ({"payload": []}, ()),
        ({"payload": None}, ()),
        ({}, ()),
    ],
    ids=repr,
)
def test_an_error_ends_its_operation_whatever_its_shape(
    subprotocol: str, fields: dict[str, Any], errors: tuple[dict[str, Any], ...]
) -> None:
    """Item 16; Hasura's ``{errors}`` on the modern subprotocol, Bitquery's list and object."""
    machine, operation = started(subprotocol)
    other, _ = machine.subscribe(DOCUMENT)
    assert machine.receive(wire("error", id=operation, **fields)) == Errored(operation, errors)
    assert isinstance(machine.receive(payload(machine, other, data={})), Next)


@both
@pytest.mark.parametrize("first", ["error", "complete"])
@pytest.mark.parametrize("second", ["error", "complete"])
def test_ending_an_operation_twice_changes_nothing(subprotocol: str, first: str, second: str) -> None:
    """Item 17."""
    machine, operation = started(subprotocol)
    other, _ = machine.subscribe(DOCUMENT)
    assert isinstance(machine.receive(wire(first, id=operation)), Errored | Completed)
    assert machine.receive(wire(second, id=operation)) == Alive()
    assert isinstance(machine.receive(payload(machine, other, data={})), Next)
    assert machine.receive(wire("complete", id=other)) == Completed(other)


@both
def test_nothing_is_sent_for_an_operation_that_the_server_completed(subprotocol: str) -> None:
    """Item 18."""
    machine, operation = started(subprotocol)
    assert machine.receive(wire("complete", id=operation)) == Completed(operation)
    assert machine.unsubscribe(operation) == ()


@both
@pytest.mark.parametrize("type_", ["next", "data", "error", "complete"])
def test_what_is_in_flight_for_a_stopped_operation_is_dropped_in_silence(
    subprotocol: str, type_: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Item 19."""
    machine, operation = started(subprotocol)
    assert machine.unsubscribe(operation)
    assert machine.unsubscribe(operation) == ()
    assert machine.receive(wire(type_, id=operation, payload={"data": {}})) == Alive()
    assert not caplog.records


@both
def test_payloads_that_keep_coming_for_a_dead_operation_are_counted(subprotocol: str) -> None:
    """Item 20."""
    machine, stopped = started(subprotocol)
    ended, _ = machine.subscribe(DOCUMENT)
    live, _ = machine.subscribe(DOCUMENT)
    machine.unsubscribe(stopped)
    machine.receive(wire("complete", id=ended))
    machine.receive(payload(machine, live, data={}))
    assert machine.stray == 0
    for dead in (stopped, ended, stopped):
        machine.receive(payload(machine, dead, data={}))
    assert machine.stray == 3


@both
@pytest.mark.parametrize(
    "unknown", ["", "99", "x", "-1", "²", "٣", "9" * 5000, 1, None, True, ["1"], {"a": 1}, 1.5]
)
@pytest.mark.parametrize("type_", ["next", "data", "error", "complete"])
def test_unknown_ids_are_ignored_and_count_for_nothing(subprotocol: str, unknown: Any, type_: str) -> None:
    """Item 29."""
    machine, operation = started(subprotocol)
    assert machine.receive(wire(type_, id=unknown, payload={"data": {}})) == Alive()
    assert machine.stray == 0
    assert isinstance(machine.receive(payload(machine, operation, data={})), Next)


@both
def test_the_newest_unanswered_operation_can_be_blamed(subprotocol: str) -> None:
    """Item 22."""
    machine = ready(subprotocol)
    assert machine.newest_unanswered is None
    first, second, third = (machine.subscribe(DOCUMENT)[0] for _ in range(3))
    assert machine.newest_unanswered == third
    machine.receive(payload(machine, third, data={}))
    assert machine.newest_unanswered == second
    machine.receive(wire("complete", id=second))
    assert machine.newest_unanswered == first
    machine.unsubscribe(first)
    assert machine.newest_unanswered is None


@both
def test_a_syntax_error_that_closes_the_socket_is_blamed_on_the_newest_unanswered(subprotocol: str) -> None:
    """Item 22."""
    machine, neighbour = started(subprotocol)
    machine.receive(payload(machine, neighbour, data={}))
    newest, _ = machine.subscribe(DOCUMENT)
    verdict = machine.closed(4500, 'Syntax Error: Expected Name, found "}".')
    assert (verdict.action, verdict.kind) == (Action.END_OPERATION, Kind.DOCUMENT)
    assert machine.newest_unanswered == newest


@both
def test_a_syntax_error_is_blamed_on_nobody_when_all_have_answered(subprotocol: str) -> None:
    """Item 22."""
    machine, operation = started(subprotocol)
    machine.receive(payload(machine, operation, data={}))
    verdict = machine.closed(4500, "Syntax Error: Unexpected <EOF>.")
    assert (verdict.action, verdict.few) == (Action.RETRY, True)


# ---------------------------------------------------------------------- frames


@both
@pytest.mark.parametrize("state", [machine_for, waiting, ready])
@pytest.mark.parametrize(
    "type_", ["start_ack", "subscribe", "connection_init", "GQL_DATA", "", None, 5, [], {"a": 1}]
)
def test_unknown_types_are_ignored_and_count_as_life(subprotocol: str, state: Any, type_: Any) -> None:
    """Item 28; AppSync's ``start_ack``."""
    machine = state(subprotocol)
    assert machine.receive(wire(type_, id="1", payload={})) == Alive()
    assert machine.receive(b'{"id":"1"}') == Alive()


@both
@pytest.mark.parametrize("fields", [{}, {"id": ""}, {"id": None}], ids=repr)
@pytest.mark.parametrize("state", [waiting, ready])
def test_an_error_without_an_id_is_logged_and_the_connection_stays(
    subprotocol: str, state: Any, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Item 30; Apollo's answer to an unknown type, AppSync's id-less errors."""
    machine = state(subprotocol)
    with caplog.at_level(logging.WARNING, "bqstream.protocol"):
        event = machine.receive(
            wire("error", payload={"message": "Invalid message type! " + "x" * 999}, **fields)
        )
    assert event == Alive()
    assert "Invalid message type! xxx" in caplog.text
    assert len(caplog.text) < 400


@both
@pytest.mark.parametrize("state", [machine_for, waiting, ready])
@pytest.mark.parametrize("text", [b"[]", b"", b"null", b"{", b"\x00\xff", b'"ping"'])
def test_a_frame_that_is_no_json_object_breaks_the_connection(
    subprotocol: str, state: Any, text: bytes
) -> None:
    """Item 31."""
    machine = state(subprotocol)
    event = machine.receive(text)
    assert isinstance(event, Broken)
    assert (event.code, event.verdict.action, event.verdict.few) == (4400, Action.RETRY, True)
    assert machine.receive(text) == Alive()
    assert machine.closed(1006, "") is event.verdict


@both
@pytest.mark.parametrize("type_", ["next", "data", "ping", "error", "whatever"])
def test_a_frame_that_is_not_utf8_breaks_the_connection(subprotocol: str, type_: str) -> None:
    """Item 31; RFC 6455 section 8.1. Engines let no such text through; it would be echoed otherwise."""
    machine, operation = started(subprotocol)
    good = wire(type_, id=operation, payload={"data": {"name": "@"}})
    assert not isinstance(machine.receive(good.replace(b"@", "é".encode())), Broken)
    machine, operation = started(subprotocol)
    event = machine.receive(good.replace(b"@", b"\xe9"))
    assert isinstance(event, Broken)
    assert event.code == 4400


@both
def test_a_binary_frame_breaks_the_connection(subprotocol: str) -> None:
    """Item 32."""
    event = ready(subprotocol).receive(wire("connection_ack"), binary=True)
    assert isinstance(event, Broken)
    assert (event.code, event.verdict.action, event.verdict.few) == (1003, Action.RETRY, True)


@both
@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_a_close_that_we_did_not_ask_for_is_a_disconnect(subprotocol: str, code: int) -> None:
    """Item 34."""
    assert ready(subprotocol).closed(code, "").action is Action.RETRY


@both
def test_a_close_is_judged_by_whether_the_ack_had_come(subprotocol: str) -> None:
    """Close codes: 1000."""
    assert waiting(subprotocol).closed(1000, "").action is Action.REFRESH
    assert ready(subprotocol).closed(1000, "").action is Action.RETRY


@both
def test_after_the_end_every_frame_is_merely_noticed_and_nothing_is_sent(subprotocol: str) -> None:
    machine, operation = started(subprotocol)
    verdict = machine.closed(1006, "")
    assert machine.receive(payload(machine, operation, data={})) == Alive()
    assert machine.receive(wire("ping")) == Alive()
    assert machine.receive(b"[]") == Alive()
    assert machine.unsubscribe(operation) == ()
    assert machine.subscribe(DOCUMENT)[0] != operation
    assert machine.closed(4400, "") is verdict


# ---------------------------------------------------------------------- the tables


def _causes() -> Iterator[str]:
    return iter({cause for _, cause in TRANSITIONS})


def test_every_state_can_be_reached_and_the_last_is_never_left() -> None:
    assert set(TRANSITIONS.values()) | {State.NEW} == set(State)
    assert all(after is State.OVER for (before, _), after in TRANSITIONS.items() if before is State.OVER)
    assert {before for (before, cause) in TRANSITIONS if cause == "closed()"} == set(State)
    assert set(_causes()) == {
        "init()",
        "connection_ack",
        "connection_error",
        "subscribe()",
        "broken",
        "closed()",
    }


@pytest.mark.parametrize("kind", [Modern, Legacy])
def test_a_frame_that_changes_the_state_is_taken_only_where_the_table_allows_it(
    kind: type[Modern] | type[Legacy],
) -> None:
    assert set(kind.frames) == set(State)
    moves = {"on_ack": "connection_ack", "on_refusal": "connection_error"}
    for state, handlers in kind.frames.items():
        for type_, handler in handlers.items():
            cause = moves.get(getattr(handler, "__name__", ""))
            assert cause is None or (cause == type_ and (state, cause) in TRANSITIONS)
