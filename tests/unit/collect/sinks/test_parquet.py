from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from bqstream import SinkFailed, SinkUnavailable, UsageError
from bqstream.collect.sink import open_sink
from bqstream.collect.sinks.folders import LocalFolder
from bqstream.tables.table import Column, Rows, Table

from .committing import SUBSCRIPTION, TABLE, TIME, commit, die, gap, rows
from .contract import SinkContract

# What is left of rows and of those that were taken back, as the sink's page has it.
LEFT = """SELECT * EXCLUDE (date, _undone) FROM t WHERE NOT _undone
    EXCEPT ALL SELECT * EXCLUDE (date, _undone) FROM t WHERE _undone"""
NEWEST = "SELECT * FROM t QUALIFY row_number() OVER (PARTITION BY subscription, id ORDER BY number DESC) = 1"


def path_of(target: str) -> Path:
    return Path(target.removeprefix("parquet:").partition("?")[0])


def query(files: str, text: str) -> list[dict[str, Any]]:
    """What DuckDB reads from files as ``t``."""
    t = f"read_parquet('{files}', hive_partitioning = true, union_by_name = true)"
    with contextlib.closing(duckdb.connect()) as database:
        if not database.sql(f"FROM glob('{files}')").fetchall():
            return []
        found: list[dict[str, Any]] = (
            database.sql(f"WITH t AS (FROM {t}) {text}").to_arrow_table().to_pylist()
        )
        return found


def files_of(folder: Path, pattern: str = "Transfers/**/*") -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


class TestParquet(SinkContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"parquet:{tmp_path / 'rows'}"

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        return query(f"{path_of(target)}/{table}/**/*.parquet", LEFT)

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in query(f"{path_of(target)}/_bqstream_gaps/*.parquet", NEWEST)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def seen(folder: Path) -> dict[str, list[int]]:
    """The block numbers that each kind of reader finds there, sorted."""
    glob = f"{folder}/Transfers/**/*.parquet"
    found = {"duckdb": [row["Block_Number"] for row in query(glob, "SELECT Block_Number FROM t")]}
    if (folder / "Transfers").exists():
        table = ds.dataset(folder / "Transfers", partitioning="hive").to_table()
        found["pyarrow"] = table["Block_Number"].to_pylist()
        # Readers that the tests do not bring, where they are installed.
        if importlib.util.find_spec("pandas"):
            frame = importlib.import_module("pandas").read_parquet(folder / "Transfers")
            found["pandas"] = frame["Block_Number"].to_list()
        if importlib.util.find_spec("polars"):
            frame = importlib.import_module("polars").read_parquet(
                folder / "Transfers", hive_partitioning=True
            )
            found["polars"] = frame["Block_Number"].to_list()
    return {reader: sorted(numbers) for reader, numbers in found.items()}


@pytest.mark.asyncio
async def test_readers_see_a_commit_when_it_is_one_and_never_what_is_staged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: dict[str, dict[str, list[int]]] = {}
    globbed: list[str] = []

    def look(name: str) -> None:
        at[name] = seen(folder)
        # Not even those who look into all folders, hidden ones too, come upon it.
        globbed.extend(
            row["file"] for row in query(f"{folder}/**/*.parquet", f"FROM glob('{folder}/**/*.parquet')")
        )

    monkeypatch.setattr("bqstream.collect.sinks.parquet.failpoint", look)
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(3)))
    await sink.commit(commit(2, rows(3, 3), gaps=[gap("a")]))
    for point in ("written", "staged", "committed"):
        assert at[point] == {reader: [0, 1, 2] for reader in at[point]}
    after = seen(folder)
    assert {"duckdb", "pyarrow"} <= after.keys()
    assert after == {reader: list(range(6)) for reader in after}
    assert globbed
    assert not [file for file in globbed if "staged" in file]
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_reader_that_looks_all_the_time_finds_whole_files_and_every_row_once(folder: Path) -> None:
    done = threading.Event()
    counts: list[int] = []

    def read() -> None:
        while not done.is_set():
            found = [
                row["Block_Number"]
                for row in query(f"{folder}/Transfers/**/*.parquet", "SELECT Block_Number FROM t")
            ]
            assert len(found) == len(set(found))
            counts.append(len(found))

    reading = asyncio.get_running_loop().run_in_executor(None, read)
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    for number in range(1, 41):
        await sink.commit(commit(number, rows(50, number * 50)))
    await sink.aclose()
    done.set()
    await reading
    assert all(count % 50 == 0 for count in counts)
    assert counts == sorted(counts)


@pytest.mark.asyncio
async def test_a_commit_that_was_moved_in_part_is_finished_by_the_next_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [TIME + timedelta(days=day) for day in range(4)]
    made = rows(4)
    made.columns[1][:] = days
    move = LocalFolder.move

    def stops(self: LocalFolder, files: list[tuple[str, str]]) -> None:
        move(self, files[:2])
        if len(files) > 2:
            raise OSError(errno.EIO, "the cable is out")

    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "move", stops)
        with pytest.raises(SinkUnavailable):
            await sink.commit(commit(1, made))
    assert len(seen(folder)["duckdb"]) == 2
    stored = await sink.open(SUBSCRIPTION)
    assert stored is not None
    assert stored.number == 1
    assert seen(folder)["duckdb"] == [0, 1, 2, 3]
    await sink.commit(commit(2, rows(1, 4)))
    assert seen(folder)["duckdb"] == [0, 1, 2, 3, 4]
    assert not files_of(folder, "_bqstream/*.staged/*")
    await sink.aclose()


