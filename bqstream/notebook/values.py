"""What a row shows: its columns by the names that they have in a table, and those of them that can be drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from math import isfinite
from typing import Any

import msgspec

from ..tables.flatten import CONVERT
from ..tables.scalars import guess

_NUMBER = re.compile(r"-?[0-9]{1,80}(\.[0-9]{1,80})?([eE][+-]?[0-9]{1,3})?")
_TIMES = (("Block", "Time"), ("Block", "Timestamp"), ("Time",))


def cells(row: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value of a row with the keys on the way to it; a list is one value, its JSON."""
    if isinstance(row, dict) and row:
        for key, value in row.items():
            yield from cells(value, (*path, key))
    else:
        yield path, msgspec.json.encode(row).decode() if isinstance(row, list | dict) else row


def number(value: Any) -> float | None:
    """What can be drawn of a value: amounts are strings, wider than a double; None for what is no number."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        made = float(value)
    except OverflowError:
        return None
    return made if isfinite(made) else None


def time_of(found: Iterable[tuple[tuple[str, ...], Any]]) -> datetime | None:
    """When the row's block was published, where it says so."""
    for path, value in found:
        if path in _TIMES:
            try:
                made = CONVERT["timestamp"](value)
            except ValueError:
                continue
            return made if isinstance(made, datetime) else None
    return None


def is_measure(path: tuple[str, ...]) -> bool:
    """Whether it is by its name an amount or a price, which is what people want to see drawn, and no number of a
    block."""
    return guess(path) in ("float", "decimal")
