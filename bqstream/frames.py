"""A subscription as tables: Arrow, Polars, pandas, DuckDB. Their libraries are extras, imported when asked for."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from . import options
from .errors import BqstreamError, OperationFailed, UsageError
from .message import Message
from .reader import Loop

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow

    from .subscription import Subscription
    from .tables.columns import Draft
    from .tables.frame import Frame
    from .tables.table import Table

# Bytes of one batch of `Frames.arrow_batches`, about: a column of text holds two gibibytes at most.
LARGEST = 1024 * 1024 * 1024
# A reader that always finds a message ready lets other tasks run after so many rows, some ten milliseconds of work.
FAIR = 4_096

_Asked = tuple[str | None, Mapping[str, str] | None, bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which table: what the document and the user say of its columns, and the root field's response key; ``alone``:
    the document has no other cube."""

    draft: Draft
    root: str
    columns: Mapping[str, str]
    decimals: bool
    alone: bool

    @property
    def cube(self) -> str:
        """Its response key."""
        return self.draft.table.cube

    @property
    def spellings(self) -> tuple[str | None, ...]:
        """What ``rows(cube)`` may have been given for the same rows."""
        return (None, self.cube) if self.alone or not self.cube else (self.cube,)

    def frame(self, table: Table | None = None) -> Frame:
        """One without rows; ``table``: what its columns are already."""
        from .tables.frame import Frame

        return Frame(self.draft, self.root, table=table)


@dataclass(slots=True)
class Taken:
    """Rows that were taken out of the stream and not handed over yet; ``first`` is their first message's number."""

    wanted: Wanted
    frame: Frame
    first: int = 0


