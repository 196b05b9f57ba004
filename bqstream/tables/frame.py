"""Rows as they come, turned into Arrow tables part by part, so that few of them are Python's objects at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..errors import OperationFailed
from .arrow import arrow_of, type_of
from .columns import Draft
from .flatten import converted, picked, text_of
from .objects import Objects, objects_of
from .table import Column, Rows, Table

# What columns hold is told by so many rows at most, together with what the document says.
SETTLE = 2_000
# Rows of one part: making it holds up the event loop for some milliseconds.
PART = 8_192
# Rows that wait as objects to be put into columns, which is done for many at once.
_AT_ONCE = 512
# Digits of a decimal of which it was not said how many: as many as decimal128 has, and wei's places after the point.
DIGITS = 38, 18
_WIDEST = 38


class Frame:
    """A growing table of one cube's rows.

    A row is as the service nests it (``add``), or comes out of a payload without a detour (``read``, ``add_read``).

    Args:
        root: the response key of the document's root field.
        table: settles the columns before any row has come.

    Attributes:
        cube: the response key; "" for data that is one value.
        nbytes: how many bytes its parts have.
        strict: a value that its column cannot hold, once columns are settled, raises OperationFailed. Else the whole
            column becomes text, in which what came before stands as JSON has it; a time in ISO 8601, UTC.
    """

    def __init__(self, draft: Draft, root: str, *, table: Table | None = None, strict: bool = False) -> None:
        self.cube = draft.table.cube
        self.nbytes = 0
        self.strict = strict
        self._draft = draft
        self._root = root
        self._table: Table | None = None  # as it was settled
        self._objects: Objects | None = None
        # Rows go from one of these to the one before in a single statement, so that Ctrl-C finds them in one of them.
        self._parts: list[pa.Table] = []
        self._parted = 0  # rows in parts
        self._columns: list[list[Any]] = [[]]  # values as JSON has them, of rows that are in no part yet
        self._nested: list[Any] = []  # rows that are in no column yet, …
        self._read: list[Any] = []  # … or those that were read as objects; never both
        if table is not None:
            self._settle_as(table)

    @property
    def count(self) -> int:
        """How many rows it has."""
        return self._parted + len(self._columns[0]) + len(self._nested) + len(self._read)

    @property
    def table(self) -> Table | None:
        """What its columns hold; None before it is settled."""
        return self._table

    @property
    def unsettled(self) -> Sequence[Any] | None:
        """All of its rows, as the service nests them; None once it is settled."""
        return self._nested if self._table is None else None

    # ------------------------------------------------------------------ rows come in

    def add(self, rows: Sequence[Any]) -> None:
        """Take rows as the service nests them. Raises OperationFailed where it is ``strict``; they are in it then."""
        if self._read:
            self._gather()
        self._nested += rows
        self._grown()

    def read(self, raw: bytes) -> Sequence[Any] | None:
        """The rows of a payload, for ``add_read`` alone; None where it has to be read in the general way."""
        return None if self._objects is None else self._objects.rows(raw)

    def add_read(self, rows: Sequence[Any]) -> None:
        """Take rows that ``read`` gave, as ``add`` does."""
        if self._nested:
            self._gather()
        self._read += rows
        self._grown()

    def _grown(self) -> None:
        if self._table is None:
            if len(self._nested) < SETTLE:
                return
            self.settle()
        if len(self._nested) + len(self._read) >= _AT_ONCE:
            self._gather()
            if len(self._columns[0]) >= PART:
                self._flush()

    def settle(self) -> Table:
        """Say what the columns hold, by the document and the first rows that there are. Idempotent.

        Raises UsageError where two columns would have one name.
        """
        if self._table is None:
            rows = self._nested[:SETTLE]
            table = self._draft.settle(rows)
            columns = [
                _with_digits(column, values)
                for column, values in zip(table.columns, picked(table, rows), strict=True)
            ]
            return self._settle_as(replace(table, columns=tuple(columns)))
        return self._table

    def _settle_as(self, table: Table) -> Table:
        self._objects = objects_of(table, self._root)
        self._table, self._columns = table, [[] for _ in table.columns]
        return table

    def _gather(self) -> None:
        """Put the values of rows into columns."""
        table = self.settle()
        if self._read:
            assert self._objects is not None, "who else has read them"
            found = self._objects.columns(self._read)
        else:
            found = picked(table, self._nested)
        grown = [column + values for column, values in zip(self._columns, found, strict=True)]
        self._columns, self._nested, self._read = grown, [], []

    # ------------------------------------------------------------------ tables come out

    def take(self, most: int | None = None) -> pa.Table:
        """Take out the first ``most`` rows, or all there are, as one table of several chunks.

        Raises OperationFailed where it is ``strict``; nothing was taken out then.
        """
        self._gather()
        if self._columns[0]:
            self._flush()
        table = pa.concat_tables(self._parts) if self._parts else self._schema().empty_table()
        rest = table.slice(table.num_rows if most is None else most)
        taken = table.slice(0, most) if rest.num_rows else table
        self._parts, self._parted = [rest] if rest.num_rows else [], rest.num_rows
        self.nbytes = rest.nbytes if rest.num_rows else 0
        return taken

    def _schema(self) -> pa.Schema:
        return pa.schema([(column.name, type_of(column, _WIDEST)) for column in self.settle().columns])

    def _flush(self) -> None:
        """Make a part of what is in columns."""
        table = self.settle()
        columns, made = list(table.columns), []
        for place, (column, found) in enumerate(zip(table.columns, self._columns, strict=True)):
            values, errors = converted(column, found)
            if errors:
                if self.strict:
                    index, reason = errors[0]
                    row = self._parted + index + 1
                    raise OperationFailed(
                        f"{column.name} of row {row} does not fit: {reason}: "
                        f"columns={{'{column.name}': 'text'}} takes any, and to_arrow() turns the column into text"
                    )
                columns[place] = replace(column, kind="text", digits=None)
                values = [None if value is None else text_of(value) for value in found]
            made.append(values)
        parts, nbytes = self._parts, self.nbytes
        for place, column in enumerate(columns):
            if column != table.columns[place]:
                parts = [_widened(part, place) for part in parts]
                nbytes = sum(part.nbytes for part in parts)
        table, count = replace(table, columns=tuple(columns)), len(made[0])
        # What stays while much else comes and goes leaves holes in Arrow's own pool, which took half as much again.
        part = arrow_of(Rows(table, count, made), columns, _WIDEST, pa.system_memory_pool())
        parts, parted, empty = [*parts, part], self._parted + count, [list[Any]() for _ in columns]
        nbytes += part.nbytes
        self._table, self._parts, self._parted, self._columns = table, parts, parted, empty
        self.nbytes = nbytes


def _with_digits(column: Column, values: Sequence[Any]) -> Column:
    """Where nothing was said of a decimal's digits, the usual ones; text where the first rows have more."""
    if column.kind != "decimal" or column.digits is not None:
        return column
    narrowed = replace(column, digits=DIGITS)
    return replace(column, kind="text") if converted(narrowed, list(values))[1] else narrowed


def _widened(part: pa.Table, place: int) -> pa.Table:
    """With a column as text: numbers as JSON has them, times in ISO 8601."""
    column = part.column(place)
    if pa.types.is_string(column.type):
        return part
    values = column.to_pylist()
    if pa.types.is_timestamp(column.type):
        texts = [value and value.isoformat().replace("+00:00", "Z") for value in values]
    elif pa.types.is_decimal(column.type):
        texts = [None if value is None else _plain(format(value, "f")) for value in values]
    else:
        texts = [None if value is None else text_of(value) for value in values]
    return part.set_column(place, part.schema.field(place).name, pa.array(texts, pa.string()))


def _plain(text: str) -> str:
    """Without the zeros that the column's digits have put behind a number."""
    return text.rstrip("0").rstrip(".") if "." in text else text
