"""What the service does with some cubes, whatever is asked of them (subscriptions/which-cubes-stream)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from graphql import FieldNode, GraphQLError, OperationDefinitionNode, parse

Habit = Literal["streams", "silent", "shed"]
_SILENT = {"Balances", "Holders", "Uncles"}
_NEED_A_FILTER = {"Instructions", "BalanceUpdates", "InstructionBalanceUpdates"}


@lru_cache(maxsize=8192)
def habit(document: str) -> Habit:
    """Of a document's cubes: "silent" if none ever sends; "shed" (1013) if one that needs a filter has none."""
    cubes = list(_cubes(document))
    if any(_needs_filter(root, cube.name.value) and not _filtered(cube) for root, cube in cubes):
        return "shed"
    return "silent" if cubes and all(cube.name.value in _SILENT for _, cube in cubes) else "streams"


def _cubes(document: str) -> list[tuple[str, FieldNode]]:
    try:
        definitions = parse(document, no_location=True).definitions
    except GraphQLError:
        return []
    return [
        (root.name.value, cube)
        for operation in definitions
        if isinstance(operation, OperationDefinitionNode)
        for root in operation.selection_set.selections
        if isinstance(root, FieldNode) and root.selection_set is not None
        for cube in root.selection_set.selections
        if isinstance(cube, FieldNode) and cube.selection_set is not None
    ]


def _needs_filter(root: str, cube: str) -> bool:
    return root == "Trading" or (root == "Solana" and cube in _NEED_A_FILTER)


def _filtered(cube: FieldNode) -> bool:
    return any(argument.name.value == "where" for argument in cube.arguments or ())
