"""The documented subscriptions, which are not the project's: where they are, and the shape that each asks for.

``BQSTREAM_DOCUMENTS`` names the file, one JSON object a line: ``source``, ``document`` and ``variables``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from graphql import (
    FieldNode,
    InlineFragmentNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Visitor,
    parse,
    value_from_ast_untyped,
    visit,
)

_BESIDE = Path(__file__).parents[2] / "shared" / "data" / "subscriptions.jsonl"
SOURCE = Path(os.environ.get("BQSTREAM_DOCUMENTS") or _BESIDE)
Shape = dict[str, Any]

needs_documents = pytest.mark.skipif(
    not SOURCE.exists(),
    reason="the documented subscriptions are not here: name their file in BQSTREAM_DOCUMENTS",
)


def documented() -> list[dict[str, Any]]:
    """Every line of the file; none where there is no file."""
    lines = SOURCE.read_bytes().splitlines() if SOURCE.exists() else []
    return [msgspec.json.decode(line) for line in lines]


class _Contradiction(Visitor):
    """Whether a filter asks for a number both below one and above a greater one: some documents do."""

    found = False

    def enter_object_value(self, node: ObjectValueNode, *_: Any) -> None:
        asked = value_from_ast_untyped(node)
        if {"lt", "gt"} <= asked.keys() and float(asked["lt"]) <= float(asked["gt"]):
            self.found = True


def contradicts_itself(document: str) -> bool:
    """Whether no row can ever pass the document's filters."""
    visitor = _Contradiction()
    visit(parse(document), visitor)
    return visitor.found


def shape_of(document: str) -> Shape:
    """What ``data`` looks like: key to whether it may be missing, and the shape beneath."""
    (operation,) = parse(document).definitions
    assert isinstance(operation, OperationDefinitionNode)
    return _shape(operation.selection_set) or {}


def _shape(selections: SelectionSetNode | None, union: bool = False) -> Shape | None:
    """Keys as selected; those of a fragment on a union may be missing from a row."""
    if selections is None:
        return None
    found: Shape = {}
    for node in selections.selections:
        if isinstance(node, FieldNode):
            key = node.alias.value if node.alias else node.name.value
            inner = _shape(node.selection_set)
            before = found.get(key, (False, None))[1]
            found[key] = (union, before | inner if before and inner else inner)
        elif isinstance(node, InlineFragmentNode):
            found |= _shape(node.selection_set, union=True) or {}
    return found


def assert_shaped(value: Any, expected: Shape | None, at: str) -> None:
    """``value`` has the keys of its shape, all the way down, and no other."""
    if expected is None:
        assert not isinstance(value, dict), at
        assert not isinstance(value, list) or not any(isinstance(item, dict) for item in value), at
        return
    for one in value if isinstance(value, list) else [value]:
        assert isinstance(one, dict), at
        assert set(one) <= set(expected), at
        assert {key for key, (optional, _) in expected.items() if not optional} <= set(one), at
        for key, inner in one.items():
            assert_shaped(inner, expected[key][1], f"{at}.{key}")
