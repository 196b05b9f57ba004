from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bqstream import SinkFailed, SinkUnavailable, UsageError
from bqstream.collect.sink import open_sink

from .committing import SUBSCRIPTION, commit, rows
from .contract import SinkContract


def path_of(target: str) -> str:
    return target.removeprefix("sqlite:")


def query(target: str, text: str) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path_of(target))) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(text)]


class TestSQLite(SinkContract):
    counts = True

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'rows.db'}"

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        if not query(target, f"SELECT 1 FROM sqlite_master WHERE name = '{table}'"):
            return []
        found = query(target, f'SELECT * FROM "{table}"')
        for row in found:
            time, exact, success = row["Block_Time"], row["Transfer_Exact"], row["Transfer_Success"]
            row["Block_Time"] = time and datetime.fromisoformat(time)
            row["Transfer_Exact"] = exact and Decimal(exact)
            row["Transfer_Success"] = None if success is None else bool(success)
        return found

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in query(target, "SELECT * FROM _bqstream_gaps")}


@pytest.mark.asyncio
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    path.write_text("no database, but long enough to be looked at as one, which takes some hundred bytes" * 9)
    sink = open_sink(f"sqlite:{path}")
    with pytest.raises(SinkFailed, match="not a database"):
        await sink.open(SUBSCRIPTION)
    await sink.aclose()


@pytest.mark.asyncio
async def test_another_writer_is_waited_for_and_then_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bqstream.collect.sinks.sqlite._BUSY", 0.01)
    target = f"sqlite:{tmp_path / 'rows.db'}"
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    with contextlib.closing(sqlite3.connect(path_of(target), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkUnavailable, match="locked"):
            await sink.commit(commit(1, rows(1)))
    await sink.commit(commit(1, rows(1)))
    assert len(query(target, 'SELECT * FROM "Transfers"')) == 1
    await sink.aclose()


def test_it_has_no_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option 'mode'"):
        open_sink(f"sqlite:{tmp_path / 'rows.db'}?mode=ro")
