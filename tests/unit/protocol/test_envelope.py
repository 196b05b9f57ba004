from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bqstream.errors import UsageError
from bqstream.protocol import request
from bqstream.protocol.envelope import error_list, frame, json_object, opened


def test_a_request_leaves_out_what_is_none() -> None:
    """Item 13."""
    assert json.loads(request("subscription { a }")) == {"query": "subscription { a }"}


def test_a_request_carries_all_four_members_under_their_names() -> None:
    """Item 13."""
    assert json.loads(request("subscription A { a }", {"n": None}, "A", {"x": [1]})) == {
        "query": "subscription A { a }",
        "variables": {"n": None},
        "operationName": "A",
        "extensions": {"x": [1]},
    }


untyped: Callable[..., bytes] = request


@pytest.mark.parametrize(
    "arguments",
    [
        (b"query",),
        ("query", []),
        ("query", "{}"),
        ("query", None, 5),
        ("query", None, None, ["x"]),
        ("query", {"a": len}),
    ],
    ids=repr,
)
def test_a_request_that_a_server_would_close_the_socket_for_is_never_made(arguments: tuple[Any, ...]) -> None:
    """Item 13."""
    with pytest.raises(UsageError):
        untyped(*arguments)


def test_variables_that_hold_themselves_are_a_usage_error() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(UsageError):
        request("query", loop)


def test_a_frame_carries_payload_bytes_as_they_are() -> None:
    assert frame("next", "1", b'{"a":  1}') == b'{"type":"next","id":"1","payload":{"a":  1}}'


def test_the_payload_of_init_is_absent_or_an_object() -> None:
    """Item 6."""
    assert json_object(None) == b""
    assert json_object({}) == b"{}"
    assert json.loads(json_object({"headers": {"a": "b"}})) == {"headers": {"a": "b"}}


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"next","id":"1","payload":{"data":{}}}',
        b'{"payload":{"data":{}},"id":"1","type":"next"}',
        b' { "id" : "1" , "extra":[{"type":"error"}], "payload" : {"data":{}} , "type" : "next" } ',
        b'{"type":"\\u006eext","id":"1","payload":{"data":{}}}',
    ],
)
def test_an_envelope_is_read_whatever_the_order_of_its_members(text: bytes) -> None:
    envelope = opened(text)
    assert envelope is not None
    assert (envelope.type, envelope.id, bytes(envelope.payload)) == ("next", "1", b'{"data":{}}')


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'"next"',
        b"1",
        b"{",
        b"{}x",
        b"\xff",
        b'{"type":"\xff"}',
        b'{"type":NaN}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_has_no_envelope(text: bytes) -> None:
    """Item 31."""
    assert opened(text) is None


@pytest.mark.parametrize("before", [b'"type":"next","id":"7",', b' "id" : "7" , "type" : "next" , '])
def test_a_payload_nested_too_deeply_still_says_whose_it_is(before: bytes) -> None:
    envelope = opened(b"{" + before + b'"payload":{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}}")
    assert envelope is not None
    assert (envelope.type, envelope.id, bytes(envelope.payload)) == ("next", "7", b"")


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (rb"\ud83d\ude00", rb"\ud83d\ude00"),
        (rb"\ud800", rb"\ufffd"),
        (rb"\udc00\ud800\\ud800", rb"\ufffd\ufffd\\ud800"),
        (rb"\ud83d\ud83d\ude00\\\udfff\"", rb"\ufffd\ud83d\ude00\\\ufffd\""),
    ],
)
def test_half_of_a_surrogate_pair_becomes_a_replacement_character(text: bytes, mended: bytes) -> None:
    """RFC 8259, section 8.2: it is no error of the grammar."""
    envelope = opened(b'{"type":"next","id":"1","payload":"\\ud800-%s"}' % text)
    assert envelope is not None
    assert bytes(envelope.payload) == b'"\\ufffd-%s"' % mended
    assert msgspec.json.decode(envelope.payload)


@pytest.mark.parametrize("strange", [b"5", b"[]", b"null", b"1e999", b'{"a":1}'])
def test_members_of_a_strange_type_are_as_good_as_absent(strange: bytes) -> None:
    """Items 28 and 29."""
    envelope = opened(b'{"type":%s,"id":"1"}' % strange)
    assert envelope is not None
    assert (envelope.type, envelope.id) == ("", "1")
    envelope = opened(b'{"type":"next","id":%s}' % strange)
    assert envelope is not None
    assert (envelope.type, envelope.id) == ("next", None)


@pytest.mark.parametrize(
    ("shape", "errors"),
    [
        (
            [{"message": "a"}, {"message": "b", "path": ["x"]}],
            ({"message": "a"}, {"message": "b", "path": ["x"]}),
        ),
        ({"message": "a"}, ({"message": "a"},)),
        ({"errors": [{"message": "a"}]}, ({"message": "a"},)),
        ({"errors": {"message": "a"}}, ({"message": "a"},)),
        ({"errors": "a"}, ({"message": "a"},)),
        ({"errors": [{"errorType": "X"}]}, ({"errorType": "X"},)),
        ({"message": "a", "errors": []}, ({"message": "a", "errors": []},)),
        ("a", ({"message": "a"},)),
        (["a", 5, {"message": "b"}], ({"message": "a"}, {"message": "5"}, {"message": "b"})),
        ([], ()),
        (None, ()),
        ({"errors": None}, ()),
        ({}, ({},)),
        (7, ({"message": "7"},)),
    ],
    ids=repr,
)
def test_errors_are_taken_in_every_shape_that_servers_give_them(
    shape: object, errors: tuple[dict[str, Any], ...]
) -> None:
    """Item 16."""
    assert error_list(json.dumps(shape).encode()) == errors


def test_no_payload_is_no_errors() -> None:
    """Item 16."""
    assert error_list(b"") == ()


@pytest.mark.parametrize(
    "text", [b'["\xff"]', b"[" * 5000 + b"]" * 5000, b"[1e999]", b'[{"a":' * 400 + b"1" + b"}]" * 400]
)
def test_errors_that_cannot_be_read_say_so(text: bytes) -> None:
    """Item 16."""
    (error,) = error_list(text)
    assert "message" in error


def test_errors_hold_no_token() -> None:
    shape = [
        {"message": "at wss://host/graphql?token=secret-value", "extensions": {"h": ["Bearer ory_at_secret"]}}
    ]
    assert "secret" not in repr(error_list(json.dumps(shape).encode()))
