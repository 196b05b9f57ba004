"""One payload taken apart into the rows of its cubes, and put together again without some of them.

Rows stay the bytes that came: what is left of a payload is never encoded anew number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec

Fingerprint = bytes
"""16 bytes that are equal for rows that are equal as JSON values, whatever their spacing and order of fields."""

_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
_cubes = msgspec.json.Decoder(dict[str, dict[str, list[msgspec.Raw] | None] | None])
_with_type = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw] | None])
_list = msgspec.json.Decoder(list[msgspec.Raw] | None)
TYPE = "__typename"
_NOTHING = (b"", b"null", b"[]")


def fingerprint(row: msgspec.Raw | bytes) -> Fingerprint:
    """What a row is compared by. A number that a double cannot hold leaves the row compared byte by byte."""
    try:
        canonical = msgspec.json.encode(msgspec.json.decode(row), order="sorted")
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        canonical = bytes(row)
    return blake2b(canonical, digest_size=16).digest()


class Payload:
    """One payload by the response keys of its cubes, as ``message.cubes_of`` has them.

    Attributes:
        raw: the bytes that came.
        cubes: each cube's rows as they came, None where it is null; no cube at all where the payload has no data.
        shapeless: data that has no cubes: it is one row.
        failed: it brings errors beside its data.
    """

    __slots__ = ("_fields", "_root", "_type", "cubes", "failed", "raw", "shapeless")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.cubes: dict[str, list[msgspec.Raw] | None] = {}
        self.shapeless = self.failed = False
        self._root = ""
        self._type: dict[str, msgspec.Raw] = {}
        try:
            self._fields = _envelope.decode(raw)
        except (msgspec.MsgspecError, RecursionError):
            self._fields, self.shapeless = {}, True
            return
        self.failed = bytes(self._fields.get("errors", b"")) not in _NOTHING
        data = self._fields.get("data")
        if data is not None and bytes(data) != b"null":
            self.shapeless = not self._split(data)

    def _split(self, data: msgspec.Raw) -> bool:
        try:
            roots = _cubes.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            try:
                roots = self._without_type(data)
            except (msgspec.MsgspecError, RecursionError):
                return False
        roots.pop(TYPE, None)
        if len(roots) != 1:
            return False
        ((self._root, cubes),) = roots.items()
        self.cubes = cubes or {}
        # What brings errors and only nulls has no row (message.rows).
        return self.failed or any(rows is not None for rows in self.cubes.values())

    def _without_type(self, data: msgspec.Raw) -> dict[str, dict[str, list[msgspec.Raw] | None] | None]:
        """The cubes, where the root says of what type it is (GraphQL specification, section 4.2)."""
        roots = _with_type.decode(data)
        for fields in roots.values():
            if fields is not None and TYPE in fields:
                self._type = {TYPE: fields.pop(TYPE)}
        return {
            root: None if fields is None else {key: _list.decode(rows) for key, rows in fields.items()}
            for root, fields in roots.items()
        }

    @property
    def data(self) -> msgspec.Raw | None:
        """The payload's ``data``, undecoded."""
        return self._fields.get("data")

    @property
    def count(self) -> int:
        """How many rows there are in all."""
        return int(self.shapeless) + sum(len(rows) for rows in self.cubes.values() if rows)

    def only(self, keep: Mapping[str, Sequence[bool]]) -> bytes:
        """The payload with those rows alone that ``keep`` is true for; every cube's key, errors and extensions stay."""
        cubes = {
            key: rows and [row for row, kept in zip(rows, keep[key], strict=True) if kept]
            for key, rows in self.cubes.items()
        }
        return self._with(cubes)

    def without(self, keys: Iterable[str]) -> bytes:
        """The payload with none of the rows of these cubes; their keys stay."""
        cubes = dict(self.cubes)
        cubes.update((key, []) for key in keys if cubes.get(key))
        return self._with(cubes)

    def changed(self, change: Callable[[str, msgspec.Raw], msgspec.Raw]) -> bytes:
        """The payload with ``change(cube, row)`` in place of each row."""
        cubes = {key: rows and [change(key, row) for row in rows] for key, rows in self.cubes.items()}
        return self._with(cubes)

    def _with(self, cubes: Mapping[str, Sequence[msgspec.Raw] | None]) -> bytes:
        return msgspec.json.encode({**self._fields, "data": {self._root: {**self._type, **cubes}}})


class Rows(Payload):
    """A payload whose rows are compared by content alone.

    ``by_key`` holds the fingerprints of each cube's rows, in the payload's order. Data without cubes is one row
    under the empty key; a payload without data, or of errors and only nulls, has no row at all.
    """

    __slots__ = ("by_key",)

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.by_key: dict[str, list[Fingerprint]]
        if self.shapeless:
            self.by_key = {"": [fingerprint(raw if self.data is None else self.data)]}
        else:
            self.by_key = {key: [fingerprint(row) for row in rows or ()] for key, rows in self.cubes.items()}
