"""Where a new source's rows stand among those that the old one brings: found by position, row by row.

The service documents no replay: what a subscription brings was published after its ``subscribe`` came in, and each
source of a key brings the same rows in the same order (streams/index, subscriptions/subscription). So the new
source's first row stands at some place in the log of what the old one has delivered since that ``subscribe`` went
out, or is still to deliver; never before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from math import log2

from .rows import Fingerprint

# Content alone counts as proof from this many bits on: one coincidence in a million.
PROOF = 20.0
# More places than these are not followed one by one: the rows are as good as equal, and only time can tell.
MANY = 1000


class Alignment:
    """One key's two sequences until their common frame is known.

    ``log`` holds what the old source delivered since the new one was started, ``new`` what the new one brought;
    ``log_at`` and ``new_at`` are the times of arrival. A *place* is the index in ``log`` at which ``new[0]`` stands.
    """

    __slots__ = ("_again", "_places", "log", "log_at", "new", "new_at")

    def __init__(self) -> None:
        self.log: list[Fingerprint] = []
        self.log_at: list[float] = []
        self.new: list[Fingerprint] = []
        self.new_at: list[float] = []
        # Places within the log at which all rows that both have agree; None: too many to follow.
        self._places: list[int] | None = []
        self._again = 1

    def add_old(self, row: Fingerprint, now: float) -> None:
        """The old source delivered ``row``."""
        end = len(self.log)
        self.log.append(row)
        self.log_at.append(now)
        if self._places is not None and self.new:
            new = self.new
            self._follow([p for p in self._places if end - p >= len(new) or new[end - p] == row])
            if self._places is not None and new[0] == row:
                self._follow([*self._places, end])

    def add_new(self, row: Fingerprint, now: float) -> None:
        """The new source brought ``row``."""
        log, index = self.log, len(self.new)
        self.new.append(row)
        self.new_at.append(now)
        if index == 0:
            self._follow([p for p, other in enumerate(log) if other == row])
        elif self._places is not None:
            self._follow([p for p in self._places if p + index >= len(log) or log[p + index] == row])

    def _follow(self, places: list[int]) -> None:
        self._places = places if len(places) <= MANY else None

    def forget_before(self, time: float) -> float | None:
        """While the new source has brought nothing: rows that came up to ``time``, a grace ago, cannot come on it
        any more. Gives when the last of them came."""
        keep = _until(self.log_at, time)
        if self.new or not keep:
            return None
        last = self.log_at[keep - 1]
        del self.log[:keep], self.log_at[:keep]
        return last

    def window(self, old_until: float, new_until: float) -> tuple[int, int]:
        """The first and last place that lag allows: what the new source brought up to ``old_until``, a grace ago, the
        old one has delivered by now, and the other way round."""
        least = _until(self.log_at, new_until) - len(self.new)
        return max(0, least), len(self.log) - _until(self.new_at, old_until)

    def places(self, old_until: float, new_until: float) -> list[int] | None:
        """The places at which the new source's first row can stand, those after the log's end not counted; None while
        they are too many to tell. None left at all (``[]``) once the old source must have brought it: they disagree."""
        low, high = self.window(old_until, new_until)
        if self._places is not None:
            return [p for p in self._places if low <= p <= high]
        if low < high:
            return None
        return [p for p in range(low, high + 1) if p < len(self.log) and self._agrees(p)]

    def overdue(self, old_until: float) -> bool:
        """Whether the old source must have brought the new one's first row by now."""
        return bool(self.new) and self.new_at[0] <= old_until

    def guess(self, places: list[int] | None, low: int, high: int) -> int | None:
        """The place of the largest overlap; where that is equal, the one that leaves most rows to compare."""
        if places is None:
            within = range(low, min(high, low + MANY, len(self.log) - 1) + 1)
            places = [p for p in within if self._agrees(p)]
        return max(places, key=lambda p: (min(len(self.log) - p, len(self.new)), -p), default=None)

    def _agrees(self, place: int) -> bool:
        overlap = min(len(self.log) - place, len(self.new))
        return self.log[place : place + overlap] == self.new[:overlap]

    def worth_weighing(self, place: int) -> bool:
        """Whether the overlap has doubled since its content was last found to prove too little."""
        overlap = min(len(self.log) - place, len(self.new))
        if overlap < self._again:
            return False
        self._again = 2 * overlap
        return True

    def evidence(self, place: int, before: Sequence[Fingerprint]) -> float:
        """How many bits speak against coincidence if ``place`` is the one; ``before`` are rows delivered earlier.

        Each row that both have counts by its rarity. Rows that come again and again as a whole, as snapshots do,
        prove nothing, however rare each is.
        """
        overlap = self.new[: len(self.log) - place]
        all_rows = [*before, *self.log]
        for start, row in enumerate(all_rows[: len(before)]):
            if row == overlap[0] and all_rows[start : start + len(overlap)] == overlap:
                return 0.0
        count = Counter(all_rows)
        count.update(self.new)
        total, bits = count.total(), 0.0
        for row in overlap:
            bits += log2((total + 1) / count[row])
            if bits >= PROOF:
                break
        return bits


def _until(times: list[float], limit: float) -> int:
    """How many of these rising ``times`` are not after ``limit``."""
    return bisect_right(times, limit)
