"""A subscription read as tables, over a service in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import duckdb
import msgspec
import pandas
import polars
import pyarrow as pa
import pytest

from bqstream import Buffer, ConnectionGivenUp, OperationFailed, Subscription, UsageError
from bqstream.frames import LARGEST
from tests.unit.session.service import Service, settle
from tests.unit.test_client import client_of, service_of
from tests.virtual_time import virtual_time

DOCUMENT = "subscription { EVM { Blocks { N Block { Number Hash Time } } } }"
TWO = "subscription { EVM { Blocks { N } Calls { N } } }"


@contextlib.asynccontextmanager
async def subscribed(
    document: str = DOCUMENT, **options: Any
) -> AsyncIterator[tuple[Subscription[Any], Service]]:
    async with client_of() as client, client.subscribe(document, **options) as stream:
        await settle()
        yield stream, service_of(client)


def row(number: Any) -> dict[str, Any]:
    time = f"2023-11-14T22:13:{20 + number:02}Z" if isinstance(number, int) and number < 40 else None
    return {"N": number, "Block": {"Number": str(number), "Hash": f"0x{number}", "Time": time}}


def block(*numbers: Any, **cubes: Any) -> str:
    return json.dumps({"EVM": {"Blocks": [row(number) for number in numbers], **cubes}})


def numbers(table: Any) -> list[Any]:
    found: list[Any] = table.column("N").to_pylist()
    return found


@virtual_time
async def test_a_table_has_as_many_rows_as_were_asked_for_and_the_next_goes_on() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0, 1, 2))
        service.publish(block(3, 4, 5, 6))
        await settle()
        assert numbers(await stream.to_arrow(rows=2)) == [0, 1]
        assert numbers(await stream.to_arrow(rows=2)) == [2, 3]
        assert await anext(stream.rows()) == row(4), "the rest of the message is there for other readers too"
        assert numbers(await stream.to_arrow(2)) == [5, 6]


@virtual_time
async def test_a_table_takes_what_rows_has_left_of_a_message() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0, 1, 2))
        service.publish(block(3))
        await settle()
        assert await anext(stream.rows()) == row(0)
        assert numbers(await stream.to_arrow(rows=3, cube="Blocks")) == [1, 2, 3]


@virtual_time
async def test_a_table_is_done_when_its_time_has_passed() -> None:
    async with subscribed() as (stream, service):
        time = asyncio.get_running_loop().time
        service.publish(block(0))
        reading, began = asyncio.ensure_future(stream.to_arrow(rows=100, seconds=60)), time()
        await asyncio.sleep(59)
        service.publish(block(1))
        assert numbers(await reading) == [0, 1]
        assert time() - began == pytest.approx(60, abs=0.01)
        table = await stream.to_arrow(seconds=5)
        assert table.num_rows == 0
        assert table.schema.field("Block_Time").type == pa.timestamp("us", tz="UTC")


@virtual_time
async def test_a_stream_that_ends_gives_what_there_was() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0, 1))
        reading = asyncio.ensure_future(stream.to_arrow(rows=100))
        await settle()
        await stream.aclose()
        assert numbers(await reading) == [0, 1]
        assert (await stream.to_arrow(rows=100)).num_rows == 0
        assert [batch async for batch in stream.arrow_batches(rows=5)] == []


@virtual_time
async def test_an_error_that_ends_a_stream_comes_after_the_rows_before_it() -> None:
    client = await client_of().open()
    stream = await client.subscribe(DOCUMENT)
    await settle()
    service_of(client).publish(block(0))
    reading = asyncio.ensure_future(stream.to_arrow(rows=100))
    await settle()
    stream._stream.failed(ConnectionGivenUp("it is over"), 0.0)
    assert numbers(await reading) == [0]
    for _ in range(2):
        with pytest.raises(ConnectionGivenUp, match="it is over"):
            await stream.to_arrow(rows=100)
    with pytest.raises(ConnectionGivenUp, match="it is over"):
        await anext(stream.arrow_batches(rows=100))
    await client.aclose()


@virtual_time
async def test_other_tasks_have_their_turns_while_many_rows_that_wait_are_read() -> None:
    async with subscribed() as (stream, service):
        turns = 0

        async def another() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        for _ in range(40):
            service.publish(block(*range(1_000)))
        await settle()
        task = asyncio.create_task(another())
        await stream.to_arrow(rows=40_000)
        task.cancel()
        assert 5 <= turns < 40


@virtual_time
async def test_a_connection_that_is_closed_costs_no_row() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0, 1, 2))
        await settle()
        connection = duckdb.connect()
        connection.close()
        with pytest.raises(duckdb.ConnectionException):
            await stream.to_duckdb(rows=2, connection=connection)
        assert numbers(await stream.to_arrow(rows=3)) == [0, 1, 2]


# ---------------------------------------------------------------------- cancelled


@pytest.mark.parametrize("turns", range(6))
@virtual_time
async def test_what_a_cancelled_call_had_taken_comes_first_in_the_next(turns: int) -> None:
    async with subscribed() as (stream, service):
        reading = asyncio.ensure_future(stream.to_arrow(rows=100))
        service.publish(block(0, 1))
        await settle()
        service.publish(block(2))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        service.publish(block(3, 4))
        await settle()
        assert numbers(await stream.to_arrow(rows=1)) == [0]
        assert numbers(await stream.to_arrow(rows=4)) == [1, 2, 3, 4]


@virtual_time
async def test_other_readers_go_on_behind_a_cancelled_call_and_take_nothing_from_it() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0, 1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.to_arrow(rows=100), 10)
        service.publish(block(2, 3))
        assert await anext(stream.rows()) == row(2)
        assert numbers(await stream.to_arrow(rows=3)) == [0, 1, 3]


@virtual_time
async def test_the_first_rows_of_a_cancelled_call_can_still_become_other_columns() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0, 1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.to_arrow(rows=100), 10)
        table = await stream.to_arrow(rows=2, columns={"N": "integer"})
        assert table.schema.field("N").type == pa.int64()
        assert numbers(table) == [0, 1]


@virtual_time
async def test_many_rows_that_were_left_are_not_given_as_other_columns() -> None:
    async with subscribed() as (stream, service):
        for _ in range(3):
            service.publish(block(*range(1_000)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.to_arrow(rows=5_000, columns={"N": "integer"}), 10)
        with pytest.raises(UsageError, match=r"left 3000 rows .* columns=\{'N': 'integer'\}"):
            await stream.to_arrow(rows=2)
        assert (await stream.to_arrow(rows=3_000, columns={"N": "integer"})).num_rows == 3_000
        service.publish(block(2))
        assert numbers(await stream.to_arrow(rows=1)) == [2]


@virtual_time
async def test_a_checkpoint_counts_nothing_of_a_table_in_hand_nor_of_a_cancelled_one() -> None:
    async with subscribed(backfill="auto") as (stream, service):
        service.publish(block(0))
        await stream.to_arrow(rows=1)
        service.publish(block(1))
        service.publish(block(2))
        reading = asyncio.ensure_future(stream.to_arrow(rows=100))
        await settle()
        before = stream.checkpoint
        reading.cancel()
        await asyncio.wait({reading})
        service.publish(block(3))
        service.publish(block(4))
        await anext(stream)
        message = await anext(stream)
        assert stream.checkpoint == before
        assert len(before.cubes["Blocks"].beyond) == 1, "the table before it is counted"
        assert numbers(await stream.to_arrow(rows=2)) == [1, 2]
        assert stream.checkpoint == before, "it is in hand"
        service.publish(block(5))
        await anext(stream)
        assert stream.checkpoint == message.checkpoint


@virtual_time
async def test_a_checkpoint_is_before_the_message_of_which_a_table_has_the_rest() -> None:
    async with subscribed(backfill="auto") as (stream, service):
        for numbers_of in ((0,), (1,), (2, 3)):
            service.publish(block(*numbers_of))
        await settle()
        assert numbers(await stream.to_arrow(rows=3)) == [0, 1, 2]
        assert numbers(await stream.to_arrow(rows=1)) == [3]
        assert set(stream.checkpoint.cubes["Blocks"].beyond) == {"0", "1"}


@virtual_time
async def test_a_table_takes_first_what_a_cancelled_batch_of_messages_had_taken() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0))
        service.publish(block(1, 2))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream.message_batches(10, seconds=None)), 10)
        service.publish(block(3))
        assert numbers(await stream.to_arrow(rows=2)) == [0, 1]
        assert numbers(await stream.to_arrow(rows=2)) == [2, 3]


@virtual_time
async def test_messages_are_let_go_while_a_long_table_grows() -> None:
    async with subscribed(buffer=Buffer(bytes=4_000), backfill="auto") as (stream, service):
        service.publish(block(0))
        await stream.to_arrow(rows=1)
        reading = asyncio.ensure_future(stream.to_arrow(rows=1_000))
        for _ in range(100):
            service.publish(block(*range(10)))
            await settle()
        assert (await reading).num_rows == 1_000
        assert stream._stream._history.size < 8_000
        with pytest.raises(UsageError, match="too old"):
            _ = stream.checkpoint


# ---------------------------------------------------------------------- batches


@virtual_time
async def test_batches_have_one_schema_and_so_many_rows() -> None:
    async with subscribed() as (stream, service):
        for number in range(0, 9, 3):
            service.publish(block(number, number + 1, number + 2))
        batches = stream.arrow_batches(rows=4, seconds=30)
        found = [await anext(batches) for _ in range(2)]
        began = asyncio.get_running_loop().time()
        found.append(await anext(batches))
        assert asyncio.get_running_loop().time() - began == pytest.approx(30, abs=0.01)
        assert [numbers(batch) for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
        assert all(isinstance(batch, pa.RecordBatch) for batch in found)
        assert len({str(batch.schema) for batch in found}) == 1


@virtual_time
async def test_a_batch_waits_for_its_first_row_as_long_as_it_takes() -> None:
    async with subscribed() as (stream, service):
        reading = asyncio.ensure_future(anext(stream.arrow_batches(seconds=2)))
        await asyncio.sleep(3_600)
        service.publish(block(0))
        await asyncio.sleep(1)
        service.publish(block(1))
        assert numbers(await reading) == [0, 1]


@virtual_time
async def test_a_value_that_does_not_fit_stops_batches_by_name_and_loses_no_row() -> None:
    async with subscribed() as (stream, service):
        batches = stream.arrow_batches(rows=2)
        service.publish(block(0, 1))
        assert numbers(await anext(batches)) == [0, 1]
        service.publish(block(2, "a word"))
        for _ in range(2):
            with pytest.raises(OperationFailed, match="N of row 2"):
                await anext(batches)
        service.publish(block(4))
        assert numbers(await stream.to_arrow(rows=3)) == ["2", "a word", "4"]
        service.publish(block(5, 6))
        assert (await anext(batches)).schema.field("N").type == pa.float64()


@virtual_time
async def test_batches_go_on_with_what_a_cancelled_table_has_taken_if_it_fits() -> None:
    async with subscribed() as (stream, service):
        batches = stream.arrow_batches(rows=1)
        service.publish(block(0))
        first = await anext(batches)
        service.publish(block(None, "a word"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.to_arrow(rows=3), 10)
        with pytest.raises(OperationFailed, match="N of row 2"):
            await anext(batches)
        assert numbers(await stream.to_arrow(rows=2)) == [None, "a word"]
        for _ in range(3):
            service.publish(block(*range(1_000), "a word"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.to_arrow(rows=4_000), 10)
        with pytest.raises(UsageError, match="left 3003 rows"):
            await anext(batches)
        assert (await stream.to_arrow(rows=3_003)).schema.field("N").type == pa.string()
        service.publish(block(1))
        assert (await anext(batches)).schema == first.schema


@virtual_time
async def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LARGEST < 2**31
    monkeypatch.setattr("bqstream.frames.LARGEST", 1)
    monkeypatch.setattr("bqstream.tables.frame.PART", 1)
    async with subscribed() as (stream, service):
        for _ in range(3):
            service.publish(block(*range(1_000)))
        await settle()
        assert (await anext(stream.arrow_batches(seconds=60))).num_rows == 2_000


# ---------------------------------------------------------------------- which rows


@virtual_time
async def test_of_several_cubes_one_has_to_be_named() -> None:
    async with subscribed(TWO) as (stream, service):
        service.publish('{"EVM":{"Blocks":[{"N":1}],"Calls":null}}')
        service.publish('{"EVM":{"Blocks":[{"N":2}],"Calls":[{"N":3},{"N":4}]}}')
        with pytest.raises(UsageError, match="cube= one of Blocks, Calls"):
            await stream.to_arrow(rows=1)
        with pytest.raises(UsageError, match="no cube 'Logs'; it has Blocks, Calls"):
            stream.arrow_batches(rows=1, cube="Logs")
        assert numbers(await stream.to_arrow(rows=1, cube="Calls")) == [3]
        assert await anext(stream.rows("Calls")) == {"N": 4}


@virtual_time
async def test_fields_that_the_client_has_added_do_not_show() -> None:
    async with subscribed("subscription { EVM { Transfers { Transfer { Amount } } } }") as (stream, service):
        assert stream._stream.hides
        moved = {"Transfer": {"Amount": "1.5"}, "bqs_Block": {"Number": "1"}}
        for _ in range(2):
            service.publish(json.dumps({"EVM": {"Transfers": [moved] * 2_000}}))
        assert (await stream.to_arrow(rows=4_000)).schema == pa.schema({"Transfer_Amount": pa.string()})


@virtual_time
async def test_data_that_has_no_rows_is_a_table_of_json() -> None:
    async with subscribed("subscription { trade { price { amount } } }") as (stream, service):
        service.publish('{"trade":{"price":{"amount":1}}}')
        with pytest.raises(OperationFailed, match="cube=''"):
            await stream.to_arrow(rows=1)
        table = await stream.to_arrow(rows=1, cube="")
        assert table.to_pylist() == [{"data": '{"trade":{"price":{"amount":1}}}'}]
    async with subscribed("subscription { counter }") as (stream, service):
        service.publish('{"counter":3}')
        assert (await stream.to_arrow(rows=1)).to_pylist() == [{"data": '{"counter":3}'}]


@virtual_time
async def test_a_payload_that_cannot_be_decoded_is_told_of_and_those_around_it_are_kept() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(0))
        service.publish('{"EVM":{"Blocks":[{"N":1e999}]}}')
        service.publish(block(2))
        with pytest.raises(OperationFailed, match="cannot be decoded"):
            await stream.to_arrow(rows=2)
        assert numbers(await stream.to_arrow(rows=2)) == [0, 2]


class Typed(msgspec.Struct):
    EVM: dict[str, Any]


@pytest.mark.parametrize(("given", "word"), [({"type": Typed}, "type="), ({"undo": True}, "undo=True")])
@virtual_time
async def test_typed_and_undoing_subscriptions_are_refused(given: dict[str, Any], word: str) -> None:
    async with subscribed(**given) as (stream, _):
        with pytest.raises(UsageError, match=f"without {word}"):
            await stream.to_arrow(rows=1)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "rows=1000, seconds=60"),
        ({"rows": 0}, "rows=0"),
        ({"rows": 1.5}, "rows=1.5"),
        ({"seconds": -1}, "seconds=-1"),
        ({"rows": 1, "columns": {"M": "text"}}, "no such column"),
        ({"rows": 1, "columns": {"N": "number"}}, "column N=number"),
    ],
)
@virtual_time
async def test_what_cannot_mean_anything_is_refused(given: dict[str, Any], word: str) -> None:
    async with subscribed() as (stream, _):
        with pytest.raises(UsageError, match=word):
            await stream.to_arrow(**given)
        with pytest.raises(UsageError, match=word):
            stream.arrow_batches(**given)


@virtual_time
async def test_a_second_reader_is_refused_only_while_the_first_reads() -> None:
    async with subscribed() as (stream, service):
        batches = stream.arrow_batches(rows=2)
        reading = asyncio.ensure_future(anext(batches))
        service.publish(block(0))
        await settle()
        for second in (stream.to_arrow(rows=1), anext(stream.arrow_batches(rows=1)), anext(stream)):
            with pytest.raises(UsageError, match="another task"):
                await second
        service.publish(block(1, 2))
        assert numbers(await reading) == [0, 1]
        assert numbers(await stream.to_arrow(rows=1)) == [2]


# ---------------------------------------------------------------------- libraries


@virtual_time
async def test_polars_pandas_and_duckdb_have_the_same_rows_with_types_as_exact() -> None:
    async with subscribed("subscription { EVM { Blocks { N Block { Number Time } Trade { Amount } } } }") as (
        stream,
        service,
    ):
        at = {"Number": "9007199254740993", "Time": "2026-01-02T03:04:05.000006Z"}
        rows = [
            {"N": "a", "Block": at, "Trade": {"Amount": "0.100000000000000001"}},
            {"N": None, "Block": {"Number": None, "Time": None}, "Trade": {"Amount": None}},
        ]
        for _ in range(4):
            service.publish(json.dumps({"EVM": {"Blocks": rows}}))
        await settle()
        arrow = await stream.to_arrow(rows=2, decimals=True)
        expected = arrow.to_pylist()
        assert expected[0]["Trade_Amount"] == Decimal("0.100000000000000001")
        of_polars = await stream.to_polars(rows=2, decimals=True)
        assert of_polars.to_dicts() == expected
        assert of_polars.schema["Trade_Amount"] == polars.Decimal(38, 18)
        assert of_polars.schema["Block_Time"] == polars.Datetime("us", "UTC")
        of_pandas = await stream.to_pandas(rows=2, decimals=True)
        assert of_pandas.dtypes["Block_Number"] == pandas.ArrowDtype(pa.int64())
        assert pa.Table.from_pandas(of_pandas).replace_schema_metadata(None).equals(arrow)
        with duckdb.connect() as connection:
            relation = await stream.to_duckdb(rows=2, decimals=True, connection=connection)
            assert [str(kind) for kind in relation.types] == [
                "VARCHAR",
                "BIGINT",
                "TIMESTAMP WITH TIME ZONE",
                "DECIMAL(38,18)",
            ]
            assert relation.to_arrow_table().to_pylist() == expected


@virtual_time
async def test_without_a_connection_of_ones_own_a_relation_is_found_by_its_variables_name() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(1, 2, 3))
        await settle()
        blocks = await stream.to_duckdb(rows=3)
        found = duckdb.sql("SELECT sum(N) FROM blocks")
        assert found is not None
        assert found.fetchall() == [(6.0,)]
        assert blocks.filter("N > 1").project("N").fetchall() == [(2.0,), (3.0,)]


@pytest.mark.parametrize(
    ("method", "missing", "extra"),
    [
        ("to_arrow", "pyarrow", "arrow"),
        ("arrow_batches", "pyarrow", "arrow"),
        ("to_polars", "polars", "polars"),
        ("to_polars", "pyarrow", "polars"),
        ("to_pandas", "pandas", "pandas"),
        ("to_duckdb", "duckdb", "duckdb"),
    ],
)
@virtual_time
async def test_a_missing_extra_is_named(
    method: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    async with subscribed() as (stream, _):
        with pytest.raises(UsageError, match=rf"{missing}: pip install 'bqstream\[{extra}\]'"):
            await getattr(stream, method)(rows=1)


def test_a_client_without_any_extra_can_be_imported() -> None:
    script = "import sys, bqstream.frames, bqstream.sampling; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert {"pyarrow", "polars", "pandas", "duckdb"}.isdisjoint(loaded.split())
