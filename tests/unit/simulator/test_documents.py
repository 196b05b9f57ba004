"""Every documented subscription is answered. The documents are not the project's: without them this is skipped."""

from __future__ import annotations

import os
import re
from collections import Counter
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

from bqstream.simulator.answers import Prepared, Refusal, prepare, rows_of
from bqstream.simulator.chain import Block, Chain

_BESIDE = Path(__file__).parents[4] / "shared" / "data" / "subscriptions.jsonl"
SOURCE = Path(os.environ.get("BQSTREAM_DOCUMENTS") or _BESIDE)
pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="the documented subscriptions are not here")
Shape = dict[str, Any]


class Played:
    """All documents, prepared, and what each was sent over the same blocks."""

    def __init__(self) -> None:
        lines = SOURCE.read_bytes().splitlines() if SOURCE.exists() else []
        self.entries: list[dict[str, Any]] = []
        self.prepared: list[Prepared] = []
        self.refused: list[str] = []
        for entry in map(msgspec.json.decode, lines):
            try:
                self.prepared.append(prepare(entry["document"], entry["variables"], None))
                self.entries.append(entry)
            except Refusal:
                self.refused.append(entry["document"])
        self.chain = Chain(seed=3)
        self._emit(self.chain.mine())
        self.blocks = [self.chain.mine() for _ in range(20)]
        emitted = [self._emit(block) for block in self.blocks]
        self.data = [[data for block in emitted for data in block[n]] for n in range(len(self.prepared))]

    def _emit(self, block: Block) -> list[list[dict[str, Any]]]:
        found = [[p.portion(block, index) for index in range(block.portions)] for p in self.prepared]
        return [[data for data in portions if data] for portions in found]


@pytest.fixture(scope="module")
def played() -> Played:
    return Played()


class _Contradiction(Visitor):
    """Whether a filter asks for a number both below one and above a greater one: some documents do."""

    found = False

    def enter_object_value(self, node: ObjectValueNode, *_: Any) -> None:
        asked = value_from_ast_untyped(node)
        if {"lt", "gt"} <= asked.keys() and float(asked["lt"]) <= float(asked["gt"]):
            self.found = True


def contradicts_itself(document: str) -> bool:
    visitor = _Contradiction()
    visit(parse(document), visitor)
    return visitor.found


def shape(selections: SelectionSetNode | None, union: bool = False) -> Shape | None:
    """Keys as selected; those of a fragment on a union may be missing from a row."""
    if selections is None:
        return None
    found: Shape = {}
    for node in selections.selections:
        if isinstance(node, FieldNode):
            key = node.alias.value if node.alias else node.name.value
            inner = shape(node.selection_set)
            before = found.get(key, (False, None))[1]
            found[key] = (union, before | inner if before and inner else inner)
        elif isinstance(node, InlineFragmentNode):
            found |= shape(node.selection_set, union=True) or {}
    return found


def assert_shaped(value: Any, expected: Shape | None, at: str) -> None:
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


def test_only_what_selects_nothing_is_refused(played: Played) -> None:
    assert played.prepared
    assert all(re.search(r"\)\s*\{\s*\}", document) for document in played.refused)


def test_every_documented_subscription_is_sent_rows_soon(played: Played) -> None:
    silent = [
        entry["source"]
        for entry, data in zip(played.entries, played.data, strict=True)
        if not data and not contradicts_itself(entry["document"])
    ]
    assert silent == []


def test_what_is_sent_has_the_document_s_own_shape(played: Played) -> None:
    for entry, data in zip(played.entries, played.data, strict=True):
        (operation,) = parse(entry["document"]).definitions
        assert isinstance(operation, OperationDefinitionNode)
        for one in data:
            assert_shaped(one, shape(operation.selection_set), entry["source"])
            assert msgspec.json.decode(msgspec.json.encode(one)) == one


def test_the_same_document_as_a_query_brings_the_same_rows(played: Played) -> None:
    compared = 0
    for entry, data in zip(played.entries, played.data, strict=True):
        document = entry["document"].replace("subscription", "query", 1)
        if "limit" in document or "median" in document:  # limits hold for each message, metrics are deltas
            continue
        answer = prepare(document, entry["variables"], None).answer(played.chain)
        sent = Counter(msgspec.json.encode(row) for one in data for row in rows_of(one))
        found = Counter(msgspec.json.encode(row) for row in rows_of(answer["data"]))
        assert sent <= found, entry["source"]
        first = played.chain.blocks().__next__()
        before = [prepare(entry["document"], None, None).portion(first, n) for n in range(first.portions)]
        sent.update(msgspec.json.encode(row) for one in before if one for row in rows_of(one))
        assert found == sent, entry["source"]
        compared += 1
    assert compared > 280
