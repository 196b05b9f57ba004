"""What a document asks for, read before anything is sent.

graphql-core is imported when a document is first parsed, not with bqstream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..errors import DocumentRefused, UsageError

if TYPE_CHECKING:
    from graphql import DocumentNode, FieldNode, Node, OperationDefinitionNode, SelectionSetNode, TypeNode

Kind = Literal["subscription", "query", "mutation"]

_INSTEAD = {
    "subscription": "subscribe() takes it, and execute() takes queries",
    "query": "execute() takes it, and subscribe() takes subscriptions",
    "mutation": "bqstream sends subscriptions and queries only",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One operation of a GraphQL document.

    Attributes:
        text: the whole document, as it is sent.
        kind: "subscription", "query" or "mutation".
        operation_name: the one that was asked for; None where the document has only one.
        root: the response key of the root field (the first one of a query).
        cubes: the response keys under the root, fragments resolved; empty for a scalar root.
        variables: the declared type of each variable, as text.
        required: the variables that have no default and may not be null.
        values: values of variables that came with a gql request.
    """

    text: str
    kind: Kind
    operation_name: str | None
    root: str
    cubes: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    @staticmethod
    def parse(source: str | Path | Any, operation_name: str | None = None) -> Document:
        """Read text, a ``Path`` of a file, or what ``gql.gql`` gives (a document in version 3, a request in 4).

        Raises:
            DocumentRefused: syntax (with line, column and the place), no such operation, or more than one root
                field in a subscription, which takes one (subscriptions/subscription).
            UsageError: the file cannot be read, or ``source`` is something else.
        """
        known = isinstance(source, str) and isinstance(operation_name, str | None)
        return (_parsed if known else _document)(source, operation_name)

    def __hash__(self) -> int:
        return hash((self.text, self.operation_name))

    def require(self, kind: Literal["subscription", "query"]) -> None:
        """Raise DocumentRefused, saying what to use instead, unless the operation is of this kind."""
        if self.kind != kind:
            raise DocumentRefused(f"this is a {self.kind}, not a {kind}: {_INSTEAD[self.kind]}")

    def require_variable(self, name: str) -> None:
        """Raise UsageError, naming those that there are, where the document declares no such variable."""
        if name not in self.variables:
            declared = ", ".join(f"${known}" for known in self.variables) or "none"
            raise UsageError(f"the document declares no variable ${name}; it declares {declared}")

    def coerce(self, name: str, text: str) -> Any:
        """The JSON value that ``text``, from a command line, means for the variable ``name`` by its declared type.

        String and ID take the text as it is; a list takes a JSON array, or one element; an input object JSON; a
        scalar or enum that GraphQL does not define takes JSON if it is that, else the text. ``null`` is null but
        for String and ID. Raises UsageError: no such variable, or a text that its type does not allow.
        """
        from graphql import parse_type

        self.require_variable(name)
        declared = self.variables[name]
        try:
            return _coerce(parse_type(declared), text)
        except ValueError as error:
            raise UsageError(f"${name} is declared {declared}: {error}") from None


# ---------------------------------------------------------------------- reading


def _document(source: Any, operation_name: str | None) -> Document:
    text, node, values = _read(source)
    asked = operation_name or getattr(source, "operation_name", None)
    operation, fragments = operation_of(node, asked)
    kind: Kind = operation.operation.value
    roots = list(_fields(operation.selection_set, fragments))
    keys = list(dict.fromkeys(map(response_key, roots)))
    if kind == "subscription" and len(keys) != 1:
        raise DocumentRefused(
            f"a subscription has one root field, and this one has {len(keys)}: {', '.join(keys)}; many cubes "
            "under one root are fine, several roots need a subscription each" + _place(text, roots[-1])
        )
    below = (_fields(root.selection_set, fragments) for root in roots)
    cubes = dict.fromkeys(response_key(cube) for found in below for cube in found)
    cubes.pop("__typename", None)
    variables = _variables(operation)
    return Document(text, kind, asked, keys[0], tuple(cubes), variables, values, _required(operation))


_parsed = lru_cache(maxsize=256)(_document)  # of text


def _read(source: Any) -> tuple[str, DocumentNode, Mapping[str, Any]]:
    from graphql import DocumentNode, GraphQLSyntaxError, parse, print_ast

    if isinstance(source, Path):
        try:
            source = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            raise UsageError(f"the document {source} cannot be read: {why}") from None
    if isinstance(source, str):
        if "{" not in source and source.strip().endswith((".graphql", ".gql")):
            raise UsageError(f"{source!r} looks like a file's name: give Path({source!r})")
        try:
            node = parse(source)
        except GraphQLSyntaxError as error:
            where = "".join(_show(source, at.line, at.column) for at in (error.locations or ())[:1])
            raise DocumentRefused(error.message + where) from None
        _refuse_empty_braces(source, node)
        return source, node, {}
    node = getattr(source, "document", source)
    if not isinstance(node, DocumentNode):
        raise UsageError(f"a document is text, a Path or a gql document, not {type(source).__name__}")
    return print_ast(node), node, dict(getattr(source, "variable_values", None) or {})


