"""The query that closes a gap: the rows that a subscription asks for, over a range, and how far the data reaches.

Queries and subscriptions have one schema, less some attributes of the root (graphql/query), so a subscription's cubes
are asked again as they stand, their filters joined with the range. Beside them, in the same request, stands where each
cube's newest row is, unfiltered: an answer without rows says nothing unless the query side has seen that far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec

from .cursor import Cursor, CursorField, Path
from .document import Document, operation_of
from .enlarge import free_prefix, selection
from .identity import Identity, identity_of
from .shape import CubeShape, shape_of

if TYPE_CHECKING:
    from graphql import FragmentDefinitionNode, Node, VariableDefinitionNode

_DATASETS = frozenset(("realtime", "archive", "combined"))  # graphql-reference/enums/dataset-arg-enum
# Roots whose queries are seen with a dataset: graphql-reference/queries/evm, blockchain/Solana/Solana-DEX-Orders-API,
# blockchain/Tron/sunswap-api, and Trading's in blockchain/Ethereum/dextrades/uniswap-api. Hyperliquid's never are
# (perpetuals/hyperliquid).
_WITH_DATASET = frozenset(("EVM", "Solana", "Tron", "Trading"))
# A query has no trigger (graphql-reference/subscriptions/evm and queries/evm), and its dataset is ours to say.
_NOT_ASKED = frozenset(("trigger_on", "dataset"))
# Lists, of whose fields no order can be made: graphql-reference/objects, blockchain/Solana/solana-instructions,
# blockchain/Tron/tron-transactions-api, examples/prediction-market/prediction-settlements-api.
_LISTS = frozenset(
    ("AccessList", "AccountNames", "Accounts", "AncestorIndexes", "Arguments", "CallPath", "Fees", "Ids", "Logs",
     "OutcomeTokenIds", "Outcomes", "Path", "Returns", "Signatures", "StateChanges", "StorageKeys", "Topics", "URIs")
)  # fmt: skip
_UPPER = frozenset(("le", "till"))

_cubes = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_rows = msgspec.json.Decoder(list[msgspec.Raw])
_shown = msgspec.json.Decoder(list[dict[str, Any]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Which rows of one cube are asked for; all bounds are included, None is no bound.

    Attributes:
        low, high: places of the cube's own cursor (`CubeShape.cursor`).
        since, till: the block's time in whole seconds since the epoch, whatever the cursor counts; of a row that is an
            interval, when it starts.
        block: this one alone, in an order that is strict, from row ``offset`` on (graphql/limits).
    """

    low: Cursor | None = None
    high: Cursor | None = None
    since: int | None = None
    till: int | None = None
    block: Cursor | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One cube's part of an answer.

    Attributes:
        rows: as they came, byte for byte.
        head: where the cube's newest row stands, whatever is filtered; ``head_time``: its block's time in seconds.
            None where the cube holds no row at all.
        floor, floor_time: the same of its oldest row; None where that was not asked for, too.
    """

    rows: list[msgspec.Raw]
    head: Cursor | None
    head_time: int | None
    floor: Cursor | None
    floor_time: int | None


class Asker:
    """Writes the queries for one subscription's gaps, and reads what they are answered; it keeps nothing of either.

    ``document`` is the user's, ``text`` what is sent in its place (the same, or `Enlarged.text`), ``variables`` what
    the user gave. A query asks for at most ``count`` rows of a cube. ``identities`` are by response key; left out, the
    table's. Raises ValueError for a dataset that there is not, DocumentRefused as `shape_of` does.
    """

    def __init__(
        self,
        document: Document,
        text: str,
        variables: Mapping[str, Any] | None,
        *,
        dataset: str = "realtime",
        count: int = 5000,
        identities: Mapping[str, Identity | None] | None = None,
    ) -> None:
        from graphql import FragmentDefinitionNode, parse, value_from_ast_untyped

        if dataset not in _DATASETS:
            raise ValueError(f"there is no dataset {dataset!r}, only {', '.join(sorted(_DATASETS))}")
        tree = parse(text)
        operation, _ = operation_of(tree, document.operation_name)
        definitions = {one.variable.name.value: one for one in operation.variable_definitions or ()}
        defaults = {
            name: value_from_ast_untyped(one.default_value)
            for name, one in definitions.items()
            if one.default_value is not None
        }
        given = {**document.values, **(variables or {})}
        fragments = [one for one in tree.definitions if isinstance(one, FragmentDefinitionNode)]
        self._shape = shape_of(replace(document, text=text), variables)
        self._cubes = {cube.key: cube for cube in self._shape.cubes}
        table = {cube.key: identity_of(self._shape.root, cube.name) for cube in self._shape.cubes}
        self._identities = table if identities is None else identities
        self._prefix = free_prefix(document.text)
        self._dataset, self._count = dataset, count
        self._source = _Source(
            name=operation.name.value if operation.name else "",
            prefix=self._prefix,
            definitions=definitions,
            fragments={one.name.value: one for one in fragments},
            given=given,
            values={**defaults, **given},
        )

    def request(self, ranges: Mapping[str, Range], *, floor: bool = False) -> bytes:
        """The payload of a query for these cubes, by response key, and for where their newest rows stand; with
        ``floor``, their oldest too.

        Raises ValueError: a cube that there is not or that cannot be asked again (`CubeShape.reason`), a bound that
        is not of its cursor's kind, an ``offset`` without ``block``, or a filter of the user's whose own condition
        on the same field is none that the service would take.
        """
        asked = [self._askable(key) for key in ranges]
        if not asked:
            raise ValueError("no cube is asked for")
        writer = _Writer(self._source)
        fields = [self._cube(writer, cube, ranges[cube.key]) for cube in asked]
        for cube in {cube.name: cube for cube in asked}.values():
            fields.append(self._end(cube, "head"))
            if floor:
                fields.append(self._end(cube, "floor"))
        return writer.payload(f"{self._root(writer)} {{ {' '.join(fields)} }}")

    def read(self, data: bytes | msgspec.Raw, asked: Collection[str] | None = None) -> dict[str, Answer]:
        """Each cube's part of an answer's ``data``, by response key.

        ``asked`` are the cubes that the request was for; where it is left out, those that came are taken for them.
        Raises ValueError where ``data`` is no answer: a cube or its newest row is missing, null or of another form.
        """
        try:
            found = _cubes.decode(data)[self._shape.key]
            keys = [key for key in self._cubes if key in found] if asked is None else list(asked)
            if not keys:
                raise ValueError("the answer has no cube")
            return {key: self._read(self._askable(key), found) for key in keys}
        except (msgspec.MsgspecError, RecursionError, KeyError) as error:
            why = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"this is no answer to the query: {why}") from None

    # ------------------------------------------------------------------ writing

    def _askable(self, key: str) -> CubeShape:
        cube = self._cubes.get(key)
        if cube is None:
            raise ValueError(f"the document has no cube {key!r}; it has {', '.join(self._cubes) or 'none'}")
        if cube.reason is not None:
            raise ValueError(f"{key} cannot be asked again: {cube.reason}")
        return cube

    def _root(self, writer: _Writer) -> str:
        node, kept = self._shape.nodes[0], self._shape.arguments.keys() - _NOT_ASKED
        arguments = [writer.written(one) for one in node.arguments or () if one.name.value in kept]
        # Left out, it is realtime (graphql/dataset/options): nothing that a root may not know is written for it, but
        # what else is asked for must be refused rather than passed over.
        if self._shape.root in _WITH_DATASET or self._dataset != "realtime":
            arguments.append(f"dataset: {self._dataset}")
        written = f"({', '.join(arguments)})" if arguments else ""
        return _named(self._shape.key, self._shape.root) + written

    def _cube(self, writer: _Writer, cube: CubeShape, asked: Range) -> str:
        arguments = [
            writer.argument("where", joined(cube.where, _conditions(cube, asked), writer.source.values)),
            f"limit: {{count: {self._count}{'' if asked.block is None else f', offset: {asked.offset}'}}}",
            f"orderBy: [{', '.join(f'{{ascending: {name}}}' for name in self._order(cube, asked))}]",
        ]
        written = ", ".join(filter(None, arguments))
        sets = [node.selection_set for node in cube.nodes if node.selection_set]
        below = " ".join(writer.written(one) for found in sets for one in found.selections)
        return f"{_named(cube.key, cube.name)}({written}) {{ {below} }}"

    def _order(self, cube: CubeShape, asked: Range) -> list[str]:
        """What rows are ordered by: inside one block so that only rows tie that are equal in all they show."""
        if asked.block is None:
            return [_cursor(cube).name]
        identity = self._identities.get(cube.key)
        paths: Iterable[Path] = identity.fields if identity else filter(_orderable, cube.fields)
        # What is in dollars is priced anew from one query to the next, so it comes last.
        names = sorted(map("_".join, paths), key=lambda name: "usd" in name.lower())
        return names or [_cursor(cube).name]

    def _end(self, cube: CubeShape, end: str) -> str:
        """Where the cube's newest row ("head") or its oldest ("floor") stands."""
        direction = "descending" if end == "head" else "ascending"
        shown = selection([_cursor(cube).field, _clock(cube).field])
        return (
            f"{self._alias(cube, end)}: {cube.name}"
            f"(limit: {{count: 1}}, orderBy: {{{direction}: {_cursor(cube).name}}}) {{ {shown} }}"
        )

    def _alias(self, cube: CubeShape, end: str) -> str:
        return f"{self._prefix}{end}_{cube.name}"

    # ------------------------------------------------------------------ reading

    def _read(self, cube: CubeShape, found: Mapping[str, msgspec.Raw]) -> Answer:
        rows = _rows.decode(found[cube.key])
        head = self._stands(cube, found[self._alias(cube, "head")])
        floor = found.get(self._alias(cube, "floor"))
        return Answer(rows, *head, *((None, None) if floor is None else self._stands(cube, floor)))

    def _stands(self, cube: CubeShape, raw: msgspec.Raw) -> tuple[Cursor | None, int | None]:
        rows = _shown.decode(raw)
        if not rows:
            return None, None
        cursor, time = (_place(rows[0], field) for field in (_cursor(cube), _clock(cube)))
        return cursor, time.value


