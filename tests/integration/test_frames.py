"""Tables of a stream against the service: each row once, and as a collector writes them; the sockets are real."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from bqstream import ClientCredentials, DocumentRefused, Timeouts, UsageError, sample
from bqstream.collect import Batching, Collector
from bqstream.delivery.document import Document
from bqstream.events import HandedOver
from bqstream.simulator import Simulator
from bqstream.simulator.answers import prepare
from bqstream.simulator.chain import Chain
from bqstream.simulator.threads import SimulatorThread, start_in_thread
from bqstream.tables.columns import drafts
from bqstream.tables.frame import Frame
from tests.documents import documented, needs_documents
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, client_for, until

WIDE = """subscription { EVM(network: eth) { Moved: Transfers {
    Block { Number Hash Time } Transaction { Hash } Call { Index } Log { Index Signature { Name } }
    Transfer { Index Amount AmountInUSD Success Currency { Symbol Decimals Fungible } }
} } }"""
AS_SENT = {
    "Block_Number": "text",
    "Block_Time": "text",
}  # what would hold something else than the JSON that came


@pytest.fixture(autouse=True)
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's clock is the service's."""
    monkeypatch.setattr("tests.virtual_time.WALL_AT_START", time.time())


def nested(document: str, table: pa.Table) -> list[Any]:
    """The rows as the service nests them."""
    (draft,) = drafts(Document.parse(document))
    rows = []
    for flat in table.to_pylist():
        row: dict[str, Any] = {}
        for column in draft.table.columns:
            inside = row
            for key in column.path[:-1]:
                inside = inside.setdefault(key, {})
            inside[column.path[-1]] = flat[column.name]
        rows.append(row)
    return rows


@virtual_time
async def test_tables_hold_each_row_once_across_hand_overs_and_cancelled_reads() -> None:
    seen, tables = Events(), []
    async with (
        Simulator(token_ttl=4, block_interval=0.2) as simulator,
        client_for(simulator, on_event=seen.append, timeouts=Timeouts(grace=0.5)) as client,
        client.subscribe(TRANSFERS) as stream,
    ):
        while len(seen.of(HandedOver)) < 3:
            tables.append(await stream.to_arrow(rows=150, seconds=2, columns=AS_SENT))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.to_arrow(rows=100_000, columns=AS_SENT), 0.7)
            batches = stream.arrow_batches(rows=70, columns=AS_SENT)
            tables += [pa.Table.from_batches([await anext(batches)]) for _ in range(3)]
        while not all(gap.closed for gap in stream.gaps):
            tables.append(await stream.to_arrow(seconds=0.1, columns=AS_SENT))
        simulator.pause()
        await simulator.drained()
        tables.append(await stream.to_arrow(seconds=1, columns=AS_SENT))
        assert [str(gap) for gap in stream.gaps if not gap.closed] == []
        verdict = simulator.ledger.verdict(TRANSFERS, nested(TRANSFERS, pa.concat_tables(tables)))
    assert verdict.exact, verdict
    assert verdict.delivered > 500


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, {}),
        ({"decimals": True}, {"columns": {"Transfer_Amount": "decimal(38,18)"}}),
        ({"columns": {"Transfer": "json", "Log_Index": "text"}},) * 2,
    ],
    ids=["as it is", "decimals", "as the user says"],
)
@virtual_time
async def test_a_table_is_what_a_collector_writes_to_parquet(
    given: dict[str, Any], said: dict[str, Any], tmp_path: Path
) -> None:
    async with Simulator(block_interval=0.5) as simulator, client_for(simulator) as client:
        simulator.pause()
        collector = Collector(
            client, WIDE, f"parquet:{tmp_path / 'rows'}", batching=Batching(seconds=1), **said
        )
        collecting = asyncio.create_task(collector.run())
        async with client.subscribe(WIDE) as stream:
            await until(lambda: collector._stream is not None)
            simulator.resume()
            await simulator.blocks(40)
            simulator.pause()
            await simulator.drained()
            table = await stream.to_arrow(seconds=2, **given)
            collector.stop()
            collected = await collecting
    written = ds.dataset(tmp_path / "rows" / "Moved", partitioning="hive").to_table()
    written = written.drop_columns(["date", "_undone"])
    assert written.schema.remove_metadata() == table.schema
    assert collected.rows == table.num_rows > 200
    assert collected.misfits == 0
    assert Counter(map(str, written.to_pylist())) == Counter(map(str, table.to_pylist()))


