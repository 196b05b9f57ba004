"""A collector that dies by SIGKILL at any moment, again and again: what it has stored holds each row once.

Real processes take real time; what the moments of death are drawn from is the session's seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict

from .collector_process import Store

ROOT = Path(__file__).parents[2]
SERVICE: dict[str, Any] = {"block_interval": 0.2, "query_lag": 0.3, "transactions": 4, "reprice": 0.01}
PATIENCE = 60.0
# When a process is killed, in seconds, in turn: after it has committed for the first time; and after it was started, as
# it asks for what came in since the last one died, as it gets ready, and before.
AFTER_COMMIT, *AFTER_START = (0.05, 1.5), (1.5, 4.0), (0.5, 1.5), (0.05, 0.5)

KEYED = """subscription { EVM(network: eth) { Keyed: Transfers {
    Block { Number Hash } Transaction { Hash } Call { Index } Log { Index }
    Transfer { Index Type Amount Currency { Symbol } }
} } }"""
# Neither where they stand nor which they are is selected.
HIDDEN = """subscription { EVM(network: eth) {
    Moves: Transfers { Transfer { Amount Sender Receiver } }
    Heads: Blocks { Block { Time } }
} }"""
# No key is known, and most rows of a block are equal in all that the query side does not price anew.
ALIKE = """subscription { EVM(network: eth) { Alike: DEXTradeByTokens {
    Block { Number } Trade { PriceInUSD Side { Type } }
} } }"""


@dataclass
class Life:
    """One process, from its start to its end; what it has told of last."""

    process: asyncio.subprocess.Process
    rows: int = 0
    closing: bool = False
    last: dict[str, Any] = field(default_factory=dict)
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if not line.endswith(b"\n"):  # it died in the middle of a word
                break
            self.last = said = json.loads(line)
            self.rows = said.get("rows", self.rows)
            self.closing = said.get("closing", False)
            if said.get("commits"):
                self.committed.set()
            async with self.heard:
                self.heard.notify_all()
        self.ended.set()
        async with self.heard:
            self.heard.notify_all()

    async def until(self, condition: Callable[[], bool], *, within: float) -> None:
        """Wait for what it tells until ``condition`` holds. Raises TimeoutError after ``within`` seconds."""
        async with asyncio.timeout(within), self.heard:
            await self.heard.wait_for(lambda: condition() or self.ended.is_set())
        assert condition(), await self.died()

    async def silent(self, seconds: float) -> None:
        """Wait until it has told nothing for so long."""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(seconds), self.heard:
                    await self.heard.wait()

    async def died(self) -> str:
        assert self.process.stderr is not None
        return f"it ended by itself: {(await self.process.stderr.read()).decode()}"

    async def lives_on(self, seconds: float) -> None:
        """Wait that long; it must not end by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        assert not self.ended.is_set(), await self.died()


@dataclass
class Collector:
    """One document and one database, and the processes that come and go."""

    simulator: Simulator
    document: str
    database: Path
    random: Random
    checkpoint: str  # which one is stored: that of the "message", or of the "stream"
    idle: int = 0  # processes that died before they had committed anything

    def __post_init__(self) -> None:
        self.store = Store(str(self.database))

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[Life]:
        """A process that is killed when the block is left, if it is not gone by itself."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BITQUERY_")}
        environment |= {
            "BITQUERY_ENDPOINT": self.simulator.endpoint,
            "BITQUERY_TOKEN_URL": self.simulator.token_url,
            "BITQUERY_CLIENT_ID": self.simulator.client_id,
            "BITQUERY_CLIENT_SECRET": self.simulator.client_secret,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.collector_process"),
            *(str(self.database), self.checkpoint, self.document),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        life = Life(process)
        listening = asyncio.create_task(life.listen())
        try:
            yield life
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await listening

    async def die(self, times: int) -> None:
        """Be killed that often. What is owed begins with what the first one stores, so that one gets to that."""
        for number in range(times):
            turn = number % (1 + len(AFTER_START))
            async with self.living() as life:
                if turn == 0:
                    await life.until(life.committed.is_set, within=PATIENCE)
                await life.lives_on(self.random.uniform(*(AFTER_START[turn - 1] if turn else AFTER_COMMIT)))
                self.idle += not life.committed.is_set()

    async def verdict(self, caught_up: asyncio.Barrier) -> Verdict:
        """What is stored in the end, compared with what was emitted; all collectors wait for each other."""
        simulator, before = self.simulator, len(self.store.rows())
        async with self.living() as life:
            await life.until(lambda: life.committed.is_set() and not life.closing, within=PATIENCE)
            async with caught_up:  # closing a gap takes a chain that goes on
                simulator.pause()
            await simulator.drained()
            owed = simulator.ledger.verdict(self.document, []).emitted
            with contextlib.suppress(
                TimeoutError
            ):  # what has not come by then is lost, and the verdict says so
                await life.until(lambda: before + life.rows >= owed, within=10)
            await life.silent(0.5)
            life.process.send_signal(signal.SIGTERM)
            await life.until(lambda: life.ended.is_set(), within=PATIENCE)
            assert await life.process.wait() == 0, await life.died()
            assert life.last["holes"] == []
        return simulator.ledger.verdict(self.document, self.store.rows())


async def killed(kills: int, folder: Path, seed: int) -> None:
    """Kill each of three collectors so often, let the last process of each catch up, and ask the ledger."""
    async with Simulator(seed=seed, **SERVICE) as simulator:
        collectors = {
            name: Collector(
                simulator, document, folder / f"{number}.sqlite", Random(seed + number), checkpoint
            )
            for number, (name, document, checkpoint) in enumerate(
                (
                    ("rows with a key", KEYED, "message"),
                    ("two cubes with hidden fields", HIDDEN, "stream"),
                    ("rows that are alike", ALIKE, "message"),
                )
            )
        }
        async with asyncio.TaskGroup() as group:
            for collector in collectors.values():
                group.create_task(collector.die(kills))
        caught_up = asyncio.Barrier(len(collectors))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(collector.verdict(caught_up)) for collector in collectors.values()]
    verdicts = [task.result() for task in tasks]
    for (name, collector), verdict in zip(collectors.items(), verdicts, strict=True):
        store = collector.store
        print(
            f"{name}: {kills} kills, {collector.idle} of them before a commit; {verdict.emitted} rows emitted, "
            f"{verdict.delivered} stored, {store.replayed} of them brought by queries, {verdict.early} early, "
            f"{verdict.lost} lost, {verdict.repeated} repeated, {verdict.foreign} foreign; "
            f"largest checkpoint {store.largest} bytes"
        )
        store.close()
    assert all(verdict.exact and verdict.delivered for verdict in verdicts), verdicts


@pytest.mark.asyncio
async def test_collectors_that_are_killed_go_on_from_their_checkpoints_and_store_each_row_once(
    tmp_path: Path, seed: int
) -> None:
    await killed(3, tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.asyncio
async def test_collectors_that_are_killed_fifty_times_store_each_row_once(tmp_path: Path, seed: int) -> None:
    await killed(50, tmp_path, seed)
