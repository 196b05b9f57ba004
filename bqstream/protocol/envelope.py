"""The wire: one JSON object a frame, ``{"type": …, "id": …, "payload": …}``, the same on both subprotocols.

Sources: PROTOCOL.md of enisdenjo/graphql-ws and of apollographql/subscriptions-transport-ws.
A payload is carried as the bytes that came; only what must be looked into is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import UsageError
from .redaction import redact_all

_ABSENT = msgspec.Raw(b"")
_UNREADABLE = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
)  # all that decoding hostile text can raise
# Escapes in a JSON string, one after another; the group is half of a surrogate pair.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


class Envelope(msgspec.Struct, gc=False):
    """A frame; ``payload`` is a view of it, empty where there is none."""

    type: str = ""
    id: str | None = None
    payload: msgspec.Raw = _ABSENT


class _Loose(msgspec.Struct, gc=False):
    type: msgspec.Raw = _ABSENT
    id: msgspec.Raw = _ABSENT
    payload: msgspec.Raw = _ABSENT


class _Result(msgspec.Struct, gc=False):
    data: msgspec.Raw = _ABSENT
    errors: msgspec.Raw = _ABSENT


class _Request(msgspec.Struct, omit_defaults=True, rename="camel"):
    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None
    extensions: Mapping[str, Any] | None = None


_strict = msgspec.json.Decoder(Envelope).decode
_loose = msgspec.json.Decoder(_Loose).decode
_result = msgspec.json.Decoder(_Result).decode
_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def opened(frame: bytes) -> Envelope | None:
    """The envelope in ``frame``; ``None`` where it holds no JSON object.

    The decoder passes over strings that it need not look at, so that their UTF-8 is checked here: what is not
    (RFC 6455 section 8.1) would fail later, in the hands of a user.
    """
    try:
        if not frame.isascii():
            frame.decode()
        return _strict(frame)
    except msgspec.ValidationError:
        return _opened_loosely(frame)
    except msgspec.DecodeError:
        return _opened_mended(frame)
    except RecursionError:
        return _opened_without_payload(frame)
    except UnicodeDecodeError:
        return None


def _opened_mended(frame: bytes) -> Envelope | None:
    """Half of a surrogate pair is JSON by its grammar (RFC 8259 section 8.2), and text to nobody."""
    mended = _ESCAPES.sub(lambda match: rb"\ufffd" if match[1] else match[0], frame)
    return None if mended == frame else opened(mended)


def _opened_without_payload(frame: bytes) -> Envelope | None:
    """A payload nested too deeply is its operation's trouble alone; ``type`` and ``id`` mostly stand before it."""
    head = frame.partition(b'"payload"')[0].rstrip()
    try:
        return _strict(head.removesuffix(b",") + b"}")
    except _UNREADABLE:
        return None


def _opened_loosely(frame: bytes) -> Envelope | None:
    """A ``type`` or ``id`` that is no string names nothing known: no reason to break a connection."""
    try:
        loose = _loose(frame)
    except _UNREADABLE:
        return None
    return Envelope(_text(loose.type) or "", _text(loose.id), loose.payload)


def _text(raw: msgspec.Raw) -> str | None:
    try:
        return _string(raw)
    except _UNREADABLE:
        return None


def frame(word: str, name: str | None = None, payload: bytes = b"") -> bytes:
    """A frame of type ``word`` for the operation ``name``; ``payload`` is JSON text, empty for none."""
    parts = [b'{"type":', _encode(word)]
    if name is not None:
        parts += b',"id":', _encode(name)
    if payload:
        parts += b',"payload":', payload
    return b"".join((*parts, b"}"))


def request(
    query: str,
    variables: Mapping[str, Any] | None = None,
    operation_name: str | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> bytes:
    """The payload that starts an operation, as JSON text; what is ``None`` is left out.

    Raises UsageError for what a server would answer by closing the socket: a wrong type, or no JSON at all.
    """
    if not isinstance(query, str):
        raise UsageError(f"query must be text, not {type(query).__name__}")
    if operation_name is not None and not isinstance(operation_name, str):
        raise UsageError(f"operation_name must be text, not {type(operation_name).__name__}")
    for name, value in (("variables", variables), ("extensions", extensions)):
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{name} must be a mapping, not {type(value).__name__}")
    try:
        return _encode(_Request(query, variables, operation_name, extensions))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"the variables or extensions are not JSON: {error}") from None


def json_object(payload: Mapping[str, Any] | None) -> bytes:
    """The payload of ``connection_init``: a JSON object, or nothing (an array would be closed with 4400)."""
    return b"" if payload is None else _encode(dict(payload))


def decoded_object(payload: msgspec.Raw) -> dict[str, Any]:
    """A payload that should be an object; an empty one where it is absent, null, or anything else."""
    try:
        value = msgspec.json.decode(payload)
    except _UNREADABLE:
        return {}
    return value if isinstance(value, dict) else {}


def split_result(payload: bytes) -> tuple[msgspec.Raw, msgspec.Raw] | None:
    """``data`` and ``errors`` of a result, not decoded, empty if absent; ``None`` where it is no object."""
    try:
        result = _result(payload)
    except _UNREADABLE:
        return None
    return result.data, result.errors


def error_list(payload: bytes | msgspec.Raw) -> tuple[dict[str, Any], ...]:
    """The errors in a payload, redacted, whatever their shape.

    Known shapes: a list (graphql-transport-ws), ``{message}`` (Apollo), ``{"errors": [...]}`` (Hasura,
    AppSync, Bitquery's samples), a string, an empty list, nothing.
    """
    if not bytes(payload):
        return ()
    try:
        return _errors(redact_all(msgspec.json.decode(payload)))
    except _UNREADABLE:
        return ({"message": "the service sent errors that cannot be read"},)


def _errors(value: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(value, dict) and "message" not in value and "errors" in value:
        value = value["errors"]
    if value is None:
        return ()
    if not isinstance(value, list):
        value = [value]
    return tuple(item if isinstance(item, dict) else {"message": _worded(item)} for item in value)


def _worded(item: Any) -> str:
    return item if isinstance(item, str) else _encode(item).decode()
