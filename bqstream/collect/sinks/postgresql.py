"""``postgresql://[USER@]HOST[:PORT]/DATABASE``: tables in PostgreSQL; rows, gaps and state in one transaction."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import set_json_dumps

from ...errors import SinkFailed, SinkLocked, SinkUnavailable
from ...tables.table import Column, Rows, Table
from ..commit import Commit, Stored
from ..failpoints import failpoint
from ..sink import Address, BlockingSink
from .postgresql_connection import BEGIN, GRACE, Connection, meaning, name_of, read_address
from .sql import gaps_of, lacks, quoted

_LONGEST = 63  # bytes of a name; PostgreSQL cuts a longer one off in silence

_TYPES = {
    "text": "text",
    "float": "float8",
    "integer": "int8",
    "boolean": "bool",
    "timestamp": "timestamptz",
    "decimal": "numeric",
    "json": "jsonb",
}
_STATE, _GAPS = "_bqstream_state", "_bqstream_gaps"
_OURS = {
    _STATE: """subscription text PRIMARY KEY, number bigint NOT NULL, state text NOT NULL,
        committed_at timestamptz NOT NULL DEFAULT now()""",
    _GAPS: """id text PRIMARY KEY, subscription text NOT NULL, cause text NOT NULL, cubes text NOT NULL,
        start timestamptz NOT NULL, "end" timestamptz, low text, high text, closed boolean NOT NULL,
        how text NOT NULL, reason text, detail text NOT NULL""",
}
_RECORD = (
    *("id", "subscription", "cause", "cubes", "start", "end"),
    *("low", "high", "closed", "how", "reason", "detail"),
)
_COLUMNS = """SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
# Rows are compared as text: that makes null equal to null, needs no operator of the type (json has none), and is
# hashed. Only what stands from the page ``since`` on is read.
_TAKE_BACK = """DELETE FROM {table} WHERE ctid >= '({since},0)' AND (tableoid, ctid) IN (
    SELECT part, place FROM (
        SELECT part, place, copies, row_number() OVER (PARTITION BY whole) AS copy
        FROM (
            SELECT tableoid AS part, ctid AS place, ROW({names})::text AS whole
            FROM {table} WHERE ctid >= '({since},0)'
        ) AS there
        JOIN (SELECT ROW({names})::text AS whole, count(*) AS copies FROM {taken} GROUP BY 1) AS taken USING (whole)
    ) AS alike WHERE copy <= copies)"""
_PAGES = "SELECT pg_relation_size(to_regclass(%s)) / current_setting('block_size')::int"
# Pages (of 8 KiB) at a table's end, where what is taken back mostly stands: it was added lately.
_LATE = 4096
_TAKEN = "pg_temp._bqstream_taken"


def sink(address: Address) -> PostgreSQLSink:
    """``postgresql://[USER@]HOST[:PORT]/DATABASE``; its options are ``schema`` and libpq's own, such as ``sslmode``.

    Without ``schema``, tables are in the first schema of the user's ``search_path``.
    """
    return PostgreSQLSink(*read_address(address))


