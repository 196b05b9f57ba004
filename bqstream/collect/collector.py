"""From a subscription to a sink: one task reads, one writes, and a commit holds rows, gaps and checkpoint together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import filelock
import tenacity

from ..checkpoint import Checkpoint
from ..client import Client
from ..config import Backoff
from ..delivery.document import Document
from ..delivery.enlarge import Reader
from ..delivery.marks import keyless_of, void_of
from ..delivery.plan import Plan
from ..errors import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ..message import Gap
from ..order import check_variables
from ..subscription import Subscription
from ..tables.columns import drafts
from .commit import Commit, Stored
from .deadletters import DeadLetters
from .failpoints import failpoint
from .reading import Batch, Batching, End, Reading
from .sink import Sink, files, open_sink
from .state import State
from .status import CollectorStatus
from .status import State as Doing
from .writing import Prepared, Writing

T = TypeVar("T")

_log = logging.getLogger("bqstream.collect")

LAST_ROWS = 20
# A batch is committed so many seconds after its first message came in, where the sink has no ``patience`` of its own.
PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collector did in this process: rows and commits, rows that went to the dead letters, gaps that were named,
    and those of them that are holes."""

    rows: int
    commits: int
    misfits: int
    gaps: int
    holes: int


class Collector:
    """Puts the rows of one subscription into one sink, each exactly once, however often its process dies.

        async with Client() as client:
            await Collector(client, Path("trades.graphql"), "sqlite:trades.db").run()

    It goes on from what the sink holds, else from ``since``, else from now. Rows are committed in batches, with the
    checkpoint and the gaps, while the next batch is read. A sink that does not answer is tried again, for as long as
    ``backoff`` says; meanwhile the subscription is held within its buffer, and what the buffer lets go of is asked for
    again.

    Args:
        client: an open client.
        document, variables, operation_name: as ``Client.subscribe`` takes them.
        sink: a `Sink`, or the address of one as text, such as ``"sqlite:rows.db"``.
        name: the subscription's, under which the sink keeps its state; by default the names of its tables.
        table: the table's name, in place of the cube's response key; for a document of one cube.
        columns, schema, decimals: what columns hold; see `bqstream.tables.columns.drafts`.
        since: where to begin when the sink holds nothing; as ``Client.subscribe`` takes it.
        on_gap: "stop" ends with GapFound at a hole, when all before it is committed.
        undo: take back the rows of a block that a fork has replaced, of those that came to this process in the last
            minute; each row is decoded once more for it.
        evolve: take a document that has changed: columns are added to its tables.
        dead_letters: the file for rows that do not fit their table, which belongs to this collector alone; by default
            beside the sink's lock file, else in the working folder.
        batching: when a batch is committed.
        backoff: how the sink is tried again.
        limit: stop when so many rows, or a few more to the end of a message, are committed.
        overdue: after so many seconds in which something waited to be committed, ``status().overdue`` says so.

    Raises UsageError, DocumentRefused: what was given cannot mean anything.
    """

    def __init__(
        self,
        client: Client,
        document: str | Path | Any,
        sink: Sink | str,
        variables: Mapping[str, Any] | None = None,
        *,
        operation_name: str | None = None,
        name: str | None = None,
        table: str | None = None,
        columns: Mapping[str, str] | None = None,
        schema: str | None = None,
        decimals: bool = False,
        since: datetime | timedelta | int | None = None,
        on_gap: Literal["continue", "stop"] = "continue",
        undo: bool = False,
        evolve: bool = False,
        dead_letters: Path | None = None,
        batching: Batching | None = None,
        backoff: Backoff | None = None,
        limit: int | None = None,
        overdue: float = 60.0,
    ) -> None:
        if on_gap not in ("continue", "stop"):
            raise UsageError(f'on_gap={on_gap!r}: give "continue" or "stop"')
        if limit is not None and limit < 1:
            raise UsageError(f"limit={limit!r}: give a number of rows from 1")
        self._client = client
        self._document = Document.parse(document, operation_name)
        self._document.require("subscription")
        check_variables(self._document, variables)
        self._variables = {**self._document.values, **(variables or {})} or None
        self._sink = open_sink(sink) if isinstance(sink, str) else sink
        self._drafts = drafts(
            self._document, self._variables, table=table, columns=columns, schema=schema, decimals=decimals
        )
        self.name = name or "+".join(self._tables)
        if not self.name.isprintable() or "/" in self.name or "\\" in self.name:
            raise UsageError(f"name={self.name!r}: it is a part of file names too: leave out slashes")
        self._since = since
        self._on_gap: Literal["continue", "raise"] = "raise" if on_gap == "stop" else "continue"
        self._undo = undo
        self._evolve = evolve
        self._dead_letters = DeadLetters(dead_letters or _beside(self._sink, self.name))
        self._batching = batching or Batching()
        self._seconds = self._batching.seconds or float(getattr(self._sink, "patience", PATIENCE))
        self._backoff = backoff or Backoff(initial=0.2, maximum=30.0)
        self._limit = limit
        self._overdue = overdue
        self._stopping = asyncio.Event()
        self._opening: asyncio.Future[Subscription[Any]] | None = None
        self._stream: Subscription[Any] | None = None
        self._reading: Reading | None = None
        self._gaps: tuple[Gap, ...] | None = None
        self._doing: Doing = "starting"
        self._trouble = ""
        self._rows = self._taken_back = self._misfits = self._commits = self._backfilled = 0
        self._committed_at: datetime | None = None
        self._commit_seconds = self._committing_seconds = 0.0
        self._pending: tuple[float, int] | None = (
            None  # since when a batch is written, and how many rows it has
        )
        self._newest: datetime | None = None
        self.last_rows: deque[tuple[str, Mapping[str, Any]]] = deque(maxlen=LAST_ROWS)

    def __repr__(self) -> str:
        return f"<Collector {self.name} to {self._sink.name}, {self._state}, {self._rows} rows>"

    # ------------------------------------------------------------------ running

    async def run(self) -> Collected:
        """Collect until ``stop`` is called, ``limit`` rows are committed, or the service completes the subscription.

        Raises:
            SinkLocked: another collector writes the same there.
            SinkFailed: the sink will not take it. SinkUnavailable: the attempts that ``backoff`` allows are used up.
            GapFound: with ``on_gap="stop"``, at a hole.
            UsageError: the sink holds the rows of another document, or columns that do not fit.
            BqstreamError: what ended the subscription, when all that came before is committed.

        Cancelling it ends it without another commit: what was not committed comes again in the next process.
        """
        self._gaps = None
        try:
            with locked(self._sink, self.name):
                try:
                    await self._collect()
                finally:
                    await self._sink.aclose()
        except BrokenPipeError:  # whoever read has enough, as behind ``| head``
            self._doing = "done"
            raise
        except BaseException:
            self._doing = "failed"
            raise
        self._doing = "done"
        return Collected(self._rows, self._commits, self._misfits, len(self._named), self._holes)

    def stop(self) -> None:
        """Commit what has come in until now, and end ``run``. Idempotent; waits for nothing.

        A sink that does not answer is tried once more then. What is not committed comes again in the next process.
        """
        self._stopping.set()
        if self._reading is not None:
            self._reading.stop()
        elif self._opening is not None:
            self._opening.cancel()

    async def _collect(self) -> None:
        self._doing = "starting"
        stored = await self._trying(lambda: self._sink.open(self.name))
        state = State.loads(stored.state) if stored else None
        checkpoint = self._resumed(state) if state else None
        known = state is not None and state.dead_file == str(self._dead_letters.path.absolute())
        dead = await _in_thread(self._dead_letters.cut, state.dead_letters if state and known else None)
        stream = await self._subscribed(checkpoint)
        if stream is None:
            return
        async with stream:
            self._stream = stream
            self._doing = "collecting"
            writing = Writing(
                self.name,
                self._drafts,
                self._dead_letters,
                run=secrets.token_hex(4),
                state=state,
                dead=dead,
                number=stored.number if stored else 0,
                checkpoint=(checkpoint or stream.checkpoint).dumps(),
                flat=self._sink.flat,
                refused=getattr(self._sink, "refused", None),
                evolve=self._evolve,
                shown=LAST_ROWS,
            )
            self._reading = reading = Reading(stream, self._batching, self._seconds, self._limit)
            reader = asyncio.create_task(reading.run(), name=f"bqstream collector reads {self.name}")
            try:
                if self._stopping.is_set():
                    reading.stop()
                if (
                    stored is None
                ):  # so that a process that dies before the first rows come loses none of them
                    await self._write(writing, Batch((), None, {}))
                await self._write_all(writing, reading)
            finally:
                self._gaps = self._named  # before those that are open are given up
                self._reading = None
                reader.cancel()
                await asyncio.wait({reader})

    async def _subscribed(self, checkpoint: Checkpoint | None) -> Subscription[Any] | None:
        """The subscription; None where ``stop`` was called before there was a link for it."""
        if self._stopping.is_set():
            return None
        self._opening = asyncio.ensure_future(
            self._client.subscribe(
                self._document.text,
                self._variables,
                operation_name=self._document.operation_name,
                resume=checkpoint,
                since=self._since if checkpoint is None else None,
                on_gap=self._on_gap,
                undo=self._undo,
            )
        )
        try:
            return await self._opening
        except asyncio.CancelledError:
            if self._opening.done() and not self._opening.cancelled() and self._opening.exception() is None:
                await self._opening.result().aclose()
            if self._stopping.is_set() and not _is_cancelled():
                return None
            raise
        finally:
            self._opening = None

    async def _write_all(self, writing: Writing, reading: Reading) -> None:
        while not isinstance(batch := await reading.batches.get(), End):
            await self._write(writing, batch)
        if batch.error is not None:
            raise batch.error

    async def _write(self, writing: Writing, batch: Batch) -> None:
        """Commit one batch, however often that takes."""
        started = time.monotonic()
        self._pending = started, 0
        try:
            prepared = await self._trying(lambda: _in_thread(writing.prepare, batch))
            self._pending = started, prepared.commit.count
            await self._commit(prepared.commit)
        finally:
            self._pending = None
        failpoint("unacknowledged")
        writing.done(batch, prepared)
        self._note(prepared, time.monotonic() - started)

    async def _commit(self, commit: Commit) -> None:
        tried = False

        async def once() -> None:
            nonlocal tried
            if tried and await self._is_there(commit):
                return
            tried = True
            await self._sink.commit(commit)

        await self._trying(once)

    async def _is_there(self, commit: Commit) -> bool:
        """Whether a commit that failed went through all the same, as when an answer was lost."""
        stored = await self._sink.open(self.name)
        if stored is not None and stored == Stored(commit.number, commit.state):
            return True
        if (stored.number if stored else 0) != commit.number - 1:
            raise SinkLocked(f"{self._sink.name}: another collector writes {self.name!r} there")
        return False

    async def _trying(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, and try again for as long as ``backoff`` says where the sink is not to be had."""
        attempts = self._backoff.attempts
        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(SinkUnavailable),
                wait=tenacity.wait_random_exponential(self._backoff.initial, self._backoff.maximum),
                stop=lambda retry: self._stopping.is_set() or retry.attempt_number == attempts,
                sleep=self._pause,
                before_sleep=self._sink_is_down,
                reraise=True,
            ):
                with attempt:
                    return await work()
            raise AssertionError("tenacity tries at least once")
        finally:
            self._trouble = ""

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _sink_is_down(self, retry: tenacity.RetryCallState) -> None:
        error = retry.outcome.exception() if retry.outcome else None
        wait = retry.next_action.sleep if retry.next_action else 0.0
        self._trouble = str(error)
        when = f"in {wait:.1f} s" if wait >= 0.05 else "at once"
        _log.warning("%s: %s; tried again %s", self.name, error, when)

    # ------------------------------------------------------------------ what was stored

    def _resumed(self, state: State) -> Checkpoint | None:
        """The checkpoint to go on from; None where another document had no row. Raises UsageError where it is another
        document's, and that is not allowed."""
        checkpoint = Checkpoint.loads(state.checkpoint)
        asked = self._client.fingerprint(
            self._document.text, self._variables, operation_name=self._document.operation_name
        )
        if checkpoint.fingerprint == asked:
            return checkpoint
        if not state.tables:  # as where the service has refused that document
            return None
        if not self._evolve:
            raise UsageError(
                f"{self._sink.name} holds the rows of another document, other variables or another endpoint under "
                f"{self.name!r}: --evolve goes on with this one, --name begins anew beside it"
            )
        self._require_keys(checkpoint)
        return replace(checkpoint, fingerprint=asked)

    def _require_keys(self, checkpoint: Checkpoint) -> None:
        """Raise UsageError where rows of the last minute would come again, or could not be told, by this document."""
        for hidden in (True, False):
            readers = Plan.make(self._document, self._variables, hidden=hidden).readers
            if void_of(checkpoint, readers) is None:
                continue
            if keyless := keyless_of(checkpoint, readers):
                raise UsageError(
                    f"the rows of {', '.join(keyless)} have no key, and are told apart by the fields that the document "
                    "selects: another document would bring those of the last minute again. Begin anew, with "
                    "another --name and --table"
                )
            return
        raise UsageError(
            "the document has changed in fields by which rows are told apart, such as a block's number: select them as "
            "before, or begin anew, with another --name and --table"
        )

    # ------------------------------------------------------------------ what is seen

    @property
    def sink(self) -> Sink:
        return self._sink

    @property
    def readers(self) -> Mapping[str, Reader]:
        """How each cube's rows say where they stand."""
        return Plan.make(self._document, self._variables).readers

    def _note(self, prepared: Prepared, seconds: float) -> None:
        commit = prepared.commit
        self._rows += commit.count
        self._taken_back += sum(rows.count for rows in commit.steps if rows.undo)
        self._misfits += prepared.misfits
        self._backfilled += prepared.backfilled
        self._commits += 1
        self._committed_at = datetime.now(UTC)
        self._commit_seconds = seconds
        self._committing_seconds += seconds
        self._newest = prepared.newest or self._newest
        self.last_rows.extend(prepared.last)
        if prepared.errors:
            _log.warning(
                "%s: the service sent %d messages with errors: %s",
                self.name,
                len(prepared.errors),
                str(prepared.errors[0])[:500],
            )
        if prepared.misfits:
            path = self._dead_letters.path
            _log.warning(
                "%s: %d rows do not fit their table; they are in %s", self.name, prepared.misfits, path
            )

    @property
    def _named(self) -> tuple[Gap, ...]:
        """The gaps, as they were when reading ended where it has: what was still being closed then is no hole."""
        return self._gaps if self._gaps is not None else self._stream.gaps if self._stream else ()

    @property
    def _holes(self) -> int:
        return sum(gap.is_hole for gap in self._named)

    @property
    def _tables(self) -> tuple[str, ...]:
        """But for that of data without rows, where there are others."""
        return tuple(draft.table.name for draft in self._drafts if draft.table.cube or len(self._drafts) == 1)

    @property
    def _state(self) -> Doing:
        if self._trouble:
            return "retrying"
        return (
            "stopping"
            if self._doing in ("starting", "collecting") and self._stopping.is_set()
            else self._doing
        )

    def status(self) -> CollectorStatus:
        """A picture of this moment."""
        now = time.monotonic()
        since, rows = self._pending or (None, 0)
        return CollectorStatus(
            name=self.name,
            operation=self._stream.operation if self._stream else None,
            sink=self._sink.name,
            state=self._state,
            trouble=self._trouble,
            tables=self._tables,
            rows=self._rows,
            taken_back=self._taken_back,
            misfits=self._misfits,
            commits=self._commits,
            committed_at=self._committed_at,
            commit_seconds=self._commit_seconds,
            committing_seconds=self._committing_seconds,
            pending_rows=rows,
            pending_since=datetime.now(UTC) - timedelta(seconds=now - since) if since is not None else None,
            overdue=since is not None and now - since > self._overdue,
            gaps=len(self._named),
            holes=self._holes,
            newest=self._newest,
            backfilled=self._backfilled,
        )


@contextlib.contextmanager
def locked(sink: Sink, name: str) -> Iterator[None]:
    """Keep another collector on this machine away. Raises SinkLocked where there is one."""
    if getattr(sink, "stateless", False):
        yield
        return
    path = sink.lock
    if path is None:
        user = os.getuid() if hasattr(os, "getuid") else ""
        path = Path(tempfile.gettempdir()) / f"bqstream-{user}" / _digest(f"{sink.name} {name}")
    lock = filelock.FileLock(path, timeout=0)
    try:
        with files(sink.name):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if sink.lock is None and hasattr(os, "getuid") and path.parent.lstat().st_uid != os.getuid():
                raise SinkFailed(
                    f"{sink.name}: {path.parent} belongs to another user: set TMPDIR to another folder"
                )
        lock.acquire()
    except filelock.Timeout:
        if not path.exists():  # as in a file system that takes no files
            raise SinkFailed(
                f"{sink.name}: {path}, which keeps a second collector away, cannot be made"
            ) from None
        raise SinkLocked(f"{sink.name}: another collector on this machine writes there ({path})") from None
    except OSError as error:
        raise SinkFailed(
            f"{sink.name}: {path}, which keeps a second collector away: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _beside(sink: Sink, name: str) -> Path:
    """A file for dead letters that no other sink's collector in this folder takes, whatever its name."""
    if sink.lock is not None:
        return sink.lock.parent / f"{name}.dead.jsonl"
    return Path(f"{name}.{_digest(sink.name)[:8]}.dead.jsonl")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


async def _in_thread(work: Callable[..., T], *args: Any) -> T:
    """Do it in a thread, and wait for that also when cancelled: nothing is written once the lock is let go."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        working.exception()
        raise


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
