"""One cube of a document, compiled: which rows pass, and what of them is shown.

A cube of facts shows each row; one with a metric shows one row for each group of rows that agree in all of its other
fields (graphql/capabilities/query_fact_records, aggregated_metrics).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from . import filters, lessons, metrics
from .chain import Block, Chain, Content, Row
from .filters import Predicate, Refusal
from .selection import Field
from .values import Cube, Leaf, Path, leaf, moment

Group = Sequence[Row]
Show = Callable[[Group], Any]  # a cube of facts shows groups of one
_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}
_KEPT_BLOCKS = 3  # whose portions a plan keeps, for the documents and sockets that ask for them next
_KEPT_PLANS = 8192
_DECIMAL = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_plans: dict[str, CubePlan] = {}


def _refuse(field: Field, why: str) -> Refusal:
    return Refusal({"message": f"{field.key}: {why}"})


def _is_metric(field: Field) -> bool:
    asks = field.arguments.keys() & {"maximum", "minimum", "where", "if"}
    return field.children is None and (field.name in metrics.METRICS or bool(asks))


def _holds_metric(field: Field) -> bool:
    return _is_metric(field) or any(_holds_metric(child) for child in field.children or ())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _whole(field: Field, value: Any) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError):
        found = -1
    if found < 0:
        raise _refuse(field, f"{value!r} is not a number of rows")
    return found


def _sortable(value: Any) -> tuple[int, Any]:
    """Numbers by their whole length, amounts being wider than a double; then whatever else, as text."""
    if isinstance(value, str):
        return (0, Decimal(value)) if _DECIMAL.fullmatch(value) else (1, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value)
    return (1, str(value))


def _sorted(groups: list[Group], show: Show, descending: bool) -> list[Group]:
    """In order, equals as they were; null stands last either way."""
    pairs = [(show(group), group) for group in groups]
    some = [pair for pair in pairs if pair[0] is not None]
    some.sort(key=lambda pair: _sortable(pair[0]), reverse=descending)
    return [group for _, group in some] + [group for value, group in pairs if value is None]


def plan_of(root: Field, field: Field) -> CubePlan:
    """The plan of a cube under a root; documents that differ in nothing but its alias share it."""
    network = str(root.arguments.get("network") or "eth") if root.name == "EVM" else ""
    cube = Cube(root.name, network, root.arguments.get("mempool") is True, field.name)
    known = repr((cube, field.arguments, field.children))
    if known not in _plans:
        if len(_plans) >= _KEPT_PLANS:
            del _plans[next(iter(_plans))]
        _plans[known] = CubePlan(cube, field)
    return _plans[known]


class CubePlan:
    """A field under the root that has fields of its own."""

    def __init__(self, cube: Cube, field: Field) -> None:
        self.cube = cube
        self.aggregate = any(_holds_metric(child) for child in field.children or ())
        where = filters.read(field.arguments.get("where") or {}, cube.root, cube.name)
        parts = list(filters.flat(where))
        of_block = filters.AllOf(tuple(part for part in parts if filters.of_block(part)))
        of_rows = filters.AllOf(tuple(part for part in parts if not filters.of_block(part)))
        self._blocks, self._passes = filters.predicate(of_block), filters.predicate(of_rows)
        self._from, self._till = filters.bounds(parts)
        self._portions: dict[Content, list[list[Any]]] = {}
        self.profile: lessons.Profile = tuple(lessons.alternatives(where))
        self._named: dict[str, Show] = {}
        self._keys: list[Show] = []  # the dimensions that rows are grouped by
        self._having: list[tuple[Show, filters.Check]] = []
        self.show = self._object(field.children or (), (), ())
        self._limits(field)
        # Whether the first and the last block with a row tell all: how the dataset's window is probed
        # (graphql/data-coverage-retention).
        self.of_ends = self._asks_for_ends(field, ())

    # --- which rows -----------------------------------------------------------------------------------------------

    def matching(self, block: Block, now: datetime) -> list[Row]:
        """Of the rows of a block, those that pass ``where``."""
        if not self._blocks(block.bare(), now):
            return []
        passes = self._passes
        return [row for row in block.rows(self.cube) if passes(row, now)]

    def within(self, chain: Chain, numbers: range, now: datetime) -> range:
        """Of these blocks of a trunk, those between the bounds that ``where`` sets; found by halving."""
        for test in self._from:
            first = bisect_left(numbers, True, key=lambda n: test(chain.block(n).bare(), now))
            numbers = numbers[first:]
        for test in self._till:
            end = bisect_left(numbers, True, key=lambda n: not test(chain.block(n).bare(), now))
            numbers = numbers[:end]
        return numbers

    def portions(self, block: Block) -> list[list[Any]]:
        """What each portion of the block shows, the same list for every document; groups come with the last one."""
        known = self._portions.get(block.content)
        if known is None:
            parts: list[list[Row]] = [[] for _ in range(block.portions)]
            for row in self.matching(block, block.time):
                parts[-1 if self.aggregate else block.portion_of(row)].append(row)
            known = [self.shown(self.groups(part)) if part else [] for part in parts]
            if len(self._portions) >= _KEPT_BLOCKS:
                del self._portions[next(iter(self._portions))]
            self._portions[block.content] = known
        return known

    def shown(self, groups: list[Group], cap: int | None = None) -> list[Any]:
        return [self.show(group) for group in self.arranged(groups, cap)]

    def groups(self, rows: Iterable[Row]) -> list[Group]:
        """Rows as they are shown: one by one, or by group; less those that ``selectWhere`` drops."""
        groups: Iterable[Group]
        if self.aggregate:
            by_key: dict[bytes, list[Row]] = {}
            for row in rows:
                key = msgspec.json.encode([show((row,)) for show in self._keys])
                by_key.setdefault(key, []).append(row)
            groups = by_key.values()
        else:
            groups = [(row,) for row in rows]
        return [g for g in groups if all(check(show(g), g[0].block.time) for show, check in self._having)]

    def arranged(self, groups: list[Group], cap: int | None) -> list[Group]:
        """Ordered, limited by key and in number: never more than ``cap`` where the document sets no limit."""
        for show, descending in reversed(self._order):
            groups = _sorted(groups, show, descending)
        if self._by:
            seen: dict[bytes, int] = {}
            kept = []
            for group in groups:
                key = msgspec.json.encode([show(group) for show in self._by])
                seen[key] = seen.get(key, 0) + 1
                if self._by_offset < seen[key] <= self._by_offset + self._by_count:
                    kept.append(group)
            groups = kept
        count = cap if self.count is None else self.count
        return groups[self.offset :][:count]

    # --- what of them ---------------------------------------------------------------------------------------------

    def _leaf(self, path: Path) -> Leaf:
        return leaf(self.cube.root, self.cube.name, path)

    def _object(self, children: Sequence[Field], path: Path, keys: tuple[str, ...]) -> Show:
        shown = [
            (child.key, self._field(child, (*path, child.name), (*keys, child.key))) for child in children
        ]
        if not any(child.only for child in children):
            return lambda group: {key: show(group) for key, show in shown}
        kind = self._leaf((*path, "__typename"))
        members = [(child.only, *pair) for child, pair in zip(children, shown, strict=True)]
        return lambda group: {
            key: show(group) for only, key, show in members if only is None or only == group[0].get(kind)
        }

    def _field(self, field: Field, path: Path, keys: tuple[str, ...]) -> Show:
        if field.children is not None:
            return self._nested(field.children, path, keys)
        show = self._scalar(field, path)
        self._named["_".join(keys)] = show
        if "selectWhere" in field.arguments:
            for name, constant in (field.arguments["selectWhere"] or {}).items():
                self._having.append((show, filters.check(name, constant, f"{field.key}.selectWhere")))
        if self.aggregate and not _is_metric(field) and field.name != "calculate":
            self._keys.append(show)
        return show

    def _nested(self, children: Sequence[Field], path: Path, keys: tuple[str, ...]) -> Show:
        found = self._leaf(path)
        if not found.objects:
            return self._object(children, path, keys)
        outer, self._keys = self._keys, []  # a list is one dimension as a whole
        inner = self._object(children, path, keys)
        self._keys = outer

        def show(group: Group) -> list[Any]:
            return [inner((element,)) for element in group[0].get(found)]

        if self.aggregate:
            self._keys.append(show)
        return show

    def _scalar(self, field: Field, path: Path) -> Show:
        if field.name == "calculate":
            return metrics.expression(field.arguments.get("expression", ""), self._lookup(dict(self._named)))
        if field.name in metrics.METRICS:
            return self._metric(field)
        found = self._leaf(path)
        if _is_metric(field):
            return self._chosen(field, found)
        if "interval" in field.arguments:
            return self._bucket(field, found)
        return lambda group: group[0].get(found)

    def _lookup(self, before: dict[str, Show]) -> metrics.Lookup:
        """Names in an expression: what was selected before it, else any field of the cube by its path."""

        def find(name: str) -> Show:
            if name in before:
                return before[name]
            found = self._leaf(tuple(name.split("_")))
            return lambda group: group[0].get(found)

        return find

    def _named_leaf(self, field: Field, name: Any) -> Leaf:
        if not isinstance(name, str) or not name:
            raise _refuse(field, f"{name!r} names no field")
        return self._leaf(tuple(name.split("_")))

    def _condition(self, field: Field) -> Predicate | None:
        asked = field.arguments.get("if") or field.arguments.get("where")
        return filters.predicate(filters.read(asked, self.cube.root, self.cube.name)) if asked else None

    def _metric(self, field: Field) -> Show:
        compute, keep = metrics.metric(field.name, field.arguments), self._condition(field)
        of = field.arguments.get("of") or field.arguments.get("distinct")
        if of is None and field.name != "count":
            raise _refuse(field, "of is missing")
        found = None if of is None else self._named_leaf(field, of)

        def show(group: Group) -> Any:
            rows = group if keep is None else [row for row in group if keep(row, row.block.time)]
            return compute(rows if found is None else [row.get(found) for row in rows])

        return show

    def _chosen(self, field: Field, found: Leaf) -> Show:
        """``maximum`` and ``minimum``: the field's own value on the row where the argument is so (calculations)."""
        keep = self._condition(field)
        name = field.arguments.get("maximum") or field.arguments.get("minimum")
        by = self._named_leaf(field, name) if name else None
        choose: Callable[..., Row] = max if field.arguments.get("maximum") else min

        def show(group: Group) -> Any:
            rows = group if keep is None else [row for row in group if keep(row, row.block.time)]
            if not rows:
                return None
            return (choose(rows, key=lambda row: _sortable(row.get(by))) if by else rows[0]).get(found)

        return show

    def _asks_for_ends(self, field: Field, path: Path) -> bool:
        if field.children is not None:
            return all(self._asks_for_ends(child, (*path, child.name)) for child in field.children)
        name = field.arguments.get("maximum") or field.arguments.get("minimum")
        leaves = [self._leaf(path), self._named_leaf(field, name)] if name else []
        return len(field.arguments) == 1 and bool(leaves) and all(found.monotonic for found in leaves)

    def _bucket(self, field: Field, found: Leaf) -> Show:
        asked = field.arguments["interval"] or {}
        unit = _UNITS.get(asked.get("in", "seconds"))
        size = (unit or 0) * _whole(field, asked.get("count", 1))
        if not size:
            raise _refuse(field, f"unknown interval {asked!r}")

        def show(group: Group) -> str:
            at = datetime.fromisoformat(group[0].get(found)).replace(tzinfo=UTC).timestamp()
            start = moment(datetime.fromtimestamp(at - at % size, UTC))
            return start if found.path[-1] != "Date" else start[:10]

        return show

    # --- in which order, and how many -----------------------------------------------------------------------------

    def _limits(self, field: Field) -> None:
        limit = field.arguments.get("limit") or {}
        self.count = _whole(field, limit["count"]) if limit.get("count") is not None else None
        self.offset = _whole(field, limit.get("offset") or 0)
        by = field.arguments.get("limitBy") or {}
        self._by = [self._by_leaf(field, name) for name in _listed(by.get("by"))]
        self._by_count, self._by_offset = (
            _whole(field, by.get("count", 1)),
            _whole(field, by.get("offset") or 0),
        )
        self._order: list[tuple[Show, bool]] = []
        first: list[Leaf | None] = []
        for part in _listed(field.arguments.get("orderBy")):
            for direction, names in part.items():
                for name in _listed(names):
                    self._order.append(self._ordered(field, direction, name))
                    first.append(None if direction.endswith("ByField") else self._named_leaf(field, name))
        self._goes_by(first[0] if first else None)

    def _goes_by(self, first: Leaf | None) -> None:
        """Where the order asked for is the chain's own, or nearly, a query may stop before it has seen every block.

        ``rank`` is a row's, and ``precedes`` says whether all rows of a rank come before those of a block, and of all
        blocks after it on the way.
        """
        descending = bool(self._order) and self._order[0][1]
        monotonic, behind = first is not None and first.monotonic, first is not None and first.behind
        self.descending = descending and (monotonic or behind)
        self.in_block_order = not (self._by or self.aggregate or self._having) and (
            not self._order or monotonic or (behind and descending)
        )
        self.rank: Callable[[Row], Any] = lambda row: row.get(first) if first else None
        self.precedes: Callable[[Any, Block], bool] = lambda rank, block: True
        if monotonic:
            self.precedes = lambda rank, block: bool(rank != self.rank(block.bare()))
        elif behind:
            self.precedes = lambda rank, block: bool(rank > moment(block.time))

    def _by_leaf(self, field: Field, name: Any) -> Show:
        found = self._named_leaf(field, name)
        return lambda group: group[0].get(found)

    def _ordered(self, field: Field, direction: str, name: Any) -> tuple[Show, bool]:
        if direction in ("ascending", "descending"):
            return self._by_leaf(field, name), direction == "descending"
        if direction in ("ascendingByField", "descendingByField"):
            if name not in self._named:
                raise _refuse(field, f"orderBy: {name!r} is not selected")
            return self._named[name], direction == "descendingByField"
        raise _refuse(field, f"orderBy: {direction!r} is not defined")
