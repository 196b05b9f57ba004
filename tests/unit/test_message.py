"""Messages and their rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bqstream import Buffer, Gap, Message, OperationFailed, UsageError
from bqstream.clock import Clock
from bqstream.delivery.stream import Stream

ERRORS = [{"message": "a cube failed"}]
A, B = {"Hash": "a"}, {"Hash": "b"}


def message(data: Any, *cubes: str, errors: Any = None) -> Message:
    payload = {"data": data} if errors is None else {"data": data, "errors": errors}
    return message_of(json.dumps(payload).encode(), *cubes)


def message_of(raw: bytes, *cubes: str, into: Any = None) -> Message:
    stream = Stream(
        Buffer(),
        Clock(),
        on_gap=lambda gap: None,
        on_parked=lambda resumed: None,
        on_ready=lambda: None,
        on_room=lambda: None,
        cubes=cubes,
        into=into,
    )
    stream.joined(1, 0.0, grace=1.0, served=0.0)
    stream.payloads(1, [raw], 0.0)
    taken = stream.take()
    assert taken is not None
    return taken


def test_rows_of_one_cube_are_its_elements() -> None:
    assert list(message({"EVM": {"Blocks": [A, B]}}, "Blocks").rows()) == [A, B]


@pytest.mark.parametrize(
    "data",
    [
        {"EVM": {"Blocks": [A], "Calls": [B]}},
        {"EVM": {"Blocks": [A], "Calls": []}},
        {"EVM": {"Blocks": [A], "Calls": None}},
        {"EVM": {"Blocks": [A]}},
    ],
)
def test_rows_of_a_document_with_several_cubes_say_which_whatever_a_message_holds(data: Any) -> None:
    read = message(data, "Blocks", "Calls")
    assert next(read.rows()) == {"Blocks": A}
    assert list(read.rows("Blocks")) == [A]


@pytest.mark.parametrize("data", [None, {"EVM": None}, {"EVM": {"Blocks": None}}])
def test_a_message_of_errors_alone_has_no_rows(data: Any) -> None:
    read = message(data, "Blocks", errors=ERRORS)
    assert list(read.rows()) == list(read.rows("Blocks")) == []
    assert read.errors == ERRORS


@pytest.mark.parametrize(
    "data", [{"tick": 1}, {"tick": None}, {"user": {"name": None}}, {"user": {"id": "1"}}]
)
def test_data_that_has_no_cubes_is_one_row(data: Any) -> None:
    assert list(message(data).rows()) == [data]
    with pytest.raises(UsageError, match="one row"):
        message(data).rows("id")


def test_rows_of_a_cube_that_the_document_has_not_are_an_error_and_not_an_endless_silence() -> None:
    with pytest.raises(UsageError, match="it has Blocks, Calls"):
        message({"EVM": {"Blocks": [A], "Calls": []}}, "Blocks", "Calls").rows("Block")


class Cubes(msgspec.Struct):
    Blocks: list[dict[str, str]]


class Roots(msgspec.Struct):
    EVM: Cubes


def test_rows_are_of_the_type_and_a_cube_that_it_has_no_field_for_is_an_error_and_not_an_endless_silence() -> (
    None
):
    raw = json.dumps({"data": {"EVM": {"Blocks": [A], "Calls": [B]}}}).encode()
    read = message_of(raw, "Blocks", "Calls", into=Roots)
    assert isinstance(read.data, Roots)
    assert list(read.rows("Blocks")) == [A]
    with pytest.raises(UsageError, match="type=Roots has no list of rows for the cube 'Calls'"):
        read.rows("Calls")


def test_a_payload_that_does_not_fit_the_type_says_where_and_that_the_next_can_be_read() -> None:
    wrong = message_of(b'{"data":{"EVM":{"Blocks":[{"Hash":1}]}}}', "Blocks", into=Roots)
    with pytest.raises(
        OperationFailed, match=r"does not fit type=Roots, .*the next one can be read.*Blocks\[0\]"
    ):
        _ = wrong.data


def test_a_payload_that_cannot_be_decoded_says_so_when_it_is_looked_at() -> None:
    broken = message_of(b'{"data":' + b"[" * 100_000)
    with pytest.raises(OperationFailed, match=r"message\.raw"):
        broken.rows()


@pytest.mark.parametrize(
    ("state", "said", "hole"),
    [
        ({}, "being closed", False),
        ({"closed": True, "how": "2 queries brought 7 rows"}, "closed: 2 queries brought 7 rows", False),
        ({"reason": 'backfill is "off"'}, 'backfill is "off"', True),
    ],
)
def test_a_gap_says_in_one_line_what_it_is_and_what_became_of_it(state: Any, said: str, hole: bool) -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    gap = Gap(start=start, end=None, cause="lost", cubes=("Blocks", "Calls"), detail="it broke", **state)
    assert str(gap) == f"lost of Blocks, Calls, 2026-01-02T03:04:05+00:00 to now: it broke; {said}"
    assert gap.is_hole == hole


def test_a_reason_that_the_detail_has_already_is_not_said_twice() -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    gap = Gap(
        start=start, end=start, cause="dropped", detail="the reader was slow", reason="the reader was slow"
    )
    assert str(gap) == f"dropped, {start.isoformat()} to {start.isoformat()}: the reader was slow"


class Under(msgspec.Struct):
    Blocks: list[dict[str, str]]


class Whole(msgspec.Struct):
    EVM: Under


def test_what_the_service_says_beside_data_that_does_not_fit_its_type_is_told() -> None:
    raw = json.dumps({"data": {"EVM": {"Blocks": None}}, "errors": ERRORS}).encode()
    with pytest.raises(OperationFailed, match="the service says: a cube failed") as error:
        _ = message_of(raw, "Blocks", into=Whole).data
    assert list(error.value.errors) == ERRORS
    with pytest.raises(OperationFailed) as error:
        _ = message_of(b'{"data": 5, "errors": "x"}', into=Whole).data
    assert error.value.errors == ()
