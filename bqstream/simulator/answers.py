"""Documents answered without a schema, by field names: what a subscription is sent, and what a query is answered.

Both look at the same rows of the same blocks, so a query over a range brings what the subscription emitted over it
(subscriptions/backfilling-subscription).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from . import selection
from .chain import Block, Chain
from .cubes import plan_of
from .filters import Refusal
from .lookup import View, found
from .selection import Field, Kind
from .values import Cube, leaf

__all__ = ["Failure", "Prepared", "Refusal", "View", "prepare", "rows_of"]

_KEPT_DOCUMENTS = 8192
Fields = tuple[Field, ...]


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


class Failure(Refusal):
    """The service fails at a query: HTTP 500, whenever it is asked again."""


def _dataset(field: Field, kind: Kind) -> str | None:
    """The dataset that a root asks for (graphql-reference/queries/evm, graphql-reference/subscriptions/evm).

    A subscription is always of the realtime one, and documents that say so are about (polymarket-api).
    """
    asked = field.arguments.get("dataset")
    if kind == "query" and "trigger_on" in field.arguments:
        raise _unknown(field, "trigger_on")
    if asked not in (None, "realtime", "archive", "combined"):
        message = f"Argument 'dataset' on Field '{field.name}' has an invalid value ({asked})."
        raise Refusal({"message": message})
    if kind == "subscription" and asked in ("archive", "combined"):
        raise _unknown(field, "dataset")
    return asked


def _unknown(field: Field, argument: str) -> Refusal:
    return Refusal({"message": f"Field '{field.name}' doesn't accept argument '{argument}'"})


class _Root:
    """A root field: cubes under it, and scalars that tell of the block (both may be there, or the root be a scalar)."""

    def __init__(self, field: Field, kind: Kind) -> None:
        self.key = field.key
        self.dataset = _dataset(field, kind)
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

    @property
    def fails(self) -> bool:
        """Whether no answer is to be had of this dataset (graphql/data-coverage-retention)."""
        cubes = [plan.cube for _, plan in self.cubes]
        return self.dataset == "combined" and any(
            cube.root == "Solana" or (cube.root == "EVM" and cube.name in ("Events", "Calls"))
            for cube in cubes
        )

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
        self.frame = operation.frame()
        self._selections = operation.selections()
        self._roots = [_Root(field, operation.kind) for field in operation.roots]
        self.cubes = tuple(key for root in self._roots for key in root.keys)
        # Keys of cubes whose document says how many rows a message may hold (subscriptions/subscription).
        self.limited = frozenset(
            key for root in self._roots for key, plan in root.cubes if plan.count is not None
        )
        self._bare = not any(root.cubes for root in self._roots)
        self._aggregates = [plan.aggregate for root in self._roots for _, plan in root.cubes]
        self._profiles = [(plan.cube, plan.profile) for root in self._roots for _, plan in root.cubes]

    def __repr__(self) -> str:
        return f"Prepared({self.kind} of {', '.join(self.cubes)}, {self.fingerprint[:8]})"

    def is_enlarged_by(self, other: Prepared) -> bool:
        """Whether ``other`` is this document itself, or this one with hidden fields added."""
        return self._is_in(other, selection.enlarges)

    def is_held_by(self, other: Prepared) -> bool:
        """Whether ``other`` is sent the same rows and shows at least as much of them."""
        return self._is_in(other, selection.holds)

    def _is_in(self, other: Prepared, more: Callable[[Fields, Fields], bool]) -> bool:
        """A field more makes other groups of an aggregate, which is in no document but one that has it as it is."""
        if (self.kind, self.frame) != (other.kind, other.frame):
            return False
        if len(self._aggregates) != len(self._selections) or self._aggregates != other._aggregates:
            return self._selections == other._selections
        return all(
            theirs == own if aggregate else more(theirs, own)
            for theirs, own, aggregate in zip(
                other._selections, self._selections, self._aggregates, strict=True
            )
        )

    def portion(self, block: Block, index: int) -> dict[str, Any] | None:
        """The ``data`` that portion ``index`` (in order of emission) of this block brings; None where it has no row.

        Its rows are shared between documents and sockets: they are not to be changed. The groups of an aggregating
        cube come with the last portion, scalars in place of cubes with the first.
        """
        block.content.lessons.learn(self.fingerprint, self._profiles)
        lists = [[plan.portions(block)[index] for _, plan in root.cubes] for root in self._roots]
        if any(rows for root in lists for rows in root) or (self._bare and index == 0):
            return {root.key: root.data(block, rows) for root, rows in zip(self._roots, lists, strict=True)}
        return None

    def answer(self, chain: Chain, view: View | None = None) -> dict[str, Any]:
        """``{"data": …}`` over what the query side sees of the chain.

        Raises:
            Failure: a dataset is asked for that the service has no answer from.
        """
        view = view or View()
        if any(root.fails for root in self._roots):
            raise Failure({"message": "ActiveRecord::ActiveRecordError: Response code: 500"})
        chain.lessons.learn(self.fingerprint, self._profiles)
        data: dict[str, Any] = {}
        for root in self._roots:
            lists = [found(plan, chain, view, root.dataset) for _, plan in root.cubes]
            seen = view.numbers(chain, root.dataset)
            data[root.key] = root.data(chain.block(seen[-1]) if seen else None, lists)
        return {"data": data}
