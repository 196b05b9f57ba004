"""Messages and their rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bqstream import Message, OperationFailed, UsageError

ERRORS = [{"message": "a cube failed"}]
A, B = {"Hash": "a"}, {"Hash": "b"}


def message(data: Any, *cubes: str, errors: Any = None) -> Message:
    payload = {"data": data} if errors is None else {"data": data, "errors": errors}
    return Message(json.dumps(payload).encode(), received=0.0, link=1, cubes=cubes)


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


def test_a_payload_that_cannot_be_decoded_says_so_when_it_is_looked_at() -> None:
    broken = Message(b'{"data":' + b"[" * 100_000, received=0.0, link=1)
    with pytest.raises(OperationFailed, match=r"message\.raw"):
        broken.rows()
