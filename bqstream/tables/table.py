"""Rows of a cube as a table with named columns, as frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
