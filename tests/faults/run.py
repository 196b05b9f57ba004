"""Plays a schedule: faults, then healing, then quiet, and the ledger's word on every reader.

outcome = play(schedule_of(7), strict=True)
assert not outcome.failures, outcome.report()
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from bqstream import Client, ClientCredentials, Gap, ShortTermToken
from bqstream.errors import PlanError
from bqstream.events import Connected, Event, GapNamed, HandedOver, Paused
from bqstream.simulator import Simulator
from bqstream.subscription import Subscription
from tests.memory_network import MemoryLoop
from tests.virtual_time import virtual_clock

from . import judge
from .inflict import LONG, Gate, Inflictor
from .schedule import Reading, Schedule
from .world import run_seeded

QUIET_WITHIN = 240.0  # seconds after the last fault: what a client may need to be quiet about gaps
LONGEST_HANDLER = 20.0  # seconds for which a handler of the simulator may sleep
TRIES = 6  # how often the chain is stopped to look whether all has come
# Strict as soon as the client closes gaps by queries; until then what is lost need only be named.
STRICT = hasattr(Subscription, "closing")


@dataclass
class Outcome:
    """What a run came to. ``digest`` stands for every event, message and row with its time."""

    schedule: Schedule
    strict: bool
    failures: list[str] = field(default_factory=list)
    judgements: list[judge.Judgement] = field(default_factory=list)
    gaps: dict[str, tuple[Gap, ...]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    virtual: float = 0.0
    real: float = 0.0

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()[:16]

    @property
    def command(self) -> str:
        return f"python -m tests.faults {self.schedule.seed}" + ("" if self.strict else " --loose")

    def line(self) -> str:
        figures = ", ".join(f"{value} {name}" for name, value in self.figures.items())
        return (
            f"seed {self.schedule.seed}: {figures}; {self.virtual:.0f} s in {self.real:.2f} s, {self.digest}"
        )

    def report(self) -> str:
        """Everything but the log, which the command prints."""
        lines = [str(self.schedule), "", self.line(), *map(str, self.judgements)]
        lines += [f"    {example}" for one in self.judgements for example in one.examples]
        lines += ["", *(f"FAILED {failure}" for failure in self.failures), f"again: {self.command}"]
        return "\n".join(lines)


def play(schedule: Schedule, *, strict: bool = STRICT) -> Outcome:
    """In memory and in virtual time: the same for the same schedule."""
    outcome = Outcome(schedule, strict)
    began = time.perf_counter()
    with _watched(outcome):
        try:
            run_seeded(schedule.seed, lambda: _bounded(outcome))
        except asyncio.CancelledError:
            outcome.failures.append("the run was ended: it went on working without letting any time pass")
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed is to be told
            outcome.failures.append(f"the run failed: {type(error).__name__}: {error}")
    outcome.real = time.perf_counter() - began
    return outcome


async def play_for_real(schedule: Schedule, *, strict: bool = STRICT) -> Outcome:
    """On real sockets and in real time, in the running loop."""
    outcome = Outcome(schedule, strict)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(schedule.seconds + 2 * QUIET_WITHIN):
            await Run(outcome).play()
    except Exception as error:  # noqa: BLE001
        outcome.failures.append(f"the run failed: {type(error).__name__}: {error}")
    outcome.real = outcome.virtual = time.perf_counter() - began
    return outcome


async def _bounded(outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MemoryLoop)
    chance = random.Random(f"{outcome.schedule.seed} latency")
    low, high = outcome.schedule.latency
    loop.latency = (lambda: chance.uniform(low, high)) if high else None
    loop.set_exception_handler(
        lambda loop, context: outcome.failures.append(f"an exception nobody caught: {context}")
    )
    task = asyncio.current_task()
    assert task is not None
    loop.on_spin = task.cancel
    async with asyncio.timeout(outcome.schedule.seconds + 3 * QUIET_WITHIN):
        await Run(outcome).play()
    outcome.virtual = loop.time()
    outcome.failures += [f"a task is left: {task}" for task in _tasks() if not _serves(task)]
    await asyncio.sleep(LONGEST_HANDLER)
    outcome.failures += [f"a task is left: {task}" for task in _tasks()]
    outcome.failures += [f"a connection is left: {transport}" for transport in loop.open]


def _tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def _serves(task: asyncio.Task[Any]) -> bool:
    """Whether it is one of aiohttp's server: those that sleep, as a slow answer does, outlive the simulator a while."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("RequestHandler.")


