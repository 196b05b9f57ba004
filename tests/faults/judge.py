"""What a reader got, against what was published: with multiplicity, and every lost row against the named gaps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bqstream import Gap
from bqstream.simulator import Simulator
from bqstream.simulator.answers import prepare
from bqstream.simulator.ledger import Emission, Row, canonical

from .zoo import Doc

EXAMPLES = 3
OF_POLICY = ("dropped",)  # causes of gaps that stay open because the user asked for it


@dataclass(frozen=True)
class Judgement:
    """One reader's account. ``unnamed`` are lost rows that no gap names; ``examples`` say where they stood.

    ``orphaned`` are lost rows of blocks that a fork has replaced, published within a gap: no query shows them.
    ``unlive`` are lost rows that were published before the promise began: before the first message, and earlier than
    a grace after the first ``subscribe``. ``missing`` are the lost rows that are neither.
    ``doubled`` are rows that came twice within a gap, of a document that cannot be closed, on sockets that bring rows
    in different orders: nothing tells them from others there (design: handover, "without"), but it has to be said.
    """

    document: Doc
    emitted: int
    delivered: int
    lost: int
    repeated: int
    foreign: int
    early: int
    unnamed: int
    orphaned: int = 0
    unlive: int = 0
    missing: int = 0
    doubled: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.document.name}: {self.emitted} emitted, {self.delivered} delivered, {self.lost} lost "
            f"({self.unnamed} unnamed, {self.orphaned} orphaned, {self.unlive} before it was live), "
            f"{self.repeated} repeated, {self.doubled} doubled, {self.foreign} foreign, {self.early} early"
        )


@dataclass(frozen=True)
class Named:
    """Which times gaps name: a lost row must have been published in one, ``late`` being how much it may lag.

    ``ahead`` is what the wall clock is ahead of the loop's. Closed gaps lack nothing, so they excuse nothing. ``live``
    is when the promise began, ``orderly`` whether every socket brings rows in the order in which they were published.
    """

    gaps: tuple[Gap, ...]
    ahead: float
    late: float
    live: float
    orderly: bool = True

    def covers(self, emission: Emission, cube: str, *, closed: bool = False) -> bool:
        """``closed``: whether one that was closed will do."""
        return any(
            start - self.late <= emission.time <= end and (not cubes or cube in cubes)
            for start, end, cubes in self._ranges(closed)
        )

    def _ranges(self, closed: bool) -> Iterator[tuple[float, float, tuple[str, ...]]]:
        for gap in self.gaps:
            if closed or not getattr(gap, "closed", False):
                end = gap.end.timestamp() - self.ahead + 0.001 if gap.end else float("inf")
                yield gap.start.timestamp() - self.ahead, end, gap.cubes


class Account:
    """What one reader is owed and has got, counted up to now; each row is looked at once.

    ``rows`` is the list that the reader fills, ``replayed`` that of those which queries brought.
    """

    def __init__(self, document: Doc, simulator: Simulator, rows: list[Any], replayed: list[Any]) -> None:
        self._document = document
        self._variables = dict(document.variables)
        self._simulator = simulator
        self._rows, self._replayed = rows, replayed
        self._cubes = prepare(document.text, self._variables, None).cubes
        self._seen = 0
        self._missing: int | None = None
        self._counted: int | None = None  # emissions
        self.owed: list[tuple[Emission, Row]] = []
        self.count, self.came = Counter[Row](), Counter[Row]()

    def missing(self) -> int:
        """How many rows have not come so far."""
        if self._update() or self._missing is None:
            self._missing = (self.count - self.came).total()
        return self._missing

    def judged(self, named: Named, *, strict: bool) -> Judgement:
        self._update()
        trunk = {block.hash for block in self._simulator.chain.blocks()}
        lost, spare = self.count - self.came, self.came - self.count
        early = spare & self._before() & Counter(map(self._row, self._replayed)) if spare else Counter[Row]()
        wrong = spare - early
        repeated = Counter({row: count for row, count in wrong.items() if row in self.count})
        foreign = wrong - repeated
        excused, orphans, unlive, doubtful = Counter[Row](), Counter[Row](), Counter[Row](), Counter[Row]()
        for emission, row in self.owed:
            if row in repeated and not (self._document.closable or named.orderly):
                doubtful[row] += repeated[row] * named.covers(emission, row[0])
            if row in lost:
                orphan, before = emission.block.hash not in trunk, emission.time < named.live
                orphans[row] += orphan and not before and named.covers(emission, row[0], closed=True)
                unlive[row] += before
                excused[row] += before or named.covers(emission, row[0], closed=orphan)
        doubled, unnamed, missing = repeated & doubtful, lost - excused, lost - orphans - unlive
        repeated -= doubled
        told = missing - unnamed if strict and self._document.closable else Counter[Row]()
        return Judgement(
            self._document,
            emitted=self.count.total(),
            delivered=self.came.total(),
            lost=lost.total(),
            repeated=repeated.total(),
            foreign=foreign.total(),
            early=early.total(),
            unnamed=unnamed.total(),
            orphaned=(lost & orphans).total(),
            unlive=(lost & unlive).total(),
            missing=missing.total(),
            doubled=doubled.total(),
            examples=tuple(self._examples({"repeated": repeated, "lost and unnamed": unnamed, "lost": told})),
        )

    def _update(self) -> bool:
        """Count what is new, and say whether anything was."""
        ledger = self._simulator.ledger
        if self._counted == ledger.sequence and self._seen == len(self._rows):
            return False
        if self._counted != ledger.sequence:
            since, self._counted = self._counted, ledger.sequence
            for emission, cube, row in ledger.rows(self._document.text, self._variables, since=since):
                key = canonical(cube, row)
                self.owed.append((emission, key))
                self.count[key] += 1
        new, self._seen = self._rows[self._seen :], len(self._rows)
        self.came.update(map(self._row, new))
        return True

    def _before(self) -> Counter[Row]:
        """What was published before the document went live."""
        first = self.owed[0][0].sequence if self.owed else math.inf
        found = Counter[Row]()
        for emission, cube, row in self._simulator.ledger.rows(self._document.text, self._variables, since=0):
            if emission.sequence >= first:
                break
            found[canonical(cube, row)] += 1
        return found

    def _row(self, row: Any) -> Row:
        return (
            canonical(self._cubes[0], row) if len(self._cubes) == 1 else canonical(*next(iter(row.items())))
        )

    def _examples(self, wrong: Mapping[str, Counter[Row]]) -> Iterator[str]:
        for title, found in wrong.items():
            where = [(emission, row) for emission, row in self.owed if row in found] if found else []
            for emission, row in where[:EXAMPLES]:
                yield (
                    f"{title}: {found[row]} x published at {emission.time:.3f} in block {emission.block.number}, "
                    f"portion {emission.portion}: {row[0]} {row[1].decode()[:160]}"
                )


def must_close(judgement: Judgement, gaps: Mapping[str, tuple[Gap, ...]]) -> bool:
    """Whether every gap of the document has to be closed: it can be, and the reader did not ask to drop rows."""
    found = gaps.get(judgement.document.name, ())
    return judgement.document.closable and not any(gap.cause in OF_POLICY for gap in found)


def failures(judgement: Judgement, gaps: tuple[Gap, ...], *, strict: bool) -> Iterator[str]:
    """What breaks the promise: ``strict``, with gaps closed by queries; else as long as none are."""
    name = judgement.document.name
    for what in ("repeated", "foreign", "unnamed"):
        if count := getattr(judgement, what):
            yield f"{name}: {count} rows {what}"
    if strict and judgement.document.closable:
        if judgement.missing and must_close(judgement, {name: gaps}):
            yield f"{name}: {judgement.missing} rows lost"
        for gap in gaps:
            if getattr(gap, "reason", None) is not None and gap.cause not in OF_POLICY:
                yield f"{name}: a hole: {gap} ({getattr(gap, 'reason', None)})"
