"""Types as values: what stands at a place of the data, and the structs that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Scalar = Literal["str", "int", "float", "bool", "Decimal", "datetime", "Raw"]
_ORDER: tuple[Scalar, ...] = ("str", "int", "float", "bool", "Decimal", "datetime", "Raw")
OPEN: frozenset[Scalar] = frozenset(("str", "int", "float", "bool"))
"""Any scalar of JSON: of what it holds nothing is known."""


@dataclass(frozen=True, slots=True)
class Struct:
    """An object. ``path``: the response keys on the way to it; empty for the whole data."""

    path: tuple[str, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """What may stand at one place: one of its parts, each of which may be there beside the others."""

    scalars: frozenset[Scalar] = frozenset()
    struct: Struct | None = None
    items: Type | None = None
    null: bool = False

    def __post_init__(self) -> None:
        # Raw takes anything. Of types that JSON writes as strings there may be but one (msgspec, "Union
        # Restrictions"), and Decimal takes numbers.
        scalars = self.scalars
        if "Raw" in scalars:
            scalars = frozenset(("Raw",))
        elif "str" in scalars:
            scalars -= {"Decimal", "datetime"}
        elif "Decimal" in scalars:
            scalars -= {"int", "float", "datetime"}
        object.__setattr__(self, "scalars", scalars)

    @property
    def is_open(self) -> bool:
        """Whether nothing is known of its scalars."""
        return self.scalars >= OPEN

    @property
    def ordered(self) -> list[Scalar]:
        return [scalar for scalar in _ORDER if scalar in self.scalars]

    def __or__(self, other: Type) -> Type:
        items = self.items | other.items if self.items and other.items else self.items or other.items
        null = self.null or other.null
        return Type(self.scalars | other.scalars, self.struct or other.struct, items, null)

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


def union(types: Iterable[Type]) -> Type:
    """What any of these allows."""
    made = Type()
    for one in types:
        made |= one
    return made


def nullable(one: Type) -> Type:
    return replace(one, null=True)
