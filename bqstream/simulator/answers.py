"""Documents answered without a schema, by field names: what a subscription is sent, and what a query is answered.

Both look at the same rows of the same blocks, so a query over a range brings what the subscription emitted over it
(subscriptions/backfilling-subscription).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from . import selection
from .chain import Block, Chain, Row
from .cubes import CubePlan, plan_of
from .filters import Refusal
from .selection import Field
from .values import Cube, leaf

__all__ = ["Prepared", "Refusal", "prepare", "rows_of"]

_MESSAGE_ROWS = (
    800  # a message carries no more of a cube unless the document says so (subscriptions/subscription)
)
_KEPT_DOCUMENTS = 8192


def prepare(document: str, variables: dict[str, Any] | None, operation_name: str | None) -> Prepared:
    """Read a document once; asked again for the same one, the same object. Raises `Refusal`."""
    asked = msgspec.json.encode([document, variables or {}, operation_name])
    return _prepared(asked)


@lru_cache(maxsize=_KEPT_DOCUMENTS)
def _prepared(asked: bytes) -> Prepared:
    document, variables, name = msgspec.json.decode(asked)
    return Prepared(selection.read(document, variables, name), sha256(asked).hexdigest())


def rows_of(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every row of a ``data`` object with its cube's response key; a scalar or an object in a list's place is one."""
    for root_key, root in data.items():
        if not isinstance(root, dict):
            yield root_key, root
            continue
        for key, rows in root.items():
            if isinstance(rows, list):
                for row in rows:
                    yield key, row
            else:
                yield key, rows


class _Root:
    """A root field: cubes under it, and scalars that tell of the block (both may be there, or the root be a scalar)."""

    def __init__(self, field: Field) -> None:
        self.key = field.key
        children = field.children or ()
        self.cubes = [(child.key, plan_of(field, child)) for child in children if child.children is not None]
        self._cube = Cube(field.name, "", False, "")
        scalars = [child for child in children if child.children is None]
        self._scalars = [(child.key, leaf(field.name, "", (child.name,))) for child in scalars]
        self._own = None if field.children is not None else leaf(field.name, "", (field.name,))

    @property
    def keys(self) -> list[str]:
        """Response keys, of the cubes or of what stands in their place."""
        if self._own is not None:
            return [self.key]
        return [key for key, _ in self.cubes] or [key for key, _ in self._scalars]

    def data(self, block: Block | None, lists: list[list[Any]]) -> Any:
        row = block.rows(self._cube)[0] if block else None
        if self._own is not None:
            return row.get(self._own) if row else None
        shown: dict[str, Any] = {key: row.get(found) if row else None for key, found in self._scalars}
        return shown | {key: rows for (key, _), rows in zip(self.cubes, lists, strict=True)}


class Prepared:
    """One document with its variables, ready to be asked of any block or chain; holds no state but what it caches.

    The first block or chain it is asked of learns its filters: blocks mined from then on hold rows that pass.
    """

    def __init__(self, operation: selection.Operation, fingerprint: str) -> None:
        self.kind = operation.kind
        self.fingerprint = fingerprint
        self.arguments: dict[str, Any] = operation.roots[
            0
        ].arguments  # network, mempool, dataset, trigger_on …
        self._roots = [_Root(field) for field in operation.roots]
        self.cubes = tuple(key for root in self._roots for key in root.keys)
        self._bare = not any(root.cubes for root in self._roots)
        self._profiles = [(plan.cube, plan.profile) for root in self._roots for _, plan in root.cubes]

    def __repr__(self) -> str:
        return f"Prepared({self.kind} of {', '.join(self.cubes)}, {self.fingerprint[:8]})"

    def portion(self, block: Block, index: int) -> dict[str, Any] | None:
        """The ``data`` that portion ``index`` (in order of emission) of this block brings; None where it has no row.

        Its rows are shared between documents and sockets: they are not to be changed. The groups of an aggregating
        cube come with the last portion, scalars in place of cubes with the first.
        """
        block.content.lessons.learn(self.fingerprint, self._profiles)
        lists = [
            [plan.portions(block, _MESSAGE_ROWS)[index] for _, plan in root.cubes] for root in self._roots
        ]
        if any(rows for root in lists for rows in root) or (self._bare and index == 0):
            return {root.key: root.data(block, rows) for root, rows in zip(self._roots, lists, strict=True)}
        return None

    def answer(self, chain: Chain, *, upto: int | None = None, row_cap: int = 25_000) -> dict[str, Any]:
        """``{"data": …}`` over the blocks that the chain keeps, none above ``upto``, and ``row_cap`` rows of a cube."""
        chain.lessons.learn(self.fingerprint, self._profiles)
        data: dict[str, Any] = {}
        for root in self._roots:
            lists = [_query(plan, chain, upto, row_cap) for _, plan in root.cubes]
            data[root.key] = root.data(chain.head, lists)
        return {"data": data}


def _query(plan: CubePlan, chain: Chain, upto: int | None, row_cap: int) -> list[Any]:
    if chain.head is None:
        return []
    now = chain.head.time
    cap = row_cap if plan.count is None else min(plan.count, row_cap)
    enough = plan.offset + cap if plan.in_block_order else None
    blocks = plan.within(list(chain.blocks(None, upto)), now)
    return plan.shown(plan.groups(_rows(plan, blocks, now, enough)), row_cap)[:row_cap]


def _rows(plan: CubePlan, blocks: list[Block], now: datetime, enough: int | None) -> Iterator[Row]:
    """Rows that pass, in the order of the chain or against it; once there are enough, no block of another rank."""
    count, last = 0, None
    for block in reversed(blocks) if plan.descending else blocks:
        rows = plan.matching(block, now)
        if not rows:
            continue
        if enough is not None and count >= enough and plan.rank(rows[:1]) != last:
            return
        yield from rows
        count += len(rows)
        last = plan.rank(rows[:1])
