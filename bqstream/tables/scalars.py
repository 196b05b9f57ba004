"""What the service's fields hold, by their names: there is no schema at hand until a user gives one.

Block numbers, slots and times come as strings, amounts as strings that may be wider than a double, prices in USD as
JSON numbers (schema/evm/dextrades, graphql/datetime). A rule is a guess that the first rows may overrule; what is in no
rule is told by the first rows alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from .table import Kind

if TYPE_CHECKING:
    from graphql import GraphQLSchema

Form = Literal["string", "integer", "number", "boolean"]
"""How JSON brings a value; a "number" may have a point."""

# The first that matches a field's path, dotted, from the row on.
_HABITS: tuple[tuple[str, Kind], ...] = (
    (r"(^|\.)(Success|Reverted|Fungible|Native|Mutable|Removed|(Is|Has)[A-Z]\w*)$", "boolean"),
    (r"(^|\.)Block\.(Number|Slot|Height)$", "integer"),
    (r"(^|\.)(Index|Decimals)$", "integer"),
    (r"(^|\.)Time(\.(Start|End))?$", "timestamp"),
    (r"(^|\.)(Amounts?InU(SD|sd)|PriceInU(SD|sd))(\.\w+)?$|InU(SD|sd)$", "float"),
    (r"(^|\.)(Amount|Value|Balance|PostBalance|PreBalance|Supply|Gas|GasPrice|Cost|bigInteger)$", "decimal"),
)
_RULES = tuple((re.compile(pattern), kind) for pattern, kind in _HABITS)
# How JSON brings what the rules above leave open, by the first that matches the path behind its root; what is a number
# may come as a string nearly everywhere (schema/evm, graphql/metrics).
_COMES: tuple[tuple[str, tuple[Form, ...]], ...] = (
    (r"\.(Value\.(address|string|hex|bytes|json)|__typename|count|uniq)$", ("string",)),
    (r"\.(Value\.integer|CallPath|AncestorIndexes)$", ("integer",)),
    (r"\.Value\.float$", ("number",)),
    (r"\.(Value\.bool(ean)?|PrimarySaleHappened|VerifiedCollection|SelfDestruct|Delegated)$", ("boolean",)),
    (r"\.(Owns|Parsed|Create|ReduceOnly|VolumeBased|Wrapped)$", ("boolean",)),
    (r"\.(Block\.(Number|Slot|Height)|Signatures|OutcomeTokenIds|Logs|AccountNames)$", ("string",)),
    (r"\.(Transaction|TransactionHeader)\.Index$", ("string", "integer")),
    (r"\.(Index|Decimals|\w*Timestamp)$", ("integer",)),
    (r"(Time(\.(Start|End))?|Date|CreatedAt)$", ("string",)),
    (r"(SeqNumber|Count|Calls|Depth|Version|Standard|Nonce|Duration|Points|Code|CallerIndex|[TO]id)$",
     ("string", "integer")),
    (r"\.(sum|average|median|quantile|standard_deviation|dispersion|skew|kurtosis|entropy|calculate)$",
     ("string", "number")),
    (r"(Price\w*|Amount\w*|Px|Sz|U(SD|sd)(\.\w+)?|Cap|Supply|Open|High|Low|Close|Mean|Moving|Estimate|Quote|Base)$",
     ("string", "number")),
    (r"(Volume|Size\w*|Fee|Filled|Pnl|Leverage|Share|Best(Ask|Bid)|Mark|Gas\w*|Asymmetry)$", ("string", "number")),
    (r"(Hash|Digest|Id|Did|Address|Contract|Symbol|Name|Title|Label|Description|Token|Network\w*)$", ("string",)),
    (r"(Type|Tif|Kind|Side|Direction|Method|Protocol\w*|Program|Signature|Key|U(RI|ri)|Image|Source)$", ("string",)),
    (r"(From|To|Sender|Receiver|Buyer|Seller|Owner|Payer|Signer|Authority|Holder|Trader|User)$", ("string",)),
    (r"(Oracle|Coinbase|Mint|Data|Input|Output|Error\w*|Message)$", ("string",)),
)  # fmt: skip
_FORMS = tuple((re.compile(pattern), forms) for pattern, forms in _COMES)
# Where amounts come as JSON numbers too.
_NUMBERS = frozenset(("Trading", "Hyperliquid"))
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


def forms(root: str, path: tuple[str, ...]) -> frozenset[Form]:
    """In which forms the field at ``path`` (names, from the row on) comes, by the service's habits; empty where that is
    open."""
    match guess(path):
        case "boolean":
            return frozenset(("boolean",))
        case "decimal":
            return frozenset(("string", "number") if root in _NUMBERS else ("string",))
    dotted = ".".join(("", *path))
    return frozenset(next((found for pattern, found in _FORMS if pattern.search(dotted)), ()))


def is_list(path: tuple[str, ...]) -> bool:
    """Whether the field is known to hold a list."""
    return path[-1] in _LISTS


def kind_of(scalar: str) -> Kind | None:
    """What a schema's scalar of this name holds; None where that is not known."""
    return _TYPES.get(scalar)


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
                self.graphql: GraphQLSchema = build_client_schema(found.get("data", found))
            else:
                self.graphql = build_schema(text, assume_valid=True)
        except (GraphQLError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no schema: {error}") from None

    def kind(self, path: tuple[str, ...]) -> Kind | None:
        """What the field at ``path`` (names, from the root field on) holds; None where the schema does not say, or
        where it is an object, whose fields say it each for itself. "json" for a list below the cube."""
        from graphql import GraphQLList, get_named_type, get_nullable_type, is_enum_type

        node: Any = self.graphql.subscription_type or self.graphql.query_type
        for number, name in enumerate(path):
            field = getattr(node, "fields", {}).get(name)
            if field is None:
                return None
            if number >= 2 and isinstance(get_nullable_type(field.type), GraphQLList):
                return "json" if number == len(path) - 1 else None
            node = get_named_type(field.type)
        return "text" if is_enum_type(node) else kind_of(node.name)
