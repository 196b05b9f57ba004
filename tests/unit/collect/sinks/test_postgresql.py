from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from bqstream import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from bqstream.collect.sink import open_sink
from bqstream.collect.sinks import postgresql
from bqstream.collect.sinks.postgresql import PostgreSQLSink
from bqstream.tables.table import Column, Rows, Table
from tests.postgresql_server import ASKED, PostgreSQLServer

from .committing import SUBSCRIPTION, TABLE, commit, gap, odd_rows, rows
from .contract import SinkContract

SECRET = "hunter2-Kj9x@Qw/z"
COLUMNS = ", ".join(f'"{name}"' for name in TABLE.names)


class TestPostgreSQL(SinkContract):
    counts = True

    @pytest.fixture(autouse=True)
    def place(self, postgresql_server: PostgreSQLServer, database: str) -> None:
        self.server, self.database = postgresql_server, database

    @pytest.fixture
    def target(self) -> str:
        return self.server.address(self.database)

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        if not self.server.query(self.database, f"SELECT 1 FROM pg_tables WHERE tablename = '{table}'"):
            return []
        return self.server.query(self.database, f'SELECT * FROM "{table}"')

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.server.query(self.database, "SELECT * FROM _bqstream_gaps")}

    def expected(self, *steps: Rows) -> list[dict[str, Any]]:
        found = super().expected(*steps)
        for row in found:
            row["Arguments"] = row["Arguments"] and json.loads(row["Arguments"])
        return found


class Place:
    """A database, and a sink that is opened and closed with the test."""

    def __init__(self, server: PostgreSQLServer, database: str) -> None:
        self.server, self.database = server, database
        self.address = server.address(database)

    def query(self, text: str) -> list[dict[str, Any]]:
        return self.server.query(self.database, text)

    def numbers(self, table: str = '"Transfers"') -> list[int]:
        return [row["n"] for row in self.query(f'SELECT "Block_Number" AS n FROM {table} ORDER BY 1')]

    def role(self, more: str = "") -> str:
        name = f"role_{self.database}"
        self.query(f"CREATE ROLE {name} LOGIN {more}")
        return name

    async def until(self, condition: str) -> None:
        """A condition on pg_stat_activity holds for the sink's connection."""
        asked = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{self.database}' AND {condition}"
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(self.query, asked):
                pass  # asked again


@pytest.fixture
def place(postgresql_server: PostgreSQLServer, database: str) -> Place:
    return Place(postgresql_server, database)


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[PostgreSQLSink]:
    sink = open_sink(address)
    assert isinstance(sink, PostgreSQLSink)
    try:
        await sink.open(SUBSCRIPTION)
        yield sink
    finally:
        await sink.aclose()


async def stored_by(sink: PostgreSQLSink) -> int:
    stored = await sink.open(SUBSCRIPTION)
    return stored.number if stored else 0


def at(point: str, do: Callable[[], None]) -> Callable[[str], None]:
    """A failpoint that does something else than to kill."""

    def failpoint(name: str) -> None:
        if name == point:
            do()

    return failpoint


@pytest.mark.asyncio
async def test_a_server_that_stops_and_starts_again_is_gone_on_with(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(2)))
        place.server.stop()
        try:
            with pytest.raises(SinkUnavailable):
                await sink.commit(commit(2, rows(2, 2)))
            with pytest.raises(SinkUnavailable):
                await sink.open(SUBSCRIPTION)
        finally:
            place.server.start()
        assert await stored_by(sink) == 1
        await sink.commit(commit(2, rows(2, 2)))
    assert place.numbers() == [0, 1, 2, 3]


@pytest.mark.asyncio
@pytest.mark.parametrize("point", ["written", "staged"])
async def test_a_server_that_stops_during_a_commit_has_none_of_it(
    place: Place, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(2)))
        with monkeypatch.context() as patched:
            patched.setattr(postgresql, "failpoint", at(point, place.server.stop))
            try:
                with pytest.raises(SinkUnavailable):
                    await sink.commit(commit(2, rows(2, 2), gaps=[gap("a")]))
            finally:
                place.server.start()
        assert await stored_by(sink) == 1
        await sink.commit(commit(2, rows(2, 2), gaps=[gap("a")]))
    assert place.numbers() == [0, 1, 2, 3]


