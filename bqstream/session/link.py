"""One WebSocket connection from dial to close, bearing one token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from ..clock import Clock
from ..config import Timeouts
from ..credentials.token import HeldToken
from ..protocol.machine import Acked, Alive, Broken, Completed, Errored, Event, Machine, Next
from ..protocol.verdicts import Action, Kind, Verdict
from ..transport.base import Closed, Connection
from .operation import Operation

# Frames for operations that were stopped: so many show that the service did not honour the stop, and only another
# link ends them (docs: subscriptions/websockets).
STRAY_FRAMES = 64
# A longer silence than this, in seconds, is not granted to a server that asks for it.
LONGEST_IDLE = 3600.0
# ``timeouts.block`` is counted in so many steps, each of which is one however late it comes: while the program stands
# still nobody can read. They are never more, so that a program that is always late does not keep its link from reading.
BLOCK_STEPS = 8


@dataclass(slots=True)
class Entry:
    """One operation as it runs on one link; ``messages`` counts what it brought here."""

    operation: Operation
    id: str
    started: float
    messages: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a link ended. ``expected``: it was closed from here."""

    verdict: Verdict
    stalled: float | None = None
    expected: bool = False


class Owner(Protocol):
    """What a link tells its supervisor, synchronously."""

    def changed(self) -> None: ...
    def operation_errored(self, link: Link, entry: Entry, errors: tuple[dict[str, Any], ...]) -> None: ...
    def operation_completed(self, link: Link, entry: Entry) -> None: ...
    def blame(self, link: Link, verdict: Verdict) -> Verdict: ...


