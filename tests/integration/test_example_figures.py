"""What the examples work out is right by the simulator's ledger, while links, blocks and receivers are lost."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import price_candles
import pytest
import webhook_alert

from bqstream import Client, Timeouts
from bqstream.events import HandedOver
from bqstream.simulator import Simulator

from .harness import Events, client_for, until
from .test_examples import ROOT, environment, printed


def candles_of(rows: Iterable[Any]) -> dict[Any, price_candles.Candle]:
    """The same from rows that are all there, by another way: sorted first, then cut by time."""
    cut: dict[Any, list[float]] = defaultdict(list)
    for row in sorted(rows, key=price_candles.place):
        cut[price_candles.start_of(row["Block"]["Time"])].append(row["Trade"]["PriceInUSD"])
    return {
        start: price_candles.Candle(start, prices[0], max(prices), min(prices), prices[-1], len(prices))
        for start, prices in cut.items()
    }


async def read_candles(client: Client, count: int, found: list[price_candles.Candle]) -> None:
    async with contextlib.aclosing(price_candles.candles(client, price_candles.WETH)) as candles:
        async for candle in candles:
            found.append(candle)
            if len(found) == count:
                break


@pytest.mark.asyncio
async def test_candles_are_those_of_the_ledgers_rows_over_hand_overs_and_a_lost_link(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_candles, "LENGTH", timedelta(seconds=1))
    seen = Events()
    async with (
        Simulator(seed=seed, token_ttl=5, block_interval=0.1) as simulator,
        client_for(simulator, on_event=seen.append, timeouts=Timeouts(grace=1)) as client,
    ):
        found: list[price_candles.Candle] = []
        candles = asyncio.create_task(read_candles(client, 8, found))
        await until(lambda: found, within=60)
        simulator.faults.down(0.5)
        await candles
        assert seen.of(HandedOver), "no hand-over"
        owed = simulator.ledger.rows(price_candles.TRADES, {"token": price_candles.WETH}, since=0)
        right = candles_of(row for _, _, row in owed)
    assert found == [right[candle.start] for candle in found]
    assert [candle.start for candle in found] == sorted(right)[: len(found)], "one is missing"


@pytest.mark.asyncio
async def test_candles_are_those_of_the_trunk_where_the_chain_forks(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_candles, "LENGTH", timedelta(seconds=1))
    async with (
        Simulator(seed=seed, block_interval=0.1) as simulator,
        client_for(simulator, timeouts=Timeouts(grace=1)) as client,
    ):
        found: list[price_candles.Candle] = []
        candles = asyncio.create_task(read_candles(client, 8, found))
        await until(lambda: found, within=60)
        for depth in (1, 3, 2):
            simulator.faults.fork(depth)
            await simulator.blocks(12)
        await candles
        query = price_candles.TRADES.replace("subscription", "query").replace(
            "(where:", "(limit: {count: 9999} where:"
        )
        trunk = await client.execute(query, {"token": price_candles.WETH})
        right = candles_of(trunk["EVM"]["DEXTradeByTokens"])
    assert found == [right[candle.start] for candle in found]
    assert sum(candle.trades for candle in found) > 100


@contextlib.asynccontextmanager
async def dying_receiver(path: Path, posts: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A receiver that kills itself at every so many posts and is started again; its URL, and how it ended each time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    deaths: list[int] = []
    serving = asyncio.Event()

    async def keep() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "tests.integration.webhook_receiver",
                    str(port),
                    str(path),
                    str(posts),
                    "after" if deaths else "before",
                ),
                cwd=ROOT,
                env=environment(),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                assert process.stdout is not None
                await process.stdout.readline()
                serving.set()
                deaths.append(await process.wait())
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    keeper = asyncio.create_task(keep())
    try:
        await serving.wait()
        yield f"http://127.0.0.1:{port}/", deaths
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})


def kept(path: Path, what: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [found for (found,) in database.execute(what)]


def text_of(row: Any) -> str:
    transfer = row["Transfer"]
    told = f"{transfer['Amount']} {transfer['Currency']['Symbol']} to {transfer['Receiver']}"
    return f"{told}, {row['Transaction']['Hash']}"


@pytest.mark.asyncio
async def test_each_alert_comes_once_though_the_receiver_is_killed_and_the_sender_starts_anew(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_alert, "ENOUGH", 10**9)
    path, saved = tmp_path / "alerts.db", tmp_path / "checkpoint"

    def alerts() -> list[str]:
        return kept(path, "SELECT text FROM alerts")

    async with (
        Simulator(seed=seed, block_interval=0.5, transactions=3) as simulator,
        dying_receiver(path, posts=10) as (url, deaths),
        client_for(simulator, timeouts=Timeouts(grace=0.3)) as client,
    ):
        sending = asyncio.create_task(webhook_alert.alert(client, url, saved))
        await until(lambda: len(deaths) == 1, within=60)  # the post that it died of is lost
        sending.cancel()
        await asyncio.wait({sending})
        sending = asyncio.create_task(webhook_alert.alert(client, url, saved))
        await until(lambda: len(deaths) >= 2, within=60)
        await until(lambda: not any(one.closing for one in client.status().subscriptions))
        simulator.pause()
        await simulator.drained()
        ledger = simulator.ledger
        owed = Counter(text_of(row) for _, _, row in ledger.rows(webhook_alert.WHALES))
        ever = Counter(text_of(row) for _, _, row in ledger.rows(webhook_alert.WHALES, since=0))
        with contextlib.suppress(TimeoutError):
            await until(lambda: not owed - Counter(alerts()))
        sending.cancel()
        await asyncio.wait({sending})
    assert not owed - Counter(alerts()), "lost"
    assert not Counter(alerts()) - ever, "twice, or never emitted"
    assert len(kept(path, "SELECT key FROM posts")) > len(alerts()), "nothing was posted twice"


@pytest.mark.asyncio
async def test_what_was_before_and_what_comes_is_whole_though_the_link_is_lost_meanwhile() -> None:
    async with Simulator(block_interval=0.2) as simulator:
        env = environment() | {
            "BITQUERY_ENDPOINT": simulator.endpoint,
            "BITQUERY_TOKEN_URL": simulator.token_url,
            "BITQUERY_CLIENT_ID": simulator.client_id,
            "BITQUERY_CLIENT_SECRET": simulator.client_secret,
        }
        await simulator.blocks(20)
        printing = asyncio.create_task(printed("examples/backfill_then_follow.py", env=env))
        await until(lambda: simulator.ledger.fingerprints)
        await simulator.blocks(5)
        simulator.faults.abort()
        out = await printing
        found = re.search(r"blocks (\d+) to (\d+): (\d+) from before, (\d+) live\n0 missing, 0 twice\n$", out)
        assert found is not None, out
        first, last, before, live = map(int, found.groups())
        emitted = {int(e.block.number) for e in simulator.ledger._emissions}
    assert before + live == last - first + 1
    assert set(range(first, last + 1)) <= emitted
    assert simulator.counters["dials"] > 1, "the link was not lost"
