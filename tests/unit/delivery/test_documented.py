"""The documented subscriptions, which are not the project's: what can be closed, and that no row changes."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from bqstream.delivery.cursor import Cursor
from bqstream.delivery.document import Document
from bqstream.delivery.enlarge import Enlarged, as_selected, enlarge
from bqstream.delivery.shape import CubeShape, Shape, shape_of
from bqstream.errors import DocumentRefused
from bqstream.simulator.answers import Prepared, prepare
from bqstream.simulator.chain import Block, Chain
from tests.documents import documented, needs_documents

pytestmark = needs_documents
BLOCKS = 9


class Documented:
    """One document, its shape, and what it becomes; both prepared for the same chain."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.source: str = entry["source"]
        self.document = Document.parse(entry["document"])
        self.shape: Shape = shape_of(self.document, entry["variables"])
        self.enlarged: Enlarged | None = enlarge(self.document, self.shape)
        self.readers = self.enlarged.readers if self.enlarged else as_selected(self.shape)
        self.own: Prepared = prepare(self.document.text, entry["variables"], None)
        sent = self.enlarged.text if self.enlarged else self.document.text
        self.sent: Prepared = prepare(sent, entry["variables"], None)


@pytest.fixture(scope="module")
def every() -> list[Documented]:
    found = []
    for entry in documented():
        try:
            found.append(Documented(entry))
        except DocumentRefused:  # one selects nothing
            assert re.search(r"\)\s*\{\s*\}", entry["document"])
    assert len(found) > 300
    return found


@pytest.fixture(scope="module")
def blocks(every: list[Documented]) -> list[Block]:
    """Of one chain that has learned every document's filters, a fork at its end."""
    chain = Chain(seed=7)
    first = chain.mine()
    for one in every:
        one.own.portion(first, 0)
    return [*(chain.mine() for _ in range(BLOCKS - 1)), *chain.fork(1)]


def close_by(cube: CubeShape) -> str:
    """How its gaps are closed, or in a word why not."""
    if cube.reason is None:
        return f"by {cube.cursor.kind}" if cube.cursor else ""
    if cube.kind != "facts":
        return cube.kind
    return "mempool" if cube.mempool else "own limit" if cube.limit or cube.limit_by else "no cursor"


def test_every_cube_closes_its_gaps_or_says_why_not(every: list[Documented]) -> None:
    cubes = [(one.shape.root, cube) for one in every for cube in one.shape.cubes]
    how = Counter(close_by(cube) for _, cube in cubes)
    shown = Counter(cube.selected.kind if cube.selected else "none" for _, cube in cubes if not cube.reason)
    known = sum(bool(one.readers[cube.key].of) for one in every for cube in one.shape.cubes)
    print(
        f"\n{len(every)} documents, {len(cubes)} cubes; {sum(bool(one.enlarged) for one in every)} enlarged"
    )
    print("how gaps close:", *(f"{name} {count}," for name, count in how.most_common()))
    print("cursor they select themselves:", *(f"{name} {count}," for name, count in shown.most_common()))
    print(f"with identity: {known}")
    for (reason, name), count in Counter(
        (c.reason, f"{r}.{c.name}") for r, c in cubes if c.reason
    ).most_common():
        print(f"{count:4} {name}: {reason}")
    assert all(cube.reason or cube.cursor for _, cube in cubes)
    assert how.keys() <= {"by number", "by slot", "by time", "aggregate", "mempool", "own limit"}
    assert sum(count for name, count in how.items() if name.startswith("by ")) > 250


def test_no_document_s_rows_change_by_being_enlarged(every: list[Documented], blocks: list[Block]) -> None:
    changed, rows = [], 0
    for one in every:
        for block in blocks:
            for index in range(block.portions):
                own = msgspec.json.encode(one.own.portion(block, index))
                sent = msgspec.json.decode(msgspec.json.encode(one.sent.portion(block, index)))
                rows += own.count(b"{") > 2
                if one.enlarged:
                    one.enlarged.take_out(sent)
                if msgspec.json.encode(sent) != own:
                    changed.append(one.source)
    print(
        f"\n{rows} payloads of {len(every)} documents compared over {len(blocks)} blocks, {len(changed)} changed"
    )
    assert changed == []
    assert rows > 1000


def test_every_row_says_where_it_stands_and_no_two_say_they_are_the_same(
    every: list[Documented], blocks: list[Block]
) -> None:
    cursors = keys = 0
    for one in every:
        for cube in one.shape.cubes:
            reader, seen = one.readers[cube.key], set()
            # A transaction comes once from the mempool (subscriptions/mempool-subscriptions), fork or not.
            for block in blocks[:-1] if cube.mempool else blocks:
                at = _cursor_of(cube, block)
                for index in range(block.portions):
                    data = one.sent.portion(block, index) or {}
                    for row in (data.get(one.shape.key) or {}).get(cube.key) or ():
                        if cube.reason is None and not cube.upserts:
                            assert reader.cursor(row) == at, one.source
                            cursors += 1
                        if reader.of:
                            key = reader.key(row)
                            assert key is not None, one.source
                            assert key not in seen, one.source
                            seen.add(key)
                            keys += 1
    print(f"\n{cursors} cursors and {keys} keys read")
    assert cursors > 1000
    assert keys > 1000


def _cursor_of(cube: CubeShape, block: Block) -> Cursor | None:
    match cube.cursor.kind if cube.cursor else None:
        case "number" | "slot" as kind:
            return Cursor(kind, block.number)
        case "time":
            return Cursor("time", int(block.time.timestamp()))
    return None
