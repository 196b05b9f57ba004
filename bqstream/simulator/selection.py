"""A document read without a schema: one operation, its variables put in, fragments and directives resolved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    NonNullTypeNode,
    OperationDefinitionNode,
    SelectionNode,
    Undefined,
    get_location,
    parse,
    print_ast,
    value_from_ast_untyped,
)

from .filters import Refusal

Kind = Literal["subscription", "query"]
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Field:
    """``key``: as it is called in the answer. ``children``: None for a leaf. ``only``: for which union member."""

    name: str
    key: str
    arguments: dict[str, Any]
    children: tuple[Field, ...] | None
    only: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    kind: Kind
    roots: tuple[Field, ...]

    def frame(self) -> str:
        """All that it asks for but what it selects of the cubes: the same for documents that are sent the same rows."""
        roots = [(root, [_bare(cube) for cube in root.children or ()]) for root in self.roots]
        return repr([(_bare(root), cubes) for root, cubes in roots])

    def selections(self) -> list[tuple[Field, ...]]:
        """What is selected of each cube, in the order of the ``frame``."""
        return [cube.children or () for root in self.roots for cube in root.children or ()]


def _bare(field: Field) -> tuple[Any, ...]:
    return field.name, field.key, field.arguments


def enlarges(more: tuple[Field, ...], own: tuple[Field, ...]) -> bool:
    """Whether ``more`` is ``own`` with nothing but aliased fields added beside it, as a client hides them."""
    added = [field for field in more if field not in own]
    return len(added) == len(more) - len(own) and all(field.key != field.name for field in added)


def holds(more: tuple[Field, ...], own: tuple[Field, ...]) -> bool:
    """Whether all that ``own`` selects is in ``more``, at any depth."""
    by_place = {(field.key, field.only): field for field in more}
    for field in own:
        found = by_place.get((field.key, field.only))
        if found is None or _bare(found) != _bare(field):
            return False
        if (found.children is None) != (field.children is None):
            return False
        if not holds(found.children or (), field.children or ()):
            return False
    return True


def read(document: str, variables: dict[str, Any] | None, name: str | None) -> Operation:
    """Raises `Refusal` as a GraphQL server would, with locations where it knows them."""
    try:
        tree = parse(document)
    except GraphQLError as error:
        raise Refusal(dict(error.formatted)) from None
    except RecursionError:
        raise Refusal({"message": "The document is nested too deeply"}) from None
    chosen = _choose(tree, name)
    if chosen.operation.value == "mutation":
        raise _at(chosen, "Schema is not configured for mutations.")
    reader = _Reader(tree, _coerced(chosen, variables))
    roots = reader.fields(chosen.selection_set.selections, None, 0)
    kind: Kind = "subscription" if chosen.operation.value == "subscription" else "query"
    if kind == "subscription" and len(roots) != 1:
        title = f'Subscription "{chosen.name.value}"' if chosen.name else "Anonymous Subscription"
        raise _at(chosen, f"{title} must select only one top level field.")
    if not roots:
        raise _at(chosen, "Nothing is selected.")
    return Operation(kind, roots)


def _at(node: Any, message: str) -> Refusal:
    error: dict[str, Any] = {"message": message}
    if node.loc:
        place = get_location(node.loc.source, node.loc.start)
        error["locations"] = [{"line": place.line, "column": place.column}]
    return Refusal(error)


def _choose(tree: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [node for node in tree.definitions if isinstance(node, OperationDefinitionNode)]
    if name:
        for operation in operations:
            if operation.name and operation.name.value == name:
                return operation
        raise Refusal({"message": f'Unknown operation named "{name}".'})
    if not operations:
        raise Refusal({"message": "Must provide an operation."})
    if len(operations) > 1:
        raise Refusal({"message": "Must provide operation name if query contains multiple operations."})
    return operations[0]


def _coerced(operation: OperationDefinitionNode, given: dict[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, dict):
        raise Refusal({"message": "Variables must be provided as an object."})
    values: dict[str, Any] = {}
    for node in operation.variable_definitions or ():
        name = node.variable.name.value
        if given and name in given:
            values[name] = given[name]
        elif node.default_value is not None:
            values[name] = value_from_ast_untyped(node.default_value)
        elif isinstance(node.type, NonNullTypeNode):
            raise _at(node, f'Variable "${name}" of required type "{print_ast(node.type)}" was not provided.')
        else:
            values[name] = None
        if values[name] is None and isinstance(node.type, NonNullTypeNode):
            raise _at(node, f'Variable "${name}" of non-null type "{print_ast(node.type)}" must not be null.')
    return values


class _Reader:
    def __init__(self, tree: DocumentNode, variables: dict[str, Any]) -> None:
        self._fragments = {
            node.name.value: node for node in tree.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._variables = variables

    def fields(self, selections: Sequence[SelectionNode], only: str | None, depth: int) -> tuple[Field, ...]:
        """Fields in the order of their first mention; those mentioned twice are merged (spec, 5.3.2)."""
        found: dict[tuple[str, str | None], Field] = {}
        for field in self._flat(selections, only, depth):
            place = (field.key, field.only)
            before = found.get(place)
            found[place] = field if before is None else _merge(before, field)
        return tuple(found.values())

    def _flat(self, selections: Sequence[SelectionNode], only: str | None, depth: int) -> Iterator[Field]:
        if depth > _DEEPEST:
            raise Refusal({"message": "The document is nested too deeply, or a fragment holds itself"})
        for node in selections:
            if not self._included(node):
                continue
            if isinstance(node, FieldNode):
                yield self._field(node, only, depth)
            elif isinstance(node, InlineFragmentNode):
                kind = node.type_condition.name.value if node.type_condition else ""
                yield from self._flat(node.selection_set.selections, _member(kind) or only, depth + 1)
            elif isinstance(node, FragmentSpreadNode):
                fragment = self._fragments.get(node.name.value)
                if fragment is None:
                    raise _at(node, f'Unknown fragment "{node.name.value}".')
                kind = fragment.type_condition.name.value
                yield from self._flat(fragment.selection_set.selections, _member(kind) or only, depth + 1)

    def _field(self, node: FieldNode, only: str | None, depth: int) -> Field:
        arguments = {a.name.value: self._value(a.value) for a in node.arguments or ()}
        if node.selection_set and not node.selection_set.selections:  # newer parsers let it pass
            raise _at(node.selection_set, 'Syntax Error: Expected Name, found "}".')
        return Field(
            node.name.value,
            node.alias.value if node.alias else node.name.value,
            {name: value for name, value in arguments.items() if value is not Undefined},
            self.fields(node.selection_set.selections, None, depth + 1) if node.selection_set else None,
            only,
        )

    def _included(self, node: SelectionNode) -> bool:
        for directive in node.directives or ():
            if directive.name.value not in ("include", "skip"):
                continue
            value = next(
                (self._value(a.value) for a in directive.arguments or () if a.name.value == "if"), None
            )
            if not isinstance(value, bool):
                raise _at(directive, f'Argument "if" of "@{directive.name.value}" must be a Boolean.')
            if value is (directive.name.value == "skip"):
                return False
        return True

    def _value(self, node: Any) -> Any:
        for name in _variables_in(node):
            if name not in self._variables:
                raise _at(node, f'Variable "${name}" is not defined.')
        return value_from_ast_untyped(node, self._variables)


def _variables_in(node: Any) -> Iterator[str]:
    if node.kind == "variable":
        yield node.name.value
    elif node.kind == "list_value":
        for item in node.values:
            yield from _variables_in(item)
    elif node.kind == "object_value":
        for field in node.fields:
            yield from _variables_in(field.value)


def _member(kind: str) -> str | None:
    """The values of ABI arguments are the one union of the service; any other type condition always holds."""
    return kind if kind.endswith("_Value_Arg") else None


def _merge(one: Field, other: Field) -> Field:
    if (one.name, one.arguments) != (other.name, other.arguments):
        raise Refusal(
            {
                "message": f'Fields "{one.key}" conflict because "{one.name}" and "{other.name}" differ. Use aliases.'
            }
        )
    if one.children is None or other.children is None:
        return one
    children = {(child.key, child.only): child for child in one.children}
    for child in other.children:
        place = (child.key, child.only)
        children[place] = _merge(children[place], child) if place in children else child
    return Field(one.name, one.key, one.arguments, tuple(children.values()), one.only)
