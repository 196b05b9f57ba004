"""What the service's fields hold, by their names: there is no schema at hand until a user gives one.

Block numbers, slots and times come as strings, amounts as strings that may be wider than a double, prices in USD as
JSON numbers (schema/evm/dextrades, graphql/datetime). A rule is a guess that the first rows may overrule; what is in no
rule is told by the first rows alone.
"""

from __future__ import annotations

import re
from typing import Any

from .table import Kind

# The first that matches a field's path, dotted, from the row on.
_HABITS: tuple[tuple[str, Kind], ...] = (
    (r"(^|\.)Block\.(Number|Slot|Height)$", "integer"),
    (r"(^|\.)(Index|Decimals)$", "integer"),
    (r"(^|\.)Time(\.(Start|End))?$", "timestamp"),
    (r"(^|\.)(Amounts?InU(SD|sd)|PriceInU(SD|sd))(\.\w+)?$|InU(SD|sd)$", "float"),
    (r"(^|\.)(Success|Reverted|Fungible|Native|Signer|IsWritable|Mutable|Removed)$", "boolean"),
    (r"(^|\.)(Amount|Value|Balance|PostBalance|PreBalance|Supply|Gas|GasPrice|Cost)$", "decimal"),
)
_RULES = tuple((re.compile(pattern), kind) for pattern, kind in _HABITS)
# Fields that hold a list, so that a column holds it whole (blockchain/Solana, evm/calls).
_LISTS = frozenset(
    (
        *("Arguments", "Accounts", "AccountNames", "AncestorIndexes", "CallPath", "Logs", "Outcomes"),
        *("OutcomeTokenIds", "Returns", "Signatures", "Topics"),
    )
)
# GraphQL's own scalars, and the service's by what they are called.
_TYPES: dict[str, Kind] = {
    "String": "text",
    "ID": "text",
    "Int": "integer",
    "Float": "float",
    "Boolean": "boolean",
    "DateTime": "timestamp",
    "OLAP_DateTime": "timestamp",
    "BigInt": "decimal",
    "JSON": "json",
}


def guess(path: tuple[str, ...]) -> Kind | None:
    """What the field at ``path`` (names, from the row on) holds by the service's habits; None where that is open."""
    dotted = ".".join(path)
    return next((kind for pattern, kind in _RULES if pattern.search(dotted)), None)


def is_list(path: tuple[str, ...]) -> bool:
    """Whether the field is known to hold a list."""
    return path[-1] in _LISTS


class Schema:
    """A service's schema, as its introspection or in GraphQL's schema language: it says what each field holds.

    Raises ValueError for text that is neither.
    """

    def __init__(self, text: str) -> None:
        import json

        from graphql import GraphQLError, build_client_schema, build_schema

        try:
            if text.lstrip().startswith("{"):
                found = json.loads(text)
                self._schema = build_client_schema(found.get("data", found))
            else:
                self._schema = build_schema(text, assume_valid=True)
        except (GraphQLError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no schema: {error}") from None

    def kind(self, path: tuple[str, ...]) -> Kind | None:
        """What the field at ``path`` (names, from the root field on) holds; None where the schema does not say, or
        where it is an object, whose fields say it each for itself. "json" for a list below the cube."""
        from graphql import GraphQLList, get_named_type, get_nullable_type, is_enum_type

        node: Any = self._schema.subscription_type or self._schema.query_type
        for number, name in enumerate(path):
            field = getattr(node, "fields", {}).get(name)
            if field is None:
                return None
            if number >= 2 and isinstance(get_nullable_type(field.type), GraphQLList):
                return "json" if number == len(path) - 1 else None
            node = get_named_type(field.type)
        return "text" if is_enum_type(node) else _TYPES.get(node.name)
