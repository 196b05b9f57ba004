"""What a document selects, as a tree of named fields: fragments resolved, variables not, so that it holds for any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..delivery.document import Document, operation_of, response_key
from ..errors import DocumentRefused

if TYPE_CHECKING:
    from graphql import FieldNode, FragmentDefinitionNode, SelectionNode, SelectionSetNode

_DEEPEST = 64
# Members of the service's one union, the values of arguments (evm/calls, blockchain/Solana).
_MEMBER = "_Value_Arg"


@dataclass(frozen=True, slots=True)
class Mention:
    """A field as the document writes it.

    Attributes:
        name: the field's name.
        within: the types that its fragments name, the outermost first; empty outside of fragments.
        asks: whether it has arguments by which it may be null: an interval rounds a value that is there.
    """

    name: str
    within: tuple[str, ...]
    asks: bool


@dataclass(frozen=True, slots=True)
class Selected:
    """One response key of an object.

    Attributes:
        key: the response key.
        mentions: how the document writes it: more than once where it is merged (spec, 5.3.2).
        sure: whether it is there for all variables, if one of the mentions' types is that of the object.
        only: whether, as far as names tell, it is of some members of a union alone.
        fields: what is below; None for a leaf.
    """

    key: str
    mentions: tuple[Mention, ...]
    sure: bool
    only: bool
    fields: tuple[Selected, ...] | None

    @property
    def name(self) -> str:
        """The field's name, the first one of a union's."""
        return self.mentions[0].name


def selected(document: Document) -> tuple[Selected, ...]:
    """What ``document`` selects, from the root field on. Raises DocumentRefused for fragments that are not there."""
    from graphql import FragmentDefinitionNode, parse

    tree = parse(document.text)
    operation, _ = operation_of(tree, document.operation_name)
    fragments = {
        node.name.value: node for node in tree.definitions if isinstance(node, FragmentDefinitionNode)
    }
    return _Reader(fragments).below([_Found(None, (), True, operation.selection_set)], 0)


@dataclass(frozen=True, slots=True)
class _Found:
    """A field on its way into the tree: where it stands, and what is selected of it."""

    node: FieldNode | None
    within: tuple[str, ...]
    sure: bool
    selections: SelectionSetNode | None

    @property
    def place(self) -> tuple[tuple[str, ...], bool]:
        return self.within, self.sure


class _Reader:
    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments

    def below(self, parents: Sequence[_Found], depth: int) -> tuple[Selected, ...]:
        """The fields under one object, which ``parents`` mention."""
        if depth > _DEEPEST:
            raise DocumentRefused("the document is nested too deeply, or a fragment holds itself")
        groups: dict[str, list[_Found]] = {}
        places: dict[str, set[object]] = {}  # of those parents that have the key
        for parent in parents:
            for found in self._fields(parent.selections, (), True, ()):
                assert found.node is not None
                key = response_key(found.node)
                groups.setdefault(key, []).append(found)
                places.setdefault(key, set()).add(parent.place)
        everywhere = {parent.place for parent in parents}
        always = ((), True)
        types = {found.within for group in groups.values() for found in group if found.within}
        telling = len(types) > 1 or any(
            found.node and found.node.name.value == "__typename"
            for group in groups.values()
            for found in group
        )
        made = []
        for key, group in groups.items():
            shared = always in places[key] or places[key] == everywhere
            nested = [found for found in group if found.selections is not None]
            made.append(
                Selected(
                    key,
                    tuple(dict.fromkeys(map(_mention, group))),
                    shared and any(found.sure for found in group),
                    all(found.within and (telling or found.within[-1].endswith(_MEMBER)) for found in group),
                    self.below(nested, depth + 1) if nested else None,
                )
            )
        return tuple(made)

    def _fields(
        self,
        selections: SelectionSetNode | None,
        within: tuple[str, ...],
        sure: bool,
        spread: tuple[str, ...],
    ) -> Iterator[_Found]:
        from graphql import FieldNode, FragmentSpreadNode, InlineFragmentNode

        for node in selections.selections if selections else ():
            included = _included(node)
            if included is False:
                continue
            here = sure and included is True
            if isinstance(node, FieldNode):
                yield _Found(node, within, here, node.selection_set)
            elif isinstance(node, InlineFragmentNode):
                kind = (node.type_condition.name.value,) if node.type_condition else ()
                yield from self._fields(node.selection_set, (*within, *kind), here, spread)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if (fragment := self._fragments.get(name)) is None:
                    raise DocumentRefused(f"the document holds no fragment {name!r}")
                if name in spread:
                    raise DocumentRefused(f"the fragment {name!r} holds itself")
                types = (*within, fragment.type_condition.name.value)
                yield from self._fields(fragment.selection_set, types, here, (*spread, name))


def _mention(found: _Found) -> Mention:
    assert found.node is not None
    asks = any(argument.name.value != "interval" for argument in found.node.arguments or ())
    return Mention(found.node.name.value, found.within, asks)


def _included(node: SelectionNode) -> bool | None:
    """``@skip`` and ``@include`` (spec, 3.13); None where a variable decides."""
    from graphql import BooleanValueNode

    known: bool | None = True
    for directive in node.directives or ():
        if directive.name.value not in ("skip", "include"):
            continue
        for argument in directive.arguments or ():
            if not isinstance(argument.value, BooleanValueNode):
                known = None
            elif argument.value.value is (directive.name.value == "skip"):
                return False
    return known
