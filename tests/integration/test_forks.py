"""A chain that forks: a sink that heeds ``message.undo`` holds what the trunk holds."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any

from bqstream import Client, Timeouts, Undo
from bqstream.simulator import Simulator
from bqstream.subscription import Subscription
from tests.virtual_time import virtual_time

from .harness import client_for, until

TRANSFERS = """subscription {
  EVM(network: eth) {
    Transfers { Block { Number } Transfer { Amount } Transaction { Hash } }
  }
}"""


class Sink:
    """Rows that are kept, as text; a row that is taken back goes."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.kept: Counter[str] = Counter()
        self.rows: list[Any] = []
        self.messages = self.undos = self.forks = 0

    async def read(self) -> None:
        async for message in self.subscription:
            self.forks += len(message.forks)
            for row in message.undo.rows["Transfers"] if message.undo is not None else ():
                self.kept[json.dumps(row, sort_keys=True)] -= 1
                self.undos += 1
            for row in message.rows():
                self.rows.append(row)
                self.kept[json.dumps(row, sort_keys=True)] += 1
            self.messages += 1


async def holds_the_trunk(sink: Sink, client: Client) -> None:
    """From above the first block that it has, of which rows may have been before its time."""
    query = TRANSFERS.replace("subscription", "query", 1).replace(
        "Transfers {", "Transfers(limit: {count: 9999}) {"
    )
    trunk = (await client.execute(query))["EVM"]["Transfers"]
    first = min(int(row["Block"]["Number"]) for row in sink.rows)
    wanted = Counter(json.dumps(row, sort_keys=True) for row in trunk if int(row["Block"]["Number"]) > first)
    kept = Counter(
        {row: n for row, n in (+sink.kept).items() if int(json.loads(row)["Block"]["Number"]) > first}
    )
    assert kept == wanted


@virtual_time
async def test_what_forks_take_back_leaves_the_trunk() -> None:
    async with (
        Simulator(block_interval=0.5) as simulator,
        client_for(simulator, timeouts=Timeouts(grace=1)) as client,
        client.subscribe(TRANSFERS, undo=True) as stream,
    ):
        sink = Sink(stream)
        reading = asyncio.create_task(sink.read())
        for depth in (1, 3, 2):
            await simulator.blocks(6)
            simulator.faults.fork(depth)
        await simulator.blocks(6)
        simulator.pause()
        await simulator.drained()
        await until(lambda: simulator.ledger.verdict(TRANSFERS, sink.rows).exact)
        assert sink.forks == 6, "heights that came twice"
        assert sink.undos
        await holds_the_trunk(sink, client)
        reading.cancel()
        await asyncio.wait({reading})


@virtual_time
async def test_a_fork_while_a_gap_is_being_closed_leaves_the_trunk() -> None:
    """The query brings the trunk; the branch that was given up had come live before, and was held back."""
    async with (
        Simulator(seed=1, block_interval=0.1) as simulator,
        client_for(simulator, timeouts=Timeouts(grace=1)) as client,
    ):
        await simulator.blocks(10)
        async with client.subscribe(TRANSFERS, since=timedelta(seconds=1), undo=True) as stream:
            sink = Sink(stream)
            reading = asyncio.create_task(sink.read())
            await simulator.blocks(5)
            assert stream.closing
            simulator.faults.fork(2)
            await simulator.blocks(80)
            assert not stream.closing
            simulator.pause()
            await simulator.drained()
            await until(lambda: simulator.ledger.verdict(TRANSFERS, sink.rows).lost == 0)
            assert sink.undos
            await holds_the_trunk(sink, client)
            reading.cancel()
            await asyncio.wait({reading})


@virtual_time
async def test_rows_tell_of_forks_in_line() -> None:
    async with (
        Simulator(block_interval=0.2) as simulator,
        client_for(simulator) as client,
        client.subscribe(TRANSFERS, undo=True) as stream,
    ):
        simulator_forks = False
        async for row in stream.rows():
            if isinstance(row, Undo):
                assert row.rows["Transfers"]
                assert "bqs" not in json.dumps(row.rows["Transfers"])
                break
            if not simulator_forks:
                simulator_forks = True
                await until(lambda: simulator.chain.head and simulator.chain.head.number > 21_000_003)
                simulator.faults.fork(2)