async def undecided(place: Place, sink: PostgreSQLSink, number: int) -> asyncio.Task[None]:
    """A commit that the server has written, and does not say so."""
    assert sink._connection is not None
    sink._connection.execute("SET synchronous_commit = on")
    committing = asyncio.create_task(sink.commit(commit(number, rows(1, number))))
    await place.until("wait_event = 'SyncRep'")
    return committing


@pytest.mark.asyncio
async def test_a_commit_whose_answer_is_lost_is_found_to_be_there(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(1, 1)))
        committing = await undecided(place, sink, 2)
        place.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        with pytest.raises(SinkUnavailable):
            await committing
        assert await stored_by(sink) == 2
        await sink.commit(commit(3, rows(1, 3)))
    assert place.numbers() == [1, 2, 3]


@pytest.mark.asyncio
@pytest.mark.parametrize("before", [0, 1])
async def test_a_commit_that_is_not_decided_yet_is_waited_for(place: Place, before: int) -> None:
    async with opened(place.address) as lost, opened(place.address) as sink:
        for number in range(1, before + 1):
            await lost.commit(commit(number, rows(1, number)))
        committing = await undecided(place, lost, before + 1)
        opening = asyncio.create_task(stored_by(sink))
        await place.until("wait_event_type = 'Lock'")
        place.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        await committing
        assert await opening == before + 1


@pytest.mark.asyncio
async def test_a_lock_is_waited_for_so_long_and_no_longer(place: Place) -> None:
    async with opened(place.address) as holder, opened(place.address) as one:
        committing = await undecided(place, holder, 1)
        async with opened_with(place, "lock_timeout=50ms") as other:
            with pytest.raises(SinkUnavailable, match="lock"):
                await other.open(SUBSCRIPTION)
        place.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        await committing
        with pytest.raises(SinkLocked):
            await one.commit(commit(1, rows(1, 9)))
    assert place.numbers() == [1]


@contextlib.asynccontextmanager
async def opened_with(place: Place, setting: str) -> AsyncIterator[PostgreSQLSink]:
    """A sink that is not opened yet, whose user has set something."""
    address = place.server.address(place.database, options=quote(f"-c{setting}"))
    sink = open_sink(address)
    assert isinstance(sink, PostgreSQLSink)
    yield sink
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_server_that_stands_still_is_noticed(place: Place) -> None:
    async with opened(place.address) as sink:
        assert sink._connection is not None
        sink._connection.patience = 0.2
        process = sink._connection.info.backend_pid
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(SinkUnavailable, match="no answer"):
                await sink.commit(commit(1, rows(1)))
        finally:
            os.kill(process, signal.SIGCONT)
        assert await stored_by(sink) == 0


@pytest.mark.asyncio
async def test_nothing_that_bounds_a_commit_outlives_it_and_what_the_user_has_set_stays(place: Place) -> None:
    async with opened_with(place, "lock_timeout=7s") as sink:
        await sink.open(SUBSCRIPTION)
        assert sink._connection is not None
        shown = [
            sink._connection.execute(f"SHOW {name}_timeout").fetchone() for name in ("lock", "statement")
        ]
        assert shown == [("7s",), ("0",)]
        assert sink._connection.patience == 75
        with sink._transaction() as cursor:
            shown = [cursor.execute(f"SHOW {name}_timeout").fetchone() for name in ("lock", "statement")]
        assert shown == [("7s",), ("1min",)]


@pytest.mark.asyncio
async def test_of_two_that_commit_the_first_at_the_same_time_one_goes_on(place: Place) -> None:
    async with opened(place.address) as one, opened(place.address) as other:
        results = await asyncio.gather(
            one.commit(commit(1, rows(2000))), other.commit(commit(1, rows(2000))), return_exceptions=True
        )
        assert [type(result) for result in results if result] == [SinkLocked]
    assert len(place.numbers()) == 2000


