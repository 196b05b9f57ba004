from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from bqstream import SinkFailed, SinkUnavailable
from bqstream.collect.sink import Address, open_sink
from bqstream.collect.sinks.folders import Bucket

from .committing import SUBSCRIPTION, commit, die, gap, rows
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
    """The name of a new bucket, and credentials where AWS's tools have them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"rows-{uuid4().hex}"
    fs.S3FileSystem(**options(service), allow_bucket_creation=True).create_dir(name)
    return name


@pytest.fixture
def target(service: str, bucket: str) -> str:
    said = "&".join(f"{name}={value}" for name, value in options(service).items())
    return f"parquet:s3://{bucket}/of/bqstream?{said}"


def options(service: str) -> dict[str, str]:
    return {"region": "us-east-1", "scheme": "http", "endpoint_override": service}


def store_of(target: str) -> tuple[fs.FileSystem, str]:
    """The store and the path in it of what a sink writes."""
    address = Address.parse(target)
    return fs.S3FileSystem(**address.options), address.place.removeprefix("s3://")


def keys(target: str, under: str) -> list[str]:
    store, root = store_of(target)
    found = store.get_file_info(fs.FileSelector(f"{root}/{under}", recursive=True, allow_not_found=True))
    return sorted(file.path.removeprefix(f"{root}/") for file in found if file.is_file)


def read(target: str, table: str) -> list[dict[str, Any]]:
    """As pyarrow.dataset reads it; DuckDB needs an extension for a bucket, which comes over the network."""
    store, root = store_of(target)
    try:
        found = ds.dataset(f"{root}/{table}", filesystem=store, partitioning="hive")
    except FileNotFoundError:
        return []
    # By itself it takes the columns of the first file; those of all files are the union.
    schemas = [file.physical_schema for file in found.get_fragments()]
    found = found.replace_schema(pa.unify_schemas([found.schema, *schemas]))
    every: list[dict[str, Any]] = found.to_table().to_pylist()
    return every


class TestParquetInABucket(SinkContract):
    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        left: Counter[tuple[tuple[str, Any], ...]] = Counter()
        for row in read(target, table):
            del row["date"]
            undone = row.pop("_undone")
            left[tuple(row.items())] += -1 if undone else 1
        return [dict(row) for row in left.elements()]

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        records = sorted(read(target, "_bqstream_gaps"), key=lambda row: row["number"])
        return {row["id"]: row for row in records}


def numbers(target: str) -> list[int]:
    return sorted(row["Block_Number"] for row in read(target, "Transfers"))


@pytest.mark.asyncio
async def test_readers_see_a_commit_when_it_is_one(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at: dict[str, list[int]] = {}
    monkeypatch.setattr(
        "bqstream.collect.sinks.parquet.failpoint", lambda name: at.update({name: numbers(target)})
    )
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(1, rows(3)))
    await sink.commit(commit(2, rows(3, 3), gaps=[gap("a")]))
    assert at == {point: [0, 1, 2] for point in ("written", "staged", "committed")}
    assert numbers(target) == list(range(6))
    assert [key.rpartition("-00000000")[0] or key for key in keys(target, "")] == [
        "Transfers/date=2026-01-02/part-transfers",
        "Transfers/date=2026-01-02/part-transfers",
        "_bqstream/transfers.json",
        "_bqstream_gaps/part-transfers",
    ]
    await sink.aclose()


@pytest.mark.asyncio
async def test_what_was_copied_and_not_yet_deleted_is_there_once(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(self: Bucket, path: str) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during DeleteObjects operation")

    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "clear", stops)
        with pytest.raises(SinkUnavailable, match="NETWORK_CONNECTION"):
            await sink.commit(commit(1, rows(3)))
    stored = await sink.open(SUBSCRIPTION)
    assert stored is not None
    assert stored.number == 1
    assert numbers(target) == [0, 1, 2]
    await sink.commit(commit(2, rows(1, 3)))
    assert numbers(target) == [0, 1, 2, 3]
    assert not keys(target, "_bqstream/transfers.staged")
    await sink.aclose()


@pytest.mark.asyncio
async def test_what_a_killed_process_staged_is_gone_after_the_next_commit(target: str) -> None:
    await die(target, 1, 9, "staged:2")
    assert keys(target, "_bqstream/transfers.staged")
    sink = open_sink(target)
    await sink.open(SUBSCRIPTION)
    await sink.commit(commit(2, rows(1)))
    assert not keys(target, "_bqstream/transfers.staged")
    await sink.aclose()


def test_a_file_that_goes_up_in_parts_comes_back_whole(service: str, bucket: str) -> None:
    folder = Bucket("parquet", f"{bucket}/of/bqstream", **options(service))
    folder.open()
    data = os.urandom(12 << 20)
    folder.put([("large", data)])
    folder.move([("large", "moved"), ("never", "there")])
    assert folder.get("moved") == data
    assert folder.get("there") is None


@pytest.mark.asyncio
async def test_a_bucket_that_is_not_there_is_no_reason_to_wait(target: str, bucket: str) -> None:
    sink = open_sink(target.replace(bucket, "none-such"))
    with pytest.raises(SinkFailed, match="no such bucket") as caught:
        await sink.open(SUBSCRIPTION)
    assert not isinstance(caught.value, SinkUnavailable)
    await sink.aclose()


@pytest.mark.asyncio
async def test_a_service_that_is_down_is_tried_again(target: str, service: str) -> None:
    sink = open_sink(target.replace(service, "127.0.0.1:1"))
    with pytest.raises(SinkUnavailable, match="NETWORK_CONNECTION"):
        await sink.open(SUBSCRIPTION)
    await sink.aclose()


@pytest.mark.parametrize(
    ("said", "final"),
    [
        ("AWS Error ACCESS_DENIED during PutObject operation: no", True),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadBucket operation", True),
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.", False),
        ("AWS Error UNKNOWN (HTTP status 503) during GetObject operation", False),
    ],
)
def test_a_refusal_is_told_from_what_passes(said: str, final: bool) -> None:
    with pytest.raises(SinkFailed, match="parquet: AWS") as caught, Bucket("parquet", "b").errors():
        raise OSError(said)
    assert isinstance(caught.value, SinkUnavailable) != final