@pytest.mark.asyncio
async def test_what_a_killed_process_staged_is_gone_after_the_next_commit(folder: Path) -> None:
    await die(f"parquet:{folder}", 1, 9, "staged:2")
    assert files_of(folder, "_bqstream/*.staged/*")
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(2, rows(1)))
    assert not files_of(folder, "_bqstream/*.staged/*")
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_full_disk_is_told_and_nothing_of_the_commit_stays_on_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(1)))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SinkUnavailable, match="the disk is full"):
            await sink.commit(commit(2, rows(1, 1)))
    assert not files_of(folder, "_bqstream/*.staged/*")
    await sink.commit(commit(2, rows(1, 1)))
    assert seen(folder)["duckdb"] == [0, 1]
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_made_is_no_reason_to_wait(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = open_sink(f"parquet:{tmp_path}/file/rows")
    with pytest.raises(SinkFailed, match=r"Not a directory: .*file/rows") as caught:
        await sink.open(SUBSCRIPTION)
    assert not isinstance(caught.value, SinkUnavailable)
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_manifest_that_cannot_be_read_is_told_and_left_alone(folder: Path) -> None:
    (folder / "_bqstream").mkdir(parents=True)
    manifest = folder / "_bqstream" / f"{SUBSCRIPTION}.json"
    manifest.write_text('{"number":')
    sink = open_sink(f"parquet:{folder}")
    with pytest.raises(SinkFailed, match="no manifest"):
        await sink.open(SUBSCRIPTION)
    assert manifest.read_text() == '{"number":'
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_manifest_that_was_deleted_is_a_new_beginning_which_spares_the_files_that_are_there(
    folder: Path,
) -> None:
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(2)))
    (folder / "_bqstream" / f"{SUBSCRIPTION}.json").unlink()
    assert await sink.open(SUBSCRIPTION) is None
    await sink.commit(commit(1, rows(2, 2)))
    assert seen(folder)["duckdb"] == [0, 1, 2, 3]
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_day_that_its_user_deletes_is_not_missed(folder: Path) -> None:
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(2)))
    shutil.rmtree(folder / "Transfers")
    await sink.commit(commit(2, rows(2, 2)))
    await sink.aclose()
    sink = open_sink(f"parquet:{folder}")
    assert await sink.open(SUBSCRIPTION)
    assert seen(folder)["duckdb"] == [2, 3]
    await sink.aclose()


@pytest.mark.asyncio
async def test_one_that_commits_the_same_is_waited_for_and_then_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bqstream.collect.sinks.folders._BUSY", 0.01)
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    with (
        FileLock(folder / "_bqstream" / f"{SUBSCRIPTION}.lock"),
        pytest.raises(SinkUnavailable, match="lock"),
    ):
        await sink.commit(commit(1, rows(1)))
    await sink.commit(commit(1, rows(1)))
    assert seen(folder)["duckdb"] == [0]
    await sink.aclose()


@pytest.mark.asyncio
async def test_rows_lie_by_the_day_of_their_block_and_one_without_a_time_by_that_of_the_commit(
    folder: Path,
) -> None:
    made = rows(4)
    made.columns[1][:] = [
        datetime(2026, 1, 2, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 1, 3, tzinfo=UTC),
        None,
        datetime(1969, 12, 31, 23, tzinfo=UTC),
    ]
    days = {datetime.now(UTC).date()}
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, made))
    days.add(datetime.now(UTC).date())  # midnight may have passed
    found = query(f"{folder}/Transfers/**/*.parquet", "SELECT Block_Number, date FROM t ORDER BY 1")
    assert [row["date"].isoformat() for row in found if row["Block_Number"] != 2] == [
        *("2026-01-02", "2026-01-03", "1969-12-31")
    ]
    assert found[2]["date"] in days
    assert sorted(path.name for path in (folder / "Transfers").iterdir()) == sorted(
        f"date={row['date'].isoformat()}" for row in found
    )
    await sink.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("names", "day"),
    [(("Transaction_Time", "Block_Time"), "2026-01-05"), (("Transaction_Time",), "2026-01-04")],
)
async def test_the_time_of_the_block_counts_before_another_that_stands_first(
    folder: Path, names: tuple[str, ...], day: str
) -> None:
    values = {
        "Transaction_Time": datetime(2026, 1, 4, tzinfo=UTC),
        "Block_Time": datetime(2026, 1, 5, tzinfo=UTC),
    }
    table = Table("T", "T", tuple(Column(name, (name,), "timestamp") for name in names))
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, Rows(table, 1, [[values[name]] for name in names]), table=table))
    assert [path.name for path in (folder / "T").iterdir()] == [f"date={day}"]
    await sink.aclose()


