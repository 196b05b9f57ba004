"""A small world for the merge: one service that emits rows, and sources that bring them late and cut differently.

Every row carries the number under which it was emitted as spaces and tabs between its tokens: JSON does not see it,
so rows that are equal stay equal, and the test still knows each of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random

from bqstream.clock import Clock
from bqstream.config import Buffer
from bqstream.delivery.stream import Stream
from bqstream.message import Crossed, Gap

GRACE = 5.0
IDLE = 0.999 * 2 * GRACE
EPOCH = 1_000_000_000.0


def marked(value: object, number: int) -> str:
    """A row with ``number`` written where JSON does not look."""
    blank = "".join(" \t"[int(bit)] for bit in f"{number:b}")
    return '{"v":' + blank + json.dumps(value) + "}"


def payload(rows: dict[str, list[str]]) -> bytes:
    cubes = ",".join(f'"{key}":[{",".join(found)}]' for key, found in rows.items())
    return f'{{"data":{{"EVM":{{{cubes}}}}}}}'.encode()


def numbers(raw: bytes) -> dict[str, list[int]]:
    """The numbers of a delivered payload's rows, by cube."""
    text, found = raw.decode(), {}
    for part in text.split('"EVM":{', 1)[1].split("]"):
        if "[" in part:
            key = part.split('"')[1]
            rows = part.split("[", 1)[1].split('"v":')[1:]
            found[key] = [_number(row) for row in rows]
    return found


def _number(row: str) -> int:
    blank = row[: len(row) - len(row.lstrip(" \t"))]
    return int("".join("01"[sign == "\t"] for sign in blank), 2)


@dataclass
class Row:
    key: str
    number: int
    text: str
    published: float


@dataclass
class Line:
    """One source: what it is still to bring, and until when."""

    live: bool = False
    dead: float | None = None
    pending: list[tuple[Row, float]] = field(default_factory=list)
    brought: int = 0


class World:
    """Emits rows, brings them on every line in order and within ``lag`` seconds, and keeps book of it all."""

    def __init__(self, seed: int, cubes: int = 1, kinds: int = 10**9, lag: float = 0.95 * GRACE) -> None:
        self.random = Random(seed)
        self.kinds = kinds
        self.lag = lag
        self.now = 0.0
        self.keys = [f"Cube{number}" for number in range(cubes)]
        self.emitted: dict[str, list[Row]] = {key: [] for key in self.keys}
        self.promised: dict[str, int] = {}
        self.lines: dict[int, Line] = {}
        self.sources = 0
        self.beaten: float | None = None
        self.told: list[Gap] = []
        self.delivered: dict[str, list[int]] = {key: [] for key in self.keys}
        clock = Clock(monotonic=lambda: self.now, wall=lambda: EPOCH + self.now)
        self.stream = Stream(
            Buffer(),
            clock,
            on_gap=self.told.append,
            on_parked=lambda resumed: None,
            on_ready=self._read,
            on_room=lambda: None,
        )

    def _read(self) -> None:
        while (message := self.stream.take()) is not None:
            for key, found in numbers(message.raw).items():
                self.delivered[key] += found

    # ------------------------------------------------------------------ the service

    def publish(self, count: int = 1, key: str | None = None) -> None:
        for _ in range(count):
            where = key or self.random.choice(self.keys)
            number = len(self.emitted[where])
            row = Row(where, number, marked(self.random.randrange(self.kinds), number), self.now)
            self.emitted[where].append(row)
            for line in self.lines.values():
                if line.live and line.dead is None:
                    due = self.now + self.random.random() * self.lag
                    line.pending.append((row, max([due, *(until for _, until in line.pending[-1:])])))

    def join(self, live: bool = True) -> int:
        self.sources += 1
        self.beaten = None
        self.lines[self.sources] = Line()
        self.stream.joined(self.sources, self.now, grace=GRACE, served=EPOCH + self.now)
        if live:
            self.go_live()
        return self.sources

    def go_live(self) -> None:
        """The service has started what was asked of it; a ping sent after that is answered now."""
        for line in self.lines.values():
            line.live = True
        if all(line.dead is None for line in self.lines.values()):
            self.beaten = self.now
        if not self.promised:
            self.promised = {key: len(rows) for key, rows in self.emitted.items()}

    def bring(self, source: int, count: int) -> None:
        """The next ``count`` rows of a line come in as one message."""
        line = self.lines[source]
        taken, line.pending = line.pending[:count], line.pending[count:]
        if taken:
            line.brought += 1
            rows: dict[str, list[str]] = {key: [] for key in self.keys}
            for row, _ in taken:
                rows[row.key].append(row.text)
            self.stream.payloads(source, [payload(rows)], self.now)

    def advance(self, seconds: float) -> None:
        """Time passes; whatever must have come by then comes, cut anywhere."""
        end = self.now + seconds
        while True:
            due = [(line.pending[0][1], source) for source, line in self.lines.items() if line.pending]
            due += [
                (line.dead + IDLE, source) for source, line in self.lines.items() if line.dead is not None
            ]
            if not due or min(due)[0] > end:
                break
            self.now, source = max(self.now, min(due)[0]), min(due)[1]
            if self.lines[source].pending:
                self.bring(source, self.random.randint(1, 5))
            else:
                self.lose(source)
        self.now = end

    # ------------------------------------------------------------------ the session

    @property
    def newest(self) -> int:
        return max(self.lines)

    def crossed(self) -> bool:
        return self.stream.crossed(self.newest, self.now, beaten=self.beaten)

    def cross(self) -> Crossed:
        newest = self.newest
        crossed = self.stream.cross(newest, self.now)
        self.lines = {newest: self.lines[newest]}
        return crossed

    def fall_silent(self, source: int) -> None:
        """The line brings no more, and nobody is told before ``IDLE`` seconds have passed."""
        if self.lines[source].dead is None:
            self.lines[source].dead = self.now
        self.lines[source].pending.clear()

    def lose(self, source: int) -> None:
        del self.lines[source]
        self.stream.lost(source, self.now, "it broke")

    # ------------------------------------------------------------------ the promise

    def settle(self) -> None:
        """Let everything that was emitted come in; who fell silent is found out."""
        for source in [source for source, line in self.lines.items() if line.dead is not None]:
            self.lose(source)
        if not self.lines:
            self.join()
        self.go_live()
        self.advance(GRACE)
        self.publish(2 * len(self.keys))
        self.advance(2 * GRACE)

    def check(self) -> None:
        """Each row once and in order, or a gap that covers what is missing."""
        gaps = self.stream.gaps
        for key, rows in self.emitted.items():
            got = self.delivered[key]
            wanted = list(range(self.promised.get(key, 0), len(rows)))
            if not gaps:
                assert got == wanted, f"{key}: {got} instead of {wanted}, and no gap"
                continue
            repeated = {number for number in got if got.count(number) > 1}
            for number in repeated | set(wanted) - set(got):
                what = "comes again" if number in repeated else "is missing"
                assert self._covered(rows[number]), f"{key}: {rows[number]} {what} without a gap: {gaps}"

    def _covered(self, row: Row) -> bool:
        """Whether a gap's time of arrival, less what data may lag, holds the row's."""
        at = EPOCH + row.published
        return any(
            gap.start.timestamp() - GRACE - 1e-3 <= at
            and (gap.end is None or at <= gap.end.timestamp() + 1e-3)
            and (not gap.cubes or row.key in gap.cubes)
            for gap in self.stream.gaps
        )
