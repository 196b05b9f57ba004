"""Rows as Arrow tables: for the sinks whose libraries take them, and for data frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ..errors import SinkFailed
from .table import Column, Rows

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_TYPES = {
    "text": pa.string(),
    "float": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}


def type_of(column: Column, widest: int) -> pa.DataType:
    """What holds a column, where a decimal has no more than ``widest`` digits; one with more, or with any, is text."""
    if column.kind != "decimal":
        return _TYPES[column.kind]
    if column.digits is None or column.digits[0] > widest:
        return pa.string()
    return pa.decimal128(*column.digits) if column.digits[0] <= 38 else pa.decimal256(*column.digits)


def arrow_of(
    rows: Rows, columns: Sequence[Column], widest: int, pool: pa.MemoryPool | None = None
) -> pa.Table:
    """The rows with ``columns``, in that order; one that they do not have is null. ``pool``: in place of Arrow's own.

    Raises SinkFailed: a value that its column cannot hold.
    """
    there = dict(zip(rows.table.names, rows.columns, strict=True))
    arrays = []
    for column in columns:
        kind = type_of(column, widest)
        try:
            arrays.append(
                pa.array(_plain(column, kind, there[column.name]), kind, memory_pool=pool)
                if column.name in there
                else pa.nulls(rows.count, kind)
            )
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise SinkFailed(
                f"a value of {rows.table.name}.{column.name} does not fit {kind}: {error}"
            ) from error
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


def _plain(column: Column, kind: pa.DataType, values: list[Any]) -> Sequence[Any]:
    if column.kind == "decimal" and pa.types.is_string(kind):
        return [format(value, "f") if isinstance(value, Decimal) else None for value in values]
    if column.kind == "timestamp":
        # Arrow takes a number in a fifth of the time, and rows of a block share theirs.
        known = {value: None if value is None else (value - _EPOCH) // _MICROSECOND for value in set(values)}
        return list(map(known.__getitem__, values))
    return values