def _named(key: str, name: str) -> str:
    return name if key == name else f"{key}: {name}"


def _cursor(cube: CubeShape) -> CursorField:
    assert cube.cursor is not None, "a cube without a reason has a cursor"
    return cube.cursor


def _clock(cube: CubeShape) -> CursorField:
    assert cube.clock is not None, "a cube without a reason has a time"
    return cube.clock


def _place(row: Any, field: CursorField) -> Cursor:
    shown = row
    for name in field.field:
        shown = shown.get(name) if isinstance(shown, dict) else None
    found = Cursor.parse(field.kind, shown)
    if found is None:
        raise ValueError(
            f"this is no answer to the query: its newest or oldest row has no {'.'.join(field.field)}"
        )
    return found


def _orderable(path: Path) -> bool:
    """Whether it is one value of the row: not in a list, and none of what begins with no capital (a union's fields,
    ``__typename``, ``calculate``)."""
    return all(name[0].isupper() and name not in _LISTS for name in path)


def _conditions(cube: CubeShape, asked: Range) -> list[tuple[Path, Cursor]]:
    """What the range asks, each by its path down to the operator."""
    cursor, clock = _cursor(cube), _clock(cube)
    if asked.offset and asked.block is None:
        raise ValueError("an offset is safe only inside one block (graphql/limits)")
    for bound in (asked.low, asked.high, asked.block):
        if bound is not None and bound.kind != cursor.kind:
            raise ValueError(f"{cube.key} is asked for by {cursor.kind}, not by {bound.kind}")
    since, till = (None if at is None else Cursor("time", at) for at in (asked.since, asked.till))
    pairs = (
        cursor.between(asked.low, asked.high),
        cursor.between(asked.block, asked.block),
        clock.between(since, till),
    )
    return [condition for pair in pairs for condition in pair.items()]


