"""The session's surroundings in memory: a service that is scripted, a keeper, receivers that keep book.

No socket, no thread, and no time but the loop's: under ``virtual_time`` whatever happens here happens the same way
every time. The session is real, and so are the machines that speak the subprotocols.

    @virtual_time
    async def test_something():
        async with world() as w:
            operation = w.add()                 # the session dials, says connection_init, subscribes
            await settle()                      # all that can happen now has happened
            w.service.publish("1")              # every live operation on every open socket gets {"data":1}
            await settle()
            assert w.heard(operation) == ["1"]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, TypeVar

from bqstream import events
from bqstream.clock import Clock
from bqstream.config import Backoff, Timeouts
from bqstream.credentials.token import HeldToken, Token
from bqstream.endpoints import Endpoint
from bqstream.errors import BqstreamError
from bqstream.message import Crossed, GapCause
from bqstream.protocol import LEGACY, request
from bqstream.session.dialer import Dialer, Network, Subprotocol
from bqstream.session.links import Shared
from bqstream.session.operation import Operation
from bqstream.session.session import Session
from bqstream.session.supervisor import Supervisor
from bqstream.transport.base import Closed, DialError, Receive, Target
from tests.virtual_time import virtual_clock

Frame = dict[str, Any]
Script = Callable[["Socket", Frame], None]
EventType = TypeVar("EventType", bound=events.Event)

TIMEOUTS = Timeouts(connect=10, ack=10, idle=10, grace=5, block=2, close=2)
BACKOFF = Backoff(initial=1, maximum=60, jitter=0)
ENDPOINT = Endpoint.parse("wss://service.test/graphql")
LIFETIME = 600.0


async def settle() -> None:
    """Let happen whatever can happen without time passing (but for a microsecond)."""
    await asyncio.sleep(1e-6)


def polite(socket: Socket, frame: Frame) -> None:
    """How a good service answers: an ack to ``connection_init``, a pong to a ping. Data is up to the test."""
    match frame["type"]:
        case "connection_init":
            socket.say("connection_ack")
        case "ping":
            socket.say("pong")


def mute(socket: Socket, frame: Frame) -> None:
    """How a service answers that does not."""


class Socket:
    """One connection, both ends: the session has it as a ``Connection``, the test speaks for the service.

    Attributes:
        heard: every frame that the client sent, decoded.
        live: the query of every operation that was started and not stopped, by its id.
        answers_pings, answers_close: of RFC 6455; a socket that does neither is dead, though open.
        goodbye: the code by which the client began to close; ``None`` if it did not.
        ended_at: the loop's time when the connection was over.
    """

    def __init__(self, number: int, target: Target, subprotocol: str | None, script: Script) -> None:
        self.number = number
        self.target = target
        self.subprotocol = subprotocol
        self.date: float | None = None
        self.script = script
        self.heard: list[Frame] = []
        self.live: dict[str, str] = {}
        self.answers_pings = True
        self.answers_close = True
        self.pings = 0
        self.paused = False
        self.goodbye: int | None = None
        self.ended_at: float | None = None
        self._inbox: deque[tuple[bytes, bool] | Closed] = deque()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._closed: Closed | None = None

    # ------------------------------------------------------------------ the service's end

    @property
    def open(self) -> bool:
        return not self._ended.is_set()

    @property
    def words(self) -> list[str]:
        """The types of the frames that were heard."""
        return [frame["type"] for frame in self.heard]

    def id_of(self, operation: Operation) -> str:
        """The id under which ``operation`` runs here."""
        query = json.loads(operation.request)["query"]
        return next(name for name, running in self.live.items() if running == query)

    def say(self, word: str, name: str | None = None, payload: Any = None) -> None:
        frame = {"type": word, "id": name, "payload": payload}
        self.say_raw(json.dumps({key: value for key, value in frame.items() if value is not None}).encode())

    def say_raw(self, frame: bytes, binary: bool = False) -> None:
        self._arrive((frame, binary))

    def data(self, operation: Operation, value: str = "1") -> None:
        """One payload for ``operation``; ``value`` is JSON text."""
        word = "data" if self.subprotocol == LEGACY else "next"
        self.say_raw(
            f'{{"type":"{word}","id":"{self.id_of(operation)}","payload":{payload(value)}}}'.encode()
        )

    def error(self, operation: Operation, message: str) -> None:
        name = self.id_of(operation)
        del self.live[name]
        self.say("error", name, [{"message": message}])

    def complete(self, operation: Operation) -> None:
        name = self.id_of(operation)
        del self.live[name]
        self.say("complete", name)

    def shut(self, code: int = 1006, reason: str = "") -> None:
        """The service closes the connection, or, with 1006, it breaks."""
        self._arrive(Closed(code, reason))

    def _arrive(self, what: tuple[bytes, bool] | Closed) -> None:
        self._inbox.append(what)
        self._changed.set()

    # ------------------------------------------------------------------ the client's end (Connection)

    async def run(self, receive: Receive) -> Closed:
        try:
            while self._closed is None:
                while self._inbox and self._closed is None and not self.paused:
                    match self._inbox.popleft():
                        case Closed() as closed:
                            self._closed = closed
                        case frame, binary:
                            receive([frame], binary)
                if self._closed is None:
                    self._changed.clear()
                    await self._changed.wait()
            return self._closed
        finally:
            self._end()

    def send(self, frame: bytes) -> None:
        if not self.open or self.goodbye is not None:
            return
        decoded = json.loads(frame)
        self.heard.append(decoded)
        match decoded:
            case {"type": "subscribe" | "start", "id": name, "payload": payload}:
                assert name not in self.live, "an id is used twice"
                self.live[name] = payload["query"]
            case {"type": "complete" | "stop", "id": name}:
                self.live.pop(name, None)
        self.script(self, decoded)

    async def ping(self) -> None:
        self.pings += 1
        await asyncio.sleep(0)
        if not (self.answers_pings and self.open):
            await self._ended.wait()
            raise ConnectionError("the connection ended before the pong came")

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self._changed.set()

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        self.goodbye = code if self.goodbye is None else self.goodbye
        self.live.clear()
        if self.paused:
            self._inbox.clear()
            self.resume_reading()
        if self.answers_close:
            self._arrive(Closed(code))
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        self._closed = self._closed or Closed(1006)
        self._end()

    def _end(self) -> None:
        if self.open:
            self.ended_at = asyncio.get_running_loop().time()
        self.live.clear()
        self._ended.set()
        self._changed.set()


def payload(value: str) -> str:
    return f'{{"data":{value}}}'


class Service:
    """The engine that the session dials with, and the service behind it.

    Attributes:
        sockets: every connection that came about, in order; ``targets``: every dial.
        refusals: what the next dials raise, one each.
        scripts: how the next sockets answer, one each; then ``script``.
        chooses: the subprotocol that the server picks from what is offered.
        latency: how long a dial takes, in seconds.
    """

    name = "memory"

    def __init__(self, script: Script = polite) -> None:
        self.sockets: list[Socket] = []
        self.targets: list[Target] = []
        self.refusals: deque[DialError] = deque()
        self.scripts: deque[Script] = deque()
        self.script = script
        self.chooses: Callable[[tuple[str, ...]], str | None] = lambda offered: offered[0]
        self.latency = 0.0

    async def dial(self, target: Target) -> Socket:
        self.targets.append(target)
        await asyncio.sleep(self.latency)
        if self.refusals:
            raise self.refusals.popleft()
        script = self.scripts.popleft() if self.scripts else self.script
        socket = Socket(len(self.sockets) + 1, target, self.chooses(target.subprotocols), script)
        self.sockets.append(socket)
        return socket

    @property
    def open(self) -> list[Socket]:
        return [socket for socket in self.sockets if socket.open]

    @property
    def newest(self) -> Socket:
        return self.sockets[-1]

    def publish(self, value: str = "1") -> None:
        """``value`` (JSON text) comes for every live operation, on every socket that it runs on."""
        for socket in self.open:
            word = "data" if socket.subprotocol == LEGACY else "next"
            for name in list(socket.live):
                socket.say_raw(f'{{"type":"{word}","id":"{name}","payload":{payload(value)}}}'.encode())


class FakeKeeper:
    """A keeper whose tokens the test hands out. ``renews``: a refused token is replaced at once."""

    def __init__(self, clock: Clock, lifetime: float | None = LIFETIME) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._changed = asyncio.Event()
        self._error: BqstreamError | None = None
        self.generation = 0
        self.held: HeldToken | None = None
        self.renews = True
        self.refusals: list[tuple[int, str]] = []  # generation and reason
        self.proved: list[int] = []
        self.renew()

    def renew(self, lifetime: float | None = None) -> HeldToken:
        """A new token is in hand; ``lifetime`` in seconds if not the usual one."""
        self.generation += 1
        token = Token(f"token-{self.generation}", self._lifetime if lifetime is None else lifetime)
        self.held = HeldToken(token, self.generation, self._clock.monotonic(), self._clock.wall())
        self._tell()
        return self.held

    def fail(self, error: BqstreamError) -> None:
        """No token can ever be had again."""
        self._error, self.held = error, None
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def current(self) -> HeldToken:
        return await self._newer_than(-1)

    async def newer(self, than: HeldToken) -> HeldToken:
        return await self._newer_than(than.generation)

    async def _newer_than(self, generation: int) -> HeldToken:
        while self._error is None:
            if self.held is not None and self.held.generation > generation:
                return self.held
            await self._changed.wait()
        raise self._error

    def refused(self, held: HeldToken, why: str, *, sure: bool = True) -> None:
        self.refusals.append((held.generation, why))
        if self.held is held:
            self.held = None
            if self.renews:
                self.renew()

    def worked(self, held: HeldToken) -> None:
        self.proved.append(held.generation)


class Recorder:
    """A receiver that keeps book, and that fails the test where the session breaks the receiver's rules.

    Attributes:
        sources: the links that feed it now, oldest first.
        calls: what it was told, but for payloads: ("joined", 1), ("lost", 1, "lost"), ("cross", 2), …
        payloads: what came in, as (source, JSON text of the data).
        room: what ``payload`` answers. has_crossed: what ``crossed`` answers.
    """

    def __init__(self) -> None:
        self.sources: list[int] = []
        self.calls: list[tuple[Any, ...]] = []
        self.brought: list[tuple[int, str]] = []
        self.room = True
        self.has_crossed = False
        self.asked: list[tuple[int, float | None]] = []
        self.graces: list[float] = []
        self.ended: Exception | Literal["completed"] | None = None

    def joined(self, source: int, now: float, *, grace: float, served: float) -> None:
        self._told("joined", source)
        assert source not in self.sources, f"started twice on link {source}"
        self.sources.append(source)
        self.graces.append(grace)

    def payloads(self, source: int, raws: Sequence[bytes], now: float) -> bool:
        assert self.ended is None, "a payload after the end"
        assert source in self.sources, f"a payload of link {source}, which feeds {self.sources}"
        self.brought += [(source, raw.decode().removeprefix('{"data":').removesuffix("}")) for raw in raws]
        return self.room

    def crossed(self, source: int, now: float, *, beaten: float | None) -> bool:
        assert source in self.sources
        self.asked.append((source, beaten))
        return self.has_crossed

    def cross(self, source: int, now: float) -> Crossed:
        self._told("cross", source)
        assert source in self.sources
        self.sources = [number for number in self.sources if number >= source]
        return Crossed(self.has_crossed, 0)

    def lost(self, source: int, now: float, why: str, *, cause: GapCause = "lost") -> None:
        self._told("lost", source, cause)
        self.sources.remove(source)

    def park(self, now: float) -> None:
        self._told("park")
        self.room = True

    def completed(self, now: float) -> None:
        self._told("completed")
        self.ended = "completed"

    def failed(self, error: Exception, now: float) -> None:
        self._told("failed", type(error))
        self.ended = error

    def _told(self, *call: Any) -> None:
        assert self.ended is None, f"{call} after the end"
        self.calls.append(call)


def recorder(operation: Operation) -> Recorder:
    """The receiver of an operation that a ``World`` made."""
    assert isinstance(operation.receiver, Recorder)
    return operation.receiver


class World:
    """A session, the service that it dials, its keeper, and all that it told."""

    def __init__(
        self,
        *,
        connections: int = 1,
        mode: Literal["overlap", "replace"] = "overlap",
        subprotocol: Subprotocol = "auto",
        lifetime: float | None = LIFETIME,
        timeouts: Timeouts = TIMEOUTS,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.clock = virtual_clock()
        self.service = Service()
        self.keeper = FakeKeeper(self.clock, lifetime)
        self.events: list[events.Event] = []
        self.made = 0
        dialer = Dialer(self.service, ENDPOINT, ("header",), subprotocol, Network(timeout=timeouts.connect))
        shared = Shared(
            dialer=dialer,
            keeper=self.keeper,
            timeouts=timeouts,
            backoff=backoff,
            clock=self.clock,
            on_event=self.events.append,
            mode=mode,
        )
        self.session = Session(shared, connections)

    @property
    def supervisor(self) -> Supervisor:
        return self.session.supervisors[0]

    def operation(self) -> Operation:
        """A new operation, not yet added; each has another query."""
        self.made += 1
        return Operation(self.made, request(f"subscription {{ cube{self.made} }}"), Recorder())

    def add(self) -> Operation:
        operation = self.operation()
        self.session.add(operation)
        return operation

    def remove(self, operation: Operation) -> None:
        """What a subscription's ``aclose`` does."""
        self.session.remove(operation)

    def told(self, kind: type[EventType]) -> list[EventType]:
        """Every event of ``kind`` so far."""
        return [event for event in self.events if isinstance(event, kind)]


@contextlib.asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[World]:
    """A ``World`` (its keywords) whose session runs; at the end it is cancelled, and must leave nothing open."""
    made = World(**settings)
    running = asyncio.create_task(made.session.run())
    try:
        yield made
        assert not running.done(), f"the session ended by itself: {running}"
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert not made.service.open, f"sockets are left open: {made.service.open}"
