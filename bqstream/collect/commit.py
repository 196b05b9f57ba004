"""What a collector hands to a sink beside rows, as frozen values: gaps, and the commit that holds it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..message import Gap
from ..tables.table import Rows, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRecord:
    """A gap as it is kept beside the rows: the newest record with an ``id`` takes the place of the former.

    ``closed`` and no ``reason``: its rows have come. ``reason``: they will not. Neither: it is being closed.
    """

    id: str
    cause: str
    cubes: tuple[str, ...]
    start: datetime
    end: datetime | None
    low: str | None
    high: str | None
    closed: bool
    how: str
    reason: str | None
    detail: str

    @classmethod
    def of(cls, id: str, gap: Gap) -> GapRecord:
        return cls(
            id=id,
            cause=gap.cause,
            cubes=gap.cubes,
            start=gap.start,
            end=gap.end,
            low=gap.low,
            high=gap.high,
            closed=gap.closed,
            how=gap.how,
            reason=gap.reason,
            detail=gap.detail,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """What a sink holds of a subscription beside its rows: the ``number`` of its last commit and that one's state."""

    number: int
    state: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What is to be there as a whole, or not at all.

    Attributes:
        subscription: whose; one sink may hold several subscriptions' rows.
        number: one more than that of the last commit; the first is 1.
        state: text to be kept with the rows; it means something to the collector alone.
        tables: every table of the subscription, whether or not it has rows here.
        evolve: whether columns may be added to a table that lacks them.
        steps: rows to be added, or taken back, one after the other.
        gaps: records that are new or have changed.
    """

    subscription: str
    number: int
    state: str = field(repr=False)
    tables: tuple[Table, ...]
    evolve: bool = False
    steps: tuple[Rows, ...] = ()
    gaps: tuple[GapRecord, ...] = ()

    @property
    def count(self) -> int:
        """How many rows are added."""
        return sum(rows.count for rows in self.steps if not rows.undo)
