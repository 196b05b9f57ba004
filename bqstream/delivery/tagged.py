"""Rows with what they are compared by: across links, with a query's answer, and with a checkpoint."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from .cursor import Cursor
from .enlarge import Reader
from .keyed import UNREADABLE, Keyed, Tag, Tags, digest, read_row
from .rows import Payload

_seen = threading.local()  # whether the row that this thread decodes holds a JSON float


class _Float:
    """Stands in a row for a JSON float, which the query side prices anew (graphql/dataset, design)."""


def _float(text: str) -> _Float:
    _seen.float = True
    if math.isinf(float(text)):
        raise ValueError("no double holds it")
    return _FLOAT


_FLOAT = _Float()
_decode = msgspec.json.Decoder(float_hook=_float).decode
_encode = msgspec.json.Encoder(order="sorted", enc_hook=lambda value: "~").encode


class Row(NamedTuple):
    """One row of a cube.

    Attributes:
        raw: the bytes that came.
        cursor: where it stands; None where it does not say.
        tag: what it is compared by with a query's answer: its key, or its block and content without JSON floats.
        exact: what it is compared by across links: its key, or its block and whole content.
        content: its content without JSON floats: two rows under one key that differ in it show the key to be none.
        hash: its block's hash, where it shows one.
    """

    raw: msgspec.Raw
    cursor: Cursor | None
    tag: Tag
    exact: Tag
    content: Tag
    hash: str | None

    @property
    def block(self) -> int | None:
        """The cursor's value: the frame in which equal rows are counted."""
        return None if self.cursor is None else self.cursor.value


def tags_of(raw: bytes, readers: Mapping[str, Reader], keyed: Keyed) -> dict[str, Tags]:
    """The tags of a payload's rows, by cube and place: less work than to read all of each. ``keyed`` is of the same
    readers."""
    found = keyed.read(raw)
    if found is not None and keyed.cubes == readers.keys():
        return found
    cubes, found = Payload(raw).cubes, found or {}
    for key in readers.keys() - found.keys():
        tags: Tags = {}
        for one in cubes.get(key) or ():
            row = tagged(one, readers[key], whole=False)
            tags[row.cursor] = tags.get(row.cursor, b"") + row.tag
        found[key] = tags
    return found


def told_by(reader: Reader) -> str:
    """What rows are compared by, for a checkpoint: tags mean something only to a reader that tells the same."""
    fields = (reader.kind, reader.at, reader.branch, reader.of, reader.within)
    return blake2b(repr(fields).encode(), digest_size=6).hexdigest()


def cursors_of(
    cubes: Mapping[str, Sequence[msgspec.Raw] | None], readers: Mapping[str, Reader]
) -> dict[str, list[Cursor]]:
    """Where the rows of each cube stand, of those that say so."""
    return {
        key: [cursor for raw in rows or () if (cursor := _cursor(raw, readers[key])) is not None]
        for key, rows in cubes.items()
        if key in readers
    }


def _cursor(raw: msgspec.Raw, reader: Reader) -> Cursor | None:
    try:
        return reader.cursor(msgspec.json.decode(raw))
    except UNREADABLE:
        found = read_row(raw, reader)
        return None if found is None else found[0]


def tagged(raw: msgspec.Raw, reader: Reader, *, whole: bool = True) -> Row:
    """Read one row; nothing here raises, whatever it holds. If not ``whole``, ``exact`` and ``content`` say no more
    than ``tag`` does."""
    _seen.float = False
    try:
        value = _decode(raw)
    except UNREADABLE:
        content = digest(bytes(raw))
        cursor, tag = read_row(raw, reader) or (None, content)
        return Row(raw, cursor, tag, tag, content, None)
    cursor, key, branch = reader.cursor(value), reader.key(value), reader.hash(value)
    if key is not None:
        tag = content = digest(b"k" + msgspec.json.encode(key))
        if whole:
            reader.take_out(value)
            content = digest(_canonical(value, raw))
        return Row(raw, cursor, tag, tag, content, branch)
    reader.take_out(value)
    frame = msgspec.json.encode((branch, None if cursor is None else cursor.value))
    tag = exact = digest(frame + _canonical(value, raw))
    if _seen.float and whole:
        value = msgspec.json.decode(raw)
        reader.take_out(value)
        exact = digest(frame + b"!" + _canonical(value, raw))
    return Row(raw, cursor, tag, exact, tag, branch)


def tagged_rows(
    cubes: Mapping[str, Sequence[msgspec.Raw] | None], readers: Mapping[str, Reader]
) -> dict[str, list[Row]]:
    """The rows of each cube that has a reader; a cube that is null has none."""
    return {
        key: [tagged(row, readers[key]) for row in rows or ()]
        for key, rows in cubes.items()
        if key in readers
    }


def _canonical(value: Any, raw: msgspec.Raw) -> bytes:
    try:
        return _encode(value)
    except (*UNREADABLE, TypeError):
        return bytes(raw)
