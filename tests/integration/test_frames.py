"""Tables of a stream against the service: each row once, and as a collector writes them; the sockets are real."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from bqstream import Client, DocumentRefused, Subscription, Timeouts
from bqstream.collect import Batching, Collector
from bqstream.delivery.document import Document
from bqstream.events import HandedOver
from bqstream.simulator import Simulator
from bqstream.simulator.answers import prepare
from bqstream.simulator.chain import Chain
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


def calm(client: Client, stream: Subscription[Any]) -> bool:
    """Whether no gap is being closed, and none can be named by a hand-over soon."""
    status = client.status()
    assert status.token_expires_at is not None
    lasts = status.token_expires_at.timestamp() > client._clock.wall() + 60
    return lasts and status.state == "live" and all(gap.closed for gap in stream.gaps)


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
        simulator.settings.token_ttl = 3600  # a hand-over while the chain stands still could not be proven
        while not calm(client, stream):
            tables.append(await stream.to_arrow(seconds=0.1, columns=AS_SENT))
        simulator.pause()
        await simulator.drained()
        tables.append(await stream.to_arrow(seconds=1, columns=AS_SENT))
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


# ---------------------------------------------------------------------- the documented subscriptions


def of(line: dict[str, Any]) -> dict[str, Any]:
    return {"document": line["document"], "variables": line.get("variables") or None}


@needs_documents
def test_rows_of_every_documented_subscription_are_the_same_by_both_ways() -> None:
    asked = []
    for line in documented():
        try:
            document, prepared = Document.parse(line["document"]), prepare(**of(line), operation_name=None)
        except DocumentRefused:  # some are excerpts
            continue
        asked.append((line, document, prepared))
    chain, compared, rows = Chain(seed=3), 0, 0
    first = chain.mine()
    for _, _, prepared in asked:  # what comes later holds what was asked for
        prepared.portion(first, 0)
    blocks = [chain.mine() for _ in range(8)]
    for line, document, prepared in asked:
        variables = of(line)["variables"]
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