@contextlib.contextmanager
def _watched(outcome: Outcome) -> Iterator[None]:
    """Errors that somebody logged are failures."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            if record.name == "aiohttp.server" and isinstance(error, ConnectionError):
                return  # a request that was reset while it came in
            outcome.failures.append(f"logged by {record.name}: {self.format(record)}")

    handler = Handler(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class Reader:
    """Reads one subscription until it is left; ``gate`` parks it."""

    def __init__(self, reading: Reading, run: Run) -> None:
        self.reading = reading
        self.gate = Gate()
        self.subscription: Subscription | None = None
        self.rows: list[Any] = []
        self.replayed: list[Any] = []
        self.error: Exception | None = None
        self.over = False
        self.account: judge.Account | None = None
        self.live = (
            math.inf
        )  # when the promise began: at the first message, or a grace after it was subscribed
        self._run = run

    def __str__(self) -> str:
        return self.reading.document.name

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return self.subscription.gaps if self.subscription is not None else ()

    @property
    def quiet(self) -> bool:
        """Whether it is live, and no gap of it is being closed."""
        return self.over or (
            self.subscription is not None and not getattr(self.subscription, "closing", False)
        )

    @property
    def refused(self) -> bool:
        """Whether it never was live, since the plan's cap let it not be: then nothing was promised."""
        return isinstance(self.error, PlanError) and not self.rows

    async def read(self, client: Client) -> None:
        document = self.reading.document
        await asyncio.sleep(self.reading.at)
        try:
            async with client.subscribe(
                document.text, dict(document.variables) or None, buffer=self.reading.buffer
            ) as subscription:
                self.subscription = subscription
                self.live = self._run.now() + client._timeouts.grace
                await self._read(subscription)
        except Exception as error:  # noqa: BLE001 - it is judged like a lost row
            self.error = error
        self.over = True

    async def _read(self, subscription: Subscription) -> None:
        async for message in subscription:
            self.live = min(self.live, self._run.now())
            await self.gate.passed()
            rows = list(message.rows())
            self.rows += rows
            if message.replayed:
                self.replayed += rows
            content = hashlib.blake2b(message.raw, digest_size=6).hexdigest()
            self._run.note(
                f"{self}: {len(rows)} rows{' replayed' * message.replayed} on link {message.link} {content}"
            )