@pytest.mark.asyncio
async def test_every_file_of_a_table_has_the_same_columns_whether_or_not_rows_have_them(folder: Path) -> None:
    narrow = replace(TABLE, columns=TABLE.columns[:3])
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(2)))
    await sink.commit(commit(2, rows(2, 2, table=narrow), table=narrow))
    await sink.commit(commit(3, rows(1, undo=True)))
    schemas = [pq.read_schema(path) for path in files_of(folder)]
    assert len(schemas) == 3
    assert schemas[0] == schemas[1] == schemas[2]
    assert schemas[0] == pa.schema(
        [
            ("Block_Number", pa.int64()),
            ("Block_Time", pa.timestamp("us", tz="UTC")),
            ("Transfer_Amount", pa.string()),
            ("Transfer_AmountInUSD", pa.float64()),
            ("Transfer_Success", pa.bool_()),
            ("Transfer_Exact", pa.decimal128(38, 18)),
            ("Arguments", pa.string()),
            ("_undone", pa.bool_()),
        ]
    )
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_decimal_is_as_wide_as_it_was_said_and_text_where_nothing_was(folder: Path) -> None:
    table = Table(
        "T",
        "T",
        (
            Column("Wide", ("Wide",), "decimal", (60, 20)),
            Column("Wider", ("Wider",), "decimal", (90, 20)),
            Column("Any", ("Any",), "decimal"),
        ),
    )
    value = Decimal("1234567890123456789012345678901234567890.00000000000000000001")
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, Rows(table, 2, [[value, None]] * 3), table=table))
    found = pq.read_table(files_of(folder, "T/**/*")[0]).to_pylist()
    assert found[0] == {"Wide": value, "Wider": str(value), "Any": str(value), "_undone": False}
    assert found[1] == {"Wide": None, "Wider": None, "Any": None, "_undone": False}
    await sink.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("column", "said"),
    [
        (Column("Block_Number", ("Block", "Number"), "text"), "is there as int64 and would be string"),
        (Column("Date", ("Date",), "text"), "give it an alias"),
    ],
)
async def test_a_column_that_no_reader_could_read_with_the_others_is_refused(
    folder: Path, column: Column, said: str
) -> None:
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(2)))
    table = replace(TABLE, columns=(column,))
    with pytest.raises(SinkFailed, match=said):
        await sink.commit(commit(2, Rows(table, 0, [[]]), table=table, evolve=True))
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_value_that_does_not_fit_names_its_column(folder: Path) -> None:
    made = rows(2)
    made.columns[0][1] = 2**63
    sink = open_sink(f"parquet:{folder}")
    await sink.open(SUBSCRIPTION)
    with pytest.raises(SinkFailed, match=r"Transfers\.Block_Number does not fit int64"):
        await sink.commit(commit(1, made))
    assert not files_of(folder, "**/*.staged/*")
    await sink.aclose()


@pytest.mark.asyncio
async def test_subscriptions_share_a_folder_whatever_they_are_called(folder: Path) -> None:
    names = ("a", "a.json", "a/b", "..", "_x", "ä b")
    table = replace(TABLE, name="../_Transfers")
    for index, name in enumerate(names):
        sink = open_sink(f"parquet:{folder}")
        assert await sink.open(name) is None
        made = commit(1, rows(1, index, table=table), gaps=[gap("a")], table=table)
        await sink.commit(replace(made, subscription=name))
        await sink.aclose()
    assert {path.name for path in folder.parent.iterdir()} == {"rows"}
    # A path that begins with a dot or an underscore would be hidden from pyarrow, pandas and Spark.
    found = ds.dataset(folder, partitioning="hive", format="parquet").to_table()
    assert sorted(found["Block_Number"].to_pylist()) == list(range(len(names)))
    gaps = query(f"{folder}/_bqstream_gaps/*.parquet", NEWEST)
    assert {row["subscription"] for row in gaps} == set(names)
    for name in names:
        sink = open_sink(f"parquet:{folder}")
        stored = await sink.open(name)
        assert stored is not None
        await sink.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("option", "codec"), [("", "ZSTD"), ("?compress=snappy", "SNAPPY"), ("?compress=none", "UNCOMPRESSED")]
)
async def test_files_are_compressed_as_asked(folder: Path, option: str, codec: str) -> None:
    sink = open_sink(f"parquet:{folder}{option}")
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(2)))
    assert pq.read_metadata(files_of(folder)[0]).row_group(0).column(0).compression == codec
    await sink.aclose()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("parquet:", "needs a folder"),
        ("parquet:s3://", "needs a folder"),
        ("parquet:rows?compress=zip", "one of zstd, snappy, none"),
        ("parquet:rows?region=us-east-1", "no option 'region'"),
        ("parquet:s3://b/p?access_key=a", "no option 'access_key'"),
        ("parquet:s3://b/p?scheme=ftp", "http or https"),
    ],
)
def test_an_address_that_is_wrong_says_what_is_right(target: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_sink(target)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="AWS_SECRET_ACCESS_KEY") as caught:
        open_sink("parquet:s3://AKIAEXAMPLE:verysecretkey@bucket/rows")
    assert "verysecret" not in str(caught.value)