class Frames:
    """What a `Subscription` gives as tables.

    Columns are named and typed as a collector has them (``bqstream.collect``): by the response keys on the way, joined
    by an underscore; what each holds is told by ``columns``, else by the first 2,000 rows together with the service's
    habits. Times are timestamps in UTC, amounts text that is exact, or decimals with ``decimals=True``; lists are JSON.

    Each of these reads the subscription, as any reader does: one at a time. Rows of other cubes in the messages that it
    reads are passed over, and so are errors beside rows; what a call leaves of its last message comes first in the next
    call for that cube, or in ``rows()`` of it.

    Cancelling loses no row: what a cancelled call had taken comes first in the next one, whatever is read in between;
    that has to ask for the same cube, and (of more than 2,000 rows) the same ``columns`` and ``decimals``.
    ``checkpoint`` counts it only then, as all of a table is in hand until the next read; that of a message which is
    read in between counts it at once. A table that takes more than a minute may be too long for a ``checkpoint`` before
    it, which then raises UsageError.
    """

    _kept: Taken | None = None  # what a read under way, or one that was cancelled, has taken

    async def to_arrow(
        self,
        rows: int | None = None,
        seconds: float | None = None,
        *,
        cube: str | None = None,
        columns: Mapping[str, str] | None = None,
        decimals: bool = False,
    ) -> pyarrow.Table:
        """Read a ``pyarrow.Table`` (extra ``arrow``), in chunks of some thousand rows.

        It is handed over when it has so many ``rows``, when ``seconds`` have passed since the call, or when the
        subscription ends; an error that ended it is raised by the next call, where there were rows. With no row it has
        the columns that the document says. A value that turns up later and does not fit its column turns all of it
        into text: numbers as in JSON, times in ISO 8601.

        Args:
            cube: the response key of the one to read, of a document with several. "": each message's data, as JSON.
            columns: what a column holds, by its name: text, float, integer, boolean, timestamp, decimal, json, or
                ``decimal(precision, scale)``.
            decimals: amounts are ``decimal128(38, 18)`` where the first rows fit; else text, exact too.

        Raises:
            UsageError: neither ``rows`` nor ``seconds``; a cube or column that is not there; pyarrow is not installed;
                ``type=`` or ``undo=True`` was given to ``subscribe``; another reader is waiting; a cancelled call has
                left rows of other types.
            OperationFailed: a payload cannot be decoded: it is passed over, and what had been taken is kept as it is
                for a cancelled call; or the data has no such rows.
            BqstreamError: what ended the subscription.
        """
        library("arrow", "pyarrow")
        return await self._table(rows, seconds, (cube, columns, decimals))

    async def to_polars(
        self,
        rows: int | None = None,
        seconds: float | None = None,
        *,
        cube: str | None = None,
        columns: Mapping[str, str] | None = None,
        decimals: bool = False,
    ) -> polars.DataFrame:
        """Read a ``polars.DataFrame`` (extra ``polars``); all else is as with ``to_arrow``."""
        module = library("polars", "pyarrow", "polars")
        table = await self._table(rows, seconds, (cube, columns, decimals))
        frame: polars.DataFrame = module.from_arrow(table, rechunk=False)
        return frame

    async def to_pandas(
        self,
        rows: int | None = None,
        seconds: float | None = None,
        *,
        cube: str | None = None,
        columns: Mapping[str, str] | None = None,
        decimals: bool = False,
    ) -> pandas.DataFrame:
        """Read a ``pandas.DataFrame`` (extra ``pandas``) whose columns stay Arrow's (``pandas.ArrowDtype``): an integer
        beside nulls is an integer, a decimal exact. All else is as with ``to_arrow``."""
        module = library("pandas", "pyarrow", "pandas")
        table = await self._table(rows, seconds, (cube, columns, decimals))
        frame: pandas.DataFrame = table.to_pandas(types_mapper=module.ArrowDtype)
        return frame

    async def to_duckdb(
        self,
        rows: int | None = None,
        seconds: float | None = None,
        *,
        cube: str | None = None,
        columns: Mapping[str, str] | None = None,
        decimals: bool = False,
        connection: duckdb.DuckDBPyConnection | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """Read a relation of DuckDB's (extra ``duckdb``) over an Arrow table, of which nothing is copied.

        ``duckdb.sql("SELECT … FROM trades")`` finds it by the name of the variable ``trades``. ``connection`` is whose
        it is; None: DuckDB's own, which ``duckdb.sql`` asks. All else is as with ``to_arrow``.
        """
        module = library("duckdb", "pyarrow", "duckdb")
        if connection is not None:
            connection.cursor().close()  # raises where it is closed, before rows are taken that it could not be given
        table = await self._table(rows, seconds, (cube, columns, decimals))
        relation: duckdb.DuckDBPyRelation = (connection or module).from_arrow(table)
        return relation

    def arrow_batches(
        self,
        rows: int | None = None,
        seconds: float | None = None,
        *,
        cube: str | None = None,
        columns: Mapping[str, str] | None = None,
        decimals: bool = False,
    ) -> AsyncIterator[pyarrow.RecordBatch]:
        """Read one ``pyarrow.RecordBatch`` after the other (extra ``arrow``), all of the same schema.

        A batch has ``rows`` rows; fewer when ``seconds`` have passed since its first one, when it has a gibibyte, and
        before the subscription's end or error. The first row is waited for as long as it takes.

        The columns are settled with the first batch, and cannot change: a value that does not fit raises
        OperationFailed, which names the column. Arguments, and what else is raised, are as with ``to_arrow``, which
        gives what a batch had taken before such an error.
        """
        library("arrow", "pyarrow")
        check_bounds(rows, seconds)
        return _ArrowBatches(_Batches(self, rows, seconds, self._wanted((cube, columns, decimals))))

    # ------------------------------------------------------------------ inside

    @property
    def _subscription(self) -> Subscription[Any]:
        return cast("Subscription[Any]", self)

    async def _table(self, rows: int | None, seconds: float | None, asked: _Asked) -> pyarrow.Table:
        check_bounds(rows, seconds)
        taken = self._begun(self._wanted(asked), strict=False)
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        await self._read(taken, rows, until=until)
        return self._handed_over(taken, rows)

    def _wanted(self, asked: _Asked) -> Wanted:
        """Raises UsageError for what there is not."""
        from .tables.columns import drafts

        stream, (cube, columns, decimals) = self._subscription._stream, asked
        if stream.into is not None or stream.undoes:
            raise UsageError(
                "tables are made of rows as the service nests them, which are never taken back: subscribe without "
                f"{'undo=True' if stream.undoes else 'type='} for them"
            )
        plan = stream.plan
        assert plan is not None, "a client's stream has one"
        found = drafts(plan.document, plan.variables, columns=columns, decimals=decimals)
        by_cube = {draft.table.cube: draft for draft in found}
        cubes = [key for key in by_cube if key]
        if cube is None and len(cubes) > 1:
            raise UsageError(f"the document has several cubes: give cube= one of {', '.join(cubes)}")
        chosen = next(iter(cubes), "") if cube is None else cube
        if chosen not in by_cube:
            raise UsageError(f"the document has no cube {cube!r}; it has {', '.join(cubes)}")
        return Wanted(by_cube[chosen], plan.shape.key, dict(columns or {}), decimals, alone=[chosen] == cubes)

    def _begun(self, wanted: Wanted, *, table: Table | None = None, strict: bool) -> Taken:
        """What is added to: what a cancelled read has left, or nothing; ``table``: the columns are settled."""
        self._subscription._alone()
        taken = self._kept
        rows = None if taken is None or taken.wanted.cube != wanted.cube else taken.frame.unsettled
        if taken is None or rows is not None:
            taken = Taken(wanted, wanted.frame(table), taken.first if taken is not None else 0)
            taken.frame.add(rows or ())
        elif taken.wanted != wanted or table not in (None, taken.frame.table):
            left, other = taken.frame.count, taken.wanted
            raise UsageError(
                f"a read that was cancelled has left {left} rows with other columns: take them first, by to_arrow(rows="
                f"{left}, cube={other.cube!r}, columns={other.columns!r}, decimals={other.decimals})"
            )
        taken.frame.strict = strict
        return taken

    def _handed_over(self, taken: Taken, rows: int | None) -> pyarrow.Table:
        table = taken.frame.take(rows)
        self._kept = taken if taken.frame.count else None
        return table

    async def _read(
        self,
        taken: Taken,
        rows: int | None,
        *,
        until: float | None = None,
        after: float | None = None,
        bytes: float = math.inf,
    ) -> None:
        """Take rows until there are so many or so many bytes, it is ``until`` or ``after`` the first one, or the end.

        Raises what ended the subscription, where there is no row.
        """
        subscription, frame = self._subscription, taken.frame
        stream, time = subscription._stream, asyncio.get_running_loop().time
        try:
            if frame.count:
                stream.handed(taken.first)
            self._take_rest(taken, rows)
            count = frame.count
            fair = count + FAIR
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                async with asyncio.timeout_at(until) as limit:
                    while (rows is None or count < rows) and frame.nbytes < bytes:
                        if not count:  # what was in hand is done with
                            message = await subscription.__anext__()
                            taken.first = message._number
                        else:
                            if after is not None and limit.when() is None:
                                limit.reschedule(time() + after)
                            if count >= fair:
                                fair = count + FAIR
                                subscription._yield()
                            self._kept = taken
                            message = await self._following()
                        stream.let_go()
                        self._add(taken, message, None if rows is None else rows - count)
                        count = frame.count
        finally:
            self._kept = taken if frame.count else None

    async def _following(self) -> Message[Any]:
        """The message after those that are still in hand.

        Raises StopAsyncIteration at the end; an error that ends the subscription is raised again by the next read.
        """
        subscription = self._subscription
        if subscription._batch:  # what a cancelled read by batch had taken
            return subscription._batch.pop(0)
        found: list[Message[Any]] = []
        try:
            await subscription._fill(found, 1, 1)
        except BqstreamError as error:
            raise StopAsyncIteration from error
        return found[0]

    def _take_rest(self, taken: Taken, rows: int | None) -> None:
        """Take what is left of the message that was read last."""
        subscription, frame, wanted = self._subscription, taken.frame, taken.wanted
        if subscription._rows_of not in wanted.spellings:
            return
        left = None if rows is None else max(0, rows - frame.count)
        if found := list(islice(subscription._rows, left)):
            if not frame.count:
                batch = subscription._batch
                taken.first = batch[0]._number - 1 if batch else subscription._stream.taken
                subscription._stream.handed(taken.first)
            frame.add(found)

    def _add(self, taken: Taken, message: Message[Any], most: int | None) -> None:
        """Take the rows of a message, ``most`` of them; the others stay with the subscription."""
        frame = taken.frame
        read = frame.read(message._arrival.raw)
        if read is not None and (most is None or len(read) <= most):
            frame.add_read(read)
            return
        nested = self._nested(message, frame.cube)
        if most is not None and len(nested) > most:
            subscription = self._subscription
            subscription._rows, subscription._rows_of = iter(nested[most:]), taken.wanted.spellings[0]
        frame.add(nested[:most])

    def _nested(self, message: Message[Any], cube: str) -> Sequence[Any]:
        """Raises OperationFailed: the message cannot be decoded, or (it is read again then) has no such rows."""
        if not cube:
            return [] if message.data is None else [message.data]
        found = dict(message.by_cube())
        if cube not in found and "" in found:
            self._subscription._batch.insert(0, message)
            raise OperationFailed(
                f"the data has no rows {cube!r}: with cube='' each message is a row, as JSON"
            )
        return found.get(cube, ())


class _ArrowBatches(Loop):
    """Batch after batch; one that is not whole yet stays with the subscription."""

    __slots__ = ("_batches",)

    def __init__(self, batches: _Batches) -> None:
        super().__init__(batches.frames._subscription)
        self._batches = batches

    def __anext__(self) -> Coroutine[Any, Any, pyarrow.RecordBatch]:
        return self._batches.following()


class _Batches:
    """Makes them."""

    def __init__(self, frames: Frames, rows: int | None, seconds: float | None, wanted: Wanted) -> None:
        self.frames = frames
        self._rows = rows
        self._seconds = seconds
        self._wanted = wanted
        self._table: Table | None = None  # as the first batch has settled it
        self._ready: list[pyarrow.RecordBatch] = []  # of rows that have more text than one may

    async def following(self) -> pyarrow.RecordBatch:
        """The next one. Raises StopAsyncIteration."""
        frames = self.frames
        if not self._ready:
            taken = frames._begun(self._wanted, table=self._table, strict=True)
            await frames._read(taken, self._rows, after=self._seconds, bytes=LARGEST)
            if not taken.frame.count:
                raise StopAsyncIteration
            self._ready = frames._handed_over(taken, self._rows).combine_chunks().to_batches()
            self._table = taken.frame.table
        return self._ready.pop(0)


def check_bounds(rows: int | None, seconds: float | None) -> None:
    """Raise UsageError unless one of them says when a table is done."""
    if rows is None and seconds is None:
        raise UsageError("say when the table is done: rows=1000, seconds=60, or both, and the first counts")
    if rows is not None:
        options.whole("rows", rows)
    options.seconds(seconds)


def library(extra: str, *names: str) -> Any:
    """Import them, and give the last. Raises UsageError, which names the extra, where one is not installed."""
    try:
        return [importlib.import_module(name) for name in names][-1]
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs {error.name}: pip install 'bqstream[{extra}]'") from None