@pytest.mark.asyncio
async def test_many_that_open_at_the_same_time_make_the_tables_once(place: Place) -> None:
    sinks = [open_sink(f"{place.address}&schema=new") for _ in range(4)]

    async def open_one(number: int) -> None:
        for _ in range(9):
            with contextlib.suppress(SinkUnavailable):
                await sinks[number].open(f"subscription {number}")
                return
        pytest.fail("not opened")

    await asyncio.gather(*map(open_one, range(len(sinks))))
    for sink in sinks:
        await sink.aclose()
    assert len(place.query("SELECT * FROM new._bqstream_state")) == 4


@pytest.mark.asyncio
async def test_a_schema_is_made_and_holds_all_tables(place: Place) -> None:
    address = f"{place.address}&schema=50%25%20%22off%22"
    async with opened(address) as sink:
        await sink.commit(commit(1, rows(2), gaps=[gap("a")]))
        await sink.commit(commit(2, rows(1, undo=True)))
    found = place.query("SELECT tablename FROM pg_tables WHERE schemaname = '50% \"off\"' ORDER BY 1")
    assert [row["tablename"] for row in found] == ["Transfers", "_bqstream_gaps", "_bqstream_state"]
    assert place.numbers('"50% ""off"""."Transfers"') == [1]


@pytest.mark.asyncio
async def test_a_role_that_may_not_create_is_told_what_it_needs(place: Place) -> None:
    role = place.role()
    with pytest.raises(SinkFailed, match="GRANT") as caught:
        async with opened(place.server.address(place.database, role)):
            pass
    assert not isinstance(caught.value, SinkUnavailable)


@pytest.mark.asyncio
async def test_a_role_that_may_not_create_writes_to_tables_that_others_made(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(1)))
    role = place.role()
    place.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    async with opened(place.server.address(place.database, role)) as sink:
        await sink.commit(commit(2, rows(3, 1), rows(1, undo=True), gaps=[gap("a")]))
    assert place.numbers() == [1, 2, 3]


@pytest.mark.asyncio
async def test_a_database_that_is_read_only_is_refused(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(1)))
    place.query(f"ALTER DATABASE {place.database} SET default_transaction_read_only = on")
    with pytest.raises(SinkFailed, match="read-only") as caught:
        async with opened(place.address):
            pass
    assert not isinstance(caught.value, SinkUnavailable)


@pytest.mark.asyncio
async def test_a_database_or_role_that_is_not_there_is_refused(place: Place) -> None:
    for address, said in [
        (place.server.address("nowhere"), "CREATE DATABASE"),
        (place.server.address(place.database, "nobody_there"), "PGPASSWORD"),
    ]:
        with pytest.raises(SinkFailed, match=said) as caught:
            async with opened(address):
                pass
        assert not isinstance(caught.value, SinkUnavailable)


@pytest.mark.asyncio
async def test_an_address_that_libpq_refuses_is_not_tried_again(database: str) -> None:
    sink = open_sink("postgresql:///?sslmode=maybe")
    with pytest.raises(SinkFailed, match="invalid") as caught:
        await sink.open(SUBSCRIPTION)
    assert not isinstance(caught.value, SinkUnavailable)
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_may_come(database: str) -> None:
    sink = open_sink(f"postgresql://127.0.0.1:1/{database}")
    with pytest.raises(SinkUnavailable, match="refused"):
        await sink.open(SUBSCRIPTION)
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_table_of_the_users_own_is_written_to_by_name_in_its_own_types(place: Place) -> None:
    place.query(
        'CREATE TABLE "Transfers" (id serial PRIMARY KEY, "Arguments" json, "Transfer_Amount" numeric, '
        '"Block_Number" integer, "Block_Time" timestamp, "Transfer_Success" text, "Transfer_Exact" numeric(40, 20), '
        '"Transfer_AmountInUSD" numeric(20, 2))'
    )
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(3), rows(2)))
        await sink.commit(commit(2, rows(2, 1, undo=True)))
    found = place.query('SELECT * FROM "Transfers" ORDER BY id')
    assert [row["Block_Number"] for row in found] in ([0, 0, 1], [0, 1, 0])
    one = next(row for row in found if row["Block_Number"] == 1)
    assert one["Transfer_Amount"] == Decimal("1000000000000000000.5")
    assert one["Transfer_Exact"] == Decimal("0.25")
    assert one["Arguments"] == [{"Index": 1}]


