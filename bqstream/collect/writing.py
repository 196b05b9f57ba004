"""What a batch means for the sink: rows by table, rows taken back, rows that do not fit, records of gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..delivery.repair import ENDED
from ..errors import OperationFailed, UsageError
from ..message import Gap, Message
from ..tables.columns import Draft
from ..tables.flatten import Misfit, flatten
from ..tables.table import Column, Rows, Table
from .commit import Commit, GapRecord
from .cycles import no_search
from .deadletters import DeadLetters
from .reading import Batch
from .state import State

# Rows of a column that tells a block's time, the first that a table has: how far behind the chain a commit is.
_TIMES = ("Block_Time", "Block_Timestamp", "Time")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A commit that is ready, and what to tell of it.

    ``newest``  the newest block's time among its rows, else when its last message came in; None without rows.
    ``last``    its last rows, for people.
    ``errors``  what the service sent beside rows, or in their place.
    """

    commit: Commit
    state: State
    misfits: int
    newest: datetime | None
    last: Sequence[tuple[str, Mapping[str, Any]]]
    backfilled: int
    errors: Sequence[Any]


class Writing:
    """Makes commits of batches, one after the other. All of it blocks, and may run in any thread, one call at a time.

    Args:
        subscription: its name. ``run``: this process, by a random name.
        state: of the last commit, with its number; None where there is none yet.
        dead: how long the dead letters are. ``checkpoint``: where the first commit stands.
        flat: whether the sink takes columns. ``refused``: the sink's own method, where it has one.
        shown: how many rows of a commit are kept for people.
    """

    def __init__(
        self,
        subscription: str,
        drafts: Sequence[Draft],
        dead_letters: DeadLetters,
        *,
        run: str,
        state: State | None,
        dead: int,
        number: int,
        checkpoint: str,
        flat: bool,
        refused: Callable[[Rows], Sequence[int]] | None = None,
        evolve: bool,
        shown: int,
    ) -> None:
        self._subscription = subscription
        self._drafts = drafts
        self._dead_letters = dead_letters
        self._run = run
        self._number = number
        self._checkpoint = checkpoint
        self._flat = flat
        self._refused = refused
        self._evolve = evolve
        self._shown = shown
        self._dead = dead
        self._tables, self._wanted = settled(drafts, state.tables, evolve=evolve) if state else ({}, {})
        self._gaps: dict[int, Gap] = {}  # as the last commit has them
        self._open = {gap.id: gap for gap in state.open_gaps} if state else {}

    @no_search()
    def prepare(self, batch: Batch) -> Prepared:
        """The commit of ``batch``. Rows that do not fit are in the dead letters when it returns.

        Raises SinkFailed, SinkUnavailable: these cannot be written; it may be called again.
        """
        read = _Read(self._drafts)
        for message in batch.messages:
            read.add(message)
        tables = self._settled_by(read)
        steps: list[Rows] = []
        misfits = list(read.unreadable)
        for cube, rows, undo in read.steps:
            if not rows or cube not in tables:
                continue
            if not self._flat:
                steps.append(Rows(tables[cube], len(rows), nested=rows, undo=undo))
            else:
                made, wrong = flatten(tables[cube], rows, undo=undo, refused=self._refused)
                steps.append(made)
                misfits += [] if undo else wrong
        self._dead = self._dead_letters.cut(self._dead)  # a commit that was tried before may have left some
        dead = self._dead_letters.add(misfits) if misfits else self._dead
        gaps, still_open = self._records(batch.gaps)
        checkpoint = batch.checkpoint or self._checkpoint
        state = State(
            run=self._run,
            checkpoint=checkpoint,
            tables=tuple(tables.values()),
            dead_letters=dead,
            dead_file=str(self._dead_letters.path.absolute()),
            open_gaps=tuple(still_open.values()),
        )
        commit = Commit(
            subscription=self._subscription,
            number=self._number + 1,
            state=state.dumps(),
            tables=tuple(tables.values()),
            evolve=self._evolve,
            steps=tuple(rows for rows in steps if rows.count),
            gaps=tuple(gaps),
        )
        last = batch.messages[-1] if batch.messages else None
        return Prepared(
            commit=commit,
            state=state,
            misfits=len(misfits),
            newest=_newest(steps) or (last.received_at if last else None),
            last=_last(steps, self._shown),
            backfilled=read.backfilled,
            errors=read.errors,
        )

    def done(self, batch: Batch, prepared: Prepared) -> None:
        """The commit is in the sink: the next one follows it."""
        state = prepared.state
        self._number = prepared.commit.number
        self._checkpoint = state.checkpoint
        self._dead = state.dead_letters
        self._open = {gap.id: gap for gap in state.open_gaps}
        self._gaps = dict(batch.gaps)
        tables = {table.cube: table for table in state.tables}
        self._wanted = {
            cube: draft for cube, draft in self._wanted.items() if tables[cube] == self._tables[cube]
        }
        self._tables = tables

    def _settled_by(self, read: _Read) -> dict[str, Table]:
        """The tables, with those that have their first rows now, and columns that have been asked for since."""
        tables = dict(self._tables)
        for draft in self._drafts:
            cube = draft.table.cube
            draft = self._wanted.get(cube, draft)
            if (cube in tables and cube not in self._wanted) or not (rows := read.of(cube)):
                continue
            made = draft.settle(rows) if self._flat else draft.table
            known = tables[cube].columns if cube in tables else ()
            tables[cube] = replace(made, columns=(*known, *made.columns))
        return tables

    def _records(self, gaps: Mapping[int, Gap]) -> tuple[list[GapRecord], dict[str, GapRecord]]:
        """What is new of the gaps, and all that are open then."""
        changed = []
        still_open = dict(self._open)
        for number, gap in gaps.items():
            if gap != self._gaps.get(number):
                if gap.reason == ENDED:  # the next process asks for it again
                    gap = replace(gap, reason=None)
                changed.append(record := GapRecord.of(f"{self._run}-{number}", gap))
                still_open.pop(record.id, None)
                if not gap.closed and gap.reason is None:
                    still_open[record.id] = record
        # What a former process was closing when it ended is a part of what this one began with.
        resumed = [gap for gap in gaps.values() if gap.cause == "resumed"]
        for record in list(still_open.values()):
            if record.id.startswith(self._run):
                continue
            parts = [
                gap for gap in resumed if not gap.cubes or not record.cubes or {*gap.cubes} & {*record.cubes}
            ]
            if parts and all(gap.closed or gap.is_hole for gap in parts):
                hole = next((gap.reason for gap in parts if gap.is_hole), None)
                how = "closed by the process that came after" if hole is None else ""
                changed.append(replace(record, closed=hole is None, how=how, reason=hole))
                del still_open[record.id]
        return changed, still_open


