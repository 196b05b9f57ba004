from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard

from bqstream import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from bqstream.collect.commit import Stored
from bqstream.collect.sink import Sink, open_sink
from bqstream.collect.sinks import jsonl
from bqstream.tables.table import Column, Rows

from .committing import SUBSCRIPTION, TABLE, commit, commit_all, gap, rows
from .contract import SinkContract

FINISHED = re.compile(r"rows-\d{8}T\d{6}Z-(\d{6})\.jsonl(\.zst)?")


def path_of(target: str) -> Path:
    return Path(target.removeprefix("jsonl:").partition("?")[0])


def lines_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    if path.name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


class JSONLContract(SinkContract):
    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        """What is left of the lines of all files."""
        left: list[dict[str, Any]] = []
        for file in files_of(path_of(target)):
            for row in lines_of(file):
                left.remove(row) if row.pop("_undo", False) else left.append(row)
        return left

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        path = path_of(target)
        gaps = path.with_name(f"{path.name.removesuffix('.zst')}.gaps")
        return {record["id"]: record for record in lines_of(gaps)} if gaps.exists() else {}

    def expected(self, *steps: Rows) -> list[dict[str, Any]]:
        return [row for step in steps for row in step.nested]

    @pytest.mark.asyncio
    async def test_a_column_that_the_table_lacks_is_added_on_request_only(self, target: str) -> None:
        """There are no columns: a row has the fields that it has."""
        wider = replace(TABLE, columns=(*TABLE.columns, Column("Log_Index", ("Log", "Index"), "integer")))
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(1)))
            await sink.commit(commit(2, rows(1, 1, table=wider), table=wider))
        self.same(target, rows(1), rows(1, 1, table=wider))


