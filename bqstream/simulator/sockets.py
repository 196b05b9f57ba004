"""One WebSocket, from its handshake to its close, on either subprotocol."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from . import carriage, wire
from .answers import Prepared, Refusal, View, prepare
from .carriage import Portion
from .chain import Block, Chain
from .counters import Counters, SocketRecord
from .emitter import Emitter
from .habits import habit
from .oauth import IssuedToken, Tokens
from .outbox import Outbox
from .settings import Behaviour, Settings

CLOSING_HANDSHAKE = 10.0
_SLOW = "client is not consuming messages fast enough"
_UNAUTHORISED = [{"message": "Unauthorized"}]
_OVER_CAP = [{"message": "too many concurrent subscriptions"}]
_ABORT = struct.pack("ii", 1, 0)


@dataclass(kw_only=True)
class Service:
    """What all sockets share."""

    settings: Settings
    tokens: Tokens
    counters: Counters
    emitter: Emitter
    chain: Chain
    open: dict[int, Socket] = field(default_factory=dict)
    refuse_acks: int = 0
    refuse_acks_how: str = "connection_error"

    def ack_fault(self) -> str | None:
        """How the next ack is refused, if it is."""
        if not self.refuse_acks:
            return None
        self.refuse_acks -= 1
        return self.refuse_acks_how

    def answer(self, prepared: Prepared) -> dict[str, Any]:
        """A query's answer, as late and as long as the query side gives it."""
        settings = self.settings
        upto, portions = self.emitter.seen(settings.query_lag)
        view = View(
            upto=upto,
            portions=portions if settings.query_partial else 0,
            row_cap=settings.row_cap,
            realtime_window=settings.realtime_window,
            archive_lag=settings.archive_lag,
            reprice=settings.reprice,
        )
        return prepared.answer(self.chain, view)


@dataclass(eq=False, slots=True)
class Operation:
    """One operation that is live on a socket: the emitter's listener."""

    socket: Socket
    id: str
    prepared: Prepared
    prefix: bytes
    held: list[carriage.Data] = field(default_factory=list)

    def deliver(self, portion: Portion) -> None:
        """Send a portion as it is, or hold it where the socket's behaviour changes its block."""
        behaviour = self.socket.behaviour
        if carriage.alters(behaviour):
            self.held.append(portion.data)
        else:
            self.socket.outbox.data(b"%b%b}" % (self.prefix, portion.payload(behaviour.max_rows)))

    def block_ended(self, block: Block) -> None:
        """Send what was held of this block."""
        if self.held:
            held, self.held = self.held, []
            seed = f"{self.socket.number}:{block.hash}"
            for data in carriage.messages(self.socket.behaviour, seed, held, self.prepared.limited):
                self.socket.outbox.data(b"%b%b}" % (self.prefix, carriage.encode(data)))


