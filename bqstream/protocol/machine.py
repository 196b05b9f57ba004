"""The interface that both subprotocols stand behind: frames in, events out, no socket and no clock.

A machine lives as long as one connection. Its caller sends what the methods return, in order, as text frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from .verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Acked:
    """The connection is acknowledged: operations may be started. A repeated ack gives no second event."""

    payload: dict[str, Any]


class Next(msgspec.Struct, frozen=True):
    """Payloads of an operation: the JSON text of ``{"data": …, "errors": …}``, not decoded; one or more, in order."""

    id: str
    payloads: list[bytes]


@dataclass(frozen=True, slots=True)
class Errored:
    """The service ended an operation with errors (GraphQL error objects, whatever shape they came in)."""

    id: str
    errors: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """The service ended an operation normally."""

    id: str


@dataclass(frozen=True, slots=True)
class Alive:
    """A frame that says no more than that the other side lives; ``reply`` is a frame to send back, if any.

    ``keepalive`` is set for the frames by which a server shows that it beats (``ka``, ``ping``, ``pong``).
    """

    reply: bytes | None = None
    keepalive: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection must be closed with ``code``; ``verdict`` says what then."""

    code: int
    verdict: Verdict


Event = Acked | Next | Errored | Completed | Alive | Broken


class Machine(Protocol):
    """One subprotocol, client side.

    ``stray``  how many payloads came for operations that are over: the server may not have stopped them.
    """

    subprotocol: str
    stray: int

    @property
    def newest_unanswered(self) -> str | None:
        """The newest live operation that brought nothing; to blame where ``closed`` says END_OPERATION."""

    def init(self, payload: Mapping[str, Any] | None) -> bytes:
        """``connection_init``: the first frame, once. Raises RuntimeError a second time."""

    def subscribe(self, request: bytes) -> tuple[str, bytes]:
        """Start an operation; ``request`` is the JSON text of the payload. Gives its new id and the frame.

        Raises RuntimeError before the ack.
        """

    def unsubscribe(self, name: str) -> tuple[bytes, ...]:
        """Stop an operation by its id: what still comes for it is ``Alive``. Empty for one that is over."""

    def ping(self) -> bytes | None:
        """A frame that asks for a sign of life; ``None`` where the subprotocol has none."""

    def terminate(self) -> tuple[bytes, ...]:
        """The frames to send before the closing handshake."""

    def receive(self, frame: bytes, *, binary: bool = False) -> Event:
        """Take one frame; every frame gives one event, and never raises for what a server may send."""

    def read(self, frames: Sequence[bytes]) -> list[Event]:
        """Take text frames that came at once. Payloads of one operation are one event, if no other event but payloads
        came between; what happens to an operation stays in its order."""

    def closed(self, code: int, reason: str) -> Verdict:
        """What a close by the other side means, from what this machine has seen (1006: no close frame)."""