def _refuse_empty_braces(text: str, document: DocumentNode) -> None:
    """A selection set holds at least one selection (GraphQL, section 2.4), which graphql-core 3.3 does not demand."""
    from graphql import Visitor, visit

    class Braces(Visitor):
        def enter_selection_set(self, node: SelectionSetNode, *_: object) -> None:
            if not node.selections:
                raise DocumentRefused("Syntax Error: the braces hold no field" + _place(text, node))

    visit(document, Braces())


def operation_of(
    document: DocumentNode, name: str | None
) -> tuple[OperationDefinitionNode, dict[str, SelectionSetNode]]:
    """The operation of that name, or the only one, and the selections of every fragment by name.

    Raises DocumentRefused where it is not to be found.
    """
    from graphql import FragmentDefinitionNode, OperationDefinitionNode

    operations: dict[str | None, OperationDefinitionNode] = {}
    fragments: dict[str, SelectionSetNode] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            operations[definition.name.value if definition.name else None] = definition
        elif isinstance(definition, FragmentDefinitionNode):
            fragments[definition.name.value] = definition.selection_set
    known = ", ".join(str(known) for known in operations if known) or "none with a name"
    if not operations:
        raise DocumentRefused("the document holds no operation: write subscription { … }")
    if name is None and len(operations) > 1:
        raise DocumentRefused(f"the document holds several operations, give operation_name: {known}")
    if name is not None and name not in operations:
        raise DocumentRefused(f"the document holds no operation {name!r}; it holds {known}")
    return operations[name] if name is not None else next(iter(operations.values())), fragments


def _fields(
    selections: SelectionSetNode | None,
    fragments: Mapping[str, SelectionSetNode],
    within: tuple[str, ...] = (),
) -> Iterator[FieldNode]:
    """The fields of a selection, those of its fragments among them."""
    from graphql import FieldNode, FragmentSpreadNode, InlineFragmentNode

    for selection in selections.selections if selections else ():
        if isinstance(selection, FieldNode):
            yield selection
        elif isinstance(selection, InlineFragmentNode):
            yield from _fields(selection.selection_set, fragments, within)
        elif isinstance(selection, FragmentSpreadNode):
            name = selection.name.value
            if name not in fragments:
                raise DocumentRefused(f"the document holds no fragment {name!r}")
            if name in within:
                raise DocumentRefused(f"the fragment {name!r} holds itself")
            yield from _fields(fragments[name], fragments, (*within, name))


def response_key(node: FieldNode) -> str:
    return node.alias.value if node.alias else node.name.value


def _variables(operation: OperationDefinitionNode) -> dict[str, str]:
    from graphql import print_ast

    return {one.variable.name.value: print_ast(one.type) for one in operation.variable_definitions or ()}


def _required(operation: OperationDefinitionNode) -> tuple[str, ...]:
    from graphql import NonNullTypeNode

    return tuple(
        one.variable.name.value
        for one in operation.variable_definitions or ()
        if isinstance(one.type, NonNullTypeNode) and one.default_value is None
    )


def _place(text: str, node: Node) -> str:
    from graphql import get_location

    if node.loc is None or node.loc.source.body != text:
        return ""
    at = get_location(node.loc.source, node.loc.start)
    return _show(text, at.line, at.column)


def _show(text: str, line: int, column: int) -> str:
    """The line, with a caret under the column."""
    lines = re.split(r"\r\n|[\n\r]", text)
    shown = lines[line - 1] if line <= len(lines) else ""
    under = re.sub(r"[^\t]", " ", shown[: column - 1])
    number = str(line)
    return f" (line {line}, column {column})\n{number} | {shown}\n{' ' * len(number)} | {under}^"


# ---------------------------------------------------------------------- variables


def _coerce(declared: TypeNode, text: str) -> Any:
    from graphql import ListTypeNode, NamedTypeNode, NonNullTypeNode

    inner = declared.type if isinstance(declared, NonNullTypeNode) else declared
    named = inner.name.value if isinstance(inner, NamedTypeNode) else None
    if named in ("String", "ID"):
        return text
    try:
        value = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        value = text
    if isinstance(inner, ListTypeNode) and value is not None and not isinstance(value, list):
        return [_coerce(inner.type, text)]
    if named == "Boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    return _checked(declared, value)


def _checked(declared: TypeNode, value: Any) -> Any:
    """``value`` as JSON has it, unless the types that GraphQL itself defines rule it out."""
    from graphql import ListTypeNode, NamedTypeNode, NonNullTypeNode

    if isinstance(declared, NonNullTypeNode):
        if value is None:
            raise ValueError("null is not allowed")
        return _checked(declared.type, value)
    if value is None:
        return None
    if isinstance(declared, ListTypeNode):
        return (
            [_checked(declared.type, one) for one in value]
            if isinstance(value, list)
            else [_checked(declared.type, value)]
        )
    assert isinstance(declared, NamedTypeNode)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match declared.name.value:
        case "Int" if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not a whole number")
        case "Float" if not number:
            raise ValueError(f"{value!r} is not a number")
        case "Float":
            return float(value)
        case "Boolean" if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        case "String" if not isinstance(value, str):
            raise ValueError(f"{value!r} is not a string: put it in quotes")
        case "ID" if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is neither a string nor a whole number")
    return value
