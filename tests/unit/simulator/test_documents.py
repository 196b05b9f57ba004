"""Every documented subscription is answered. The documents are not the project's: without them this is skipped."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from bqstream.simulator.answers import Prepared, Refusal, prepare, rows_of
from bqstream.simulator.chain import Block, Chain
from tests.documents import assert_shaped, contradicts_itself, documented, needs_documents, shape_of

pytestmark = needs_documents


class Played:
    """All documents, prepared, and what each was sent over the same blocks."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.prepared: list[Prepared] = []
        self.refused: list[str] = []
        for entry in documented():
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


def as_query(document: str) -> str:
    """A query's root takes no ``trigger_on`` (graphql-reference/queries/evm)."""
    return re.sub(r"trigger_on: \w+", "", document.replace("subscription", "query", 1))


@pytest.fixture(scope="module")
def played() -> Played:
    return Played()


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
        shape = shape_of(entry["document"])
        for one in data:
            assert_shaped(one, shape, entry["source"])
            assert msgspec.json.decode(msgspec.json.encode(one)) == one


def test_the_same_document_as_a_query_brings_the_same_rows(played: Played) -> None:
    compared = 0
    for entry, data in zip(played.entries, played.data, strict=True):
        document = as_query(entry["document"])
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