@pytest.mark.asyncio
async def test_rows_are_taken_back_from_a_table_in_parts(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1))
    place.query('ALTER TABLE "Transfers" RENAME TO plain')
    place.query('CREATE TABLE "Transfers" (LIKE plain) PARTITION BY RANGE ("Block_Number")')
    for part, (low, high) in enumerate([(0, 10), (10, 20)]):
        place.query(f'CREATE TABLE part{part} PARTITION OF "Transfers" FOR VALUES FROM ({low}) TO ({high})')
    async with opened(place.address) as sink:
        await sink.commit(commit(2, rows(20)))
        await sink.commit(commit(3, rows(5, undo=True)))
    assert place.numbers() == list(range(5, 20))


@pytest.mark.asyncio
async def test_rows_are_taken_back_wherever_in_the_table_they_stand(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_LATE", 1)
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(5000)))
        for number, taken in enumerate([[4999], [0], [2500, 1, 4998], [0]], 2):  # the last is not there
            await sink.commit(commit(number, *(rows(1, start, undo=True) for start in taken)))
        await sink.commit(commit(6, replace(odd_rows(), undo=True), rows(2, 2, undo=True)))
    assert place.numbers() == [number for number in range(4, 4998) if number != 2500]


@pytest.mark.asyncio
async def test_a_statement_that_takes_too_long_may_be_given_longer(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1, rows(1)))
        place.query(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(99); RETURN NEW; END'; "
            'CREATE TRIGGER slow BEFORE INSERT ON "Transfers" FOR EACH ROW EXECUTE FUNCTION slow()'
        )
        assert sink._connection is not None
        sink._connection.execute("SET statement_timeout = '100ms'")
        with pytest.raises(SinkUnavailable, match="statement_timeout"):
            await sink.commit(commit(2, rows(1)))


@pytest.mark.asyncio
async def test_a_value_that_the_users_table_refuses_is_named_by_its_column(place: Place) -> None:
    async with opened(place.address) as sink:
        await sink.commit(commit(1))
        place.query('ALTER TABLE "Transfers" ALTER "Transfer_Amount" TYPE integer USING 0')
        await sink.open(SUBSCRIPTION)
        with pytest.raises(SinkFailed, match="Transfer_Amount"):
            await sink.commit(commit(2, rows(1)))
        place.query('ALTER TABLE "Transfers" DROP "Transfer_Amount", ADD "Transfer_Amount" text')
        place.query('ALTER TABLE "Transfers" ADD CHECK ("Block_Number" < 9)')
        await sink.open(SUBSCRIPTION)
        with pytest.raises(SinkFailed, match="Block_Number"):
            await sink.commit(commit(2, rows(1, 10)))
        assert await stored_by(sink) == 1


@pytest.mark.asyncio
async def test_a_name_that_postgresql_would_cut_off_is_refused_before_anything_is_made(place: Place) -> None:
    long = "é" * 32
    for table in (
        replace(TABLE, columns=(*TABLE.columns, Column(long, (long,), "text"))),
        Table(long, "Transfers", TABLE.columns),
    ):
        async with opened(place.address) as sink:
            with pytest.raises(SinkFailed, match="alias"):
                await sink.commit(commit(1, rows(1, table=table), table=table))
    found = place.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in found} == {"_bqstream_gaps", "_bqstream_state"}


@pytest.mark.asyncio
async def test_decimals_are_exact_with_digits_and_without(place: Place) -> None:
    table = Table(
        "T", "T", (Column("wide", ("wide",), "decimal"), Column("fixed", ("fixed",), "decimal", (5, 2)))
    )
    wide = [Decimal(2**256 - 1), Decimal("1E-30"), Decimal("-1E+40"), None]
    fixed = [Decimal("1.5"), None, Decimal("-999.99"), Decimal(0)]
    async with opened(place.address) as sink:
        await sink.commit(commit(1, Rows(table, 4, [wide, fixed]), table=table))
        found = place.query('SELECT * FROM "T"')
        assert [row["wide"] for row in found] == wide
        assert [row["fixed"] for row in found] == fixed
        with pytest.raises(SinkFailed, match="overflow"):
            await sink.commit(commit(2, Rows(table, 1, [[None], [Decimal(1000)]]), table=table))


