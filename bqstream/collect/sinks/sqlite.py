"""``sqlite:PATH``: tables in an SQLite database; rows, gaps and state in one transaction."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from ...errors import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ...tables.table import Column, Rows, Table
from ..commit import Commit, Stored
from ..failpoints import failpoint
from ..sink import Address, BlockingSink, files
from .sql import gaps_of, lacks, quoted

# How long another writer, or a reader that holds a lock, is waited for before the commit is tried anew; seconds.
_BUSY = 5.0
_TYPES = {
    "text": "TEXT",
    "float": "REAL",
    "integer": "INTEGER",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "decimal": "TEXT",  # a number of SQLite's is a double, or an integer of 64 bits
    "json": "TEXT",
}
_OURS = """
CREATE TABLE IF NOT EXISTS _bqstream_state (
    subscription TEXT PRIMARY KEY, number INTEGER NOT NULL, state TEXT NOT NULL, committed_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _bqstream_gaps (
    id TEXT PRIMARY KEY, subscription TEXT NOT NULL, cause TEXT NOT NULL, cubes TEXT NOT NULL, start TEXT NOT NULL,
    "end" TEXT, low TEXT, high TEXT, closed BOOLEAN NOT NULL, how TEXT NOT NULL, reason TEXT, detail TEXT NOT NULL
) WITHOUT ROWID;
"""
_STORED = "SELECT number, state FROM _bqstream_state WHERE subscription = ?"
_FIRST = "INSERT INTO _bqstream_state VALUES (:subscription, :number, :state, datetime('now'))"
_NEXT = """UPDATE _bqstream_state SET number = :number, state = :state, committed_at = datetime('now')
    WHERE subscription = :subscription AND number = :number - 1"""
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def sink(address: Address) -> SQLiteSink:
    """``sqlite:PATH``; it has no options."""
    address.only()
    if not address.place:
        raise UsageError("sqlite: needs a file, such as sqlite:rows.db")
    return SQLiteSink(Path(address.place))


class SQLiteSink(BlockingSink):
    """A database file in WAL mode, so that others read while rows are added."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:{path}")
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._known: set[Table] = set()

    def _open(self, subscription: str) -> Stored | None:
        self._close()
        with _Errors(self.name):
            with files(self.name):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._database = database
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")  # a commit outlives a loss of power
            database.executescript(_OURS)
            stored = database.execute(_STORED, (subscription,)).fetchone()
        return Stored(*stored) if stored else None

    def _peek(self, subscription: str) -> Stored | None:
        if not self._path.exists():
            return None
        place = f"{self._path.absolute().as_uri()}?mode=ro"
        with (
            _Errors(self.name),
            contextlib.closing(sqlite3.connect(place, timeout=_BUSY, uri=True)) as database,
        ):
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = '_bqstream_state'").fetchone():
                return None
            stored = database.execute(_STORED, (subscription,)).fetchone()
        return Stored(*stored) if stored else None

    def _count(self, table: str, column: str, at_least: int | datetime) -> int:
        database = self._opened()
        value = at_least.isoformat() if isinstance(at_least, datetime) else at_least
        asked = f"SELECT count(*) FROM {quoted(table)} WHERE {quoted(column)} >= ?"
        with _Errors(self.name):
            return int(database.execute(asked, (value,)).fetchone()[0])

    def _commit(self, commit: Commit) -> None:
        database = self._opened()
        with _Errors(self.name):
            database.execute("BEGIN IMMEDIATE")
            try:
                self._define(database, commit)
                for rows in commit.steps:
                    _take_back(database, rows) if rows.undo else _add(database, rows)
                _note(database, commit)
                failpoint("written")
                self._state(database, commit)
                failpoint("staged")
                database.execute("COMMIT")
            except BaseException:
                self._known.clear()
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        failpoint("committed")

    def _define(self, database: sqlite3.Connection, commit: Commit) -> None:
        for table in commit.tables:
            if table in self._known:
                continue
            columns = ", ".join(f"{quoted(column.name)} {_TYPES[column.kind]}" for column in table.columns)
            database.execute(f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} ({columns})")
            there = {row[1].lower() for row in database.execute(f"PRAGMA table_info({quoted(table.name)})")}
            missing = [column for column in table.columns if column.name.lower() not in there]
            if missing and not commit.evolve:
                raise SinkFailed(lacks(table, missing))
            for column in missing:
                database.execute(
                    f"ALTER TABLE {quoted(table.name)} ADD COLUMN {quoted(column.name)} {_TYPES[column.kind]}"
                )
            self._known.add(table)

    def _state(self, database: sqlite3.Connection, commit: Commit) -> None:
        values = {"subscription": commit.subscription, "number": commit.number, "state": commit.state}
        try:
            done = database.execute(_FIRST if commit.number == 1 else _NEXT, values).rowcount
        except sqlite3.IntegrityError:
            done = 0
        if done != 1:
            raise SinkLocked(f"{self.name}: another collector writes {commit.subscription!r} there")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise SinkUnavailable(f"{self.name} is not open")
        return self._database

    def _close(self) -> None:
        database, self._database = self._database, None
        self._known.clear()
        if database is not None:
            database.close()


def _add(database: sqlite3.Connection, rows: Rows) -> None:
    table = rows.table
    names = ", ".join(map(quoted, table.names))
    marks = ", ".join("?" * len(table.columns))
    values = zip(*map(_plain, table.columns, rows.columns), strict=True)
    database.executemany(f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({marks})", values)


def _take_back(database: sqlite3.Connection, rows: Rows) -> None:
    """One copy of each: equal rows are legal, and stay as many as they are to be."""
    table = rows.table
    alike = " AND ".join(f"{quoted(name)} IS ?" for name in table.names)
    values = zip(*map(_plain, table.columns, rows.columns), strict=True)
    database.executemany(
        f"DELETE FROM {quoted(table.name)} WHERE rowid = "
        f"(SELECT rowid FROM {quoted(table.name)} WHERE {alike} ORDER BY rowid DESC LIMIT 1)",
        values,
    )


def _note(database: sqlite3.Connection, commit: Commit) -> None:
    database.executemany(
        "INSERT OR REPLACE INTO _bqstream_gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            [value.isoformat() if isinstance(value, datetime) else value for value in gap]
            for gap in gaps_of(commit)
        ],
    )


def _plain(column: Column, values: list[object]) -> Sequence[object]:
    """As SQLite has them; text of a time sorts as the time does."""
    if column.kind == "timestamp":
        return [value.isoformat() if isinstance(value, datetime) else None for value in values]
    if column.kind == "decimal":
        return [format(value, "f") if isinstance(value, Decimal) else None for value in values]
    return values


class _Errors:
    """What SQLite's errors mean for a collector."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise SinkUnavailable(f"{self._name}: the disk is full: make room; nothing is lost") from error
        if code in _PASSING:
            raise SinkUnavailable(f"{self._name}: {error}") from error
        raise SinkFailed(f"{self._name}: {error}") from error
