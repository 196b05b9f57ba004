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
from .chain import Block, Chain, Content, Cube, Row
from .cubes import CubePlan, Group
from .filters import Refusal
from .selection import Field
from .values import leaf

__all__ = ["Prepared", "Refusal", "prepare", "rows_of"]

_MESSAGE_ROWS = (
    800  # a message carries no more of a cube unless the document says so (subscriptions/subscription)
)
_KEPT_BLOCKS = 8  # how many blocks' portions a document keeps, for the sockets that come later
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
        self.cubes = [CubePlan(field, child) for child in field.children if child.children]
        self._cube = Cube(field.name, "", False, "")
        scalars = [child for child in field.children if not child.children]
        self._scalars = [(child.key, leaf(field.name, "", (child.name,))) for child in scalars]
        self._own = None if field.children else leaf(field.name, "", (field.name,))

    @property
    def keys(self) -> list[str]:
        """Response keys, of the cubes or of what stands in their place."""
        if self._own is not None:
            return [self.key]
        return [plan.key for plan in self.cubes] or [key for key, _ in self._scalars]

    def data(self, block: Block | None, lists: list[list[Any]]) -> Any:
        row = block.rows(self._cube)[0] if block else None
        if self._own is not None:
            return row.get(self._own) if row else None
        shown: dict[str, Any] = {key: row.get(found) if row else None for key, found in self._scalars}
        return shown | {plan.key: rows for plan, rows in zip(self.cubes, lists, strict=True)}


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
        plans = [plan for root in self._roots for plan in root.cubes]
        self._profiles = [(plan.cube, plan.profile) for plan in plans]
        self._portions: dict[Content, list[dict[str, Any] | None]] = {}

    def __repr__(self) -> str:
        return f"Prepared({self.kind} of {', '.join(self.cubes)}, {self.fingerprint[:8]})"

    def portion(self, block: Block, index: int) -> dict[str, Any] | None:
        """The ``data`` that portion ``index`` (in order of emission) of this block brings; None where it has no row.

        The same object for every socket: it is not to be changed. Groups of an aggregating cube, and what there is
        one of in a block, come in one portion.
        """
        portions = self._portions.get(block.content)
        if portions is None:
            block.content.lessons.learn(self.fingerprint, self._profiles)
            if len(self._portions) >= _KEPT_BLOCKS:
                del self._portions[next(iter(self._portions))]
            portions = self._portions[block.content] = self._emit(block)
        return portions[index]

    def _emit(self, block: Block) -> list[dict[str, Any] | None]:
        lists = [[_by_portion(plan, block) for plan in root.cubes] for root in self._roots]
        emitted: list[dict[str, Any] | None] = []
        for index in range(block.portions):
            here = [[portions[index] for portions in root] for root in lists]
            bare = index == 0 and not any(root.cubes for root in self._roots)
            if bare or any(rows for root in here for rows in root):
                pairs = zip(self._roots, here, strict=True)
                emitted.append({root.key: root.data(block, rows) for root, rows in pairs})
            else:
                emitted.append(None)
        return emitted

    def answer(self, chain: Chain, *, upto: int | None = None, row_cap: int = 25_000) -> dict[str, Any]:
        """``{"data": …}`` over the blocks that the chain keeps, none above ``upto``, and ``row_cap`` rows of a cube."""
        chain.lessons.learn(self.fingerprint, self._profiles)
        data: dict[str, Any] = {}
        for root in self._roots:
            lists = [_query(plan, chain, upto, row_cap) for plan in root.cubes]
            data[root.key] = root.data(chain.head, lists)
        return {"data": data}


def _by_portion(plan: CubePlan, block: Block) -> list[list[Any]]:
    rows = plan.matching(block.rows(plan.cube), block.time)
    portions: list[list[Row]] = [[] for _ in range(block.portions)]
    for row in rows:
        portions[-1 if plan.aggregate else block.portion_of(row)].append(row)
    return [_shown(plan, plan.groups(part), _MESSAGE_ROWS) if part else [] for part in portions]


def _shown(plan: CubePlan, groups: list[Group], cap: int) -> list[Any]:
    return [plan.show(group) for group in plan.arranged(groups, cap)]


def _query(plan: CubePlan, chain: Chain, upto: int | None, row_cap: int) -> list[Any]:
    if chain.head is None:
        return []
    cap = row_cap if plan.count is None else min(plan.count, row_cap)
    enough = plan.offset + cap if plan.in_block_order else None
    groups = plan.groups(_rows(plan, chain, upto, chain.head.time, enough))
    return _shown(plan, groups, row_cap)[:row_cap]


def _rows(plan: CubePlan, chain: Chain, upto: int | None, now: datetime, enough: int | None) -> Iterator[Row]:
    """Rows that pass, in the order of the chain or against it; once there are enough, no block of another rank."""
    blocks = list(chain.blocks(None, upto))
    count, last = 0, None
    for block in reversed(blocks) if plan.descending else blocks:
        rows = plan.matching(block.rows(plan.cube), now)
        if not rows:
            continue
        if enough is not None and count >= enough and plan.rank(rows[:1]) != last:
            return
        yield from rows
        count += len(rows)
        last = plan.rank(rows[:1])
