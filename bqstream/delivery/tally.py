"""How often each row of one cube was delivered, and how often each source has brought it.

The service may emit equal rows, so rows are counted, block by block. What a row's links brought is the same sequence
of emissions, seen from when each was live: a row is delivered from the link on which it comes oftener than it was
delivered yet, whichever that is, so that each copy reaches the user once whatever order, cut or lag the links have.
A query's answer holds a block whole: what it has more of than was delivered is owed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .keyed import Tag
from .tagged import Row

# Source number of what a query or a checkpoint brought; links count from 1.
QUERY = 0


@dataclass(slots=True)
class _Copies:
    """One row's copies: ``delivered`` from links, ``by`` each link brought, ``content`` of the first one."""

    content: Tag
    delivered: int = 0
    by: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Frame:
    """One block. ``live`` counts by tag what came on links, ``spare`` what a query brought that no link has yet."""

    copies: dict[Tag, _Copies] = field(default_factory=dict)
    live: Counter[Tag] = field(default_factory=Counter)
    spare: Counter[Tag] = field(default_factory=Counter)

    def known(self, row: Row) -> _Copies:
        copies = self.copies.get(row.exact)
        if copies is None:
            copies = self.copies[row.exact] = _Copies(row.content)
        return copies

    def rows(self) -> int:
        return self.live.total() + self.spare.total()


class Tally:
    """Rows of one cube while more than one source may bring them. Rows whose block is unknown are one frame."""

    def __init__(self) -> None:
        self._frames: dict[int | None, _Frame] = {}
        self.rows = 0

    def seed(self, row: Row, sources: Iterable[int] = ()) -> None:
        """``row`` was delivered before: brought by each of these links, or, where there are none, by a query."""
        frame = self._frame(row)
        sources = tuple(sources)
        self.rows += 1
        if not sources:
            frame.spare[row.tag] += 1
            return
        copies = frame.known(row)
        copies.delivered += 1
        frame.live[row.tag] += 1
        for source in sources:
            copies.by[source] = copies.by.get(source, 0) + 1

    def seed_tag(self, block: int | None, tag: Tag, count: int) -> None:
        """A row that only its tag is known of was delivered ``count`` times before."""
        self._frames.setdefault(block, _Frame()).spare[tag] += count
        self.rows += count

    def brought(self, source: int, row: Row) -> bool:
        """A link brought ``row``: whether it is to be delivered."""
        frame = self._frame(row)
        copies = frame.known(row)
        count = copies.by[source] = copies.by.get(source, 0) + 1
        if count <= copies.delivered:
            return False
        copies.delivered += 1
        frame.live[row.tag] += 1
        if frame.spare[row.tag] > 0:  # a query brought it first
            frame.spare[row.tag] -= 1
            return False
        self.rows += 1
        return True

    def taken_back(self, row: Row) -> None:
        """``row`` was to be delivered, and was let go: it is missing."""
        frame = self._frame(row)
        frame.copies[row.exact].delivered -= 1
        frame.live[row.tag] -= 1
        self.rows -= 1

    def contradicts(self, row: Row) -> bool:
        """Whether another row is known under the same key, which then is none."""
        frame = self._frames.get(row.block)
        copies = frame.copies.get(row.exact) if frame is not None else None
        return copies is not None and copies.content != row.content

    def owed(self, rows: Iterable[Row]) -> list[bool]:
        """A query brought these rows, whole blocks of them: for each whether it is to be delivered.

        Of rows that only their prices tell apart, those are owed whose own prices did not come on a link.
        """
        rows = list(rows)
        asked = Counter((row.block, row.tag) for row in rows)
        due = {
            known: count - self._frame_of(known[0]).live[known[1]] - self._frame_of(known[0]).spare[known[1]]
            for known, count in asked.items()
        }
        owed = [False] * len(rows)
        for again in (False, True):
            known_exactly: Counter[tuple[int | None, Tag]] = Counter()
            for place, row in enumerate(rows):
                name = (row.block, row.tag)
                if owed[place] or due[name] <= 0:
                    continue
                if not again:
                    copies = self._frame_of(row.block).copies.get(row.exact)
                    known_exactly[row.block, row.exact] += 1
                    if copies is not None and known_exactly[row.block, row.exact] <= copies.delivered:
                        continue
                due[name] -= 1
                owed[place] = True
                self._frame(row).spare[row.tag] += 1
                self.rows += 1
        return owed

    def forget_source(self, source: int) -> None:
        """``source`` brings no more."""
        for frame in self._frames.values():
            for copies in frame.copies.values():
                copies.by.pop(source, None)

    def forget_below(self, block: int) -> None:
        """No row of a lower block can come any more."""
        for known in [known for known in self._frames if known is not None and known < block]:
            self.rows -= self._frames.pop(known).rows()

    def forget_lowest(self) -> None:
        """Let the lowest block go, since too much is kept."""
        lowest = min((block for block in self._frames if block is not None), default=None)
        if lowest is None:
            self._frames.clear()
            self.rows = 0
        else:
            self.forget_below(lowest + 1)

    def _frame(self, row: Row) -> _Frame:
        frame = self._frames.get(row.block)
        if frame is None:
            frame = self._frames[row.block] = _Frame()
        return frame

    def _frame_of(self, block: int | None) -> _Frame:
        return self._frames.get(block) or _Frame()
