"""What a collector hands to a sink, as frozen values: tables, rows by column, and the commit that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ..message import Gap

Kind = Literal["text", "float", "integer", "boolean", "timestamp", "decimal", "json"]
"""What a column holds, as Python has it; None stands for null in each.

    text       str
    float      float: a JSON number is a double (RFC 8259, section 6)
    integer    int of 64 bits, with its sign
    boolean    bool
    timestamp  datetime, UTC
    decimal    decimal.Decimal, exact
    json       str: JSON text
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: the response keys on the way to it, joined by an underscore, as the service names its columns.
        path: those keys.
        kind: what it holds.
        digits: of a decimal, how many in all and after the point; None where the sink takes any number.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind
    digits: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Where the rows of one cube go; ``cube`` is its response key."""

    name: str
    cube: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table, ``count`` of them, in the order in which they came.

    Attributes:
        columns: for each column of the table, in its order, a list of ``count`` values (see `Kind`). Empty for a sink
            that is not ``flat``.
        nested: the rows as the service nests them, of plain JSON values. Empty for a sink that is ``flat``.
        undo: these rows are taken back: as many equal ones, in every column, were committed before.
    """

    table: Table
    count: int
    columns: Sequence[list[Any]] = field(default=(), repr=False)
    nested: Sequence[Any] = field(default=(), repr=False)
    undo: bool = False


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
