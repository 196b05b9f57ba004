"""What a query finds: which blocks of a chain it sees, and which of their rows it has to look at.

A range is found by halving and an ordered query stops when no other block can add to it, so that neither depends on
how many blocks are kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .chain import Chain, Row
from .cubes import CubePlan
from .pricing import Repriced


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the query side sees of a chain.

    ``upto``             the highest block that is seen whole; None: all are.
    ``portions``         that are seen of the block above it, in the order in which they are emitted.
    ``row_cap``, ``realtime_window``, ``archive_lag``, ``reprice``  as in `Settings`.
    """

    upto: int | None = None
    portions: int = 0
    row_cap: int = 25_000
    realtime_window: float | None = None
    archive_lag: float = 0.0
    reprice: float = 0.0

    def numbers(self, chain: Chain, dataset: str | None = None) -> range:
        """The blocks that a dataset holds, silently no others; ``dataset`` as the root's argument names it."""
        kept = chain.numbers
        if self.upto is not None:
            kept = kept[: max(0, self.upto + 1 + (self.portions > 0) - kept.start)]
        if chain.head is None:
            return kept
        now = chain.head.time
        if dataset == "archive" and self.archive_lag:
            late = now - timedelta(seconds=self.archive_lag)
            return kept[: bisect_right(kept, late, key=lambda number: chain.block(number).time)]
        if dataset in (None, "realtime") and self.realtime_window is not None:
            oldest = now - timedelta(seconds=self.realtime_window)
            return kept[bisect_left(kept, oldest, key=lambda number: chain.block(number).time) :]
        return kept


def found(plan: CubePlan, chain: Chain, view: View, dataset: str | None) -> list[Any]:
    """The rows of one cube of a query, as they are shown."""
    if chain.head is None:
        return []
    cap = view.row_cap if plan.count is None else min(plan.count, view.row_cap)
    now = chain.head.time
    numbers = plan.within(chain, view.numbers(chain, dataset), now)
    enough = plan.offset + cap if plan.in_block_order else None
    ways = [reversed(numbers) if plan.descending else iter(numbers)]
    if plan.of_ends:
        ways, enough = [iter(numbers), reversed(numbers)], 1
    rows = (row for way in ways for row in _rows(plan, chain, way, view, now, enough))
    if view.reprice:
        rows = (Repriced(row, view.reprice) for row in rows)
    return plan.shown(plan.groups(rows), view.row_cap)[: view.row_cap]


def _rows(
    plan: CubePlan, chain: Chain, numbers: Iterator[int], view: View, now: datetime, enough: int | None
) -> Iterator[Row]:
    """Rows that pass, block by block, until no block to come can hold one that belongs among the first ``enough``."""
    settled = 0
    waiting: Counter[Any] = Counter()  # by rank: rows that a row to come may yet stand before
    for number in numbers:
        block = chain.block(number)
        for rank in [rank for rank in waiting if plan.precedes(rank, block)]:
            settled += waiting.pop(rank)
        if enough is not None and settled >= enough:
            return
        rows = plan.matching(block, now)
        if view.upto is not None and number > view.upto:
            rows = [row for row in rows if block.portion_of(row) < view.portions]
        yield from rows
        if enough is not None:
            waiting.update(plan.rank(row) for row in rows)
