"""What a subscription asks for, read from its document alone: root, cubes, cursors, and what cannot be asked again.

There is no schema at hand. What tells facts from aggregates is how the service names things: its fields begin with a
capital, its metrics do not, and a field with an argument is one of the two (graphql/metrics, graphql/calculations).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DocumentRefused
from .cursor import CursorField, CursorKind, Path
from .document import Document, operation_of, response_key

if TYPE_CHECKING:
    from graphql import FieldNode, SelectionNode, SelectionSetNode, ValueNode

CubeKind = Literal["facts", "aggregate", "scalar"]

_Cursors = tuple[tuple[CursorKind, str, str], ...]

_BLOCK_NUMBER: _Cursors = (
    ("number", "Block.Number", "Block.Number"),
    ("time", "Block.Time", "Block.Time"),
)
_START: _Cursors = (("time", "Interval.Time.Start", "Interval.Time.Start"),)

# By root, the best first: kind, the field that a row shows, and the one to filter by. Hyperliquid's blocks have a
# number too, but the docs filter them by time alone; a Trading timestamp is the time in other words.
_CURSORS: dict[str, _Cursors] = {
    "EVM": _BLOCK_NUMBER,
    "Tron": _BLOCK_NUMBER,
    "Solana": (
        ("slot", "Block.Slot", "Block.Slot"),
        ("time", "Block.Time", "Block.Time"),
        ("height", "Block.Height", "Block.Height"),
    ),
    "Trading": (("time", "Block.Time", "Block.Time"), ("timestamp", "Block.Timestamp", "Block.Time")),
    "Hyperliquid": (("time", "Block.Time", "Block.Time"), ("number", "Block.Number", "Block.Number")),
}
_UPSERTS = frozenset((("Trading", "Tokens"), ("Trading", "Pairs"), ("Trading", "Currencies")))
_INTERVALS = _UPSERTS | {("Hyperliquid", "Candles")}
# Rows that stand in no block (subscriptions/which-cubes-stream: aggregates by day; blockchain/Hyperliquid).
_NO_BLOCK = frozenset(("Balances", "Holders", "TokenHolders", "MarkPrices", "CurrentPositions"))
_DEEPEST = 64
_LIMITS = ("limit", "limitBy")
_ARGUMENTS = frozenset(("where", "orderBy", *_LIMITS))
# What an expression may call and still be of one row (graphql/capabilities/expression); anything else is in doubt.
_OF_ONE_ROW = frozenset(
    ("abs", "ceil", "exp", "floor", "greatest", "if", "least", "log", "pow", "round", "sqrt")
)


@dataclass(frozen=True, slots=True)
class CubeShape:
    """One cube of a document.

    Attributes:
        name: the field's name; ``key``: its response key.
        kind: "facts" (a row is a record), "aggregate" (per-block deltas; also where there is a doubt) or "scalar".
        mempool: whether its rows are those of transactions that are in no block yet.
        upserts: whether a row may be sent again with other values while its interval runs (Trading's cubes).
        arguments: its own, by name, as they stand in the document; those that are null or left out by a variable
            are not here.
        nodes: every mention of the cube in the document (spec, 5.3.2: they are merged).
        selected_keys: the response keys of its row, by the document alone.
        fields: each field that is selected without an argument, by its path: the response keys at which a row has it.
        leaves: each value that a row has, in the document's order: its path, and the response keys.
        cursor: the best that the cube has, whether it is selected or not; None where there is none.
        selected: the best that the document selects itself.
        clock: where it has its block's time, whatever its cursor counts; where its interval starts, if a row is one.
        doubt: why no field may be added to it without changing its rows; None where any may be.
        reason: why its gaps cannot be closed by a query; None where they can.
    """

    name: str
    key: str
    kind: CubeKind
    mempool: bool
    upserts: bool
    arguments: Mapping[str, ValueNode]
    nodes: tuple[FieldNode, ...]
    selected_keys: tuple[str, ...]
    fields: Mapping[Path, Path]
    leaves: tuple[tuple[Path, Path], ...]
    cursor: CursorField | None
    selected: CursorField | None
    clock: CursorField | None
    doubt: str | None
    reason: str | None

    @property
    def records(self) -> bool:
        """Whether each row is a record; a limit of the cube's own leaves rows out, and changes none."""
        limited = not self.arguments.keys().isdisjoint(_LIMITS) and self.arguments.keys() <= _ARGUMENTS
        return self.kind == "facts" and (self.doubt is None or limited)

    @property
    def where(self) -> ValueNode | None:
        """Its own filter."""
        return self.arguments.get("where")

    @property
    def limit(self) -> ValueNode | None:
        """Its own limit of rows."""
        return self.arguments.get("limit")

    @property
    def limit_by(self) -> ValueNode | None:
        """Its own limit of rows for each value of some fields."""
        return self.arguments.get("limitBy")

    @property
    def order_by(self) -> ValueNode | None:
        """Its own order."""
        return self.arguments.get("orderBy")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a document asks for.

    Attributes:
        root: the root field's name; ``key``: its response key.
        arguments: the root's, variables put in (``network``, ``mempool``, ``trigger_on``, ``dataset`` …).
        nodes: every mention of the root field.
        cubes: in the order of their first mention, one for each response key; empty for a scalar root.
        reason: why no gap of any cube can be closed; None where it depends on the cube.
    """

    root: str
    key: str
    arguments: Mapping[str, Any]
    nodes: tuple[FieldNode, ...]
    cubes: tuple[CubeShape, ...]
    reason: str | None

    @property
    def mempool(self) -> bool:
        """Whether it is the mempool that is asked (subscriptions/mempool-subscriptions)."""
        return self.arguments.get("mempool") is True

    @property
    def trigger_on(self) -> str | None:
        """On which blocks rows are sent (subscriptions/trigger)."""
        return self.arguments.get("trigger_on")


def shape_of(document: Document, variables: Mapping[str, Any] | None = None) -> Shape:
    """Read what the first root field of ``document`` asks for, with these values of its variables.

    Every node has its place in ``document.text``. Raises DocumentRefused: a fragment that is not there, or holds
    itself.
    """
    from graphql import parse, value_from_ast_untyped

    operation, fragments = operation_of(parse(document.text), document.operation_name)
    values = {
        one.variable.name.value: value_from_ast_untyped(one.default_value)
        for one in operation.variable_definitions or ()
        if one.default_value is not None
    }
    reader = _Reader(fragments, {**values, **document.values, **(variables or {})})
    roots = reader.grouped([operation])
    if not roots:
        raise DocumentRefused("the document's directives leave nothing of it")
    key, nodes = next(iter(roots.items()))
    root = nodes[0].name.value
    arguments = {name: reader.value(node) for name, node in reader.arguments(nodes[0]).items()}
    reason = None
    if root not in _CURSORS:
        reason = f"{root} is not a root whose cursors are known"
    elif nodes[0].selection_set is None:
        reason = f"{root} is a value here, and has no rows"
    mempool = arguments.get("mempool") is True
    cubes = tuple(
        reader.cube(root, mempool, cube, mentions, reason)
        for cube, mentions in reader.grouped(nodes).items()
        if cube != "__typename"
    )
    return Shape(root, key, arguments, nodes, cubes, reason)


class _Reader:
    """Selections with fragments, directives and variables resolved."""

    def __init__(self, fragments: Mapping[str, SelectionSetNode], values: Mapping[str, Any]) -> None:
        self._fragments = fragments
        self._values = dict(values)

    def value(self, node: ValueNode) -> Any:
        from graphql import Undefined, value_from_ast_untyped

        found = value_from_ast_untyped(node, self._values)
        return None if found is Undefined else found

    def arguments(self, node: FieldNode) -> dict[str, ValueNode]:
        """Those that say something: null is as good as left out (spec, 6.4.1 leaves it to the service)."""
        return {a.name.value: a.value for a in node.arguments or () if self.value(a.value) is not None}

    def grouped(self, nodes: Sequence[Any]) -> dict[str, tuple[FieldNode, ...]]:
        """The fields under ``nodes`` by response key, those mentioned twice together."""
        found: dict[str, dict[int, FieldNode]] = {}
        for node in nodes:
            for field in self._fields(node.selection_set):
                found.setdefault(response_key(field), {})[id(field)] = field
        return {key: tuple(fields.values()) for key, fields in found.items()}

    def _fields(
        self, selections: SelectionSetNode | None, within: tuple[str, ...] = ()
    ) -> Iterator[FieldNode]:
        from graphql import FieldNode, FragmentSpreadNode, InlineFragmentNode

        for selection in selections.selections if selections else ():
            if not self._included(selection):
                continue
            if isinstance(selection, FieldNode):
                yield selection
            elif isinstance(selection, InlineFragmentNode):
                yield from self._fields(selection.selection_set, within)
            elif isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name not in self._fragments:
                    raise DocumentRefused(f"the document holds no fragment {name!r}")
                if name in within:
                    raise DocumentRefused(f"the fragment {name!r} holds itself")
                yield from self._fields(self._fragments[name], (*within, name))

    def _included(self, node: SelectionNode) -> bool:
        """``@skip`` and ``@include`` (spec, 3.13)."""
        for directive in node.directives or ():
            for argument in directive.arguments or ():
                if self.value(argument.value) is {"skip": True, "include": False}.get(
                    directive.name.value, ...
                ):
                    return False
        return True

    def cube(
        self, root: str, mempool: bool, key: str, nodes: tuple[FieldNode, ...], reason: str | None
    ) -> CubeShape:
        name = nodes[0].name.value
        arguments = self.arguments(nodes[0])
        fields: dict[Path, Path] = {}
        leaves: list[tuple[Path, Path]] = []
        doubt = reason
        kind: CubeKind = "facts" if nodes[0].selection_set else "scalar"
        if kind == "scalar":
            doubt = reason or f"{name} is a value, and has no rows"
        for path, at, node in self._below(nodes):
            if node.selection_set is None:
                leaves.append((path, at))
            said = self._not_of_one_row(path, node)
            if said:
                kind = "aggregate"
                doubt = doubt or f"{'.'.join(at)} {said}"
            elif node.selection_set is None:
                fields.setdefault(path, at)
        doubt = doubt or _limits(arguments)
        cursors = _cursors(root, name, fields)
        cursor = cursors[0] if cursors else None
        reason = doubt
        if reason is None and mempool:
            reason = "the mempool keeps no blocks that could be asked for again"
        if reason is None and cursor is None:
            reason = f"{name} has no block and no time to ask for"
        if reason is None and "where" in arguments and _is_relative(self.value(arguments["where"])):
            reason = "its own filter ends a while before the moment of asking, which is later for a query"
        return CubeShape(
            name,
            key,
            kind,
            mempool,
            (root, name) in _UPSERTS,
            arguments,
            nodes,
            tuple(self.grouped(nodes)),
            fields,
            tuple(leaves),
            cursor,
            next((one for one in cursors if one.at is not None), None),
            next((one for one in cursors if one.kind == "time"), None),
            doubt,
            reason,
        )

    def _below(
        self, nodes: Sequence[FieldNode], path: Path = (), at: Path = (), within: int = 0
    ) -> Iterator[tuple[Path, Path, FieldNode]]:
        """Every field below, objects too: its path, its response keys, itself."""
        if within > _DEEPEST:
            raise DocumentRefused("the document is nested too deeply, or a fragment holds itself")
        for key, group in self.grouped(nodes).items():
            below = (*path, group[0].name.value), (*at, key)
            yield (*below, group[0])
            yield from self._below(group, *below, within + 1)

    def _not_of_one_row(self, path: Path, node: FieldNode) -> str | None:
        """What a field says of more than one row, or may say: graphql/metrics, graphql/capabilities/joins."""
        name, arguments = path[-1], self.arguments(node)
        if name == "calculate":
            expression = str(self.value(arguments.pop("expression"))) if "expression" in arguments else ""
            called = re.findall(r"([A-Za-z_]\w*)\s*\(", expression)
            aside = [*arguments, *sorted(set(called) - _OF_ONE_ROW)]
            return f"may calculate over many rows ({aside[0]})" if aside else None
        if name.startswith("join"):
            return "joins another cube"
        if name == "__typename" or path[-2:-1] == ("Value",):  # a union, whose fields are not capitals
            return None
        if not name[0].isupper() or arguments:
            return "makes the cube an aggregate, of which a field more would make other groups"
        return None


def _is_relative(where: Any) -> bool:
    """Whether a filter ends at a time relative to now (graphql/datetime): a query, which is asked later, would bring
    rows that were not sent. One that begins there leaves out only what is older than any row that is sent."""
    if isinstance(where, dict):
        ends = ("till_relative", "before_relative")
        return any(name in ends or _is_relative(inner) for name, inner in where.items())
    return isinstance(where, list) and any(map(_is_relative, where))


def _limits(arguments: Mapping[str, ValueNode]) -> str | None:
    for name in _LIMITS:
        if name in arguments:
            return f"its own {name} leaves rows out, and a query would leave out others"
    unknown = sorted(arguments.keys() - _ARGUMENTS)
    return f"what its argument {unknown[0]} does is not known" if unknown else None


def _cursors(root: str, cube: str, fields: Mapping[Path, Path]) -> list[CursorField]:
    if cube in _NO_BLOCK:
        return []
    known = _START if (root, cube) in _INTERVALS else _CURSORS.get(root, ())
    found = []
    for kind, shown, asked in known:
        at = fields.get(tuple(shown.split(".")))
        found.append(CursorField(kind, tuple(asked.split(".")), at))
    return found
