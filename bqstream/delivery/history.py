"""What was delivered lately, kept as references: a payload costs nothing more until a hand-over asks for its rows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

from msgspec.structs import replace

from ..config import MEBIBYTE
from ..message import Arrival
from .rows import Fingerprint, Rows

# How long rows of one block may come in, in seconds: its portions are published one after another, late ones too, and
# data lags (subscriptions/websockets; the slowest chain's blocks take 12 s).
SPAN = 30.0


_EMPTY: deque[Arrival] = deque()  # until there is one: most of what an idle subscription would take


class History:
    """Payloads that wait for the reader, and a ring of those that the reader took; O(1) for each.

    The ring holds ``seconds`` before the newest, and of what came before the newest ``SPAN``, however long ago that is:
    a gap begins where that stands. It is bounded by size too (``size`` bytes), what waits by the buffer. Payloads are
    numbered from 1; ``first`` is the oldest that is kept, ``last`` the newest, ``taken`` the newest that was taken. All
    from ``needed`` on is kept, whatever its age and size.
    """

    def __init__(self, *, seconds: float = 60.0, size: int = 32 * MEBIBYTE) -> None:
        self._seconds = seconds
        self._limit = size
        self._tail = _EMPTY  # what came before …
        self._ring = _EMPTY  # … the last ``seconds``, and what waits
        self.size = 0  # of what was taken
        self.first = 1
        self.last = 0  # the newest payload's number; 0 before there is one
        self.taken = 0
        self.needed = 0  # what was taken after this one is in the reader's hands
        self.evicted_at: float | None = None  # when the newest that is not kept any more came in

    def __len__(self) -> int:
        return len(self._tail) + len(self._ring)

    @property
    def newest(self) -> Arrival | None:
        """The newest payload; None before there is one."""
        return self._ring[-1] if self._ring else None

    def add(self, *arrivals: Arrival) -> None:
        """They came at once, and wait for the reader."""
        ring = self._ring
        if ring is _EMPTY:
            ring = self._ring = deque()
        if ring and arrivals[0].at < ring[-1].at:  # held back: its age is that of its delivery
            arrivals = tuple(replace(arrival, at=ring[-1].at) for arrival in arrivals)
        ring.extend(arrivals)
        self.last += len(arrivals)

    def take(self, arrival: Arrival, *, pinned: bool = False) -> None:
        """The reader took the oldest that waited, or it was let go for good. ``pinned``: nothing is let go for its
        age."""
        self.size += len(arrival.raw)
        self.taken += 1
        tail, ring = self._tail, self._ring
        oldest = -math.inf if pinned else arrival.at - self._seconds
        if not tail and ring[0].at >= oldest:
            self._trim()
            return  # the usual case: nothing is too old
        if tail is _EMPTY:
            tail = self._tail = deque()
        while ring[0].at < oldest and self.first + len(tail) <= self.taken:
            tail.append(ring.popleft())
        # What the reader has in hand and the one before: a checkpoint may be taken after each.
        while tail and self.first < self.needed:
            if (pinned or tail[0].at >= tail[-1].at - SPAN) and self.size <= self._limit:
                break
            self._evict(tail.popleft())
        self._trim()

    def _trim(self) -> None:
        """Let the oldest go that were taken, until what is kept is no more than it may be."""
        while self.size > self._limit and self.first < self.needed:
            self._evict((self._tail or self._ring).popleft())

    def _evict(self, entry: Arrival) -> None:
        self.size -= len(entry.raw)
        self.first += 1
        self.evicted_at = entry.at

    def entries(self, until: int | None = None, *, since: int = 0) -> Iterator[Arrival]:
        """What is kept, oldest first, from payload ``since`` up to payload ``until``."""
        begin = max(0, since - self.first)
        end = len(self) if until is None else max(0, until + 1 - self.first)
        tail = len(self._tail)
        if begin >= tail:  # what is asked for most: the newest, without a walk past all others
            newest = len(self._ring) - (begin - tail)
            last = list(islice(reversed(self._ring), max(0, newest)))
            return islice(reversed(last), max(0, end - begin))
        return islice(chain(self._tail, self._ring), begin, end)

    def last_rows(self, key: str, count: int, before: float) -> list[Fingerprint]:
        """At most the last ``count`` rows of a cube that were delivered up to ``before``, oldest first."""
        found: list[list[Fingerprint]] = []
        for entry in chain(reversed(self._ring), reversed(self._tail)):
            if entry.at <= before:
                rows = Rows(entry.raw).by_key.get(key, [])
                found.append(rows)
                count -= len(rows)
                if count <= 0:
                    break
        return [row for rows in reversed(found) for row in rows][max(0, -count) :]

    def keys(self, payloads: int = 8) -> set[str]:
        """The response keys of the last few payloads."""
        newest = [entry.raw for entry in islice(chain(reversed(self._ring), reversed(self._tail)), payloads)]
        return {key for raw in newest for key in Rows(raw).by_key}
