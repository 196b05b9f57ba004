"""Carries out a schedule's faults on a running simulator and on the readers, and takes them back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from bqstream import Subscription
from bqstream.events import Connected, Event
from bqstream.simulator import Simulator
from bqstream.simulator.settings import Settings

from .schedule import Fault

PATIENCE = 4.0  # seconds after which a socket that is open and silent is dropped by the service
NO_LINK = 3.0  # seconds that a fault waits for a link to connect; then it comes without
LONG = 17_999.0
LOOK = 0.5


class Gate:
    """Where a reader waits while it is parked; parks may overlap."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._parks = 0

    async def passed(self) -> None:
        await self._open.wait()

    def park(self, by: int) -> None:
        self._parks = max(0, self._parks + by)
        if self._parks:
            self._open.clear()
        else:
            self._open.set()


class Reads(Protocol):
    """A reader, as a fault has to do with it."""

    gate: Gate
    subscription: Subscription | None


class Inflictor:
    """One run's faults. ``told`` is called with a line for each thing done.

    A subscription that the service keeps silent on a socket that beats (a stall of data, the plan's cap, an expiry
    that silences) cannot be told from a quiet one, so nobody can promise its rows while it lasts. After `PATIENCE`
    the service drops such a socket, and what was published meanwhile is owed like after any drop.
    """

    def __init__(self, simulator: Simulator, readers: Sequence[Reads], told: Callable[[str], None]) -> None:
        self._simulator = simulator
        self._readers = readers
        self._told = told
        self._link = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._healed = False
        self._silent: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()
        self.inflicted = 0

    async def run(self, faults: Iterable[Fault]) -> None:
        """Inflict each in its time, counted from now."""
        start = self._loop.time()
        self._start(self._drop_silent_sockets())
        for fault in faults:
            await asyncio.sleep(start + fault.at - self._loop.time())
            self._start(self._inflict(fault))

    def on_event(self, event: Event) -> None:
        """What waited for a link comes now."""
        if isinstance(event, Connected):
            link, self._link = self._link, asyncio.Event()
            link.set()

    def heal(self) -> None:
        """No fault from now on: whatever lasts is taken back, tokens live long, so that no hand-over is due, and what
        waits for a reader has room."""
        self._healed = True
        faults, settings = self._simulator.faults, self._simulator.settings
        settings.token_ttl, settings.queue_messages = LONG, Settings().queue_messages
        faults.on_expiry("nothing")
        faults.token_endpoint("ok")
        faults.cap(None)
        faults.slow(0)
        faults.resume()
        for refuse in (faults.refuse_dials, faults.refuse_queries, faults.refuse_acks):
            refuse(count=0)
        for reader in self._readers:
            reader.gate.park(-99)
            if reader.subscription is not None:
                self._start(reader.subscription.resume())
        self._told("healed")

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def _start(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _inflict(self, fault: Fault) -> None:
        if fault.after_link is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NO_LINK):
                    await self._link.wait()
            await asyncio.sleep(fault.after_link)
        if self._healed:
            return
        try:
            self._do(fault, dict(fault.arguments))
        except (LookupError, ValueError) as error:  # no socket is open, or the chain is too short for a fork
            self._told(f"in vain: {fault}: {error}")
            return
        self.inflicted += 1
        self._told(f"fault: {fault}")
        if fault.lasts:
            await asyncio.sleep(fault.lasts)
            if not self._healed:
                self._undo(fault)
                self._told(f"over: {fault.name}")

    def _do(self, fault: Fault, arguments: dict[str, Any]) -> None:
        faults = self._simulator.faults
        match fault.name:
            case "close" | "abort" | "stall" | "garbage" | "oversize" | "errors":
                getattr(faults, fault.name)(**arguments, socket=self._socket(fault.on))
            case "silence":
                faults.stall(data_only=True, socket=self._socket(fault.on))
            case "stand_still":
                faults.pause()
            case "park":
                self._reader(fault).gate.park(1)
            case "pause":
                self._start(self._subscription(fault).pause())
            case name:
                getattr(faults, name)(**arguments)

    def _undo(self, fault: Fault) -> None:
        faults = self._simulator.faults
        match fault.name:
            case "token_endpoint":
                faults.token_endpoint("ok")
            case "slow":
                faults.slow(0)
            case "cap":
                faults.cap(None)
            case "stand_still":
                faults.resume()
            case "park":
                self._reader(fault).gate.park(-1)
            case "pause":
                self._start(self._subscription(fault).resume())

    def _reader(self, fault: Fault) -> Reads:
        number: int = dict(fault.arguments)["reader"]
        return self._readers[number % len(self._readers)]

    def _subscription(self, fault: Fault) -> Subscription:
        """Raises LookupError before it is subscribed."""
        subscription = self._reader(fault).subscription
        if subscription is None:
            raise LookupError("it is not subscribed yet")
        return subscription

    def _socket(self, which: str) -> int | None:
        """None for all of them. Raises LookupError where none is open."""
        numbers = sorted(
            record.number for record in self._simulator.counters.sockets if record.closed is None
        )
        if not numbers:
            raise LookupError("no socket is open")
        return {"all": None, "newest": numbers[-1], "oldest": numbers[0]}[which]

    async def _drop_silent_sockets(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            now = self._loop.time()
            found = {
                number
                for number, opened in self._simulator._service.open.items()
                if not opened.outbox._data_open or None in opened.operations.values()
            }
            self._silent = {number: self._silent.get(number, now) for number in sorted(found)}
            for number, since in self._silent.items():
                if now - since >= PATIENCE:
                    self._told(f"the silent socket {number} is dropped")
                    self._simulator.faults.abort(socket=number)
