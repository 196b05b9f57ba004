"""Rows as the service nests them, turned into columns; a row that does not fit its table is set apart.

Whole columns are picked and looked at at once, by C code where all rows are alike. Only where that fails is each value
looked at by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from .table import Column, Kind, Rows, Table

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")  # as JSON writes one: 007 is text
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WIDEST = 1000  # digits of a decimal: a short text may stand for a number of any length
_FINER = re.compile(r"[.,][0-9]{6}0*[1-9]")  # than a microsecond, which is what a datetime holds
_NONE = type(None)
_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that its table cannot take, and why."""

    table: str
    row: Any
    reason: str


class _Odd:
    """In the place of a value whose row is shaped otherwise: what stands where an object was expected."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def flatten(
    table: Table,
    rows: Sequence[Any],
    *,
    undo: bool = False,
    refused: Callable[[Rows], Sequence[int]] | None = None,
) -> tuple[Rows, list[Misfit]]:
    """The rows by column, and those that do not fit; also those that the sink itself has ``refused``, by index."""
    columns: list[list[Any]] = []
    wrong: dict[int, str] = {}
    for column, found in zip(table.columns, picked(table, rows), strict=True):
        values, errors = converted(column, found)
        columns.append(values)
        for index, reason in errors:
            wrong.setdefault(index, f"{column.name}: {reason}")
    made = Rows(table, len(rows), columns, undo=undo)
    for index in refused(made) if refused is not None else ():
        wrong.setdefault(index, "the sink cannot hold it")
    if not wrong:
        return made, []
    kept = [index for index in range(len(rows)) if index not in wrong]
    misfits = [Misfit(table.name, rows[index], reason) for index, reason in sorted(wrong.items())]
    return Rows(
        table, len(kept), [[values[index] for index in kept] for values in columns], undo=undo
    ), misfits


def picked(table: Table, rows: Sequence[Any]) -> list[list[Any]]:
    """The values of the rows, column by column, as JSON has them; for `converted` and `text_of` alone."""
    known: dict[tuple[str, ...], list[Any]] = {(): list(rows)}
    return [_picked(column.path, known) for column in table.columns]


def _picked(path: tuple[str, ...], known: dict[tuple[str, ...], list[Any]]) -> list[Any]:
    """What each row has at ``path``: None where it, or an object on the way, is null or not there."""
    found = known.get(path)
    if found is None:
        above = _picked(path[:-1], known)
        try:
            found = list(map(itemgetter(path[-1]), above))
        except (KeyError, TypeError):
            found = [_inside(value, path[-1]) for value in above]
        known[path] = found
    return found


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    return value if value is None or isinstance(value, _Odd) else _Odd(value)


# ---------------------------------------------------------------------- values


def converted(column: Column, values: list[Any]) -> tuple[list[Any], list[tuple[int, str]]]:
    """The values as the column holds them, and the places of those that it cannot hold."""
    kind, types = column.kind, set(map(type, values))
    if types <= _AS_IT_IS.get(kind, _NOTHING):
        return values, []
    convert = CONVERT[kind] if column.digits is None else _within(*column.digits)
    try:
        if types <= _TEXTS and kind in _SHARED:
            known = {value: None if value is None else convert(value) for value in set(values)}
            return list(map(known.__getitem__, values)), []
        return [None if value is None else convert(value) for value in values], []
    except ValueError:
        pass
    made: list[Any] = []
    errors: list[tuple[int, str]] = []
    for index, value in enumerate(values):
        try:
            made.append(None if value is None else convert(value))
        except ValueError as error:
            made.append(None)
            errors.append((index, str(error)))
    return made, errors


def text_of(value: Any) -> str:
    """Any value that is not null as text, also what stands where an object was expected."""
    return _text(value.value if isinstance(value, _Odd) else value)


def _text(value: Any) -> str:
    """Text takes all: what is no string is kept as the JSON that it was."""
    if isinstance(value, _Odd):
        raise ValueError(f"an object was expected on the way, and not {_shown(value.value)}")
    return value if isinstance(value, str) else _json(value).decode()


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise ValueError(f"{_shown(value)} is no JSON number")
    try:
        if int(made := float(value)) == value:
            return made
    except OverflowError:
        pass
    raise ValueError(f"{_shown(value)} is an integer that no double holds")


def _integer(value: Any) -> int:
    if type(value) is str and _INTEGER.fullmatch(value):
        value = int(value)
    if type(value) is not int or not _LOWEST <= value <= _HIGHEST:
        raise ValueError(f"{_shown(value)} is no integer of 64 bits")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _moment(value: str) -> datetime:
    """Digits beyond the microsecond are not cut: that is no such time."""
    if _FINER.search(value):
        raise ValueError("nanoseconds")
    made = datetime.fromisoformat(value)
    return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)


def _timestamp(value: Any) -> datetime:
    try:
        if type(value) is str:
            return _moment(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{_shown(value)} is no time, or finer than a microsecond")


def _decimal(value: Any) -> Decimal:
    text = value if type(value) is str else repr(value) if type(value) in (int, float) else ""
    try:
        if len(text) <= _WIDEST and _NUMBER.fullmatch(text):
            made = Decimal(text)
            if abs(made.adjusted()) < _WIDEST:
                return made
    except InvalidOperation:  # an exponent that has no end
        pass
    raise ValueError(f"{_shown(value)} is no number")


@lru_cache(maxsize=64)
def _within(precision: int, scale: int) -> Callable[[Any], Decimal]:
    """Exact, or not at all: nothing is rounded."""

    def convert(value: Any) -> Decimal:
        made = _decimal(value)
        _, digits, exponent = made.as_tuple()
        assert isinstance(exponent, int)
        after = max(0, -exponent)
        if after > scale and any(digits[scale - after :]):
            raise ValueError(f"{_shown(value)} has more than {scale} digits after the point")
        if made.adjusted() + 1 > precision - scale and made:
            raise ValueError(f"{_shown(value)} has more than {precision - scale} digits before the point")
        return made

    return convert


def _as_json(value: Any) -> str:
    if isinstance(value, _Odd):
        raise ValueError(f"an object was expected on the way, and not {_shown(value.value)}")
    return _json(value).decode()


CONVERT: Mapping[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "float": _float,
    "integer": _integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "decimal": _decimal,
    "json": _as_json,
}
"""What makes a column's value of a JSON value that is not null; ValueError where it cannot hold it."""

_NOTHING: frozenset[type] = frozenset()
_TEXTS: frozenset[type] = frozenset((str, _NONE))
_SHARED = ("integer", "timestamp")  # rows of a block have its number and time in common
_AS_IT_IS: Mapping[Kind, frozenset[type]] = {
    "text": frozenset((str, _NONE)),
    "float": frozenset((float, _NONE)),
    "boolean": frozenset((bool, _NONE)),
}


def _shown(value: Any) -> str:
    value = value.value if isinstance(value, _Odd) else value
    text = _json(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"
