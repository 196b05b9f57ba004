"""``bqstream checkpoint rewind`` between two collectors, each a process of its own, into SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from bqstream.collect import Collector, open_sink
from bqstream.collect.rewind import Rewind
from bqstream.simulator import Simulator
from tests.virtual_time import virtual_time

from .harness import client_for, until
from .test_cli import bqstream, ended, environment, started

DOCUMENT = """subscription { EVM(network: eth) { Transfers {
    Block { Number } Transaction { Hash } Log { Index } Call { Index } Transfer { Index Amount }
} } }"""
SOON = ("--batch-seconds", "0.5s", "--log", "plain")


def rows_in(path: Path) -> Counter[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return Counter(database.execute("SELECT * FROM Transfers").fetchall())


def block_of(row: tuple[object, ...]) -> int:
    return int(str(row[0]))


def removed(path: Path, statement: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        return database.execute(statement).rowcount


def newest(path: Path) -> int:
    """The highest block in the sink; 0 while there is none."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Transfers'").fetchone():
            return 0
        return int(database.execute("SELECT max(Block_Number) FROM Transfers").fetchone()[0])


async def collected(
    path: Path, named: tuple[str, ...], env: dict[str, str], beyond: int, blocks: int
) -> None:
    """Collect until so many blocks above ``beyond``, or above the first that comes, are in the sink; then stop it."""
    async with started("collect", *named, *SOON, env=env) as process:
        await until(lambda: newest(path) > beyond, within=60)
        goal = (beyond or newest(path)) + blocks
        await until(lambda: newest(path) >= goal, within=60)
        process.send_signal(signal.SIGTERM)
        end = await ended(process)
    assert end.code == 0, end


@pytest.mark.asyncio
@pytest.mark.parametrize("remove", [False, True], ids=["left as it is", "removed before, as it advises"])
async def test_after_a_rewind_every_row_from_the_block_on_comes_again_and_none_from_before(
    remove: bool, tmp_path: Path
) -> None:
    path = tmp_path / "rows.db"
    named = ("--query", DOCUMENT, "--to", f"sqlite:{path}")
    async with Simulator(block_interval=0.2, transactions=3, query_lag=0.3) as simulator:
        env = environment(simulator)
        await collected(path, named, env, beyond=0, blocks=10)
        before = rows_in(path)
        last = newest(path)
        block = last - 5
        again = {row: count for row, count in before.items() if block_of(row) >= block}

        end = await bqstream("checkpoint", "rewind", *named, "--to", str(block), "--yes", env=environment())
        assert end.code == 0, end
        assert f"{sum(again.values())} rows of Transfers come again" in end.err
        if remove:
            advised = next(line for line in end.err.splitlines() if "DELETE" in line)
            assert removed(path, advised) == sum(again.values())
        await collected(path, named, env, beyond=last, blocks=3)
        # What was published of the blocks that were complete when the collector began anew.
        owed = sum(
            block <= int(row["Block"]["Number"]) < last for _, _, row in simulator.ledger.rows(DOCUMENT)
        )

    # Its first block may have been cut, and what came before that too is asked for by any collector so young.
    first = min(block_of(row) for row in before)
    whole = range(first + 1, last)
    after = rows_in(path)
    times = 1 if remove else 2
    assert {row: count for row, count in after.items() if block_of(row) in whole} == {
        row: count * (times if row in again else 1) for row, count in before.items() if block_of(row) in whole
    }
    came = sum(count for row, count in after.items() if block <= block_of(row) < last)
    assert came == times * owed > 0


@pytest.mark.asyncio
async def test_a_collector_that_runs_is_looked_at_and_not_sent_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    named = ("--query", DOCUMENT, "--to", f"sqlite:{path}")
    async with (
        Simulator(block_interval=0.2, transactions=3) as simulator,
        started("collect", *named, *SOON, env=environment(simulator)) as process,
    ):
        await until(lambda: newest(path) > 0, within=60)
        refused, shown = await asyncio.gather(
            bqstream(
                *("checkpoint", "rewind", *named, "--to", str(newest(path)), "--yes"), env=environment()
            ),
            bqstream("checkpoint", "show", *named, "--json", env=environment()),
        )
        assert (refused.code, shown.code) == (6, 0), (refused, shown)
        assert "another collector on this machine" in refused.err
        held = json.loads(shown.out)
        assert held["commit"] >= 1
        assert held["tables"]["Transfers"]["Block_Number"] == "integer"
        before = newest(path)
        await until(lambda: newest(path) > before, within=60)  # it goes on
        process.send_signal(signal.SIGTERM)
        assert (await ended(process)).code == 0


@virtual_time
async def test_a_rewind_of_many_minutes_brings_every_row_since_once_more(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    async with (
        Simulator(block_interval=2, transactions=3, query_lag=0.3) as simulator,
        client_for(simulator) as client,
    ):

        async def collect(seconds: float) -> Collector:
            collector = Collector(client, DOCUMENT, f"sqlite:{path}", since=timedelta(seconds=1))
            task = asyncio.create_task(collector.run())
            await asyncio.sleep(seconds)
            collector.stop()
            await task
            return collector

        collector = await collect(300)
        before, last = rows_in(path), newest(path)
        block = min(block_of(row) for row in before) + 10
        sink = open_sink(f"sqlite:{path}")
        stored = await sink.open(collector.name)
        assert stored is not None
        back = Rewind.of(stored, block, {key: reader.kind for key, reader in collector.readers.items()})
        assert back.moved["Transfers"].whole.value > block
        await sink.commit(back.commit(collector.name))
        await sink.aclose()
        await collect(60)
    after = rows_in(path)
    assert {row: count for row, count in after.items() if block_of(row) < last} == {
        row: count * (2 if block_of(row) >= block else 1)
        for row, count in before.items()
        if block_of(row) < last
    }
