"""Prices as the query side has them: worked out anew, so that a row's JSON floats are not those that were streamed.

Everything else of a row is the same, and so is what a filter asks of it: only what is shown, sorted by or summed up.
"""

from __future__ import annotations

from typing import Any

from .chain import Row
from .values import Leaf, mix, salt

_SALT = salt("pricing")


class Repriced(Row):
    """A row whose floats differ from its own by less than ``by`` times themselves, always in the same way."""

    __slots__ = ("_by", "_streamed")

    def __init__(self, streamed: Row, by: float) -> None:
        super().__init__(streamed.block, streamed.seeds, streamed.transaction, streamed.ordinal)
        self._streamed = streamed
        self._by = by

    def get(self, leaf: Leaf) -> Any:
        value = self._streamed.get(leaf)
        if leaf.objects:
            return [Repriced(element, self._by) for element in value]
        if not isinstance(value, float):
            return value
        bits = mix(self.seeds[leaf.scope] ^ leaf.salt ^ _SALT)
        return value * (1 + self._by * (((bits >> 12) + 0.5) / (1 << 51) - 1))
