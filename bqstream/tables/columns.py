"""A document's tables: which columns each cube has, and what each of them holds.

Names come from the document before anything is sent. What a column holds is said, in this order, by the user, by a
schema that the user gives, by the first rows; where those are silent by the service's habits (scalars.py), else it is
text. From the first commit on it stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from ..delivery.document import Document
from ..delivery.shape import CubeShape, shape_of
from ..errors import UsageError
from .flatten import CONVERT
from .scalars import Schema, guess, is_list
from .table import Column, Kind, Table

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")


@dataclass(frozen=True, slots=True)
class Draft:
    """A table of which it is not yet known what all of its columns hold.

    Attributes:
        table: with a guess for each column.
        given: what the user or the schema said, by the column's name: the first rows do not overrule it.
    """

    table: Table
    given: frozenset[str]

    def settle(self, rows: Sequence[Any]) -> Table:
        """The table as these rows, nested, show it to be. Raises UsageError where two columns would have one name."""
        columns: dict[tuple[str, ...], Column] = {}
        for column in self.table.columns:
            values, cut = _values(rows, column.path)
            given = column.name in self.given
            if cut is not None and not (given and cut == column.path):
                # A list on the way, or a list: one column holds it whole, whatever was said of what is in it.
                columns.setdefault(cut, Column("_".join(cut), cut, "json"))
            else:
                kind = column.kind if given else _told_by(values, column.kind)
                columns[column.path] = replace(column, kind=kind)
        settled = replace(self.table, columns=tuple(columns.values()))
        if mistakes := _twice(settled):
            raise UsageError("; ".join(mistakes))
        return settled


def drafts(
    document: Document,
    variables: Mapping[str, Any] | None = None,
    *,
    table: str | None = None,
    columns: Mapping[str, str] | None = None,
    schema: str | None = None,
    decimals: bool = False,
) -> tuple[Draft, ...]:
    """A draft for each cube of ``document``, named by its response key.

    A root that is not known to be Bitquery's has one more, of the cube "", for data that turns out to have no lists of
    rows: its one column holds all of it.

    Args:
        table: the table's name in place of that; for a document of one cube.
        columns: by a column's name what it holds: a `Kind`, or ``decimal(precision, scale)``. "json" may be said of an
            object as well, by the name that it would have: one column holds all of it.
        schema: the service's schema: GraphQL's schema language, or the JSON of an introspection.
        decimals: wide numbers are decimals, where the sink has them, and not text.

    Raises UsageError, naming every mistake: names that are there twice, columns that are not there, a kind that is
    none, ``table`` for several cubes, a schema that is none.
    """
    shape = shape_of(document, variables)
    cubes = [cube for cube in shape.cubes if cube.kind != "scalar"]
    mistakes: list[str] = []
    known: Schema | None = None
    try:
        known = Schema(schema) if schema is not None else None
    except ValueError as error:
        mistakes.append(f"--schema: {error}")
    whole = Draft(Table(table or shape.key, "", (Column("data", (), "json"),)), frozenset(("data",)))
    if len(cubes) != len(shape.cubes) or not cubes:  # another service's: its data is one value
        found = [whole]
    else:
        if table is not None and len(cubes) > 1:
            keys = ", ".join(cube.key for cube in cubes)
            mistakes.append(
                f"--table {table}: the document has several cubes, each with a table of its own: {keys}"
            )
        found = [_draft(shape.root, cube, known, decimals, table or cube.key) for cube in cubes]
    mistakes += _misnamed(found)
    if found != [whole] and shape.reason is not None:
        found.append(whole)
    found, wrong = _as_told(found, columns or {})
    for draft in found:
        mistakes += _twice(draft.table)
    if mistakes := [*mistakes, *wrong]:
        raise UsageError("; ".join(mistakes))
    return tuple(found)


def _draft(root: str, cube: CubeShape, schema: Schema | None, decimals: bool, name: str) -> Draft:
    columns: dict[tuple[str, ...], Column] = {}
    given: set[str] = set()
    for path, at in cube.leaves:
        kind: Kind | None = None
        for length in range(1, len(path) + 1):  # a list on the way is one column
            kind = schema.kind((root, cube.name, *path[:length])) if schema else None
            if kind == "json" or is_list(path[:length]):
                path, at, kind = path[:length], at[:length], "json"
                break
        name_of = "_".join(at)
        if kind is not None:
            given.add(name_of)
        kind = kind or guess(path) or "text"
        columns.setdefault(at, Column(name_of, at, "text" if kind == "decimal" and not decimals else kind))
    return Draft(Table(name, cube.key, tuple(columns.values())), frozenset(given))


def _misnamed(found: Sequence[Draft]) -> list[str]:
    """Databases take names that differ in their case alone for the same."""
    names = [draft.table.name for draft in found]
    counts = Counter(name.lower() for name in names)
    twice = [
        f"there would be {count} tables {name}: give one of the cubes an alias"
        for name, count in counts.items()
        if count > 1
    ]
    return twice + [
        f"the table {name}: names that begin with _bqstream are taken"
        for name in names
        if name.lower().startswith("_bqstream")
    ]


def _twice(table: Table) -> list[str]:
    counts = Counter(name.lower() for name in table.names)
    return [
        f"the table {table.name} would have the column {name} {count} times: give one of its fields an alias"
        for name, count in counts.items()
        if count > 1
    ]


def _as_told(found: Sequence[Draft], columns: Mapping[str, str]) -> tuple[list[Draft], list[str]]:
    """The drafts with what the user says of columns, and what is wrong with that."""
    mistakes = []
    kinds: dict[str, _Told] = {}
    for name, text in columns.items():
        if (match := _DECIMAL.fullmatch(text.strip())) and 0 < int(match[1]) >= int(match[2]):
            kinds[name] = "decimal", (int(match[1]), int(match[2]))
        elif text in get_args(Kind):
            kinds[name] = text, None  # type: ignore[assignment]
        else:
            mistakes.append(
                f"column {name}={text}: give {', '.join(get_args(Kind))} or decimal(precision, scale)"
            )
    told = [_told(draft, kinds) for draft in found]
    known = dict.fromkeys(known for draft in (*told, *found) for known in draft.table.names)
    mistakes += [
        f"column {name}: the document has no such column; it has {', '.join(known)}"
        for name in columns
        if name not in known
    ]
    return told, mistakes


_Told = tuple[Kind, tuple[int, int] | None]


def _told(draft: Draft, kinds: Mapping[str, _Told]) -> Draft:
    columns: dict[tuple[str, ...], Column] = {}
    given = set(draft.given)
    for column in draft.table.columns:
        for length in range(1, len(column.path)):  # an object on the way, to be kept whole
            name = "_".join(column.path[:length])
            if kinds.get(name, ("", None))[0] == "json":
                column = Column(name, column.path[:length], "json")
                break
        if column.name in kinds:
            kind, digits = kinds[column.name]
            column = replace(column, kind=kind, digits=digits)
            given.add(column.name)
        columns.setdefault(column.path, column)
    return Draft(replace(draft.table, columns=tuple(columns.values())), frozenset(given))


# ---------------------------------------------------------------------- what rows show


def _values(rows: Iterable[Any], path: tuple[str, ...]) -> tuple[list[Any], tuple[str, ...] | None]:
    """What is there in the rows, but for nulls; and where the first list on the way is, if any row has one."""
    values = []
    cut = len(path) + 1
    for row in rows:
        value = row
        for number, key in enumerate(path):
            if isinstance(value, list):
                cut = min(cut, number)
                break
            value = value.get(key) if isinstance(value, dict) else None
        else:
            if isinstance(value, list):
                cut = min(cut, len(path))
            elif value is not None:
                values.append(value)
    return values, path[:cut] if cut <= len(path) else None


def _told_by(values: Sequence[Any], guessed: Kind) -> Kind:
    """What a column holds that has shown these values."""
    if all(_fits(value, guessed) for value in values):
        return guessed if values or guessed != "json" else "text"
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(_fits(value, "float") for value in values):
        return "float"
    return "json" if all(isinstance(value, dict) for value in values) else "text"


def _fits(value: Any, kind: Kind) -> bool:
    if kind == "text":
        return isinstance(value, str)
    try:
        CONVERT[kind](value)
    except ValueError:
        return False
    return True
