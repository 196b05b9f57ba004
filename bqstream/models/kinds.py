"""Types as values: what stands at a place of the data, and the structs that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Scalar = Literal["str", "int", "float", "bool", "Decimal", "datetime", "Raw"]
_ORDER: tuple[Scalar, ...] = ("str", "int", "float", "bool", "Decimal", "datetime", "Raw")
OPEN: frozenset[Scalar] = frozenset(("str", "int", "float", "bool"))
"""Any scalar of JSON: nothing more is known."""


@dataclass(frozen=True, slots=True)
class Struct:
    """An object. ``path``: the response keys on the way to it; empty for the whole data."""

    path: tuple[str, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """What may stand at one place: any of its parts.

    Raw, which takes anything, is there alone; and of those that JSON writes as strings there is one (msgspec, "Union
    Restrictions").
    """

    scalars: frozenset[Scalar] = frozenset()
    struct: Struct | None = None
    items: Type | None = None
    null: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nothing is known of its scalars."""
        return self.scalars >= OPEN

    @property
    def ordered(self) -> list[Scalar]:
        return [scalar for scalar in _ORDER if scalar in self.scalars]

    @property
    def structs(self) -> Iterator[Struct]:
        """Every struct in it, the innermost first."""
        if self.items is not None:
            yield from self.items.structs
        if self.struct is not None:
            for attribute in self.struct.attributes:
                yield from attribute.type.structs
            yield self.struct


@dataclass(frozen=True, slots=True)
class Attribute:
    """A field of a struct. ``optional``: it may be absent, and is None then."""

    key: str
    type: Type
    optional: bool


def nullable(one: Type) -> Type:
    """The same, or null."""
    return replace(one, null=True)
