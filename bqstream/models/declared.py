"""What a schema declares of the fields that a document selects: the only room here that knows a schema's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..tables.scalars import Schema, kind_of
from ..tables.table import Kind
from .selected import Mention, Selected

if TYPE_CHECKING:
    from graphql import GraphQLOutputType


@dataclass(frozen=True, slots=True)
class Declared:
    """What a schema says of one response key.

    Attributes:
        wraps: lists and nulls around it, the outermost first: "list" or "null".
        scalars: by their names what they hold; None for those that are not known. Empty for an object.
        types: of an object: the types that it may have.
        always: whether each of its object's types has it.
    """

    wraps: tuple[str, ...]
    scalars: Mapping[str, Kind | None]
    types: tuple[Any, ...]
    always: bool


class Declarations:
    """A schema's answers. Raises ValueError for text that is none."""

    def __init__(self, text: str) -> None:
        self._schema = Schema(text).graphql
        root = self._schema.subscription_type or self._schema.query_type
        self.roots: tuple[Any, ...] = (root,) if root else ()

    def of(self, field: Selected, parents: Sequence[Any], path: Sequence[str]) -> Declared:
        """What it says of ``field`` in an object of one of the types ``parents``. Raises UsageError where it is not
        there, or is a leaf of the one and an object of the other."""
        from graphql import GraphQLEnumType, GraphQLScalarType, get_named_type

        found = [made for mention in field.mentions for made in self._types(mention, parents)]
        if not found:
            raise UsageError(f"--schema: {'.'.join(path)} is not in it")
        named = tuple(dict.fromkeys(map(get_named_type, found)))
        leaves = [one for one in named if isinstance(one, GraphQLScalarType | GraphQLEnumType)]
        if (len(leaves) == len(named)) is not (field.fields is None):
            what = "a value" if field.fields else "an object"
            raise UsageError(f"--schema: {'.'.join(path)} is {what} there, and is not selected like one")
        scalars: dict[str, Kind | None] = {
            one.name: "text" if isinstance(one, GraphQLEnumType) else kind_of(one.name) for one in leaves
        }
        return Declared(
            _wraps(found),
            scalars,
            () if leaves else named,
            self._always(field, parents),
        )

    def _types(self, mention: Mention, parents: Sequence[Any]) -> list[GraphQLOutputType]:
        from graphql import GraphQLNonNull, GraphQLString

        if mention.name == "__typename":
            return [GraphQLNonNull(GraphQLString)]
        owners = [self._schema.get_type(mention.within[-1])] if mention.within else parents
        fields = (getattr(owner, "fields", {}).get(mention.name) for owner in owners)
        return [field.type for field in fields if field is not None]

    def _always(self, field: Selected, parents: Sequence[Any]) -> bool:
        possible = set().union(*map(self._possible, parents))
        held: set[str] = set()
        for mention in field.mentions:
            within = set(possible)
            for name in mention.within:
                within &= self._possible(self._schema.get_type(name))
            held |= within
        return held >= possible

    def _possible(self, named: Any) -> set[str]:
        from graphql import is_abstract_type

        if named is None:
            return set()
        if is_abstract_type(named):
            return {one.name for one in self._schema.get_possible_types(named)}
        return {named.name}


def _wraps(types: Sequence[GraphQLOutputType]) -> tuple[str, ...]:
    """Mentions of one key agree in their lists (spec, 5.3.2), and may differ in what is null."""
    from graphql import GraphQLList, GraphQLNonNull

    wraps: list[str] = []
    while True:
        if not all(isinstance(one, GraphQLNonNull) for one in types):
            wraps.append("null")
        types = [one.of_type if isinstance(one, GraphQLNonNull) else one for one in types]
        if not isinstance(types[0], GraphQLList):
            return tuple(wraps)
        wraps.append("list")
        types = [one.of_type if isinstance(one, GraphQLList) else one for one in types]
