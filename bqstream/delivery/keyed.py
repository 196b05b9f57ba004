"""Rows that are told by their key, read for what tells them alone: a payload's all at once.

What is found is what `tagged` finds, in a quarter of the time; rows that are not as most are it leaves to that. The
rest of a row is passed over, whatever it holds: a number that no double holds is no obstacle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from .cursor import Cursor, Path
from .enlarge import Reader

Tag = bytes
"""9 bytes, 12 characters in base64: one coincidence among a million rows once in ten billion times."""
Tags = dict[Cursor | None, bytes]
"""The tags of one cube's rows, one after another, by where the rows stand."""
UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)

_Tree = dict[str, Any]  # a field's name to the fields below it
_TOLD = frozenset((str, int))
_MAY_BE_NULL = _TOLD | {type(None)}
_encode_lines = msgspec.json.Encoder().encode_lines


def digest(text: bytes) -> Tag:
    return blake2b(text, digest_size=9).digest()


class Keyed:
    """The cubes of ``readers`` whose rows have a key.

    Attributes:
        cubes: their response keys.
    """

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._rows = {key: rows for key, reader in readers.items() if (rows := _rows_of(reader)) is not None}
        self.cubes = frozenset(self._rows)
        self._names = {key: f"cube{number}" for number, key in enumerate(self._rows)}
        fields = [
            (self._names[key], list[rows.type] | None, msgspec.field(name=key, default=None))  # type: ignore[name-defined]
            for key, rows in self._rows.items()
        ]
        cubes: Any = msgspec.defstruct("Cubes", fields, gc=False)
        data: Any = dict[str, cubes | None] | None
        payload = msgspec.defstruct("Payload", [("data", data, None)], gc=False)
        self._decode = msgspec.json.Decoder(payload).decode

    def read(self, raw: bytes) -> dict[str, Tags] | None:
        """By cube; None where a payload is not as most are."""
        found: dict[str, Tags] = {}
        try:
            (cubes,) = self._decode(raw).data.values()  # type: ignore[attr-defined]
        except (*UNREADABLE, AttributeError):
            return None
        for key, rows in self._rows.items():
            if values := getattr(cubes, self._names[key], None):
                tags = rows.read(values)
                if tags is None:
                    return None
                found[key] = tags
        return found


def read_row(raw: msgspec.Raw, reader: Reader) -> tuple[Cursor | None, Tag] | None:
    """Where one row stands, and its tag; None where that cannot be told by its key alone."""
    rows = _rows_of(reader)
    try:
        found = None if rows is None else rows.read([rows.decode(raw)])
    except UNREADABLE:
        return None
    return None if found is None else next(iter(found.items()))


class _Rows:
    """How the rows of one cube are decoded. ``type``: an object of the fields on the way to what tells a row."""

    def __init__(self, reader: Reader, tree: _Tree) -> None:
        self._reader = reader
        self._names: dict[Path, str] = {}
        self.type = self._struct(tree, ())
        self.decode = msgspec.json.Decoder(self.type).decode

    def _struct(self, tree: _Tree, at: Path) -> Any:
        """Not looked at by the search for cycles: whatever is in it is a leaf, or another one."""
        fields = []
        for number, (name, below) in enumerate(tree.items()):
            path = (*at, name)
            self._names[path] = f"field{number}"
            kind = self._struct(below, path) | None if below else Any
            fields.append((f"field{number}", kind, msgspec.field(name=name, default=None)))
        return msgspec.defstruct("Object", fields, gc=False)

    def read(self, rows: list[Any]) -> Tags | None:
        """The tags of these rows; None where one of them has no key, or one of other values than text and integers."""
        picked: dict[Path, list[Any]] = {(): rows}
        of = [self._picked(path, picked) for path in self._reader.of]
        within = [self._picked(path, picked) for path in self._reader.within]
        if not (_are(of, _TOLD) and _are(within, _MAY_BE_NULL)):
            return None
        keys = _encode_lines(list(zip(*of, *within, strict=True))).split(b"\n")
        kind, at = self._reader.kind, self._reader.at
        if kind is None or at is None:
            return {None: b"".join([digest(b"k" + key) for key in keys[:-1]])}
        places = self._picked(at, picked)
        if not _are([places], _MAY_BE_NULL):
            return None
        tags: dict[Any, list[Tag]] = {place: [] for place in places}
        for place, key in zip(places, keys, strict=False):
            tags[place].append(digest(b"k" + key))
        found: Tags = {}
        for place, some in tags.items():  # a place may be written as a number and as text
            cursor = Cursor.parse(kind, place)
            found[cursor] = found.get(cursor, b"") + b"".join(some)
        return found

    def _picked(self, path: Path, known: dict[Path, list[Any]]) -> list[Any]:
        """What each row has at ``path``: None where it, or an object on the way, is null or not there."""
        found = known.get(path)
        if found is None:
            above, name = self._picked(path[:-1], known), self._names[path]
            try:
                found = list(map(attrgetter(name), above))
            except AttributeError:
                found = [None if value is None else getattr(value, name) for value in above]
            known[path] = found
        return found


def _are(columns: Sequence[list[Any]], types: frozenset[type]) -> bool:
    return all(types.issuperset(map(type, column)) for column in columns)


@lru_cache(maxsize=256)
def _rows_of(reader: Reader) -> _Rows | None:
    """None where rows have no key."""
    if not reader.of:
        return None
    tree: _Tree = {}
    for path in (*reader.of, *reader.within, reader.at or ()):
        below = tree
        for name in path:
            below = below.setdefault(name, {})
    return _Rows(reader, tree)
