from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow.dataset as ds
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from .contract import SinkContract


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(service: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"rows-{uuid4().hex}"
    store = fs.S3FileSystem(
        endpoint_override=service, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    store.create_dir(name)
    return f"{name}/of/bqstream?region=us-east-1&scheme=http&endpoint_override={service}"


class TestParquetInABucket(SinkContract):
    @pytest.fixture
    def target(self, bucket: str) -> str:
        return f"parquet:s3://{bucket}"

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        """As pyarrow.dataset reads them; DuckDB needs an extension for a bucket, which comes over the network."""
        left: Counter[tuple[tuple[str, Any], ...]] = Counter()
        for row in dataset(target, table):
            del row["date"]
            undone = row.pop("_undone")
            left[tuple(row.items())] += -1 if undone else 1
        return [dict(row) for row in left.elements()]

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {
            row["id"]: row for row in sorted(dataset(target, "_bqstream_gaps"), key=lambda row: row["number"])
        }


def dataset(target: str, table: str) -> list[dict[str, Any]]:
    place = urlsplit(target.removeprefix("parquet:"))
    options = dict(pair.split("=") for pair in place.query.split("&"))
    store = fs.S3FileSystem(**options)
    try:
        found = ds.dataset(f"{place.netloc}{place.path}/{table}", filesystem=store, partitioning="hive")
    except FileNotFoundError:
        return []
    # Its schema is that of the first file; with columns added on the way it is that of all together.
    every: list[dict[str, Any]] = []
    for file in found.get_fragments():
        every += (
            ds.dataset(file.path, filesystem=store, partitioning=ds.partitioning(flavor="hive"))
            .to_table()
            .to_pylist()
        )
    return every
