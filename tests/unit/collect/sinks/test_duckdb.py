from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import duckdb
import pytest

from .contract import SinkContract


def path_of(target: str) -> Path:
    return Path(target.removeprefix("duckdb:"))


def query(target: str, text: str) -> list[dict[str, Any]]:
    with contextlib.closing(duckdb.connect(path_of(target), read_only=True)) as database:
        found: list[dict[str, Any]] = database.sql(text).to_arrow_table().to_pylist()
        return found


class TestDuckDB(SinkContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"duckdb:{tmp_path / 'rows.duckdb'}"

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        if not query(target, f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{table}'"):
            return []
        return query(target, f'SELECT * FROM "{table}"')

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in query(target, "SELECT * FROM _bqstream_gaps")}
