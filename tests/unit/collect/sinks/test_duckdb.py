from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bqstream import SinkFailed, SinkUnavailable, UsageError
from bqstream.collect.sink import open_sink
from bqstream.tables.table import Column, Rows, Table

from .committing import SUBSCRIPTION, TABLE, commit, die, odd_rows, rows
from .contract import SinkContract

READ = "import duckdb, sys; print(duckdb.connect({path!r}, read_only=True).execute({text!r}).fetchall())"
HOLD = "import duckdb, sys; held = duckdb.connect({path!r}); print('held', flush=True); sys.stdin.read()"


def path_of(target: str) -> str:
    return target.removeprefix("duckdb:")


def query(target: str, text: str) -> list[dict[str, Any]]:
    with contextlib.closing(duckdb.connect(path_of(target), read_only=True)) as database:
        found: list[dict[str, Any]] = database.sql(text).to_arrow_table().to_pylist()
        return found


class TestDuckDB(SinkContract):
    counts = True

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"duckdb:{tmp_path / 'rows.duckdb'}"

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        if not query(target, f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{table}'"):
            return []
        return query(target, f'SELECT * FROM "{table}"')

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in query(target, "SELECT * FROM _bqstream_gaps")}


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"duckdb:{tmp_path / 'rows.duckdb'}"


@contextlib.asynccontextmanager
async def held(target: str) -> AsyncIterator[None]:
    """Another process has the file open."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD.format(path=path_of(target))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"held\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def elsewhere(target: str, text: str) -> str:
    """What another process reads there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", READ.format(path=path_of(target), text=text)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return said.decode().strip()


@pytest.mark.asyncio
async def test_others_read_between_two_commits(target: str) -> None:
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(5)))
    assert await elsewhere(target, 'SELECT count(*) FROM "Transfers"') == "[(5,)]"
    await sink.commit(commit(2, rows(5, 5)))
    assert len(query(target, 'FROM "Transfers"')) == 10
    await sink.aclose()


@pytest.mark.asyncio
async def test_one_that_has_it_open_for_long_is_told_and_the_commit_is_good_for_another_try(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bqstream.collect.sinks.duckdb._BUSY", 0.01)
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    async with held(target):
        with pytest.raises(SinkUnavailable, match="has it open"):
            await sink.commit(commit(1, rows(1)))
        with pytest.raises(SinkUnavailable, match="has it open"):
            await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(1)))
    assert len(query(target, 'FROM "Transfers"')) == 1
    await sink.aclose()


@pytest.mark.asyncio
async def test_one_that_has_it_open_for_a_moment_is_waited_for(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    reader = duckdb.connect(path_of(target), read_only=True)
    met = []

    def leaves(error: BaseException) -> bool:
        met.append(error)
        reader.close()
        return True

    monkeypatch.setattr("bqstream.collect.sinks.duckdb._is_taken", leaves)
    await sink.commit(commit(1, rows(1)))
    assert met
    assert len(query(target, 'FROM "Transfers"')) == 1
    await sink.aclose()


@pytest.mark.asyncio
async def test_what_a_killed_process_committed_is_read_before_a_collector_comes_again(target: str) -> None:
    await die(target, 1, 9, "committed:2")  # what it wrote is in the write-ahead log
    assert await elsewhere(target, 'SELECT count(*) FROM "Transfers"') == "[(20,)]"
    assert await elsewhere(target, "SELECT number FROM _bqstream_state") == "[(2,)]"


@pytest.mark.asyncio
async def test_rows_may_be_taken_back_by_the_commit_that_brings_them(target: str) -> None:
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    await sink.commit(
        commit(
            1, odd_rows(), rows(3), rows(3), rows(2, undo=True), replace(odd_rows(), undo=True), rows(1, 9)
        )
    )
    numbers = [row["Block_Number"] for row in query(target, 'FROM "Transfers"')]
    assert sorted(numbers) == [0, 1, 2, 2, 9]
    await sink.aclose()


@pytest.mark.asyncio
async def test_columns_are_of_the_types_that_people_query(target: str) -> None:
    table = Table(
        "T",
        "T",
        (
            *TABLE.columns,
            Column("Wide", ("Wide",), "decimal", (60, 20)),
            Column("Any", ("Any",), "decimal"),
        ),
    )
    made = rows(1, table=table)
    for values in made.columns[-2:]:
        values[:] = [Decimal("1E+40")]
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, made, table=table))
    types = {row["column_name"]: row["column_type"] for row in query(target, "DESCRIBE T")}
    assert types == {
        "Block_Number": "BIGINT",
        "Block_Time": "TIMESTAMP WITH TIME ZONE",
        "Transfer_Amount": "VARCHAR",
        "Transfer_AmountInUSD": "DOUBLE",
        "Transfer_Success": "BOOLEAN",
        "Transfer_Exact": "DECIMAL(38,18)",
        "Arguments": "JSON",
        "Wide": "VARCHAR",
        "Any": "VARCHAR",
    }
    assert query(target, "SELECT Arguments->0->>'Index' AS i, Wide, \"Any\" FROM T") == [
        {"i": "0", "Wide": "1" + "0" * 40, "Any": "1" + "0" * 40}
    ]
    await sink.aclose()