class TestJSONL(JSONLContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"jsonl:{tmp_path / 'rows.jsonl'}"


class TestCompressed(JSONLContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"jsonl:{tmp_path / 'rows.jsonl.zst'}?level=1"


class TestRotated(JSONLContract):
    """Every commit finishes the file before it."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"jsonl:{tmp_path / 'rows.jsonl'}?rotate=0.1kB"


def files_of(path: Path) -> list[Path]:
    """The finished files, then the one that grows, if it is there."""
    finished = [found for found in path.parent.iterdir() if FINISHED.fullmatch(found.name)]
    return [*sorted(finished), *([path] if path.exists() else [])]


def size_of(path: Path) -> int:
    return path.stat().st_size


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def state_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.state")


def sidecar_of(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(state_of(path).read_bytes())
    return loaded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.fixture
def target(path: Path) -> str:
    return f"jsonl:{path}"


async def committed(target: str, *numbers: int) -> Sink:
    """An open sink with these commits of ten rows each."""
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    for number in numbers:
        await sink.commit(commit(number, rows(10, number * 10)))
    return sink


@pytest.mark.asyncio
async def test_each_table_has_a_file_where_there_are_several(path: Path, target: str) -> None:
    other = replace(TABLE, name="Blocks", cube="Blocks")
    sink = await committed(target)
    await sink.commit(replace(commit(1, rows(2), rows(3, table=other)), tables=(TABLE, other)))
    await sink.aclose()
    assert lines_of(path.with_name("rows.Transfers.jsonl")) == rows(2).nested
    assert lines_of(path.with_name("rows.Blocks.jsonl")) == rows(3).nested
    assert files_of(path) == []


@pytest.mark.asyncio
async def test_a_table_whose_name_is_a_path_is_refused(target: str) -> None:
    tables = (TABLE, replace(TABLE, name="../Blocks"))
    sink = await committed(target)
    with pytest.raises(SinkFailed, match="--table"):
        await sink.commit(replace(commit(1, rows(2, table=tables[1])), tables=tables))
    await sink.aclose()


@pytest.mark.asyncio
async def test_rows_that_are_taken_back_are_lines_that_duckdb_takes_away_as_documented(
    path: Path, target: str
) -> None:
    sink = await committed(f"{target}?rotate=0.1kB")
    await sink.commit(commit(1, rows(3), rows(3)))
    await sink.commit(commit(2, rows(1, undo=True), rows(1, 9)))
    await sink.aclose()
    assert lines_of(path)[0] == {"_undo": True, **rows(1).nested[0]}
    view, query = re.findall(r"^    ((?:CREATE|SELECT) .*;)$", jsonl.__doc__ or "", re.MULTILINE)
    with duckdb.connect() as database:
        database.execute(view.replace("'rows", f"'{path.parent}/rows"))
        left = database.sql(query).fetchall()
    assert sorted(row[0]["Number"] for row in left) == [0, 1, 1, 2, 2, 9]


@pytest.mark.asyncio
async def test_a_file_that_is_cut_at_a_commit_is_whole_for_zstd(path: Path, target: str) -> None:
    sink = open_sink(f"{target}?compress=zstd&level=19")
    await sink.open(SUBSCRIPTION)
    compressed = path.with_name("rows.jsonl.zst")
    await sink.commit(commit(1, rows(10)))
    length = size_of(compressed)
    await sink.commit(commit(2, rows(10, 10)))
    await sink.aclose()
    assert lines_of(compressed) == rows(20).nested
    os.truncate(compressed, length)
    assert lines_of(compressed) == rows(10).nested


@pytest.mark.asyncio
async def test_a_finished_file_is_named_by_its_first_commit_and_never_touched_again(
    path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    monkeypatch.setattr("bqstream.collect.sinks.jsonl._now", lambda: now)
    sink = await committed(f"{target}?rotate=100MB,1h", 1)
    now += timedelta(minutes=59)
    await sink.commit(commit(2, rows(10, 20)))
    now += timedelta(minutes=1)
    await sink.commit(commit(3, rows(10, 30)))
    await sink.aclose()
    finished = path.with_name("rows-20260102T030405Z-000001.jsonl")
    assert lines_of(finished) == rows(20, 10).nested
    assert lines_of(path) == rows(10, 30).nested
    now += timedelta(hours=1)
    sink = await committed(f"{target}?rotate=1h")
    await sink.commit(commit(4))  # without rows
    await sink.aclose()
    assert files_of(path) == [finished, path.with_name("rows-20260102T040405Z-000002.jsonl")]
    assert [row for file in files_of(path) for row in lines_of(file)] == rows(30, 10).nested


@pytest.mark.asyncio
async def test_a_finished_file_does_not_take_the_place_of_another(
    path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    monkeypatch.setattr("bqstream.collect.sinks.jsonl._now", lambda: now)
    other = path.with_name("rows-20260102T030405Z-000001.jsonl")
    other.write_text("another's")
    sink = await committed(f"{target}?rotate=0.1kB", 1, 2, 3)
    await sink.aclose()
    assert other.read_text() == "another's"
    assert [file.name[-12:] for file in files_of(path)] == [
        "000001.jsonl",
        "000002.jsonl",
        "000003.jsonl",
        "rows.jsonl",
    ]


class Died(BaseException):
    """The process's end, for all that the sink may do about it."""


@contextlib.contextmanager
def dying(at: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die before the so manieth time that the disk is asked for something that lasts; gives how often it was."""
    asked = [0]

    def counted(call: Any) -> Any:
        def counting(*args: Any, **more: Any) -> Any:
            asked[0] += 1
            if asked[0] == at:
                raise Died
            return call(*args, **more)

        return counting

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", counted(os.fsync))
        for name in ("open", "rename", "replace", "unlink"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        yield asked


@pytest.mark.asyncio
@pytest.mark.parametrize("options", ["", "?rotate=0.1kB", "?rotate=0.1kB&compress=zstd"])
async def test_wherever_a_process_stops_nothing_is_lost_or_doubled(
    tmp_path: Path, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = 0
    for at in range(1, 200):
        path = tmp_path / str(at) / ("rows.jsonl.zst" if "zstd" in options else "rows.jsonl")
        target = f"jsonl:{path}{options}"
        with dying(at, monkeypatch) as asked, contextlib.suppress(Died):
            await commit_all(open_sink(target), 1, 3)
        if asked[0] < at:
            break
        stops = at
        sink = open_sink(target)
        stored = await sink.open(SUBSCRIPTION) or Stored(0, "")
        found = [row for file in files_of(path) for row in lines_of(file)]
        assert found == rows(stored.number * 10, 10).nested
        for number in range(stored.number + 1, 5):
            await sink.commit(commit(number, rows(10, number * 10)))
        await sink.aclose()
        assert [row for file in files_of(path) for row in lines_of(file)] == rows(40, 10).nested
        left = {file.name for file in path.parent.iterdir()} - {file.name for file in files_of(path)}
        assert left <= {".rows.jsonl.state", "rows.jsonl.gaps"}
    assert 15 < stops < 100


@pytest.mark.asyncio
async def test_a_finished_file_that_was_taken_away_before_its_rotation_was_noted_is_not_missed(
    path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await committed(f"{target}?rotate=0.1kB", 1)
    with monkeypatch.context() as patched:
        patched.setattr("bqstream.collect.sinks.jsonl.sync_folder", raise_(Died))
        with pytest.raises(Died):
            await sink.commit(commit(2, rows(10, 20)))
    await sink.aclose()
    (finished,) = files_of(path)
    finished.unlink()
    sink = await committed(f"{target}?rotate=0.1kB", 2)
    await sink.aclose()
    assert lines_of(path) == rows(10, 20).nested


@pytest.mark.asyncio
async def test_a_full_disk_passes_and_nothing_is_lost_or_doubled(path: Path, target: str) -> None:
    sink = await committed(target, 1)
    length = size_of(path)
    with file_size_limited(length + 100):
        with pytest.raises(SinkUnavailable, match="disk is full"):
            await sink.commit(commit(2, rows(10, 20)))
        assert size_of(path) == length + 100
        with pytest.raises(SinkUnavailable, match="not open"):
            await sink.commit(commit(2, rows(10, 20)))
        stored = await sink.open(SUBSCRIPTION)
        assert stored is not None
        assert stored.number == 1
        assert size_of(path) == length
    await sink.commit(commit(2, rows(10, 20)))
    await sink.aclose()
    assert lines_of(path) == rows(20, 10).nested


@contextlib.contextmanager
def file_size_limited(limit: int) -> Iterator[None]:
    """No file grows beyond; what does not fit any more is written in part first, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def raise_(error: BaseException | type[BaseException]) -> Any:
    def raising(*args: Any, **more: Any) -> None:
        raise error

    return raising


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
async def test_a_folder_that_may_not_be_written_does_not_pass(
    target: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(target)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", raise_(OSError(number, os.strerror(number), "a folder")))
        with pytest.raises(SinkFailed, match=f"{os.strerror(number)}: a folder cannot be written") as caught:
            await sink.open(SUBSCRIPTION)
    assert not isinstance(caught.value, SinkUnavailable)
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_folder_that_is_a_file_does_not_pass(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    sink = open_sink(f"jsonl:{file}/rows.jsonl")
    with pytest.raises(SinkFailed) as caught:
        await sink.open(SUBSCRIPTION)
    assert not isinstance(caught.value, SinkUnavailable)
    await sink.aclose()


@pytest.mark.asyncio
async def test_another_subscription_is_refused_once_there_are_rows(target: str) -> None:
    sink, other = open_sink(target), open_sink(target)
    await other.open("blocks")
    assert await sink.open(SUBSCRIPTION) is None
    await sink.commit(commit(1, rows(1)))
    with pytest.raises(SinkFailed, match="another subscription, 'transfers'"):
        await other.open("blocks")
    with pytest.raises(SinkUnavailable):
        await other.commit(replace(commit(1, rows(1)), subscription="blocks"))
    await sink.aclose()
    await other.aclose()


@pytest.mark.asyncio
async def test_a_file_of_somebody_else_is_left_alone(path: Path, target: str) -> None:
    alone, one_of_several = path, path.with_name("rows.Transfers.jsonl")
    for there in (one_of_several, alone):
        there.write_text('{"mine": 1}\n')
    sink = open_sink(target)
    with pytest.raises(SinkFailed, match="move it away"):
        await sink.open(SUBSCRIPTION)
    move_away(alone)
    await sink.open(SUBSCRIPTION)
    with pytest.raises(SinkFailed, match="move it away"):
        await sink.commit(replace(commit(1, rows(1)), tables=(TABLE, replace(TABLE, name="Blocks"))))
    assert one_of_several.read_text() == '{"mine": 1}\n'
    await sink.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("opened", [False, True])
async def test_a_file_that_somebody_shortened_or_removed_is_told_and_can_be_begun_anew(
    path: Path, target: str, opened: bool
) -> None:
    sink = await committed(target, 1)

    async def go_on() -> None:
        await (sink.commit(commit(2, rows(10, 20))) if opened else sink.open(SUBSCRIPTION))

    length = size_of(path)
    os.truncate(path, length - 1)
    with pytest.raises(SinkFailed, match=f"shortened to {length - 1} of {length} bytes"):
        await go_on()
    os.truncate(path, length)
    await sink.open(SUBSCRIPTION)
    move_away(path)
    with pytest.raises(SinkFailed, match=r'removed by somebody.*take it out of "files" in .*state'):
        await go_on()
    assert files_of(path) == []
    sidecar = sidecar_of(path)
    del sidecar["files"][path.name]
    state_of(path).write_text(json.dumps(sidecar))
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(2, rows(10, 20)))
    await sink.aclose()
    assert lines_of(path) == rows(10, 20).nested


@pytest.mark.asyncio
async def test_another_program_that_writes_to_the_file_is_noticed(path: Path, target: str) -> None:
    sink = await committed(target, 1)
    with path.open("a") as file:
        file.write("{")
    with pytest.raises(SinkLocked, match="another program"):
        await sink.commit(commit(2, rows(10, 20)))
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_commit_that_came_between_is_noticed_before_the_last_step_too(
    path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await committed(target, 1)

    def passed_by(point: str) -> None:
        if point == "staged":
            state_of(path).write_text(json.dumps(sidecar_of(path) | {"number": 2}))

    monkeypatch.setattr("bqstream.collect.sinks.jsonl.failpoint", passed_by)
    with pytest.raises(SinkLocked, match="in between"):
        await sink.commit(commit(2, rows(10, 20)))
    assert not list(path.parent.glob("..*"))
    await sink.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "text", [None, "[]", '{"number": 1}', '{"bqstream": "jsonl 2", "subscription": "transfers"}']
)
async def test_a_sidecar_that_is_gone_or_another_file_is_told(
    path: Path, target: str, text: str | None
) -> None:
    sink = await committed(target, 1)
    state = state_of(path)
    state.unlink() if text is None else state.write_text(text)
    with pytest.raises(SinkFailed, match=r"\.rows\.jsonl\.state"):
        await sink.commit(commit(2, rows(10, 20)))
    with pytest.raises(SinkFailed, match=r"\.rows\.jsonl\.state"):
        await sink.open(SUBSCRIPTION)
    assert lines_of(path) == rows(10, 10).nested
    await sink.aclose()


@pytest.mark.asyncio
async def test_gaps_are_lines_and_those_of_a_commit_that_was_not_finished_are_cut(
    path: Path, target: str
) -> None:
    sink = await committed(f"{target}?compress=zstd")
    await sink.commit(commit(1, gaps=[gap("a")]))
    gaps = path.with_name("rows.jsonl.gaps")
    (record,) = lines_of(gaps)
    assert (record["id"], record["start"], record["cubes"]) == ("a", "2026-01-02T03:04:05Z", ["Transfers"])
    with gaps.open("a") as file:
        file.write('{"id":')
    await sink.open(SUBSCRIPTION)
    assert len(lines_of(gaps)) == 1
    await sink.aclose()


def test_the_lock_lies_beside_the_file_whether_or_not_it_is_compressed(path: Path, target: str) -> None:
    lock = path.with_name(".rows.jsonl.lock")
    assert open_sink(target).lock == open_sink(f"{target}?compress=zstd").lock == lock
    assert open_sink(f"{target}.zst").name == open_sink(f"{target}?compress=zstd").name == f"{target}.zst"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("jsonl:", "needs a file"),
        ("jsonl:rows.jsonl?append=1", "no option 'append'"),
        ("jsonl:rows.jsonl?compress=gzip", "there is zstd"),
        ("jsonl:rows.jsonl?level=3", "without compress"),
        ("jsonl:rows.jsonl?compress=zstd&level=99", "give 1 to 22"),
        ("jsonl:rows.jsonl?compress=zstd&level=-1", "give 1 to 22"),
        ("jsonl:rows.jsonl?rotate=", "100MB or 1h"),
        ("jsonl:rows.jsonl?rotate=100M", "100MB or 1h"),
        ("jsonl:rows.jsonl?rotate=0s", "100MB or 1h"),
        ("jsonl:rows.jsonl?rotate=100MB,,1h", "100MB or 1h"),
    ],
)
def test_an_address_that_says_nothing_clear_is_refused(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_sink(address)
