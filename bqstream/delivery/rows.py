"""One payload taken apart into the rows of its cubes, and put together again without some of them.

Rows stay the bytes that came: what is left of a payload is never encoded anew number by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec

Fingerprint = bytes
"""16 bytes that are equal for rows that are equal as JSON values, whatever their spacing and order of fields."""

_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
_cubes = msgspec.json.Decoder(dict[str, dict[str, list[msgspec.Raw] | None] | None])


def fingerprint(row: msgspec.Raw | bytes) -> Fingerprint:
    """What a row is compared by. A number that a double cannot hold leaves the row compared byte by byte."""
    try:
        canonical = msgspec.json.encode(msgspec.json.decode(row), order="sorted")
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        canonical = bytes(row)
    return blake2b(canonical, digest_size=16).digest()


class Rows:
    """The rows of one payload, by response key, as ``message.cubes_of`` has them.

    ``by_key`` holds the fingerprints of each cube's rows, in the payload's order. Data without cubes is one row
    under the empty key; a payload without data, or of errors and only nulls, has no row at all.
    """

    __slots__ = ("_cubes", "_fields", "_root", "by_key", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._root = ""
        self._cubes: dict[str, list[msgspec.Raw] | None] = {}
        self._fields: dict[str, msgspec.Raw] = {}
        self.by_key: dict[str, list[Fingerprint]]
        try:
            self._fields = _envelope.decode(raw)
        except (msgspec.MsgspecError, RecursionError):
            self.by_key = {"": [fingerprint(raw)]}
            return
        data = self._fields.get("data")
        if data is None or bytes(data) == b"null":
            self.by_key = {}
        elif self._split(data):
            self.by_key = {key: [fingerprint(row) for row in rows or ()] for key, rows in self._cubes.items()}
        else:
            self.by_key = {"": [fingerprint(data)]}

    def _split(self, data: msgspec.Raw) -> bool:
        try:
            roots = _cubes.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            return False
        if len(roots) != 1:
            return False
        ((self._root, cubes),) = roots.items()
        self._cubes = cubes or {}
        # What brings errors and only nulls has no row (message.rows).
        failed = bytes(self._fields.get("errors", b"null")) not in (b"null", b"[]")
        return failed or any(rows is not None for rows in self._cubes.values())

    @property
    def count(self) -> int:
        """How many rows there are in all."""
        return sum(map(len, self.by_key.values()))

    def only(self, keep: Mapping[str, Sequence[bool]]) -> bytes:
        """The payload with those rows alone that ``keep`` is true for; every cube's key, errors and extensions stay."""
        cubes = {
            key: rows and [row for row, kept in zip(rows, keep[key], strict=True) if kept]
            for key, rows in self._cubes.items()
        }
        return msgspec.json.encode({**self._fields, "data": {self._root: cubes}})
