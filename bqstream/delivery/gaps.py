"""The gaps of one stream: named, and closed or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..clock import Clock
from ..message import Gap, GapCause


class Gaps:
    """A bounded list of gaps, oldest first.

    Times are the monotonic clock's seconds; a ``Gap`` has the wall clock's. ``forgotten`` counts those that were let
    go once there were more than ``limit``, closed ones and the oldest first. ``tell`` gets every gap when it is named
    and whenever more is known of it.
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

    def clear(self) -> None:
        """Nothing has been delivered yet, so that nothing is missing."""
        self._named.clear()

    def open(
        self,
        cause: GapCause,
        start: float,
        cubes: Iterable[str],
        detail: str,
        *,
        reason: str | None = None,
        closing: bool = False,
        low: str | None = None,
    ) -> int:
        """Name a gap that began at ``start`` and whose end is not known yet; gives the number by which more is told.

        It is a hole, for ``reason`` (else for what ``detail`` says), unless it is being closed.
        """
        self._last += 1
        # The empty key stands for data without cubes, and that is all there is then.
        named = tuple(sorted(key for key in cubes if key))
        self._named[self._last] = gap = Gap(
            start=self._wall(start),
            end=None,
            cause=cause,
            cubes=named,
            detail=detail,
            low=low,
            reason=None if closing else reason or detail,
            number=self._last,
        )
        while len(self._named) > self._limit:
            settled = (number for number, kept in self._named.items() if kept.closed)
            del self._named[next(settled, next(iter(self._named)))]
            self.forgotten += 1
        self._tell(gap)
        return self._last

    def close(self, number: int, end: float, found: str = "", *, whole: bool = False) -> None:
        """The range ended at ``end``; ``found`` is what has been learnt about it since, ``whole`` that no row of it is
        missing after all."""
        gap = self._named.get(number)
        if gap is None or gap.end is not None:
            return
        if whole:
            self.closed(number, end, found)
            return
        detail = f"{gap.detail}; {found}" if found else gap.detail
        self._change(number, end=self._end(gap, end), detail=detail)

    def closed(self, number: int, end: float, how: str, *, high: str | None = None) -> None:
        """What was missing has been brought, or is known to be nothing."""
        gap = self._named.get(number)
        if gap is not None:
            end_ = gap.end or self._end(gap, end)
            self._change(number, end=end_, closed=True, how=how, reason=None, high=high)

    def give_up(self, number: int, end: float, reason: str, *, high: str | None = None) -> None:
        """What is missing cannot be brought."""
        gap = self._named.get(number)
        if gap is not None and gap.reason is None:
            self._change(number, end=gap.end or self._end(gap, end), reason=reason, high=high)

    def _change(self, number: int, **values: Any) -> None:
        self._named[number] = gap = replace(self._named[number], **values)
        self._tell(gap)

    def _end(self, gap: Gap, end: float) -> datetime:
        return max(self._wall(end), gap.start)

    def _wall(self, at: float) -> datetime:
        return datetime.fromtimestamp(self._clock.wall() + at - self._clock.monotonic(), UTC)
