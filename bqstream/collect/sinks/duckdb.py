"""``duckdb:PATH``: tables in a DuckDB database; rows, gaps and state in one transaction.

DuckDB gives a file to one process that writes, or to any number that read. So the file is opened for each commit and
closed after it, and others have it in between; while they do, a commit waits and is then tried anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import tenacity

from ...errors import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ...tables.arrow import arrow_of
from ...tables.table import Column, Rows
from ..commit import Commit, Stored
from ..failpoints import failpoint
from ..sink import Address, BlockingSink, files
from .sql import gaps_of, lacks, quoted

# How long others that have the file open are waited for before the commit is tried anew; seconds.
_BUSY = 5.0
_TYPES = {
    "text": "VARCHAR",
    "float": "DOUBLE",
    "integer": "BIGINT",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "json": "JSON",
}
_WIDEST = 38  # digits of a DECIMAL; a number with more, or with any, is text
_GIVEN = "_bqstream_rows"  # the name under which a statement finds an Arrow table, which is not copied
_OURS = """
CREATE TABLE IF NOT EXISTS _bqstream_state (
    subscription VARCHAR PRIMARY KEY, number BIGINT NOT NULL, state VARCHAR NOT NULL, committed_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS _bqstream_gaps (
    id VARCHAR PRIMARY KEY, subscription VARCHAR NOT NULL, cause VARCHAR NOT NULL, cubes VARCHAR NOT NULL,
    start TIMESTAMPTZ NOT NULL, "end" TIMESTAMPTZ, low VARCHAR, high VARCHAR, closed BOOLEAN NOT NULL,
    how VARCHAR NOT NULL, reason VARCHAR, detail VARCHAR NOT NULL
);
"""
_STORED = "SELECT number, state FROM _bqstream_state WHERE subscription = ?"
_FIRST = "INSERT INTO _bqstream_state VALUES ($subscription, $number, $state, now()) ON CONFLICT DO NOTHING"
_NEXT = """UPDATE _bqstream_state SET number = $number, state = $state, committed_at = now()
    WHERE subscription = $subscription AND number = $number - 1"""


def sink(address: Address) -> DuckDBSink:
    """``duckdb:PATH``; it has no options."""
    address.only()
    if not address.place or address.place.startswith(":"):
        raise UsageError("duckdb: needs a file, such as duckdb:rows.duckdb")
    return DuckDBSink(Path(address.place))


class DuckDBSink(BlockingSink):
    """A database file; a commit holds its lock for as long as it takes, and no longer."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"duckdb:{path}")
        self._path = path

    def _open(self, subscription: str) -> Stored | None:
        with self._errors(), files(self.name):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._database() as database:
                database.execute(_OURS)
                stored = database.execute(_STORED, (subscription,)).fetchone()
        return Stored(*stored) if stored else None

    def _peek(self, subscription: str) -> Stored | None:
        if not self._path.exists():
            return None
        with self._errors(), self._database(read_only=True) as database:
            if not database.execute(
                "SELECT 1 FROM duckdb_tables() WHERE table_name = '_bqstream_state'"
            ).fetchone():
                return None
            stored = database.execute(_STORED, (subscription,)).fetchone()
        return Stored(*stored) if stored else None

    def _count(self, table: str, column: str, at_least: int | datetime) -> int:
        asked = f"SELECT count(*) FROM {quoted(table)} WHERE {quoted(column)} >= ?"
        with self._errors(), self._database() as database:
            (count,) = database.execute(asked, (at_least,)).fetchone() or (0,)
        return int(count)

    def _commit(self, commit: Commit) -> None:
        with self._errors(), self._database() as database:
            database.execute("BEGIN")
            self._define(database, commit)
            for rows in commit.steps:
                if rows.count:
                    _take_back(database, rows) if rows.undo else _add(database, rows)
            _note(database, commit)
            failpoint("written")
            values = {"subscription": commit.subscription, "number": commit.number, "state": commit.state}
            done = database.execute(_FIRST if commit.number == 1 else _NEXT, values).fetchone()
            if done != (1,):
                raise SinkLocked(f"{self.name}: another collector writes {commit.subscription!r} there")
            failpoint("staged")
            database.execute("COMMIT")
            failpoint("committed")

    def _close(self) -> None:
        """Nothing is open between two commits."""

    @contextlib.contextmanager
    def _database(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file, once nobody else has it; closing it rolls back what is not committed."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_taken),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=0.5),
            stop=tenacity.stop_after_delay(_BUSY),
            reraise=True,
        )
        database = attempts(duckdb.connect, self._path, read_only)
        try:
            yield database
        finally:
            database.close()

    def _define(self, database: duckdb.DuckDBPyConnection, commit: Commit) -> None:
        for table in commit.tables:
            columns = ", ".join(f"{quoted(column.name)} {_type(column)}" for column in table.columns)
            database.execute(f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} ({columns})")
            described = database.execute(f"DESCRIBE {quoted(table.name)}").fetchall()
            there = {row[0].lower() for row in described}
            missing = [column for column in table.columns if column.name.lower() not in there]
            if missing and not commit.evolve:
                raise SinkFailed(lacks(table, missing))
            for column in missing:
                database.execute(
                    f"ALTER TABLE {quoted(table.name)} ADD COLUMN {quoted(column.name)} {_type(column)}"
                )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Say what DuckDB's errors mean for a collector; it tells many of them apart by their text alone."""
        try:
            yield
        except duckdb.Error as error:
            text = str(error)
            if _is_taken(error):
                raise SinkUnavailable(
                    f"{self.name}: another process has it open, which keeps commits waiting: {text}"
                ) from error
            if "No space left" in text or "Disk quota" in text:
                raise SinkUnavailable(f"{self.name}: the disk is full: make room; nothing is lost") from error
            if isinstance(error, _PASSING) and not any(said in text for said in _FINAL):
                raise SinkUnavailable(f"{self.name}: {text}") from error
            raise SinkFailed(f"{self.name}: {text}") from error


_PASSING = (
    *(duckdb.IOException, duckdb.TransactionException, duckdb.OutOfMemoryException),
    *(duckdb.FatalException, duckdb.InterruptException),
)
_FINAL = (
    *("not a valid DuckDB database", "Permission denied", "Operation not permitted", "Read-only file system"),
    *("Is a directory", "Not a directory", "File name too long", "read-only mode"),
)
_TAKEN = (
    "Could not set lock",  # another process
    "different configuration",  # this process, to read only
    "Unique file handle conflict",  # this process, attached to another database
)


def _is_taken(error: BaseException) -> bool:
    return isinstance(error, duckdb.Error) and any(said in str(error) for said in _TAKEN)


def _add(database: duckdb.DuckDBPyConnection, rows: Rows) -> None:
    names = ", ".join(map(quoted, rows.table.names))
    database.register(_GIVEN, arrow_of(rows, rows.table.columns, _WIDEST))
    database.execute(f"INSERT INTO {quoted(rows.table.name)} ({names}) SELECT {names} FROM {_GIVEN}")


def _take_back(database: duckdb.DuckDBPyConnection, rows: Rows) -> None:
    """One copy of each: equal rows are legal, and stay as many as they are to be."""
    table = quoted(rows.table.name)
    names = list(map(quoted, rows.table.names))
    alike = " AND ".join(f"there.{name} IS NOT DISTINCT FROM gone.{name}" for name in names)
    each = ", ".join(f"there.{name}" for name in names)
    database.register(_GIVEN, arrow_of(rows, rows.table.columns, _WIDEST))
    database.execute(
        f"""WITH gone AS (SELECT {", ".join(names)}, count(*) AS "copies of it" FROM {_GIVEN} GROUP BY ALL),
        alike AS (
            SELECT there.rowid AS row, "copies of it",
                row_number() OVER (PARTITION BY {each} ORDER BY there.rowid DESC) AS nth
            FROM {table} AS there JOIN gone ON {alike}
        )
        DELETE FROM {table} WHERE rowid IN (SELECT row FROM alike WHERE nth <= "copies of it")"""
    )


def _note(database: duckdb.DuckDBPyConnection, commit: Commit) -> None:
    for gap in gaps_of(commit):
        database.execute(
            "INSERT OR REPLACE INTO _bqstream_gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", gap
        )


def _type(column: Column) -> str:
    if column.kind != "decimal":
        return _TYPES[column.kind]
    if column.digits is None or column.digits[0] > _WIDEST:
        return "VARCHAR"
    return f"DECIMAL({column.digits[0]}, {column.digits[1]})"