class PostgreSQLSink(BlockingSink):
    """A database, by one connection. ``server`` are libpq's parameters."""

    def __init__(self, server: Mapping[str, str], schema: str | None = None) -> None:
        super().__init__(name_of(server, schema))
        self._server = server
        self._asked = schema
        self._schema = ""
        self._connection: Connection | None = None
        self._known: dict[Table, bool] = {}  # and whether its columns' types are those that are made here

    def refused(self, rows: Rows) -> list[int]:
        """Which of ``rows``, by index, PostgreSQL cannot hold, ever: there is no U+0000 in its text and jsonb."""
        found: set[int] = set()
        for column, values in zip(rows.table.columns, rows.columns, strict=True):
            if column.kind in _UNFIT:
                unfit = _UNFIT[column.kind]
                found.update(at for at, value in enumerate(values) if value is not None and unfit(value))
        return sorted(found)

    def _open(self, subscription: str) -> Stored | None:
        self._close()
        with self._errors():
            self._connection = Connection.to(self._server)
            set_json_dumps(str.encode, self._connection)  # it is text already
            with self._transaction() as cursor:
                self._schema = self._asked or self._first_schema(cursor)
                self._prepare(cursor)
                cursor.execute("SELECT extract(epoch FROM current_setting('statement_timeout')::interval)")
                self._connection.patience = float(_one(cursor)[0]) + GRACE
                # A connection that was lost may yet commit. Both of these wait until it has, or has not; were the
                # row not made here, the first commit could not be waited for.
                cursor.execute(
                    f"INSERT INTO {self._ours(_STATE)} VALUES (%s, 0, '') ON CONFLICT DO NOTHING",
                    (subscription,),
                )
                cursor.execute(
                    f"SELECT number, state FROM {self._ours(_STATE)} WHERE subscription = %s FOR UPDATE",
                    (subscription,),
                )
                number, state = _one(cursor)
        return Stored(number, state) if number else None

    def _peek(self, subscription: str) -> Stored | None:
        self._close()
        with self._errors():
            self._connection = Connection.to(self._server)
            with self._transaction() as cursor:
                self._schema = self._asked or self._first_schema(cursor)
                cursor.execute("SELECT to_regclass(%s)", (self._place(_STATE),))
                if _one(cursor)[0] is None:
                    return None
                cursor.execute(
                    f"SELECT number, state FROM {self._ours(_STATE)} WHERE subscription = %s AND number > 0",
                    (subscription,),
                )
                stored = cursor.fetchone()
        return Stored(*stored) if stored else None

    def _count(self, table: str, column: str, at_least: int | datetime) -> int:
        with self._errors(), self._transaction() as cursor:
            name = quoted(column).replace("%", "%%")
            cursor.execute(f"SELECT count(*) FROM {self._ours(table)} WHERE {name} >= %s", (at_least,))
            return int(_one(cursor)[0])

    def _commit(self, commit: Commit) -> None:
        with self._errors(), self._transaction() as cursor:
            self._state(cursor, commit)
            self._define(cursor, commit)
            for rows in commit.steps:
                if rows.undo:
                    self._take_back(cursor, rows)
                else:
                    self._add(cursor, self._place(rows.table.name), rows)
            failpoint("written")
            self._note(cursor, commit)
            failpoint("staged")
        failpoint("committed")

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        self._known.clear()
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """Whatever fails ends the connection, and with it the transaction: ``open`` tells what has become of it."""
        if self._connection is None:
            raise SinkUnavailable(f"{self.name} is not open")
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(BEGIN)
                yield cursor
                cursor.execute("COMMIT")
        except BaseException:
            self._close()
            raise

    def _first_schema(self, cursor: psycopg.Cursor[Any]) -> str:
        cursor.execute("SELECT current_schema()")
        schema: str | None = _one(cursor)[0]
        if schema is None:
            raise SinkFailed(f"{self.name}: no schema of the user's search_path is there: give schema=NAME")
        return schema

    def _prepare(self, cursor: psycopg.Cursor[Any]) -> None:
        """Make what is not there. That is asked first: who may not create anything may use what others have made."""
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self._schema,))
        if not cursor.rowcount:
            _fits(self._schema)
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}")
        for name, columns in _OURS.items():
            cursor.execute("SELECT to_regclass(%s)", (self._place(name),))
            if _one(cursor)[0] is None:
                cursor.execute(f"CREATE TABLE IF NOT EXISTS {self._place(name)} ({columns})")

    def _define(self, cursor: psycopg.Cursor[Any], commit: Commit) -> None:
        for table in commit.tables:
            if table in self._known:
                continue
            for name in (table.name, *table.names):
                _fits(name)
            place = self._place(table.name)
            there = dict(cursor.execute(_COLUMNS, (place,)))
            missing = [column for column in table.columns if column.name not in there]
            if not there:
                cursor.execute(f"CREATE TABLE {place} ({', '.join(map(_definition, missing))})")
            elif missing and not commit.evolve:
                raise SinkFailed(lacks(table, missing))
            elif missing:
                added = ", ".join(f"ADD COLUMN {_definition(column)}" for column in missing)
                cursor.execute(f"ALTER TABLE {place} {added}")
            there.update((column.name, _TYPES[column.kind]) for column in missing)
            self._known[table] = all(there[column.name] == _TYPES[column.kind] for column in table.columns)

    def _state(self, cursor: psycopg.Cursor[Any], commit: Commit) -> None:
        """First: the row's lock keeps other collectors out, before they have sent their rows in vain."""
        cursor.execute(
            f"UPDATE {self._ours(_STATE)} SET number = %(number)s, state = %(state)s, committed_at = now() "
            "WHERE subscription = %(subscription)s AND number = %(number)s - 1",
            {"subscription": commit.subscription, "number": commit.number, "state": commit.state},
        )
        if cursor.rowcount != 1:
            raise SinkLocked(f"{self.name}: another collector writes {commit.subscription!r} there")

    def _add(self, cursor: psycopg.Cursor[Any], place: str, rows: Rows) -> None:
        """By COPY: binary, which is faster by half; as text, which any type reads, if a type is the user's own."""
        table, binary = rows.table, self._known[rows.table]
        how = "(FORMAT BINARY)" if binary else ""
        with cursor.copy(f"COPY {place} ({_names(table)}) FROM STDIN {how}") as copy:
            if binary:
                copy.set_types([_TYPES[column.kind] for column in table.columns])
            write = copy.write_row
            for row in zip(*rows.columns, strict=True):
                write(row)

    def _take_back(self, cursor: psycopg.Cursor[Any], rows: Rows) -> None:
        """One copy of each: equal rows are legal, and stay as many as they are to be.

        Looked for at the table's end first, and further up until all are found: a table may hold years.
        """
        place, names = self._place(rows.table.name), _names(rows.table)
        cursor.execute(f"CREATE TEMP TABLE {_TAKEN} AS SELECT {names} FROM {place} WITH NO DATA")
        self._add(cursor, _TAKEN, rows)
        cursor.execute(_PAGES, (place,))
        pages, late = _one(cursor)[0], _LATE
        cursor.execute("SAVEPOINT untouched")
        while True:
            since = max(pages - late, 0)
            cursor.execute(_TAKE_BACK.format(table=place, names=names, taken=_TAKEN, since=since))
            if cursor.rowcount == rows.count or not since:
                break
            cursor.execute("ROLLBACK TO untouched")
            late *= 16
        cursor.execute(f"DROP TABLE {_TAKEN}")

    def _note(self, cursor: psycopg.Cursor[Any], commit: Commit) -> None:
        marks = ", ".join(["%s"] * len(_RECORD))
        newer = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in _RECORD)
        cursor.executemany(
            f"INSERT INTO {self._ours(_GAPS)} ({', '.join(map(quoted, _RECORD))}) VALUES ({marks}) "
            f"ON CONFLICT (id) DO UPDATE SET {newer}",
            gaps_of(commit),
        )

    def _place(self, table: str) -> str:
        return f"{quoted(self._schema)}.{quoted(table)}"

    def _ours(self, table: str) -> str:
        """For a statement with parameters, where a per cent sign begins one."""
        return self._place(table).replace("%", "%%")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What psycopg's errors mean for a collector."""
        try:
            yield
        except psycopg.Error as error:
            raise meaning(self.name, error) from error
        except (ValueError, OverflowError) as error:
            raise SinkFailed(f"{self.name}: a value does not fit its column: {error}") from error