JSON = [
    (r'"\u0000"', True),
    (r'"\\u0000"', False),
    (r'"\\\u0000"', True),
    (r'"\ud800"', True),
    (r'"\uDC00\ud800"', True),
    (r'"\ud83d\ude00"', False),
    (r'"\ud83d\ude00\ude00"', True),
    (r'"\u0001"', False),
    ('"é\U0001f600"', False),
]
TEXT = [("a\0b", True), ("\ud800", True), ("\U0001f600", False), ("\x01\x7f", False), ("", False)]


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "cases"), [("Arguments", JSON), ("Transfer_Amount", TEXT)])
async def test_rows_that_postgresql_cannot_hold_are_told_apart(
    place: Place, name: str, cases: list[tuple[str, bool]]
) -> None:
    kind = next(column for column in TABLE.columns if column.name == name).kind
    table = Table("T", "T", (Column("n", ("n",), "integer"), Column(name, (name,), kind)))
    number = 1
    async with opened(place.address) as sink:
        for value, unfit in [*cases, (None, False)]:
            step = Rows(table, 2, [[1, 2], [None, value]])
            assert sink.refused(step) == ([1] if unfit else []), value
            if unfit:
                with pytest.raises(SinkFailed) as caught:
                    await sink.commit(commit(number, step, table=table))
                assert not isinstance(caught.value, SinkUnavailable)
                await sink.open(SUBSCRIPTION)
            else:
                await sink.commit(commit(number, step, table=table))
                number += 1
        assert sink.refused(odd_rows()) == []


@pytest.mark.asyncio
async def test_no_password_is_shown(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    role = place.role(f"IN ROLE {ASKED} PASSWORD '{SECRET}'")
    place.query(f"GRANT ALL ON SCHEMA public TO {role}")
    shown: list[object] = []
    plain = place.server.address(place.database, role)
    trusted = plain.replace(f"{role}@", f"{role}:{quote(SECRET, safe='')}@")
    monkeypatch.setenv("PGPASSWORD", SECRET)
    for address in (plain, trusted, f"{plain}&password={quote(SECRET)}"):
        async with opened(address) as sink:
            shown += [sink, sink.name, sink._connection]
        monkeypatch.delenv("PGPASSWORD", raising=False)
    wrong = f"{SECRET}!"
    for address, given in ((plain, None), (plain, wrong), (trusted.replace("hunter2", "hunter3"), None)):
        if given:
            monkeypatch.setenv("PGPASSWORD", given)
        with pytest.raises(SinkFailed, match="PGPASSWORD") as caught:
            async with opened(address):
                pass
        assert not isinstance(caught.value, SinkUnavailable)
        shown += traceback.format_exception(caught.value)
    for odd in (SECRET, "hunter2/Kj9xQw", "hunter2?Kj9xQw", "hunter2%Kj9xQw"):
        with pytest.raises(UsageError) as refused:
            open_sink(f"postgresql://{role}:{odd}@nowhere/")
        shown += traceback.format_exception(refused.value)
    shown.append(caplog.text)
    text = repr(shown)
    assert role in text
    for piece in (SECRET, quote(SECRET, safe=""), "Kj9x", "Qw"):
        assert piece not in text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql:rows", "needs a server"),
        ("postgresql://host/database?mode=ro", "no option 'mode'"),
        ("postgresql://[host/database", "cannot be read"),
        ("postgresql://host:port/database", "cannot be read"),
        ("postgresql://host/database?schema=", "schema"),
    ],
)
def test_an_address_that_is_wrong_is_refused(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_sink(address)


def test_its_name_tells_one_place_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        open_sink(address).name
        for address in (
            "postgresql://me@host/one",
            "postgres://me@host/two",
            "postgresql://me@host/two?schema=a",
            "postgresql://me@a,b:5433/two?target_session_attrs=read-write",
        )
    }
    monkeypatch.setenv("PGHOST", "elsewhere")
    names.add(open_sink("postgresql:///one").name)
    assert len(names) == 5
    assert "postgresql://me@host:5432/two?schema=a" in names
