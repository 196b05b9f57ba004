"""The default engine: the ``websockets`` library's asyncio client.

What is relied on is in its reference (asyncio client, Sans-I/O), and the same from version 15 on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import broadcast
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    ProxyError,
    WebSocketException,
)
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from .._version import __version__
from .base import Closed, Connection, DialError, Receive, Target, UpgradeRefused
from .frames import Frames
from .redaction import RedactingLogger, Redactor

OUTBOX_BYTES = 64 * 1024 * 1024
LINGER = 1.0  # seconds in which a peer that has had its last word should close TCP
BODY_LIMIT = 4096  # of a refusal's body, in bytes: enough to say why
_HEAD_END = b"\r\n\r\n"  # RFC 9112, section 2.1
REASON_LIMIT = 123  # bytes, RFC 6455 section 5.5: a control frame's 125 less the code

# The operating system finds a dead peer even where the link's own pings are off or its reading is paused.
_SOCKET_OPTIONS = [
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    )
    if hasattr(socket, name)
]


class WebsocketsEngine:
    """Dials with ``websockets``. ``outbox_bytes`` bounds what one connection may hold unsent."""

    name = "websockets"

    def __init__(self, *, outbox_bytes: int = OUTBOX_BYTES) -> None:
        self._outbox_bytes = outbox_bytes

    async def dial(self, target: Target) -> Connection:
        """Open a connection (RFC 6455 section 4.1) within ``target.timeout`` seconds.

        Raises UpgradeRefused for any answer but 101, redirects among them, and DialError for the rest;
        neither holds the URL, a header that was sent or a secret, nor leads to an exception that does.
        Cancelling it leaves no socket.
        """
        redactor = Redactor(target.secrets)
        logger = RedactingLogger(logging.getLogger(__name__), redactor)
        try:
            socket_ = await _Dial(target.url, **_options(target, logger))
        except (OSError, ValueError, ImportError, WebSocketException) as error:
            refusal = _translate(error, target, redactor)
        else:
            assert isinstance(socket_, _Socket)
            return _Connection(socket_, target.max_message_bytes, self._outbox_bytes, redactor)
        # Raised out here, so that not even its __context__ is the library's exception.
        raise refusal


def _options(target: Target, logger: RedactingLogger) -> dict[str, Any]:
    options: dict[str, Any] = {
        "subprotocols": [Subprotocol(name) for name in target.subprotocols] or None,
        "additional_headers": dict(target.headers),
        "user_agent_header": f"bqstream/{__version__}",
        "compression": "deflate" if target.compression else None,
        "proxy": target.proxy or None,
        "open_timeout": target.timeout,
        "close_timeout": LINGER,
        "ping_interval": None,  # the link sends its own
        "max_size": target.max_message_bytes,
        # A frame may be max_message_bytes long, so each one that waits here is memory. One is enough to keep
        # the reader busy, and from the second on TCP pushes back.
        "max_queue": 1,
        "logger": logger,
        "create_connection": partial(_Socket, limit=target.max_message_bytes),
    }
    if target.tls is not None and target.url[:4].lower() == "wss:":
        options["ssl"] = target.tls
    return options


class _Dial(connect):
    """A dial that stays where it was sent: a redirect would take the token in the URL to another place."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Socket(ClientConnection):
    """Has whole text frames cut out in front of the library, from the end of the handshake on.

    Not where an extension changes frames. It drops TCP when the peer leaves it open after the last frame, which a
    client may do at any time (RFC 6455 section 7.1.1); the library would wait without end.
    """

    def __init__(self, *args: Any, limit: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.frames = Frames(self._keep, self._by_library, limit=limit)
        self._early: list[bytes] = []  # what came before somebody read
        self.failure: BaseException | None = None  # of the one who reads
        self._take: Callable[[bytes], None] = self._shake_hands
        self._answer_end = b""
        self._linger: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def _shake_hands(self, data: bytes) -> None:
        """Up to the empty line that ends the head of the answer."""
        seen = self._answer_end + data
        place = seen.find(_HEAD_END)
        if place < 0:
            self._answer_end = seen[1 - len(_HEAD_END) :]
            self._by_library(data)
            return
        frames = seen[place + len(_HEAD_END) :]
        self._take = self._by_library
        self._by_library(data[: len(data) - len(frames)])
        if self.protocol.state is State.OPEN and not self.protocol.extensions:
            self._take = self.feed
        else:
            self.frames.simple = False
        if frames:
            self._take(frames)

    def _keep(self, payloads: list[bytes], binary: bool) -> None:
        self._early = payloads
        self.frames.paused = True

    def hand_to(self, receive: Receive) -> None:
        """Have text frames handed to ``receive``, and logged as the library logs its own."""

        def logged(payloads: list[bytes], binary: bool) -> None:
            for payload in payloads:
                self.logger.debug("< %s", Frame(Opcode.TEXT, payload))
            receive(payloads, binary)

        self.frames.texts = logged if self.debug else receive

    def feed(self, data: bytes = b"") -> None:
        """Hand out what came, and what a pause held up."""
        try:
            if self._early and not self.frames.paused:
                early, self._early = self._early, []
                self.frames.texts(early, False)
            self.frames.feed(data)
        except Exception as error:  # noqa: BLE001  (run() raises it)
            self.failure = error
            self.transport.abort()
        except BaseException:  # Ctrl-C where nobody handles it: what it cut short is missed with the link
            self.transport.abort()
            raise
        if self.frames.paused:
            self.transport.pause_reading()
        elif not self.frames.simple:
            self._take = self._by_library

    def _by_library(self, data: bytes) -> None:
        super().data_received(data)
        over = self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None
        if over and self._linger is None:
            self._linger = self.loop.call_later(LINGER, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        super().connection_lost(exc)


def _nobody(frames: list[bytes], binary: bool) -> None:
    """Gets what is not handed out."""


class _Connection:
    """One open WebSocket; see ``base.Connection``. It needs no task but the one that calls ``run``: frames
    are sent straight into the transport's buffer, which is the outbox."""

    def __init__(
        self, socket_: _Socket, max_message_bytes: int, outbox_bytes: int, redactor: Redactor
    ) -> None:
        self.subprotocol: str | None = socket_.subprotocol
        self.date = _date(socket_.response)
        self._socket = socket_
        self._max_message_bytes = max_message_bytes
        self._outbox_bytes = outbox_bytes
        self._redact = redactor
        self._reading = asyncio.Event()
        self._reading.set()
        self._muted = False  # frames are read, so that the end is seen, but no longer handed out
        self._closing = False
        self._why = ""
        with suppress(OSError):  # the connection may be over already, which run() will tell
            for option in _SOCKET_OPTIONS:
                socket_.transport.get_extra_info("socket").setsockopt(*option)

    async def run(self, receive: Receive) -> Closed:
        if not self._muted:
            self._socket.hand_to(receive)
            self._go_on()
        try:
            while True:
                # What was not cut out before it came here. Text comes as str and binary as bytes, which tells them
                # apart and checks UTF-8 (RFC 6455 section 8.1).
                frame = await self._socket.recv()
                await self._reading.wait()
                if self._muted:
                    continue
                if isinstance(frame, str):
                    receive([frame.encode()], False)
                else:
                    receive([frame], True)
        except ConnectionClosed as closed:
            if self._socket.failure is not None:
                raise self._socket.failure from None
            return self._closed(closed)
        finally:
            await self._drop()

    def send(self, frame: bytes) -> None:
        # broadcast() is the library's way to send without waiting; once it is over, it does nothing.
        broadcast((self._socket,), frame.decode())
        if self._socket.transport.get_write_buffer_size() > self._outbox_bytes:
            self._why = f"more than {self._outbox_bytes} bytes waited to be sent"
            self.abort()

    async def ping(self) -> None:
        try:
            await (await self._socket.ping())
        except ConnectionClosed:
            pass
        else:
            return
        raise ConnectionError("the connection ended before the pong came")

    def pause_reading(self) -> None:
        if self._muted:
            return
        self._reading.clear()
        frames = self._socket.frames
        if frames.simple:
            frames.paused = True
            self._socket.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading.is_set():
            self._reading.set()
            # Later: who makes room for what is held up is not handed it in the middle of that.
            self._socket.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        frames = self._socket.frames
        if not (frames.paused and self._reading.is_set()):
            return
        frames.paused = False
        self._socket.feed()
        if not frames.paused:
            self._socket.transport.resume_reading()

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        self._closing = True
        if not self._reading.is_set():
            self._mute()  # the peer's close frame may stand behind data that nobody wants
        self._socket.close_timeout = timeout
        try:
            async with asyncio.timeout(timeout):
                await self._socket.close(code, _fitting(reason))
        except TimeoutError:
            await self._drop()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        self._mute()
        self._socket.transport.abort()

    def _mute(self) -> None:
        self._muted = True
        self._reading.set()
        self._socket.frames.texts = _nobody
        self._socket.loop.call_soon(self._go_on)

    async def _drop(self) -> None:
        """Leave no socket behind; takes a turn or two of the loop."""
        self.abort()
        await self._socket.wait_closed()

    def _closed(self, end: ConnectionClosed) -> Closed:
        """The peer's close frame; else the one by which we gave up on the peer; else 1006 and why."""
        if end.rcvd is not None:
            code, reason = end.rcvd.code, end.rcvd.reason
        elif end.sent is not None and not self._closing:
            code, reason = end.sent.code, end.sent.reason
            if code == 1009:
                reason = f"{reason}; max_message_bytes is {self._max_message_bytes}"
        else:
            code, reason = 1006, self._why or str(end.__cause__ or "")
        return Closed(code, self._redact(reason))


def _fitting(reason: str) -> str:
    return reason.encode()[:REASON_LIMIT].decode(errors="ignore")


def _translate(error: Exception, target: Target, redactor: Redactor) -> DialError:
    """Say what went wrong without the words of the library, which may hold the URL or a proxy's password."""
    match error:
        case InvalidStatus():
            return _refused(error.response, redactor)
        case NegotiationError():
            return DialError(
                f"the server chose what was not offered: {redactor(str(error))[:200]}", permanent=True
            )
        case InvalidProxyStatus():
            status = error.response.status_code
            return DialError(f"the proxy answered HTTP {status}", permanent=status == 407)
        case InvalidProxy():
            return DialError("the proxy's address is not valid", permanent=True)
        case ProxyError():
            return DialError("the proxy let no connection through")
        case ImportError():
            return DialError("a SOCKS proxy needs the package python-socks", permanent=True)
        case InvalidURI():
            return DialError("the address is not a WebSocket URL", permanent=True)
        case ssl.SSLCertVerificationError():
            return DialError(f"the certificate does not verify: {error.verify_message}", permanent=True)
        case ssl.SSLError():
            return DialError(f"TLS failed: {error.reason or 'no reason given'}")
        case TimeoutError():
            return DialError(f"no connection within {target.timeout:g} s")
        case OSError():
            return DialError(f"no connection: {redactor(error.strerror or type(error).__name__)}")
        case ValueError():
            return DialError("the address of the server or its proxy is not valid", permanent=True)
        case _:
            return DialError(f"the server did not answer with a WebSocket handshake ({type(error).__name__})")


def _date(response: Response | None) -> float | None:
    values = response.headers.get_all("Date") if response is not None else []
    try:
        return parsedate_to_datetime(values[0]).timestamp()
    except (IndexError, TypeError, ValueError, OverflowError):
        return None


def _refused(response: Response, redactor: Redactor) -> UpgradeRefused:
    headers: dict[str, str] = {}
    for name, value in response.headers.raw_items():
        name = name.lower()
        value = redactor(value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = bytes(response.body[:BODY_LIMIT]).decode(errors="replace")
    return UpgradeRefused(response.status_code, headers, redactor(body))
