"""Payloads decoded straight into objects that have a table's fields and no other: in half the time of dicts.

Only the nesting is checked here. A value is whatever JSON has there, and a payload of another shape is none for this
room: it is read as dicts, so that there is one place that says what fits a column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from ..message import UNREADABLE
from .table import Table

_Tree = dict[str, Any]  # a key to the keys below it; to None where a column's value is


class Objects:
    """Reads the rows of one table's cube.

    Args:
        root: the response key of the document's root field, under which the cube is.
    """

    def __init__(self, table: Table, root: str) -> None:
        self._paths = [_attributes(column.path) for column in table.columns]
        row = _struct(_tree(column.path for column in table.columns))
        under = _wrapped(table.cube, list[row])  # type: ignore[valid-type]
        payload = msgspec.defstruct(
            "Payload", [("data", _wrapped(root, under)), ("errors", Any, None)], gc=False
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(payload).decode

    def rows(self, raw: bytes) -> Sequence[Any] | None:
        """The rows of a payload; None where it has errors, or no list of objects shaped as the document says."""
        try:
            payload = self._decode(raw)
        except UNREADABLE:
            return None
        return None if payload.errors else payload.data.below.below

    def columns(self, rows: Sequence[Any]) -> list[list[Any]]:
        """Their values, column by column; None where one is null or not there."""
        known: dict[tuple[str, ...], list[Any]] = {(): list(rows)}
        return [_picked(path, known) for path in self._paths]


@lru_cache(maxsize=64)
def objects_of(table: Table, root: str) -> Objects | None:
    """The same for all that ask for the same, since its classes take a while to make; None for a table that holds its
    data whole."""
    return Objects(table, root) if all(column.path for column in table.columns) else None


def _attributes(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"of_{key}" for key in path)  # so that no key is a word of Python's


def _tree(paths: Any) -> _Tree:
    tree: _Tree = {}
    for path in paths:
        below = tree
        for key in path[:-1]:
            below = below.setdefault(key, {})
        below[path[-1]] = None
    return tree


def _struct(tree: _Tree) -> Any:
    fields: list[tuple[str, Any, Any]] = [
        (f"of_{key}", Any if below is None else _struct(below) | None, msgspec.field(name=key, default=None))
        for key, below in tree.items()
    ]
    # Without cycles, and too many to be looked through for them.
    return msgspec.defstruct("Row", fields, gc=False)


def _wrapped(key: str, kind: Any) -> Any:
    return msgspec.defstruct("Object", [("below", kind, msgspec.field(name=key))], gc=False)


def _picked(path: tuple[str, ...], known: dict[tuple[str, ...], list[Any]]) -> list[Any]:
    found = known.get(path)
    if found is None:
        above, name = _picked(path[:-1], known), path[-1]
        try:
            found = list(map(attrgetter(name), above))
        except AttributeError:  # an object on the way is null
            found = [getattr(value, name, None) for value in above]
        known[path] = found
    return found
