"""A schema in which a document could be asked: made from it and from what it brought, by graphql-core alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from graphql import FieldNode, InlineFragmentNode, SelectionSetNode, parse

_SCALARS = "scalar DateTime scalar BigInt scalar Counter type Another { nothing: Int }"


def sdl_of(document: str, payloads: Sequence[dict[str, Any]]) -> str:
    """Types by the way to them, each field non-null that was never null."""
    (operation,) = parse(document).definitions
    types: dict[str, dict[str, str]] = defaultdict(dict)
    unions: dict[str, set[str]] = {}  # each with a member that no fragment is of
    _visit("Subscription", operation.selection_set, list(payloads), types, unions)  # type: ignore[attr-defined]
    lines = [_SCALARS, "type Query { nothing: Int }"]
    lines += [f"union {name} = {' | '.join(sorted(members))}" for name, members in unions.items()]
    for name, fields in types.items():
        if name not in unions:
            told = "\n".join(f"  {field}: {kind}" for field, kind in fields.items())
            lines.append(f"type {name} {{\n{told}\n}}")
    return "\n".join(lines)


def _visit(
    name: str,
    selections: SelectionSetNode,
    objects: list[dict[str, Any]],
    types: dict[str, dict[str, str]],
    unions: dict[str, set[str]],
) -> None:
    for member, node in _fields(selections, None):
        if member is not None:
            unions.setdefault(name, {"Another"}).add(member)
        if node.name.value == "__typename":
            continue
        key = node.alias.value if node.alias else node.name.value
        values = [one[key] for one in objects if key in one]
        listed = any(isinstance(value, list) for value in values)
        inner = [item for value in values if value is not None for item in (value if listed else [value])]
        if node.selection_set is not None:
            kind = f"{name}_{node.name.value}" if name != "Subscription" else node.name.value
            _visit(kind, node.selection_set, inner, types, unions)
        else:
            kind = _scalar(node.name.value, [one for one in inner if one is not None])
        if listed:
            kind = f"[{kind}]" if None in inner or not inner else f"[{kind}!]"
        if None not in values and values:
            kind += "!"
        known = types[member or name].get(node.name.value)
        types[member or name][node.name.value] = kind if known in (None, kind) else _wider(kind, known)


def _fields(selections: SelectionSetNode, member: str | None) -> Iterator[tuple[str | None, FieldNode]]:
    for node in selections.selections:
        if isinstance(node, FieldNode):
            yield member, node
        elif isinstance(node, InlineFragmentNode):
            assert node.type_condition is not None
            yield from _fields(node.selection_set, node.type_condition.name.value)


def _wider(one: str, other: str | None) -> str:
    """A field that is selected twice, once by an alias: null if either is."""
    assert other is not None
    return one if one.rstrip("!") == other else other if other.rstrip("!") == one else "Counter"


def _scalar(name: str, values: list[Any]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "Boolean"
    if kinds == {int}:
        return "Int"
    if kinds and kinds <= {int, float}:
        return "Float"
    if kinds == {str}:
        return "DateTime" if name == "Time" else "BigInt" if name == "Amount" else "String"
    return "Counter"