class Run:
    """One schedule, played in the running loop."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._schedule = outcome.schedule
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._inflictor: Inflictor | None = None
        self._short: ShortTermToken | None = None
        self._readers = [Reader(reading, self) for reading in self._schedule.readings]

    def now(self) -> float:
        return self._loop.time()

    def note(self, line: str) -> None:
        self._outcome.log.append(f"{self._loop.time() - self._began:10.6f}  {line}")

    def _told(self, event: Event) -> None:
        """What ``on_event`` gets."""
        shown = str(event.gap) if isinstance(event, GapNamed) else ""
        self.note(f"{type(event).__name__} {shown or event}")
        figures = self._outcome.figures
        figures["links"] += isinstance(event, Connected)
        figures["hand-overs"] += isinstance(event, HandedOver)
        figures["pauses"] += isinstance(event, Paused)
        if self._inflictor is not None:
            self._inflictor.on_event(event)

    async def play(self) -> None:
        schedule = self._schedule
        async with Simulator(**dict(schedule.service)) as self._simulator, self._client() as self._client_:
            self._inflictor = Inflictor(self._simulator, self._readers, self.note)
            reading = [self._loop.create_task(reader.read(self._client_)) for reader in self._readers]
            try:
                await self._inflictor.run(schedule.faults)
                await asyncio.sleep(max(0.0, self._began + schedule.seconds - self._loop.time()))
                self._inflictor.heal()
                if self._short is not None:
                    object.__setattr__(self._short, "expires_in", LONG)
                await self._settle()
                self._judge()
            finally:
                await self._inflictor.aclose()
                for task in reading:
                    task.cancel()
                await asyncio.wait(reading)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        simulator, schedule = self._simulator, self._schedule
        credentials = ClientCredentials(
            simulator.client_id, simulator.client_secret, token_url=simulator.token_url
        )
        if schedule.short_term is not None:
            self._short = ShortTermToken(credentials, expires_in=schedule.short_term)
        client = Client(
            self._short or credentials,
            endpoint=simulator.endpoint,
            proxy=None,
            on_event=self._told,
            **dict(schedule.client),
        )
        if isinstance(self._loop, MemoryLoop):
            client._clock = virtual_clock()
        async with client:
            yield client

    # ------------------------------------------------------------------ after the faults

    async def _settle(self) -> None:
        """Let the chain go on until all is quiet, stop it, and see whether all has come; again, while that helps."""
        missing = -1
        for _ in range(TRIES if self._outcome.strict else 1):
            if not await self._until(self._is_quiet, QUIET_WITHIN, holds=self._schedule.late + 1.0):
                self._outcome.failures.append(f"no quiet: {self._client_.status()}")
                return
            self._simulator.pause()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    await self._simulator.drained()
            if await self._until(self._all_came, self._schedule.late + 2.0, holds=0.3):
                return
            before, missing = missing, sum(map(self._missing, self._closable()))
            if missing == before and self._is_quiet():
                return
            self._simulator.resume()
            await self._simulator.blocks(2)
        self._simulator.pause()
        await asyncio.sleep(self._schedule.late + 2.0)

    async def _until(self, condition: Any, within: float, *, holds: float) -> bool:
        """Whether ``condition`` came to hold for so long; looked at now and then."""
        deadline, since = self._loop.time() + within, None
        while self._loop.time() < deadline:
            now = self._loop.time()
            since = (since if since is not None else now) if condition() else None
            if since is not None and now - since >= holds:
                return True
            await asyncio.sleep(0.1)
        return False

    def _is_quiet(self) -> bool:
        status = self._client_.status()
        live = status.state == "live" and all(link.state == "live" for link in status.links)
        return (
            live
            and all(reader.quiet for reader in self._readers)
            and not any(
                subscription.parked or subscription.waiting_messages for subscription in status.subscriptions
            )
        )

    def _all_came(self) -> bool:
        """Whether each row of what can be closed is there; what cannot be is given the time alone."""
        return not any(map(self._missing, self._closable()))

    def _closable(self) -> Iterator[Reader]:
        """Those of which rows that are missing may still come."""
        for reader in self._readers:
            if self._outcome.strict and reader.reading.document.closable and not reader.over:
                yield reader

    def _missing(self, reader: Reader) -> int:
        return 0 if reader.subscription is None else self._account(reader).missing()

    def _account(self, reader: Reader) -> judge.Account:
        if reader.account is None:
            document = reader.reading.document
            reader.account = judge.Account(document, self._simulator, reader.rows, reader.replayed)
        return reader.account

    def _judge(self) -> None:
        outcome, clock = self._outcome, self._client_._clock
        for reader in self._readers:
            document = reader.reading.document
            if reader.refused and self._schedule.caps_by_error:
                continue
            if reader.error is not None:
                outcome.failures.append(
                    f"{document.name}: ended by {type(reader.error).__name__}: {reader.error}"
                )
            if reader.subscription is None:
                outcome.failures.append(f"{document.name}: never subscribed")
                continue
            outcome.gaps[document.name] = gaps = reader.gaps
            ahead, schedule = clock.wall() - clock.monotonic(), self._schedule
            named = judge.Named(gaps, ahead, schedule.late, reader.live, schedule.is_orderly)
            judgement = self._account(reader).judged(named, strict=outcome.strict)
            outcome.judgements.append(judgement)
            self.note(str(judgement))
            outcome.failures += judge.failures(judgement, gaps, strict=outcome.strict)
        self._count()

    def _count(self) -> None:
        outcome = self._outcome
        figures = outcome.figures
        gaps = [gap for named in outcome.gaps.values() for gap in named]
        figures["rows"] = sum(one.emitted for one in outcome.judgements)
        promised = [one for one in outcome.judgements if judge.must_close(one, outcome.gaps)]
        figures["lost"] = sum(one.missing for one in promised)
        figures["repeated"] = sum(one.repeated for one in outcome.judgements)
        # Of documents that cannot be asked for again, by the reader's own policy, in blocks that a fork has replaced,
        # or from before the first message: each stands in a named gap.
        figures["named as missing"] = sum(one.lost for one in outcome.judgements) - figures["lost"]
        figures["faults"] = self._inflictor.inflicted if self._inflictor is not None else 0
        figures["gaps"] = len(gaps)
        figures["gaps closed"] = sum(getattr(gap, "closed", False) for gap in gaps)
        figures["holes"] = sum(getattr(gap, "reason", None) is not None for gap in gaps)
        figures["queries"] = self._simulator.counters["queries"]
        for name in ("backfilled", "truncated"):
            statuses = self._client_.status().subscriptions
            figures[name] = sum(getattr(one, name, 0) for one in statuses)
