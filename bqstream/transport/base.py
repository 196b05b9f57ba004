"""What an engine must do: dial, carry frames, close. It knows nothing of GraphQL, and nothing of tokens but
that the URL and the headers it is given are secret."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and how to dial. URL and headers bear the token, and a proxy's URL its password: ``repr`` shows none.

    ``proxy``  True: as the environment says (``HTTPS_PROXY``, ``NO_PROXY`` …); a URL; or ``None`` for none.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    subprotocols: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    proxy: str | bool | None = field(default=True, repr=False)
    compression: bool = False
    max_message_bytes: int = 64 * 1024 * 1024
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended: the peer's close code (1005: none in its frame, 1006: no frame) and reason."""

    code: int
    reason: str = ""


class DialError(Exception):
    """No connection came about: refused, unreachable, TLS, time-out. The text holds no secret.

    ``permanent``  another try cannot help (a certificate that does not verify, an address that is none).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class UpgradeRefused(DialError):
    """The server answered the upgrade with an HTTP status; header names are lower case."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(f"the server answered the upgrade with HTTP {status}")
        self.status = status
        self.headers = headers
        self.body = body


Receive = Callable[[list[bytes], bool], None]
"""Gets frames that came at once, in order, a few dozen at most, and whether they are binary; text is UTF-8 (RFC 6455,
section 8.1)."""


class Connection(Protocol):
    """One open WebSocket."""

    subprotocol: str | None  # what the server chose
    date: (
        float | None
    )  # the server's clock when it answered, in seconds since the epoch (RFC 9110, section 6.6.1)

    async def run(self, receive: Receive) -> Closed:
        """Hand all data frames to ``receive`` until the connection ends, and say how it did.

        Runs in its caller's task and is called once. Cancelling it drops the connection.
        """

    def send(self, frame: bytes) -> None:
        """Queue a text frame, without waiting. An outbox over its bound aborts the connection."""

    async def ping(self) -> None:
        """Send a WebSocket ping (RFC 6455 section 5.5.2) and return when its pong is in.

        Raises ConnectionError when the connection ends first.
        """

    def pause_reading(self) -> None:
        """Stop handing out frames, so that the peer feels the back-pressure of TCP. May be called twice.

        Pongs are not read meanwhile, and an end that the peer brings about is told after ``resume_reading``.
        """

    def resume_reading(self) -> None:
        """Go on after ``pause_reading``. May be called twice."""

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        """Send what is queued and close; after ``timeout`` seconds drop the connection. Cancelling drops it
        too. Frames that come in before the peer's close frame are still handed out, unless reading is paused.
        """

    def abort(self) -> None:
        """Drop the connection without a word: nothing more is handed out, and ``run`` returns."""


class Engine(Protocol):
    """One WebSocket library."""

    name: str

    async def dial(self, target: Target) -> Connection:
        """Open a connection. Raises UpgradeRefused or DialError; cancelling leaves no socket."""
