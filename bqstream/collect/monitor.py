"""What a collector's process has been doing lately, for those who look at it: the page, the terminal, the metrics."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from .. import events
from ..clock import Clock
from ..status import Status
from ..timeline import SAMPLES, Happened, LinkSpan, Named, Sample, Timeline, TokenSpan, known
from .status import CollectorStatus

TICK = 0.5
ROWS = 20
# The rate that is shown as a number is that of so many seconds: commits and blocks come in bursts.
_RATE_OVER = 10.0


class Watchable(Protocol):
    """What a monitor needs of a client."""

    def status(self) -> Status: ...


class Collecting(Protocol):
    """What a monitor needs of a collector."""

    def status(self) -> CollectorStatus: ...

    @property
    def last_rows(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """The rows committed last, each with its table's name; the newest comes last."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One collector at one moment, and what its subscription has waiting; spans are in seconds.

    ``rate``  rows a second that are committed, over the last ten seconds.
    ``lag``   how far the newest row committed is behind now; None before the first.
    ``waiting_messages``, ``waiting_bytes``  in the subscription's buffer, before they are decoded.
    ``parked``, ``closing``, ``unproven``    as in ``Client.status()``.
    """

    status: CollectorStatus
    rate: float
    lag: float | None
    waiting_messages: int = 0
    waiting_bytes: int = 0
    parked: bool = False
    closing: bool = False
    unproven: bool = False

    @property
    def subscribed(self) -> bool:
        """Whether rows are being collected, though the sink may not be taking them at this moment."""
        return self.status.operation is not None and self.status.state in ("collecting", "retrying")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A process at one moment; everything in it is oldest first.

    ``client``    None before it was open.
    ``samples``   by the collector's name.
    ``happened``  how many events there were, of which ``events`` has the newest.
    ``shed``      links that the service closed with 1013.
    """

    at: datetime
    started: datetime
    client: Status | None = None
    collectors: tuple[Watched, ...] = ()
    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    links: tuple[LinkSpan, ...] = ()
    tokens: tuple[TokenSpan, ...] = ()
    gaps: tuple[Named, ...] = ()
    events: tuple[Happened, ...] = ()
    rows: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    happened: int = 0
    shed: int = 0


class Monitor:
    """Watches one process: a client and its collectors.

        monitor = Monitor()
        async with Client(on_event=monitor.event) as client:
            monitor.watch(client, collectors)
            ...  # monitor.run() in a task of its own

    Everything that it keeps is bounded. It asks nothing of the service, and never waits.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._started = self._now()
        self._client: Watchable | None = None
        self._was_open: Status | None = None
        self._meters: list[_Meter] = []
        self._timeline = Timeline()

    def watch(self, client: Watchable, collectors: Iterable[Collecting]) -> None:
        """Look at these from now on, in the place of those before. Of two with one name the second is shown as
        ``name (2)``: by names they are told apart."""
        now = self._clock.monotonic()
        self._client, self._was_open, self._meters = client, None, []
        for collector in collectors:
            self._meters.append(_Meter(collector, now, {meter.name for meter in self._meters}))

    def event(self, event: events.Event) -> None:
        """Take note of what happened: ``Client(on_event=monitor.event)``."""
        self._timeline.event(event)

    async def run(self) -> None:
        """Take a sample twice a second, until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(TICK)

    def sample(self) -> None:
        """Look at everything once: for rates, and for links that were closed without an event."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        for meter in self._meters:
            meter.look(now, wall)
        if (status := self._status()) is not None:
            self._timeline.alive({link.number for link in status.links}, self._now())

    def picture(self) -> Picture:
        """This moment. Rates and samples are those of the last ``sample``, all else is as new as can be."""
        client = self._status()
        waiting = {one.operation: one for one in client.subscriptions} if client is not None else {}
        watched, wall = [], self._clock.wall()
        for meter in self._meters:
            status = meter.status()
            one = waiting.get(status.operation or 0)
            shown = Watched(status=status, rate=meter.rate, lag=_lag(status, wall))
            if one is not None:
                shown = replace(
                    shown,
                    waiting_messages=one.waiting_messages,
                    waiting_bytes=one.waiting_bytes,
                    parked=one.parked,
                    closing=one.closing,
                    unproven=one.unproven,
                )
            watched.append(shown)
        names = {one.status.operation: one.status.name for one in watched}
        timeline = self._timeline
        rows = [row for meter in self._meters for row in meter.collector.last_rows]
        return Picture(
            at=self._now(),
            started=self._started,
            client=client,
            collectors=tuple(watched),
            samples={meter.name: tuple(meter.samples) for meter in self._meters},
            links=timeline.links,
            tokens=timeline.tokens,
            gaps=timeline.gaps(names),
            events=timeline.events(names),
            rows=tuple(rows[-ROWS * max(1, len(self._meters)) :]),
            happened=timeline.happened,
            shed=timeline.shed,
        )

    def _status(self) -> Status | None:
        if self._client is not None:
            self._was_open = known(self._client.status(), self._was_open)
        return self._was_open

    def _now(self) -> datetime:
        return events.moment(self._clock.wall())


class _Meter:
    """One collector's rate, and its samples.

    Rows come by commits, which may be a minute apart: until the next one is there the rate is what the last was for the
    time since the one before it, then falls, and is none when the next is long overdue.
    """

    def __init__(self, collector: Collecting, now: float, taken: Set[str]) -> None:
        self.collector = collector
        name = collector.status().name
        names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        self.name = next(name for name in names if name not in taken)
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.rate = 0.0
        self._sampled = now
        # When the number of rows was seen to change, and what it was then.
        self._changes = deque([(now, collector.status().rows)], maxlen=int(_RATE_OVER / TICK) + 2)

    def status(self) -> CollectorStatus:
        return replace(self.collector.status(), name=self.name)

    def look(self, now: float, wall: float) -> None:
        status = self.collector.status()
        if status.rows != self._changes[-1][1]:
            self._changes.append((now, status.rows))
        self.rate = self._rate(now, _RATE_OVER)
        if now - self._sampled >= 1.0 - TICK / 2:
            self.samples.append(Sample(wall, self._rate(now, 1.0), _lag(status, wall)))
            self._sampled = now

    def _rate(self, now: float, over: float) -> float:
        """Rows a second in the ``over`` seconds before the last commit, or since the commit before that."""
        *before, (last, rows) = self._changes
        if not before:
            return 0.0
        usual = last - before[-1][0]
        if now - last > max(3 * usual, _RATE_OVER / 2):
            return 0.0
        start, count = next((mark for mark in reversed(before) if mark[0] <= last - over), before[0])
        end = max(last, now - usual)
        return max(0.0, (rows - count) / (end - start)) if end > start else 0.0


def _lag(status: CollectorStatus, wall: float) -> float | None:
    return max(0.0, wall - status.newest.timestamp()) if status.newest is not None else None