# ---------------------------------------------------------------------- joining filters


@dataclass(frozen=True, slots=True)
class _Changed:
    """A variable, with another value than the user gave it."""

    name: str
    value: Any


def joined(where: Any, conditions: Iterable[tuple[Path, Cursor]], values: Mapping[str, Any]) -> Any:
    """A filter that asks for what ``where`` does and for all of ``conditions`` too.

    ``where`` is a node, or None for no filter; so is what comes back, but that objects are dicts, and variables whose
    value is another are `_Changed`: what a variable holds is joined in its value, since no literal can be made of it
    (JSON does not tell an enum from a string). Conditions side by side must hold together (graphql/filters); where the
    same operator stands there already, the stricter bound stays.
    """
    for path, bound in conditions:
        where = _joined(where, path, bound, values, json=False)
    return where


def _joined(found: Any, path: Path, bound: Cursor, values: Mapping[str, Any], *, json: bool) -> Any:
    from graphql import NullValueNode, ObjectValueNode, VariableNode

    if isinstance(found, VariableNode):
        value = values.get(found.name.value)
        found = None if value is None else _Changed(found.name.value, value)
    if isinstance(found, _Changed):
        return _Changed(found.name, _joined(found.value, path, bound, values, json=True))
    if found is None or isinstance(found, NullValueNode):
        found = {}
    elif isinstance(found, ObjectValueNode):
        found = {one.name.value: one.value for one in found.fields}
    if not isinstance(found, dict):
        raise ValueError(f"the filter has no object where {'.'.join(path)} is asked for")
    name, *below = path
    inner = found.get(name)
    if below:
        return {**found, name: _joined(inner, tuple(below), bound, values, json=json)}
    return {**found, name: _stricter(inner, name, bound, values, json=json)}


