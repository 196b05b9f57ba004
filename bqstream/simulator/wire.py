"""The words of the two subprotocols, as a server speaks them.

Sources: graphql-ws PROTOCOL.md (graphql-transport-ws); subscriptions-transport-ws PROTOCOL.md and src/server.ts
(graphql-ws, the older one of that name); for the service's own habits subscriptions/websockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from .settings import LEGACY, MODERN

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Dialect:
    """One subprotocol: its name, and the types that differ."""

    name: str
    start: str
    next: str
    alive: bytes

    @property
    def modern(self) -> bool:
        return self.name == MODERN

    def prefix(self, operation: str) -> bytes:
        """What stands before the payload of a data message; after it only ``}`` is missing."""
        return b'{"id":%b,"type":"%b","payload":' % (_encode(operation), self.next.encode())

    def error(self, operation: str | None, errors: list[dict[str, Any]]) -> bytes:
        """``error``: a list on the newer subprotocol, ``{"errors": list}`` on the older, as the service has it."""
        return frame("error", id=operation, payload=errors if self.modern else {"errors": errors})


DIALECTS = {
    MODERN: Dialect(MODERN, "subscribe", "next", b'{"type":"pong"}'),
    LEGACY: Dialect(LEGACY, "start", "data", b'{"type":"ka"}'),
}


def frame(kind: str, **fields: Any) -> bytes:
    """A message with those of its fields that are not ``None``."""
    return _encode({"type": kind, **{name: value for name, value in fields.items() if value is not None}})


def parse(text: str | bytes) -> dict[str, Any] | None:
    """A client's message; ``None`` where it is no JSON object with a string for its type."""
    try:
        message = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None


def start_fields(message: dict[str, Any]) -> tuple[str, str, dict[str, Any], str | None] | None:
    """Identifier, document, variables and operation name of a ``subscribe`` or ``start``; ``None`` if ill-typed."""
    operation, payload = message.get("id"), message.get("payload")
    if not isinstance(operation, str) or not operation or not isinstance(payload, dict):
        return None
    document, variables, name = payload.get("query"), payload.get("variables"), payload.get("operationName")
    extensions = payload.get("extensions")
    if (
        not isinstance(document, str)
        or not isinstance(variables, dict | None)
        or not isinstance(name, str | None)
        or not isinstance(extensions, dict | None)
    ):
        return None
    return operation, document, variables or {}, name


def init_token(payload: Any) -> str | None:
    """The token in the payload of ``connection_init``, under any of the names that clients use."""
    if not isinstance(payload, dict):
        return None
    if isinstance(payload.get("headers"), dict):
        payload = {**payload, **payload["headers"]}
    for name, value in payload.items():
        if name.lower() in ("authorization", "token") and isinstance(value, str):
            return value.removeprefix("Bearer ").strip() or None
    return None


GARBAGE: dict[str, bytes] = {
    "json": b'{"type": "next", "payl',
    "list": b"[]",
    "binary": b"\x00\xff\x00\xff",
    "type": b'{"type":"weather","payload":{"wind":3}}',
    "id": b'{"type":"next","id":"no-such-operation","payload":{"data":{}}}',
    "error": b'{"type":"error","payload":[{"message":"an error without an id"}]}',
}
"""Frames that no client should have to expect; see ``faults.garbage``."""