class Socket:
    """A socket whose handshake is done. ``run`` owns its tasks; the rest returns at once.

    ``token`` is ``None`` until ``connection_init`` brings one, and where it is refused later than the handshake.
    """

    def __init__(
        self,
        service: Service,
        ws: web.WebSocketResponse,
        request: web.Request,
        token: IssuedToken | None,
        dialect: wire.Dialect,
        record: SocketRecord,
    ) -> None:
        self.number = record.number
        self.record = record
        self.behaviour: Behaviour = service.settings.behaviour(self.number)
        self.operations: dict[str, Operation | None] = {}
        self.token = token
        self._service = service
        self._settings = service.settings
        self._ws = ws
        self._request = request
        self._dialect = dialect
        self._initialised = False
        self._acked = False
        self._stalled = False
        self._timers: list[asyncio.TimerHandle] = []
        self._closing: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.outbox = Outbox(
            ws,
            messages=self._settings.queue_messages,
            size=self._settings.queue_bytes,
            lag=self.behaviour.lag,
            on_full=self._shed,
            on_data=self._data_sent,
        )

    # What the server and its faults do with a socket.

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; only the first call counts."""
        if not self._closing.done():
            self.outbox.stop()
            self._closing.set_result((code, reason))

    def abort(self) -> None:
        """Reset the connection: no close frame, no waiting (RST)."""
        self.outbox.stop()
        transport = self._request.transport
        if transport is not None:
            raw = transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            transport.abort()

    def stall(self) -> None:
        """Fall silent while TCP stays open: nothing is sent, nothing is answered."""
        self._stalled = True
        self.outbox.stop()

    def fail(self, operation: str, errors: list[dict[str, Any]]) -> None:
        """End one operation with ``error``."""
        self._end(operation)
        self.outbox.last(self._dialect.error(operation, errors))

    def token_expired(self) -> None:
        """Do what the server does with an open socket whose token expires."""
        self._service.counters.record("expired", socket=self.number)
        match self._settings.on_expiry:
            case "close":
                self.close(4401, "Unauthorized")
            case "error":
                for operation in list(self.operations):
                    self.fail(operation, _UNAUTHORISED)
            case "silence":
                self.outbox.stop_data()

    # Its tasks.

    async def run(self) -> None:
        """Serve until either side ends the connection. Cancelling closes it without a handshake."""
        helpers = (self.outbox.run(), self._close_when_told(), self._stay_alive())
        self._bear(self.token)
        wait = asyncio.get_running_loop().call_later(self._settings.init_timeout, self._init_overdue)
        self._timers.append(wait)
        if self._settings.keepalive is not None:
            # Before the ack, as the service does (subscriptions/websockets).
            self.outbox.urgent(self._dialect.alive)
        try:
            async with asyncio.TaskGroup() as group:
                _, closer, _ = tasks = [group.create_task(helper) for helper in helpers]
                await self._read()
                if self._closing.done():
                    await closer
                for task in tasks:
                    task.cancel()
        finally:
            for timer in self._timers:
                timer.cancel()
            for operation in list(self.operations):
                self._end(operation)
            self.record.closed = asyncio.get_running_loop().time()
            theirs = self._ws.close_code
            told = self._closing.done() and not self._closing.cancelled()
            self.record.close_code = self._closing.result()[0] if told else theirs and int(theirs)

    async def _stay_alive(self) -> None:
        while (interval := self._settings.keepalive) is not None:
            await asyncio.sleep(interval)
            self.outbox.urgent(self._dialect.alive)

    async def _close_when_told(self) -> None:
        code, reason = await self._closing
        try:
            async with asyncio.timeout(CLOSING_HANDSHAKE):
                await self._ws.close(code=code, message=reason.encode())
        except TimeoutError:
            self.abort()

    async def _read(self) -> None:
        while True:
            message = await self._ws.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    if not self._stalled:
                        await self._heed(message.data)
                case WSMsgType.PING:
                    if not self._stalled:
                        await self._ws.pong(message.data)
                case WSMsgType.CLOSE if self._stalled:
                    await self._gone()
                    return
                case WSMsgType.CLOSE:
                    await self._ws.close()
                    return
                case WSMsgType.PONG:
                    pass
                case _:
                    return

    async def _gone(self) -> None:
        """A silent socket answers no close frame either: the client has to drop the connection itself."""
        deadline = asyncio.get_running_loop().time() + 6 * CLOSING_HANDSHAKE
        while asyncio.get_running_loop().time() < deadline:
            transport = self._request.transport
            if transport is None or transport.is_closing() or self._closing.done():
                return
            await asyncio.sleep(0.05)

    # What the client says.

    async def _heed(self, text: str | bytes) -> None:
        message = wire.parse(text)
        if message is None:
            self._invalid("invalid message received", None)
            return
        match message["type"]:
            case "connection_init":
                await self._initialise(message.get("payload"))
            case kind if kind == self._dialect.start:
                await self._start(message)
            case "ping" if self._dialect.modern:
                self.outbox.urgent(wire.frame("pong", payload=message.get("payload")))
            case "pong" if self._dialect.modern:
                pass
            case "complete" | "stop" as kind if kind == "complete" or not self._dialect.modern:
                self._stop(message.get("id"))
            case "connection_terminate" if not self._dialect.modern:
                self.close(1000)
            case _:
                self._invalid("Invalid message type!", message.get("id"))

    def _invalid(self, reason: str, operation: Any) -> None:
        """4400 on the newer subprotocol; the older one answers an error and goes on (src/server.ts)."""
        if self._dialect.modern:
            self.close(4400, reason)
        else:
            identifier = operation if isinstance(operation, str) else None
            self.outbox.urgent(self._dialect.error(identifier, [{"message": reason}]))

    async def _initialise(self, payload: Any) -> None:
        if self._initialised and self._dialect.modern:
            self.close(4429, "Too many initialisation requests")
            return
        if not isinstance(payload, dict | None):
            self._invalid("invalid message received", None)
            return
        self._initialised = True
        await asyncio.sleep(self._settings.slow)
        if self.token is None and "init" in self._settings.token_in:
            self._bear(self._service.tokens.valid(wire.init_token(payload)))
        fault = self._service.ack_fault()
        if fault is None and (self.token is not None or self._settings.refusal == "operation"):
            self._acked = True
            self.outbox.urgent(wire.frame("connection_ack"))
            return
        self._service.counters.record("refusals", of="connection_init", socket=self.number)
        self._refuse(fault or self._settings.refusal)

    def _refuse(self, how: str) -> None:
        match how:
            case "silence":
                pass
            case "connection_error":
                self.outbox.urgent(wire.frame("connection_error", payload={"message": "Unauthorized"}))
                # The reference server of the older subprotocol closes with 1011 a moment after.
                code = 4403 if self._dialect.modern else 1011
                self._timers.append(
                    asyncio.get_running_loop().call_later(0.01, self.close, code, "Unauthorized")
                )
            case "4401":
                self.close(4401, "Unauthorized")
            case _:
                self.close(4403, "Forbidden")

    def _init_overdue(self) -> None:
        if not self._initialised and not self._stalled:
            self.close(4408, "Connection initialisation timeout")

    async def _start(self, message: dict[str, Any]) -> None:
        if self._dialect.modern and not self._acked:
            self.close(4401, "Unauthorized")
            return
        fields = wire.start_fields(message)
        if fields is None:
            self._invalid("invalid message received", message.get("id"))
            return
        operation, document, variables, name = fields
        if operation in self.operations:
            if self._dialect.modern:
                self.close(4409, f"Subscriber for {operation} already exists")
                return
            self._end(operation)
        self._service.counters.record("subscribes", socket=self.number, operation=operation)
        self.record.operations += 1
        if self.token is None:
            self.fail(operation, _UNAUTHORISED)
            return
        try:
            prepared = prepare(document, variables, name)
        except Refusal as refusal:
            self._refuse_document(operation, refusal.errors)
            return
        match habit(document):
            case _ if prepared.kind == "query":
                self._answer(operation, prepared)
            case "shed":
                self._shed()
            case "silent":
                self.operations[operation] = None
            case _:
                self._subscribe(operation, prepared)

    def _refuse_document(self, operation: str, errors: list[dict[str, Any]]) -> None:
        text = str(errors[0].get("message", "")) if errors else ""
        if (
            self._settings.syntax_error == "close"
            and self._dialect.modern
            and text.startswith("Syntax Error")
        ):
            self.close(4500, text[:120])
        else:
            self.fail(operation, errors)

    def _subscribe(self, operation: str, prepared: Prepared) -> None:
        cap = self._settings.cap
        if cap is not None and self._service.emitter.live >= cap:
            self._service.counters.record("refusals", of="subscribes", socket=self.number)
            if self._settings.over_cap == "error":
                self.fail(operation, _OVER_CAP)
            else:
                self.operations[operation] = None
            return
        live = Operation(self, operation, prepared, self._dialect.prefix(operation))
        self.operations[operation] = live
        self._service.emitter.add(live)

    def _answer(self, operation: str, prepared: Prepared) -> None:
        try:
            answer = self._service.answer(prepared)
        except Refusal as refusal:
            self.fail(operation, refusal.errors)
            return
        self.outbox.urgent(wire.frame(self._dialect.next, id=operation, payload=answer))
        self.outbox.urgent(wire.frame("complete", id=operation))

    def _stop(self, operation: Any) -> None:
        if self._dialect.modern:
            if self._settings.honour_complete:
                self._end(operation)
        elif self._settings.honour_stop and operation in self.operations:
            self._end(operation)
            self.outbox.last(wire.frame("complete", id=operation))

    # Book-keeping.

    def _end(self, operation: str) -> None:
        live = self.operations.pop(operation, None)
        if live is not None:
            self._service.emitter.remove(live)

    def _bear(self, token: IssuedToken | None) -> None:
        self.token = token
        if token is not None:
            self.record.token = token.number
            if token.expires_at < math.inf:
                self._await_expiry(token)

    def _await_expiry(self, token: IssuedToken) -> None:
        timer = asyncio.get_running_loop().call_at(token.expires_at, self._check_expiry, token)
        self._timers.append(timer)

    def _check_expiry(self, token: IssuedToken) -> None:
        if token.expired:
            self.token_expired()
        else:
            self._await_expiry(token)  # a loop's timers may be early by its clock's resolution

    def _data_sent(self) -> None:
        self.record.messages += 1
        self.record.last_data = asyncio.get_running_loop().time()
        if self.token is not None and self.token.expired:
            self.record.served_past_expiry = True

    def _shed(self) -> None:
        """The service sheds a reader that is too slow (subscriptions/silent-disconnect-reconnect)."""
        self._service.counters.record("shed", socket=self.number)
        self.close(1013, _SLOW)
