"""What is shown of one subscription, a bounded sample of what it is told; it has no clock and does no I/O."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from .. import events
from ..message import UNREADABLE, Message, cubes_of
from ..picture import text
from ..status import Status, SubscriptionStatus
from ..tap import rows_in
from ..timeline import SAMPLES, Sample, Timeline, known
from . import values

# What is kept of each: rows of a table, tables, columns that are numbers, their newest values.
ROWS, TABLES, COLUMNS, POINTS = 20, 8, 24, 600
# What is decoded for one picture: the newest messages, and of each so many rows.
MESSAGES, BYTES, SAMPLED = 32, 1024 * 1024, 60
# The rate that is shown as a number is that of so many seconds: blocks come in bursts.
_RATE_OVER = 10


class Point(NamedTuple):
    """One value that can be drawn; ``number`` counts them, ``at`` is when it came in, in seconds since the epoch."""

    number: int
    at: float
    value: float


class Row(NamedTuple):
    """One of the newest rows; ``number`` counts them."""

    number: int
    cells: tuple[tuple[str, str | None], ...]


class Live:
    """One subscription, of ``operation``; ``name`` is that of its cubes.

    ``seen``    rows that came in.
    ``column``  the name of the one that is drawn; None before there is any.
    """

    def __init__(self, operation: int, name: str, started: float) -> None:
        self.name = name
        self.seen = 0
        self.column: str | None = None
        self.started = started
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.rows: dict[str, deque[Row]] = {}
        self.points: dict[str, deque[Point]] = {}
        self.timeline = Timeline()
        self.status: Status | None = None
        self._operation = operation
        self._measures: set[str] = set()
        self._numbers = itertools.count(1)
        self._chosen = False
        self._pending: deque[Message[Any]] = deque(maxlen=MESSAGES)
        self._second = math.floor(started)
        self._count = 0  # of the rows that came in during that second
        self._newest: datetime | None = None

    # ------------------------------------------------------------------ what it is told

    def came(self, messages: Sequence[Message[Any]]) -> None:
        """Messages came in. They are counted; the newest of them are decoded when somebody looks."""
        for message in messages:
            count, received = rows_in(message), message.received
            self.seen += count
            if received >= self.started:  # else it had waited before anybody looked
                self._turn(received)
                self._count += count
        self._pending.extend(messages)

    def event(self, event: events.Event) -> None:
        """Something happened to the client; what concerns other operations is passed over."""
        if getattr(event, "operation", self._operation) == self._operation:
            self.timeline.event(event)

    def choose(self, column: str) -> None:
        """Draw another column from now on; one that there is not is passed over."""
        if column in self.points:
            self.column, self._chosen = column, True

    def look(self, now: float, status: Status) -> None:
        """It is ``now``, in seconds since the epoch: what came in since the last look is worked up."""
        self._decode()
        self._turn(now)
        self.status = known(status, self.status)
        self.timeline.alive({link.number for link in status.links}, events.moment(now))

    def _turn(self, now: float) -> None:
        """Seconds that are over become samples."""
        second, lag = math.floor(now), self.lag(now)
        if second > self._second:
            for over in range(max(self._second, second - SAMPLES), second):
                self.samples.append(Sample(over, self._count if over == self._second else 0, lag))
            self._second, self._count = second, 0

    def _decode(self) -> None:
        budget = BYTES
        newest: list[Message[Any]] = []
        while self._pending and (not newest or budget > 0):
            message = self._pending.pop()
            budget -= message.size
            newest.append(message)
        self._pending.clear()
        for message in reversed(newest):
            try:
                data = msgspec.json.decode(message.raw).get("data")
            except (*UNREADABLE, AttributeError):
                continue  # its reader is told why; here it is counted
            for cube, rows in cubes_of(data):
                self._take(cube or self.name, rows, message.received)

    def _take(self, table: str, rows: Sequence[Any], at: float) -> None:
        step = max(1, math.ceil(len(rows) / SAMPLED))
        for index, row in enumerate(rows):
            shown = index >= len(rows) - ROWS
            if not shown and index % step:
                continue
            found = list(values.cells(row))
            if (time := values.time_of(found)) is not None:
                self._newest = max(time, self._newest or time)
            for path, value in found:
                if (drawn := values.number(value)) is not None:
                    self._point(table, path, at, drawn)
            if shown and (table in self.rows or len(self.rows) < TABLES):
                kept = self.rows.setdefault(table, deque(maxlen=ROWS))
                kept.append(
                    Row(next(self._numbers), tuple((_name(path), text(value)) for path, value in found))
                )

    def _point(self, table: str, path: tuple[str, ...], at: float, value: float) -> None:
        name = _name(path) if "," not in self.name else f"{table}: {_name(path)}"
        kept = self.points.get(name)
        if kept is None:
            if len(self.points) >= COLUMNS:
                return
            kept = self.points[name] = deque(maxlen=POINTS)
            if values.is_measure(path):
                self._measures.add(name)
            if not self._chosen and (self.column not in self._measures):
                self.column = name if name in self._measures else self.column or name
        kept.append(Point(next(self._numbers), at, value))

    # ------------------------------------------------------------------ what it shows

    @property
    def rate(self) -> float:
        """Rows a second that came in, over the last ten."""
        last = list(itertools.islice(reversed(self.samples), _RATE_OVER))
        return sum(sample.rate for sample in last) / len(last) if last else 0.0

    def lag(self, now: float) -> float | None:
        """Seconds that the newest row's block is behind; None where no row says when that was."""
        return None if self._newest is None else max(0.0, now - self._newest.timestamp())

    def picture(
        self, now: float, one: SubscriptionStatus | None, *, state: str, why: str, viewed: int, read: bool
    ) -> dict[str, Any]:
        """This moment by its parts, for `picture.changes`: its series are ``SERIES``.

        Args:
            one: the subscription's status, as long as it is open.
            state: "open", "paused", "ended" or "failed"; ``why`` it failed.
            viewed: rows that nobody has read.
            read: whether somebody reads.
        """
        names: dict[int | None, str] = {self._operation: self.name}
        timeline = self.timeline
        return {
            "at": round(now, 2),
            "started": round(self.started, 2),
            "name": self.name,
            "state": state,
            "why": why,
            "client": None if self.status is None else _counts(self.status),
            "stream": None if one is None else _waiting(one),
            "seen": self.seen,
            "viewed": viewed,
            "read": read,
            "rate": round(self.rate, 2),
            "lag": None if (lag := self.lag(now)) is None else round(lag, 1),
            "samples": {"": tuple(self.samples)},
            "rows": {table: tuple(rows) for table, rows in self.rows.items()},
            "columns": tuple(self.points),
            "column": self.column,
            "points": {} if self.column is None else {self.column: tuple(self.points[self.column])},
            "links": timeline.links,
            "tokens": timeline.tokens,
            "gaps": timeline.gaps(names),
            "events": timeline.events(names),
        }


SERIES = ("samples", "rows", "points")


def _name(path: tuple[str, ...]) -> str:
    return "_".join(path) or "value"


def _counts(status: Status) -> dict[str, Any]:
    """What is shown of a client; how many messages each link has brought would change with each."""
    return {
        "state": status.state,
        "token_expires_at": status.token_expires_at,
        "rotations": status.rotations,
        "reconnects": status.reconnects,
        "unproven": status.unproven,
    }


def _waiting(one: SubscriptionStatus) -> dict[str, Any]:
    return {
        "messages": one.waiting_messages,
        "bytes": one.waiting_bytes,
        "parked": one.parked,
        "closing": one.closing,
        "unproven": one.unproven,
    }