def settled(
    drafts: Sequence[Draft], stored: Sequence[Table], *, evolve: bool
) -> tuple[dict[str, Table], dict[str, Draft]]:
    """The tables of the sink by cube, which stay as they are, and what a document that has changed asks for beside.

    Raises UsageError where they differ and that was not allowed.
    """
    tables, wanted = {}, {}
    known = {table.cube: table for table in stored}
    for draft in drafts:
        table = known.get(draft.table.cube)
        if table is None:  # it has had no rows
            continue
        if table.name != draft.table.name:
            raise UsageError(
                f"the rows of {table.cube or 'the document'} are in the table {table.name} so far: keep that name, or "
                "collect under another --name"
            )
        there = {column.name.lower(): column for column in table.columns}
        lists = {column.path for column in table.columns if column.kind == "json"}
        asked = [
            column
            for column in draft.table.columns
            if not any(column.path[:length] in lists for length in range(1, len(column.path)))
        ]
        new = [column for column in asked if column.name.lower() not in there]
        if new and not evolve:
            names = ", ".join(column.name for column in new)
            raise UsageError(
                f"the table {table.name} has no column {names} yet: --evolve adds what is missing"
            )
        for column in asked:
            before = there.get(column.name.lower())
            if before and column.name in draft.given and _held(before) != _held(column):
                raise UsageError(
                    f"the column {column.name} of {table.name} is {_held(before)} since its first commit, and cannot "
                    f"become {_held(column)}: leave it so, or give another --name and --table"
                )
        now = {column.name.lower(): column for column in asked}
        whole = {column.path[:length] for column in draft.table.columns for length in range(len(column.path))}
        kept = [
            replace(column, path=now[column.name.lower()].path) if column.name.lower() in now else column
            for column in table.columns
            if column.name.lower() in now or (column.kind == "json" and column.path in whole)
        ]
        tables[table.cube] = replace(table, columns=tuple(kept))
        if new:
            wanted[table.cube] = Draft(replace(draft.table, columns=tuple(new)), draft.given)
    return tables, wanted


def _held(column: Column) -> str:
    return column.kind if column.digits is None else f"{column.kind}{column.digits}"


class _Read:
    """Rows out of messages, in their order, table by table."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._cubes = {draft.table.cube for draft in drafts}
        self.steps: list[tuple[str, list[Any], bool]] = []
        self.unreadable: list[Misfit] = []
        self.errors: list[Any] = []
        self.backfilled = 0
        self._into: dict[str, list[Any]] = {}

    def add(self, message: Message[Any]) -> None:
        if message.undo is not None:
            for cube, taken in message.undo.rows.items():
                self.steps.append((cube, list(taken), True))
            self._into = {}  # what comes now comes after that
        try:
            found = list(message.by_cube())
            if message.errors:
                self.errors.append(message.errors)
        except OperationFailed as error:
            self.unreadable.append(Misfit("", message.raw.decode("utf-8", "backslashreplace"), str(error)))
            return
        for cube, rows in found:
            if cube not in self._cubes:
                self.unreadable.append(Misfit(cube, list(rows), "it is no row of a cube of the document"))
                continue
            into = self._into.get(cube)
            if into is None:
                into = self._into[cube] = []
                self.steps.append((cube, into, False))
            into += rows
            if message.replayed:
                self.backfilled += len(rows)

    def of(self, cube: str) -> list[Any]:
        return [row for key, rows, undo in self.steps if key == cube and not undo for row in rows]


def _newest(steps: Sequence[Rows]) -> datetime | None:
    times = [
        value
        for rows in steps
        for column, values in zip(rows.table.columns, rows.columns, strict=False)
        if column.name in _TIMES and column.kind == "timestamp"
        for value in values[-1000:]
        if value is not None
    ]
    return max(times).astimezone(UTC) if times else None


def _last(steps: Sequence[Rows], count: int) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    for rows in steps:
        if rows.undo:
            continue
        if rows.columns:
            ends = [values[-count:] for values in rows.columns]
            found += [
                (rows.table.name, dict(zip(rows.table.names, values, strict=True)))
                for values in zip(*ends, strict=True)
            ]
        else:
            found += [
                (rows.table.name, row if isinstance(row, dict) else {"data": row})
                for row in rows.nested[-count:]
            ]
    return found[-count:]