def _stricter(found: Any, operator: str, bound: Cursor, values: Mapping[str, Any], *, json: bool) -> Any:
    from graphql import StringValueNode, Undefined, ValueNode, value_from_ast_untyped

    value = value_from_ast_untyped(found, dict(values)) if isinstance(found, ValueNode) else found
    if value is not None and value is not Undefined:
        theirs = _comparable(value, bound)
        if theirs <= bound.value if operator in _UPPER else theirs >= bound.value:
            return found
    return bound.text() if json else StringValueNode(value=bound.text())


def _comparable(value: Any, bound: Cursor) -> Decimal:
    """What a bound of the user's compares as: to the fraction of a second, since theirs need not be whole."""
    try:
        if not bound.is_time:
            return Decimal(str(value))
        at = datetime.fromisoformat(value)
        return Decimal((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, InvalidOperation):
        raise ValueError(f"the filter compares a {bound.kind} with {value!r}") from None


# ---------------------------------------------------------------------- text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What all queries of one document are written from."""

    name: str
    prefix: str
    definitions: Mapping[str, VariableDefinitionNode]
    fragments: Mapping[str, FragmentDefinitionNode]
    given: Mapping[str, Any]
    values: Mapping[str, Any]  # defaults too


class _Writer:
    """Writes one query, and notes which variables and fragments it needs: a service refuses those that none uses
    (spec, 5.5.1.4 and 5.8.4)."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self._used: set[str] = set()
        self._fragments: dict[str, str] = {}
        self._added: dict[str, _Changed] = {}

    def written(self, node: Node) -> str:
        """The node as it stands."""
        from graphql import FragmentSpreadNode, VariableNode, Visitor, print_ast, visit

        spreads: list[str] = []
        used = self._used

        class Mentions(Visitor):
            def enter_variable(self, node: VariableNode, *_: object) -> None:
                used.add(node.name.value)

            def enter_fragment_spread(self, node: FragmentSpreadNode, *_: object) -> None:
                spreads.append(node.name.value)

        visit(node, Mentions())
        for name in spreads:
            if name not in self._fragments:
                self._fragments[name] = ""
                self._fragments[name] = self.written(self.source.fragments[name])
        return print_ast(node)

    def argument(self, name: str, value: Any) -> str:
        """An argument with what `joined` gave; nothing for None."""
        return "" if value is None else f"{name}: {self._value(value)}"

    def payload(self, root: str) -> bytes:
        """The request, once everything under ``root`` has been written."""
        source = self.source
        definitions = [self.written(one) for name, one in source.definitions.items() if name in self._used]
        definitions += [f"${name}: {self._type(one.name)}" for name, one in self._added.items()]
        head = f"query {source.name}".rstrip() + (f"({', '.join(definitions)})" if definitions else "")
        variables = {name: value for name, value in source.given.items() if name in self._used}
        variables |= {name: one.value for name, one in self._added.items()}
        query = "\n".join([f"{head} {{ {root} }}", *self._fragments.values()])
        return msgspec.json.encode({"query": query, "variables": variables})

    def _value(self, value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{', '.join(f'{name}: {self._value(inner)}' for name, inner in value.items())}}}"
        return f"${self._variable(value)}" if isinstance(value, _Changed) else self.written(value)

    def _variable(self, changed: _Changed) -> str:
        """The variable that holds this value: the user's own, or one more of the same type."""
        if self.source.values[changed.name] == changed.value:
            self._used.add(changed.name)
            return changed.name
        for known, one in self._added.items():
            if one == changed:
                return known
        count = sum(one.name == changed.name for one in self._added.values())
        name = f"{self.source.prefix}{count}_{changed.name}"
        self._added[name] = changed
        return name

    def _type(self, name: str) -> str:
        from graphql import print_ast

        return print_ast(self.source.definitions[name].type)
