"""``postgresql://[USER@]HOST[:PORT]/DATABASE``: tables in PostgreSQL; rows, gaps and state in one transaction."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import psycopg
from psycopg.abc import PQGen
from psycopg.types.json import set_json_dumps

from ...errors import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ..failpoints import failpoint
from ..sink import Address, BlockingSink
from ..table import Column, Commit, Rows, Stored, Table

# What libpq is told where neither the address nor the environment says it; seconds, and milliseconds for the last. A
# server that has gone without a word is noticed in half a minute.
_LIBPQ = {
    "fallback_application_name": "bqstream",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
# The same for the server: no lock and no statement waits for ever, and the row lock of a collector that has gone is
# let go. They end with the transaction, so that a pooler may serve each by another session; and what the user has set
# (in the second column is what the server has by itself) stays.
_BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config(name, wanted, true) FROM (VALUES
    ('lock_timeout', '0', '10s'), ('statement_timeout', '0', '60s'),
    ('idle_in_transaction_session_timeout', '0', '60s'), ('tcp_keepalives_idle', '7200', '10'),
    ('tcp_keepalives_interval', '75', '5'), ('tcp_keepalives_count', '9', '3'),
    ('synchronous_commit', 'off', 'on')  -- a commit outlives a loss of power
) AS asked (name, plain, wanted) WHERE current_setting(name) = plain"""
# A server that has not answered so many seconds after its own time-out never will: a standstill keeps TCP alive.
_GRACE = 15.0
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
    if not address.place.startswith("//"):
        raise UsageError(f"{address.scheme}: needs a server, such as postgresql://user@host:5432/database")
    # libpq reads what schema= leaves by itself: to it, unlike in a form, a plus is a plus.
    text, _, query = address.text.partition("?")
    authority, _, database = address.place.removeprefix("//").partition("/")
    if (
        authority.count("@") > 1 or "@" in database + query
    ):  # else a piece of a password would count as a host
        raise UsageError(
            "postgresql: in an address, write the @ of a user, a password or an option as %40, / as %2F"
        )
    address.only("schema", *(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()))
    options = [option.partition("=") for option in query.split("&") if option]
    schema = next((unquote(value) for key, _, value in options if key == "schema"), None)
    if schema == "":
        raise UsageError("postgresql: schema= is empty; leave it out, or name one")
    query = "&".join("".join(option) for option in options if option[0] != "schema")
    with contextlib.suppress(psycopg.Error):  # its text may hold a password
        given = psycopg.conninfo.conninfo_to_dict(f"{text}?{query}")
        if re.fullmatch("[0-9,]*", str(given.get("port") or "")):
            return PostgreSQLSink(
                {key: str(value) for key, value in given.items() if value is not None}, schema
            )
    raise UsageError(
        "postgresql: the address cannot be read: give postgresql://user@host:5432/database?schema=…, with what is "
        "neither letter nor digit as %XX"
    )


class PostgreSQLSink(BlockingSink):
    """A database, by one connection. ``server`` are libpq's parameters."""

    def __init__(self, server: Mapping[str, str], schema: str | None = None) -> None:
        super().__init__(_name(server, schema))
        defaults = {key: value for key, value in _LIBPQ.items() if f"PG{key.upper()}" not in os.environ}
        self._server = {**defaults, **server, "client_encoding": "utf8"}
        self._asked = schema
        self._schema = ""
        self._connection: _Connection | None = None
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
            server = psycopg.conninfo.make_conninfo(**self._server)
            self._connection = _Connection.connect(server, autocommit=True, prepare_threshold=None)
            set_json_dumps(str.encode, self._connection)  # it is text already
            with self._transaction() as cursor:
                self._schema = self._asked or self._first_schema(cursor)
                self._prepare(cursor)
                cursor.execute("SELECT extract(epoch FROM current_setting('statement_timeout')::interval)")
                self._connection.patience = float(_one(cursor)[0]) + _GRACE
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

    def _commit(self, commit: Commit) -> None:
        with self._errors(), self._transaction() as cursor:
            self._state(cursor, commit)
            self._define(cursor, commit)
            for rows in commit.steps:
                self._take_back(cursor, rows) if rows.undo else self._add(
                    cursor, self._place(rows.table.name), rows
                )
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
                cursor.execute(_BEGIN)
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
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(self._schema)}")
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
                raise SinkFailed(_lacks(table, missing))
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
        if commit.gaps:
            cursor.executemany(
                f"INSERT INTO {self._ours(_GAPS)} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (id) DO UPDATE SET closed = excluded.closed, how = excluded.how, "
                'reason = excluded.reason, detail = excluded.detail, start = excluded.start, "end" = excluded."end", '
                "low = excluded.low, high = excluded.high, cause = excluded.cause, cubes = excluded.cubes",
                [
                    (
                        *(
                            gap.id,
                            commit.subscription,
                            gap.cause,
                            ",".join(gap.cubes),
                            gap.start,
                            gap.end,
                            gap.low,
                        ),
                        *(gap.high, gap.closed, gap.how, gap.reason, gap.detail),
                    )
                    for gap in commit.gaps
                ],
            )

    def _place(self, table: str) -> str:
        return f"{_quoted(self._schema)}.{_quoted(table)}"

    def _ours(self, table: str) -> str:
        """For a statement with parameters, where a per cent sign begins one."""
        return self._place(table).replace("%", "%%")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What psycopg's errors mean for a collector."""
        try:
            yield
        except psycopg.Error as error:
            raise _meaning(self.name, error) from error
        except (ValueError, OverflowError) as error:
            raise SinkFailed(f"{self.name}: a value does not fit its column: {error}") from error


