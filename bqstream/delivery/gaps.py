"""The holes of one stream, named."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from ..clock import Clock
from ..message import Gap, GapCause


class Gaps:
    """A bounded list of gaps, oldest first; open ones are closed when the first row after them is known.

    Times are the monotonic clock's seconds; a ``Gap`` has the wall clock's. ``forgotten`` counts those that fell
    off, the oldest first, once there were more than ``limit``. ``tell`` gets every gap when it is named, and once
    more when it is closed.
    """

    def __init__(self, clock: Clock, tell: Callable[[Gap], None], *, limit: int = 1024) -> None:
        self._clock = clock
        self._tell = tell
        self._limit = limit
        self._named: dict[int, Gap] = {}
        self._last = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._named)

    def all(self) -> tuple[Gap, ...]:
        """Every gap that is still kept."""
        return tuple(self._named.values())

    def open(self, cause: GapCause, start: float, cubes: Iterable[str], detail: str) -> int:
        """Name a gap that began at ``start`` and whose end is not known yet; gives the number to close it by."""
        self._last += 1
        # The empty key stands for data without cubes, and that is all there is then.
        named = tuple(sorted(key for key in cubes if key))
        gap = Gap(start=self._wall(start), end=None, cause=cause, cubes=named, detail=detail)
        self._named[self._last] = gap
        while len(self._named) > self._limit:
            del self._named[next(iter(self._named))]
            self.forgotten += 1
        self._tell(gap)
        return self._last

    def close(self, number: int, end: float, found: str = "") -> None:
        """The gap ended at ``end``; ``found`` is what has been learnt about it since it was named."""
        gap = self._named.get(number)
        if gap is None or gap.end is not None:
            return
        detail = f"{gap.detail}; {found}" if found else gap.detail
        gap = replace(gap, end=max(self._wall(end), gap.start), detail=detail)
        self._named[number] = gap
        self._tell(gap)

    def _wall(self, at: float) -> datetime:
        return datetime.fromtimestamp(self._clock.wall() + at - self._clock.monotonic(), UTC)