def _one(cursor: psycopg.Cursor[Any]) -> Sequence[Any]:
    row: Sequence[Any] | None = cursor.fetchone()
    assert row is not None
    return row


def _definition(column: Column) -> str:
    digits = f"({column.digits[0]}, {column.digits[1]})" if column.kind == "decimal" and column.digits else ""
    return f"{quoted(column.name)} {_TYPES[column.kind]}{digits}"


def _names(table: Table) -> str:
    return ", ".join(map(quoted, table.names))


def _fits(name: str) -> None:
    if len(name.encode()) > _LONGEST:
        raise SinkFailed(
            f"{name!r} is longer than the {_LONGEST} bytes that PostgreSQL has for a name: alias the field, or a field "
            "on the way to it, in the document (short: LongFieldName); --table names a table"
        )


_TEXT = re.compile("[\0\ud800-\udfff]").search
_ESCAPES = re.compile(
    r"\\u0000|\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
).search


def _unfit_json(text: str) -> bool:
    """jsonb reads escapes: that of U+0000, and half of a pair of surrogates, which no text can hold."""
    # Without escaped backslashes, those that are left begin an escape.
    return _TEXT(text) is not None or ("\\u" in text and _ESCAPES(text.replace("\\\\", "")) is not None)


_UNFIT: dict[str, Callable[[str], object]] = {"text": _TEXT, "json": _unfit_json}