# ---------------------------------------------------------------------- the call that blocks


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    with start_in_thread(block_interval=0.1) as running:
        yield running


def environment(simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITQUERY_ENDPOINT", simulator.endpoint)
    monkeypatch.setenv("BITQUERY_TOKEN_URL", simulator.token_url)
    monkeypatch.setenv("BITQUERY_CLIENT_ID", simulator.client_id)
    monkeypatch.setenv("BITQUERY_CLIENT_SECRET", simulator.client_secret)


def test_a_sample_is_a_table_of_so_many_rows(
    simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(simulator, monkeypatch)
    document = TRANSFERS.replace("subscription", "subscription ($network: evm_network)").replace(
        "eth", "$network"
    )
    table = sample(document, {"network": "eth"}, rows=20, decimals=True, timeouts=Timeouts(connect=20))
    assert table.num_rows == 20
    assert table.schema.field("Transfer_Amount").type == pa.decimal128(38, 18)


def test_a_sample_without_a_number_of_rows_takes_its_time(simulator: SimulatorThread) -> None:
    credentials = ClientCredentials(
        simulator.client_id, simulator.client_secret, token_url=simulator.token_url
    )
    began = time.monotonic()
    table = sample(TRANSFERS, seconds=1, credentials=credentials, endpoint=simulator.endpoint)
    assert table.num_rows > 20
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "rows=1000"),
        ({"rows": 1, "colour": "red"}, "no option colour"),
        ({"rows": 1, "cube": "Blocks"}, "no cube"),
    ],
)
def test_a_sample_that_cannot_mean_anything_is_refused(
    given: dict[str, Any], word: str, simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(simulator, monkeypatch)
    with pytest.raises(UsageError, match=word):
        sample(TRANSFERS, **given)


@virtual_time
async def test_a_sample_in_a_running_loop_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(UsageError, match=r"await bqstream.connect\(\).*await stream.to_arrow"):
        sample(TRANSFERS, rows=1)


# ---------------------------------------------------------------------- the documented subscriptions


@needs_documents
def test_rows_of_every_documented_subscription_are_the_same_by_both_ways() -> None:
    chain = Chain(seed=3)
    chain.mine()
    blocks = [chain.mine() for _ in range(20)]
    compared = rows = 0
    for line in documented():
        variables = line.get("variables") or None
        try:
            document, prepared = Document.parse(line["document"]), prepare(line["document"], variables, None)
        except DocumentRefused:  # some are excerpts
            continue
        found = [prepared.portion(block, index) for block in blocks for index in range(block.portions)]
        data = [msgspec.json.decode(msgspec.json.encode(one)) for one in found if one]
        for draft in drafts(document, variables, decimals=True):
            cube = draft.table.cube
            root = next(iter(data[0])) if data else ""
            if not cube or not data:
                continue
            ways = Frame(draft, root), Frame(draft, root)
            for frame in ways:
                frame.add(data[0][root].get(cube) or [])
                frame.settle()
            for one in data:
                ways[0].add(one[root].get(cube) or [])
                read = ways[1].read(msgspec.json.encode({"data": one}))
                assert read is not None or not one[root].get(cube), line["source"]
                ways[1].add_read(read or [])
            tables = [frame.take() for frame in ways]
            assert tables[0].equals(tables[1]), line["source"]
            compared, rows = compared + 1, rows + tables[0].num_rows
    print(f"{compared} tables, {rows} rows")
    assert compared > 200
