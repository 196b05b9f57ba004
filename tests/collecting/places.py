"""A place for each sink: where its rows go, and how something that is not the sink reads them back."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import zstandard
from tenacity import retry, stop_after_delay, wait_fixed

from tests.nats_server import NatsServer
from tests.postgresql_server import PostgreSQLServer
from tests.unit.collect.sinks.test_nats import read_lines

from .documents import TABLES, rows_of

Read = Callable[[], list[tuple[str, Any]]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """``address``: the sink's. ``read``: every row that is there, with its cube, as the service nests it. ``server``: a
    server of its own, which a test may stop."""

    address: str
    read: Read
    environment: Mapping[str, str] = field(default_factory=dict)
    server: NatsServer | None = None


Places = Callable[[Path, pytest.FixtureRequest], contextlib.AbstractContextManager[Place]]


def _by_table(read: Callable[[str], Rows]) -> Read:
    return lambda: rows_of({table: read(table) for table in TABLES})


@contextlib.contextmanager
def jsonl(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Files that are finished at 200 kB, each commit a frame of zstd."""

    def read() -> list[tuple[str, Any]]:
        found = []
        for table in TABLES:
            for path in folder.glob(f"rows.{table}*.jsonl.zst"):
                with zstandard.open(path, "rt", encoding="utf-8") as lines:
                    found += [(table, json.loads(line)) for line in lines]
        return found

    yield Place(f"jsonl:{folder / 'rows.jsonl'}?compress=zstd&rotate=200kB", read)


@contextlib.contextmanager
def sqlite(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    path = folder / "rows.db"

    def read(table: str) -> Rows:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]

    yield Place(f"sqlite:{path}", _by_table(read))


def _dicts(database: Any, query: str) -> Rows:
    """What DuckDB finds, by name."""
    rows: Rows = database.sql(query).to_arrow_table().to_pylist()
    return rows


@retry(stop=stop_after_delay(20), wait=wait_fixed(0.05), reraise=True)
def duckdb_file(path: Path) -> Any:
    """A reader's connection, once the collector's is not open, which it is for as long as a commit takes."""
    import duckdb as library

    return library.connect(str(path), read_only=True)


@contextlib.contextmanager
def duckdb(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    path = folder / "rows.duckdb"

    def read(table: str) -> Rows:
        with duckdb_file(path) as database:
            return _dicts(database, f"SELECT * FROM {table}")

    yield Place(f"duckdb:{path}", _by_table(read))


@contextlib.contextmanager
def parquet(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Read by DuckDB."""
    import duckdb as library

    def read(table: str) -> Rows:
        files = f"read_parquet('{folder}/rows/{table}/**/*.parquet', hive_partitioning = true)"
        with library.connect() as database:
            return _dicts(database, f"SELECT * EXCLUDE (date, _undone) FROM {files} WHERE NOT _undone")

    yield Place(f"parquet:{folder / 'rows'}", _by_table(read))


@contextlib.contextmanager
def s3(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Read by pyarrow."""
    import pyarrow.dataset
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"region": "us-east-1", "scheme": "http", "endpoint_override": f"{host}:{port}"}
        secrets = {"access_key": "an-access-key", "secret_key": "a-secret-of-aws"}
        store = fs.S3FileSystem(**options, **secrets, allow_bucket_creation=True)
        bucket = f"rows-{uuid4().hex}"
        store.create_dir(bucket)

        def read(table: str) -> Rows:
            found = pyarrow.dataset.dataset(f"{bucket}/all/{table}", filesystem=store, partitioning="hive")
            whole: Any = found.to_table()
            rows: Rows = whole.drop_columns(["date", "_undone"]).to_pylist()
            return rows

        said = "&".join(f"{name}={value}" for name, value in options.items())
        environment = {
            "AWS_ACCESS_KEY_ID": secrets["access_key"],
            "AWS_SECRET_ACCESS_KEY": secrets["secret_key"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield Place(f"parquet:s3://{bucket}/all?{said}", _by_table(read), environment)
    finally:
        server.stop()


@contextlib.contextmanager
def postgresql(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    server: PostgreSQLServer = request.getfixturevalue("postgresql_server")
    database = server.database()

    def read(table: str) -> Rows:
        return server.query(database, f'SELECT * FROM "{table}"')

    yield Place(server.address(database), _by_table(read))


@contextlib.contextmanager
def nats(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    with NatsServer(folder / "nats") as server:
        address = f"{server.url}/ROWS/rows"

        def read() -> list[tuple[str, Any]]:
            return [(line["table"], line["row"]) for line in read_lines(address) if "row" in line]

        yield Place(address, read, server=server)


PLACES: dict[str, Places] = {
    place.__name__: place for place in (jsonl, sqlite, duckdb, parquet, s3, postgresql, nats)
}