@dataclass(slots=True)
class _Pressure:
    """Which operations' full buffers keep the link from reading, and since when."""

    operations: dict[int, Operation] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class Link:
    """A connection, the machine that speaks its subprotocol, and the operations that run on it.

    ``run()`` is called once, by the link's one owner, and ends when the connection has. Everything else is plain
    and may be called at any time; after the end it does nothing.
    """

    def __init__(
        self,
        number: int,
        held: HeldToken,
        connection: Connection,
        machine: Machine,
        owner: Owner,
        *,
        timeouts: Timeouts,
        clock: Clock,
    ) -> None:
        self.number = number
        self.held = held
        self.machine = machine
        self.opened = clock.monotonic()
        self.messages = 0
        self.entries: dict[str, Entry] = {}
        self.running: dict[int, Entry] = {}
        self.acked = False
        self.ended = False
        self.ending: Ending | None = None
        self.rotation_due = False
        self.capped = False  # the service said that the plan's cap keeps an operation from running here
        self._connection = connection
        self._owner = owner
        self._timeouts = timeouts
        self._idle = timeouts.idle
        self._now: Callable[[], float] = clock.monotonic
        date = connection.date
        self._ahead = (clock.wall() if date is None else date) - self.opened
        self._life = self.opened
        self._beats = False
        self._pressure = _Pressure()
        self._broken: Verdict | None = None
        self._broken_code = 1000
        self._ack = asyncio.Event()
        self._breaking = asyncio.Event()
        self._closing = False
        self._stalled: float | None = None
        self._first_stray: float | None = None

    def __repr__(self) -> str:
        return f"<Link {self.number}, {len(self.running)} operations>"

    def served(self) -> float:
        """The service's time, in seconds since the epoch, as its answer to the dial tells it; else our own."""
        return self._now() + self._ahead

    def lived(self) -> float:
        """Seconds since it was opened."""
        return self._now() - self.opened

    # ------------------------------------------------------------------ the connection's life

    async def run(self, init_payload: Mapping[str, Any] | None) -> Ending:
        """Say ``connection_init`` and read until the connection ends. Cancelling drops it."""
        try:
            self._connection.send(self.machine.init(init_payload))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch)
                tasks.start_soon(self._close_when_broken)
                closed = await self._connection.run(self._receive)
                tasks.cancel_scope.cancel()
            self.ending = self._judge(closed)
            return self.ending
        finally:
            self._release_pressure()
            self._connection.abort()
            self.ended = True
            self._owner.changed()

    def _judge(self, closed: Closed) -> Ending:
        if self._closing:
            return Ending(
                Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why="closed by us"), expected=True
            )
        if self._broken is not None:
            return Ending(self._broken, stalled=self._stalled)
        return Ending(self.machine.closed(closed.code, closed.reason))

    async def _watch(self) -> None:
        """The deadlines: the ack, then a sign of life every ``timeouts.idle`` seconds.

        Half-way it asks for one: with a ``ping`` of the subprotocol, or, where that has none, with a WebSocket
        ping, whose pong counts until the server has shown that it beats by itself (protocol.md, item 25). A silence
        that nobody could ask into, since the program stood still, proves nothing: it asks first, and waits.
        """
        with anyio.move_on_after(self._timeouts.ack):
            await self._ack.wait()
        if not self.acked:
            why = f"no connection_ack within {self._timeouts.ack:g} s"
            self._break(4504, Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why=why, code=4504))
            return
        asked: float | None = None  # the sign of life after which one was asked for …
        answer_by = 0.0  # … and until when it may come
        while True:
            if self._pressure.operations:  # the idle clock stands still while we do not read
                self._life = self._now()
            quiet = self._now() - self._life
            if asked == self._life and self._now() >= answer_by:
                self._stalled = quiet
                why = f"no sign of life for {quiet:.1f} s"
                self._broken = Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why=why)
                self._connection.abort()
                return
            if quiet >= self._idle / 2 and asked != self._life:
                asked, answer_by = self._life, self._now() + self._idle / 2
                await self._ask()
                continue
            due = answer_by if asked == self._life else self._life + self._idle / 2
            await asyncio.sleep(max(due - self._now(), 0.001))

    async def _ask(self) -> None:
        frame = self.machine.ping()
        if frame is not None:
            self._connection.send(frame)
        elif not self._beats:
            with anyio.move_on_after(self._idle / 2):
                try:
                    await self._connection.ping()
                except ConnectionError:
                    return
                self._life = self._now()

    def want_rotation(self) -> None:
        """Another link should take over: a newer token is there, or operations run on that were stopped."""
        self.rotation_due = True
        self._owner.changed()

    async def round_trip(self) -> float | None:
        """Send a WebSocket ping and give the time its pong came in; ``None`` when the connection ends first."""
        try:
            await self._connection.ping()
        except ConnectionError:
            return None
        return self._now()

    async def close(self) -> None:
        """Close politely within ``timeouts.close``; cancelling drops the connection. Idempotent."""
        if self._closing or self.ended:
            return
        self._closing = True
        self._release_pressure()
        for frame in self.machine.terminate():
            self._connection.send(frame)
        await self._connection.close(1000, timeout=self._timeouts.close)

    def abort(self) -> None:
        """Drop the connection without a word; ``run()`` then ends."""
        self._closing = True
        self._connection.abort()

    def _break(self, code: int, verdict: Verdict) -> None:
        """The connection is of no more use: have it closed with ``code``."""
        if self._broken is None:
            self._broken = verdict
            self._broken_code = code
            self._breaking.set()

    async def _close_when_broken(self) -> None:
        await self._breaking.wait()
        await self._connection.close(self._broken_code, timeout=self._timeouts.close)

    # ------------------------------------------------------------------ operations

    def start(self, operation: Operation, *, grace: float) -> bool:
        """Subscribe ``operation`` here. False where it runs here already, or the link is being closed."""
        if operation.key in self.running or self._closing or self.ended:
            return False
        now = self._now()
        name, frame = self.machine.subscribe(operation.request)
        self.entries[name] = self.running[operation.key] = Entry(operation, name, now)
        self._connection.send(frame)  # first: the receiver may have the operation removed at once
        operation.receiver.joined(self.number, now, grace=grace, served=self.served())
        return True

    def stop(self, operation: Operation) -> None:
        """Unsubscribe ``operation``; nothing that still comes for it is passed on."""
        entry = self.forget(operation)
        if entry is not None:
            for frame in self.machine.unsubscribe(entry.id):
                self._connection.send(frame)

    def forget(self, operation: Operation) -> Entry | None:
        """``operation`` is over here, without a word to the service."""
        entry = self.running.pop(operation.key, None)
        if entry is not None:
            del self.entries[entry.id]
            if entry.messages:
                operation.served, operation.refusals = True, 0
            self.has_room(operation)
        return entry

    def clear(self) -> list[Entry]:
        """Every operation is over here; gives what ran."""
        entries = list(self.entries.values())
        for entry in entries:
            self.forget(entry.operation)
        return entries

    # ------------------------------------------------------------------ frames in

    def _receive(self, frames: list[bytes], binary: bool) -> None:
        now = self._life = self._now()
        events = (
            [self.machine.receive(frame, binary=True) for frame in frames]
            if binary
            else self.machine.read(frames)
        )
        for event in events:
            if self._broken is not None:
                return
            if type(event) is Next:
                entry = self.entries.get(event.id)
                if entry is not None:
                    entry.messages += len(event.payloads)
                    self.messages += len(event.payloads)
                    room = entry.operation.receiver.payloads(self.number, event.payloads, now)
                    if (
                        not room and event.id in self.entries
                    ):  # it may have been stopped by what it was handed
                        self._press(entry.operation)
            else:
                self._told(event, now)

    def _told(self, event: Event, now: float) -> None:
        """Anything but payloads."""
        match event:
            case Alive(reply, keepalive):
                self._beats = self._beats or keepalive
                if reply is not None:
                    self._connection.send(reply)
                self._count_strays(now)
            case Acked(payload):
                # AWS AppSync's guide: the server promises a keep-alive within this many milliseconds.
                timeout = payload.get("connectionTimeoutMs")
                if isinstance(timeout, int | float) and 1000 <= timeout <= LONGEST_IDLE * 1000:
                    self._idle = timeout / 1000
                self.acked = True
                self._ack.set()
                self._owner.changed()
            case Errored(name, errors):
                if (entry := self.entries.get(name)) is not None:
                    self.forget(entry.operation)
                    self._owner.operation_errored(self, entry, errors)
            case Completed(name):
                if (entry := self.entries.get(name)) is not None:
                    self.forget(entry.operation)
                    self._owner.operation_completed(self, entry)
            case Broken(code, verdict):
                self._break(code, verdict)

    def _count_strays(self, now: float) -> None:
        """Many frames for what was stopped, long after the first: the service has not stopped it. What comes within
        a grace was on its way."""
        if not self.machine.stray or self.rotation_due:
            return
        if self._first_stray is None:
            self._first_stray = now
        if self.machine.stray >= STRAY_FRAMES and now - self._first_stray >= self._timeouts.grace:
            self.want_rotation()

    # ------------------------------------------------------------------ back-pressure

    def _press(self, operation: Operation) -> None:
        """A buffer is full: stop reading, for ``timeouts.block`` at most, and then park what is still full.

        A time in which the program stood still proves no reader slow: it counts as a step of many.
        """
        pressure = self._pressure
        if operation.key in pressure.operations or self._closing:
            return
        pressure.operations[operation.key] = operation
        self._connection.pause_reading()
        if pressure.timer is None:
            self._block(BLOCK_STEPS)

    def _block(self, steps: int) -> None:
        """So many steps are left until what is still full is parked."""
        if steps:
            step = self._timeouts.block / BLOCK_STEPS
            self._pressure.timer = asyncio.get_running_loop().call_later(step, self._block, steps - 1)
            return
        self._pressure.timer = None
        for operation in list(self._pressure.operations.values()):
            operation.receiver.park(self._now())
        self._release_pressure()

    def has_room(self, operation: Operation) -> None:
        """``operation``'s buffer has room again: read on, unless another one is still full."""
        if self._pressure.operations.pop(operation.key, None) is not None and not self._pressure.operations:
            self._release_pressure()

    def _release_pressure(self) -> None:
        if self._pressure.timer is not None:
            self._pressure.timer.cancel()
        self._pressure = _Pressure()
        self._life = self._now()
        self._connection.resume_reading()