class _Connection(psycopg.Connection[Any]):
    """Waits for each answer for at most ``patience`` seconds; a commit that goes on is not cut off."""

    patience = 60.0 + _GRACE

    def wait(self, gen: PQGen[Any], *how: Any, **more: Any) -> Any:
        return super().wait(self._bounded(gen), *how, **more)

    def _bounded(self, gen: PQGen[Any]) -> Generator[Any, Any, Any]:
        until = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {self.patience:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value


_PASSING = ("08", "40", "53", "57", "58", "25P03", "55P03", "55006")
_ADVICE = {
    "53100": "the disk is full: make room; nothing is lost",
    "57014": "options=-cstatement_timeout%3D10min in the address gives it longer",
    "42501": "the role may not do that: GRANT it CREATE on the schema, or make the tables and GRANT it SELECT, INSERT, "
    "UPDATE and DELETE on them",
    "25006": "the server is read-only: with several hosts in the address, target_session_attrs=read-write finds the "
    "one that is not",
    "28": "set the user in the address, and the password by PGPASSWORD or ~/.pgpass",
    "3D": "CREATE DATABASE makes it",
}
# A connection that is refused has no SQLSTATE, only text, which the server may have in another language. What is not
# known is tried again, and said.
_REFUSED = {
    "28": r"authentication failed|no pg_hba\.conf entry|no password supplied|role .* (does not exist|not permitted)",
    "3D": r"database .* does not exist",
    "42501": r"permission denied for database",
    "22": r"invalid .*(number|value)|does not support SSL|certificate",
}


def _meaning(name: str, error: psycopg.Error) -> SinkFailed:
    said = error.diag.message_primary or str(error)
    where = error.diag.context or ""
    code = error.sqlstate or ""
    if not code:
        code = next((code for code, text in _REFUSED.items() if re.search(text, said)), "")
    advice = next((f": {advice}" for start, advice in _ADVICE.items() if code.startswith(start)), "")
    # Two that make a table at the same time: the name is taken in the catalogue, after it was not.
    raced = code == "42P07" or (code == "23505" and error.diag.schema_name == "pg_catalog")
    lost = not code and isinstance(error, psycopg.OperationalError)
    kind = SinkUnavailable if lost or raced or code.startswith(_PASSING) else SinkFailed
    return kind(f"{name}: {' '.join(f'{said} {where}'.split())}{advice}")


def _name(server: Mapping[str, str], schema: str | None) -> str:
    """Of what libpq gets from the environment too, but for passwords: two places must not have the same name."""
    known = {
        option.keyword.decode(): option.val.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.val
    }
    known |= server
    host = known.get("host") or known.get("hostaddr") or known.get("service", "")
    user, port, database = (known.get(key, "") for key in ("user", "port", "dbname"))
    at = f"{quote(user)}@" if user else ""
    return (
        f"postgresql://{at}{quote(host, safe=',:')}{port and ':'}{port}/{quote(database)}"
        f"{f'?schema={quote(schema)}' if schema else ''}"
    )


def _one(cursor: psycopg.Cursor[Any]) -> Sequence[Any]:
    row: Sequence[Any] | None = cursor.fetchone()
    assert row is not None
    return row


def _definition(column: Column) -> str:
    digits = f"({column.digits[0]}, {column.digits[1]})" if column.kind == "decimal" and column.digits else ""
    return f"{_quoted(column.name)} {_TYPES[column.kind]}{digits}"


def _names(table: Table) -> str:
    return ", ".join(map(_quoted, table.names))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _fits(name: str) -> None:
    if len(name.encode()) > _LONGEST:
        raise SinkFailed(
            f"{name!r} is longer than the {_LONGEST} bytes that PostgreSQL has for a name: alias the field, or a field "
            "on the way to it, in the document (short: LongFieldName); --table names a table"
        )


def _lacks(table: Table, missing: Sequence[Column]) -> str:
    names = ", ".join(column.name for column in missing)
    return (
        f"the table {table.name} is there without {names} (capitals count): --evolve adds what is missing, "
        "--table names another"
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