@pytest.mark.asyncio
async def test_names_are_quoted(tmp_path: Path) -> None:
    target = f'duckdb:{tmp_path}/it\'s a "file".db'
    table = Table(
        'it\'s a "table"', "T", (Column('a "b"; --', ("a",), "text"), Column("select", ("b",), "text"))
    )
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, Rows(table, 2, [["x", "y"], ["z", None]]), table=table))
    await sink.commit(commit(2, Rows(table, 1, [["y"], [None]], undo=True), table=table))
    assert query(target, 'FROM "it\'s a ""table"""') == [{'a "b"; --': "x", "select": "z"}]
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_value_that_does_not_fit_ends_it_and_leaves_nothing(target: str) -> None:
    made = rows(2)
    made.columns[5][1] = Decimal(10) ** 30
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    with pytest.raises(SinkFailed, match=r"Transfers\.Transfer_Exact does not fit decimal128\(38, 18\)"):
        await sink.commit(commit(1, rows(2), made))
    assert not query(target, "FROM duckdb_tables() WHERE table_name = 'Transfers'")
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.duckdb"
    path.write_text(
        "no database, but long enough to be looked at as one, which takes some hundred bytes" * 99
    )
    sink = open_sink(f"duckdb:{path}")
    with pytest.raises(SinkFailed, match="not a valid DuckDB database") as caught:
        await sink.open(SUBSCRIPTION)
    assert not isinstance(caught.value, SinkUnavailable)
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_database_that_another_program_made_is_used_if_its_tables_fit(target: str) -> None:
    with contextlib.closing(duckdb.connect(path_of(target))) as database:
        database.execute('CREATE TABLE "Transfers" (Block_Number HUGEINT, mine VARCHAR)')
    sink = open_sink(target)
    assert await sink.open(SUBSCRIPTION) is None
    with pytest.raises(SinkFailed, match="without Block_Time"):
        await sink.commit(commit(1, rows(1)))
    await sink.commit(commit(1, rows(1), evolve=True))
    assert query(target, 'SELECT Block_Number::INTEGER AS n, mine FROM "Transfers"') == [
        {"n": 0, "mine": None}
    ]
    await sink.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "said", "final"),
    [
        (duckdb.IOException("IO Error: Could not write: No space left on device"), "the disk is full", False),
        (duckdb.IOException("IO Error: Cannot open file: Permission denied"), "Permission denied", True),
        (duckdb.IOException("IO Error: Cannot open file: Read-only file system"), "Read-only", True),
        (duckdb.IOException("IO Error: Could not read: Input/output error"), "Input/output", False),
        (duckdb.FatalException("FATAL Error: database has been invalidated"), "invalidated", False),
        (duckdb.OutOfMemoryException("Out of Memory Error: could not allocate"), "Memory", False),
    ],
)
async def test_what_passes_is_told_from_what_does_not(
    target: str, monkeypatch: pytest.MonkeyPatch, error: duckdb.Error, said: str, final: bool
) -> None:
    def fails(*_: object) -> None:
        raise error

    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    with monkeypatch.context() as patched:
        patched.setattr("bqstream.collect.sinks.duckdb._note", fails)
        with pytest.raises(SinkFailed, match=said) as caught:
            await sink.commit(commit(1, rows(1)))
    assert isinstance(caught.value, SinkUnavailable) != final
    await sink.commit(commit(1, rows(1)))
    assert len(query(target, 'FROM "Transfers"')) == 1
    await sink.aclose()


@pytest.mark.parametrize("target", ["duckdb:", "duckdb::memory:"])
def test_it_needs_a_file(target: str) -> None:
    with pytest.raises(UsageError, match="needs a file"):
        open_sink(target)
