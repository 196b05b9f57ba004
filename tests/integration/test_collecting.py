"""A collector against the service, into SQLite: whatever ends it, each row is there once in the end.

In virtual time; the sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bqstream import Backoff, Buffer, Client, GapFound, SinkLocked, SinkUnavailable, Timeouts, UsageError
from bqstream.collect import Batching, Collected, Collector
from bqstream.collect.commit import Commit
from bqstream.collect.sinks.sqlite import SQLiteSink
from bqstream.collect.state import State
from bqstream.simulator import Simulator
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, client_for, until

KEYED = """subscription { EVM(network: eth) { Keyed: Transfers {
    Block { Number Hash } Transaction { Hash } Call { Index } Log { Index } Transfer { Index Amount }
} } }"""
ALIKE = """subscription { EVM(network: eth) { Alike: DEXTradeByTokens {
    Block { Number } Trade { PriceInUSD Side { Type } }
} } }"""
TWO = "subscription { EVM(network: eth) { Moves: Transfers { Transfer { Amount } } Heads: Blocks { Block { Time } } } }"
COUNTED = """subscription { EVM(network: eth) { Transfers { count Transfer { Currency { Symbol } } } } }"""
DOCUMENTS = {"keyed": KEYED, "alike": ALIKE, "two cubes": TWO}
SERVICE: dict[str, Any] = {"block_interval": 0.5, "query_lag": 0.3, "transactions": 4}
SOON = Batching(seconds=1)


def rows_in(path: Path) -> list[Any]:
    """The rows as the service nests them, by the tables of the state; all of their columns are text."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (text,) = database.execute("SELECT state FROM _bqstream_state").fetchone()
        tables = State.loads(text).tables
        found: list[Any] = []
        for table in tables:
            names = ", ".join(f'"{name}"' for name in table.names)
            for values in database.execute(f'SELECT {names} FROM "{table.name}" ORDER BY rowid'):
                row: dict[str, Any] = {}
                for column, value in zip(table.columns, values, strict=True):
                    inside = row
                    for key in column.path[:-1]:
                        inside = inside.setdefault(key, {})
                    inside[column.path[-1]] = value
                found.append({table.cube: row} if len(tables) > 1 else row)
        return found


def gaps_in(path: Path) -> list[tuple[str, bool, str | None]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT cause, closed, reason FROM _bqstream_gaps").fetchall()


class Flaky(SQLiteSink):
    """SQLite that is down, or does not answer, at some commits; ``fails`` by the call's number, before or after."""

    def __init__(self, path: Path, fails: dict[int, str]) -> None:
        super().__init__(path)
        self._fails = fails
        self._calls = 0

    def _commit(self, commit: Commit) -> None:
        self._calls += 1
        how = self._fails.get(self._calls)
        if how == "before":
            raise SinkUnavailable("down")
        super()._commit(commit)
        if how == "after":
            raise SinkUnavailable("no answer")


@dataclass
class Place:
    """One service, and one database that collectors come and go at."""

    simulator: Simulator
    path: Path
    document: str
    options: dict[str, Any] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def collecting(self, **options: Any) -> AsyncIterator[tuple[Collector, asyncio.Task[Collected]]]:
        """A collector at work, cancelled when the block is left."""
        client_options = {
            "timeouts": Timeouts(grace=0.5),
            "backoff": Backoff(initial=0.1),
            **options.pop("client", {}),
        }
        async with client_for(self.simulator, **client_options) as client:
            collector = self.collector(client, **options)
            task = asyncio.create_task(collector.run())
            try:
                yield collector, task
            finally:
                task.cancel()
                await asyncio.wait({task})

    def collector(self, client: Client, **options: Any) -> Collector:
        given: dict[str, Any] = {
            "sink": f"sqlite:{self.path}",
            "batching": SOON,
            "dead_letters": self.path.parent / "dead",
        }
        given |= {"columns": dict.fromkeys(self.columns(options), "text")} | self.options | options
        return Collector(client, given.pop("document", self.document), given.pop("sink"), **given)

    def columns(self, options: dict[str, Any]) -> list[str]:
        """Those that would hold something else than the JSON that came."""
        document = options.get("document", self.document)
        return [
            name
            for name, sign in {"Block_Number": "Number", "Block_Time": "Time"}.items()
            if f"{sign} " in document.split("Block {")[-1].split("}")[0] + " "
        ]

    async def verdict(self, **options: Any) -> Any:
        """Collect until nothing is missing, stop, and ask the ledger."""
        async with self.collecting(**options) as (collector, task):
            await until(lambda: collector._stream is not None and not collector._stream.closing, within=60)
            await asyncio.sleep(5)
            assert collector._stream is not None
            await until(lambda: collector._stream is not None and not collector._stream.closing, within=60)
            self.simulator.pause()
            await self.simulator.drained()
            await asyncio.sleep(3)
            collector.stop()
            collected = await task
            assert collected.misfits == 0
            assert collected.holes == 0, collector._named
        return self.simulator.ledger.verdict(self.document, rows_in(self.path))


@contextlib.asynccontextmanager
async def place(folder: Path, document: str = KEYED, seed: int = 1, **options: Any) -> AsyncIterator[Place]:
    async with Simulator(seed=seed, **SERVICE) as simulator:
        yield Place(simulator, folder / "rows.db", document, options)


@pytest.fixture(autouse=True)
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's clock is the service's."""
    monkeypatch.setattr("tests.virtual_time.WALL_AT_START", time.time())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_was_stopped_cancelled_and_killed_goes_on_with_each_row_once(
    tmp_path: Path, name: str, seed: int
) -> None:
    @virtual_time
    async def run() -> None:
        async with place(tmp_path, DOCUMENTS[name], seed) as here:
            for number, lives in enumerate((3.3, 0.4, 5.1, 1.2)):
                async with here.collecting() as (collector, task):
                    await asyncio.sleep(lives)
                    if number % 2 == 0:
                        collector.stop()
                        await task
                await asyncio.sleep(2)
            verdict = await here.verdict()
            assert verdict.exact, verdict
            assert verdict.delivered > 50

    run()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_sink_that_is_down_or_does_not_answer_has_each_row_once(
    tmp_path: Path, name: str, seed: int
) -> None:
    @virtual_time
    async def run() -> None:
        async with place(tmp_path, DOCUMENTS[name], seed) as here:
            fails = {1: "after", 3: "before", 4: "before", 5: "after", 7: "after", 9: "before"}
            verdict = await here.verdict(sink=Flaky(here.path, fails))
            assert verdict.exact, verdict
            assert verdict.delivered > 20

    run()


@virtual_time
async def test_links_that_drop_and_tokens_that_expire_lose_nothing(tmp_path: Path, seed: int) -> None:
    async with place(tmp_path, TRANSFERS, seed) as here:
        here.simulator.settings.token_ttl = 6
        async with here.collecting() as (collector, task):
            for _ in range(3):
                await asyncio.sleep(4)
                here.simulator.faults.close(1012)
            await asyncio.sleep(4)
            collector.stop()
            assert (await task).gaps >= 1
        here.simulator.settings.token_ttl = 3600
        verdict = await here.verdict()
        assert verdict.exact, verdict
        assert all(closed and reason is None for _, closed, reason in gaps_in(here.path))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_full_buffer_lets_go_of_while_the_sink_is_down_is_asked_for_again(
    tmp_path: Path, name: str, seed: int
) -> None:
    @virtual_time
    async def run() -> None:
        async with place(tmp_path, DOCUMENTS[name], seed, batching=Batching(seconds=1, messages=3)) as here:
            sink = Flaky(here.path, dict.fromkeys(range(3, 9), "before"))
            small = {"buffer": Buffer(messages=6), "timeouts": Timeouts(grace=0.5, block=0.5)}
            async with here.collecting(sink=sink, client=small, backoff=Backoff(initial=8, maximum=8)) as (
                collector,
                task,
            ):
                await until(lambda: sink._calls > 8 and not collector.status().trouble, within=200)
                await asyncio.sleep(10)
                assert any(gap.cause == "parked" for gap in collector._named)
                collector.stop()
                await task
            verdict = await here.verdict()
            assert verdict.exact, verdict

    run()


@virtual_time
async def test_another_process_that_commits_in_between_ends_it(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.collecting() as (_, task):
        await asyncio.sleep(3)
        with contextlib.closing(sqlite3.connect(here.path)) as database, database:
            database.execute("UPDATE _bqstream_state SET number = number + 1")
        with pytest.raises(SinkLocked):
            await task


@virtual_time
async def test_what_lies_before_joins_what_follows_without_a_seam(tmp_path: Path, seed: int) -> None:
    async with place(tmp_path, KEYED, seed) as here:
        await here.simulator.blocks(20)
        verdict = await here.verdict(since=timedelta(seconds=5))
        assert verdict.exact, verdict
        assert verdict.early > 10


@pytest.mark.parametrize("cancelled", [False, True])
def test_forks_that_are_undone_leave_the_trunk(tmp_path: Path, seed: int, cancelled: bool) -> None:
    @virtual_time
    async def run() -> None:
        async with place(tmp_path, KEYED, seed, undo=True) as here:
            async with here.collecting() as (collector, task):
                for depth in (1, 3, 2):
                    await here.simulator.blocks(6)
                    here.simulator.faults.fork(depth)
                await here.simulator.blocks(6)
                here.simulator.pause()
                await here.simulator.drained()
                await asyncio.sleep(3)
                assert collector.status().taken_back > 10
                if not cancelled:
                    collector.stop()
                    await task
                query = KEYED.replace("subscription", "query", 1).replace(
                    "Transfers {", "Transfers(limit: {count: 9999}) {"
                )
                trunk = (await collector._client.execute(query))["EVM"]["Keyed"]
            kept = rows_in(here.path)
            first = min(int(row["Block"]["Number"]) for row in kept)

            def counted(rows: list[Any]) -> Counter[str]:
                return Counter(
                    json.dumps(row, sort_keys=True) for row in rows if int(row["Block"]["Number"]) > first
                )

            texts = [json.loads(json.dumps(row), parse_int=str) for row in trunk]
            assert counted(json.loads(json.dumps(kept), parse_int=str)) == counted(texts)

    run()


@virtual_time
async def test_a_hole_ends_it_when_that_was_asked_for_with_all_before_it_committed(tmp_path: Path) -> None:
    async with place(tmp_path, COUNTED, on_gap="stop") as here, here.collecting() as (collector, task):
        await here.simulator.blocks(6)
        here.simulator.faults.close(1012)
        with pytest.raises(GapFound):
            await task
        assert [reason is not None for _, _, reason in gaps_in(here.path)] == [True]
        assert collector.status().state == "failed"
        with contextlib.closing(sqlite3.connect(here.path)) as database:
            assert database.execute("SELECT count(*) FROM Transfers").fetchone()[0] > 3


@virtual_time
async def test_a_hole_is_recorded_and_it_goes_on_otherwise(tmp_path: Path) -> None:
    async with place(tmp_path, COUNTED) as here, here.collecting() as (collector, task):
        await here.simulator.blocks(6)
        here.simulator.faults.close(1012)
        await asyncio.sleep(10)
        collector.stop()
        collected = await task
        assert collected.holes == 1
        assert [reason is not None for _, _, reason in gaps_in(here.path)] == [True]


# ---------------------------------------------------------------------- a document that changes

MORE = KEYED.replace("Index Amount", "Index Amount Sender")


@virtual_time
async def test_another_document_is_refused(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with here.collecting() as (collector, task):
            await asyncio.sleep(4)
            collector.stop()
            await task
        async with here.collecting(document=MORE) as (_, task):
            with pytest.raises(UsageError, match="another document"):
                await task


@virtual_time
async def test_a_document_that_asks_for_more_goes_on_where_that_is_allowed(tmp_path: Path, seed: int) -> None:
    async with place(tmp_path, seed=seed) as here:
        async with here.collecting() as (collector, task):
            await asyncio.sleep(6)
            collector.stop()
            await task
        before = len(rows_in(here.path))
        await asyncio.sleep(3)
        here.document = MORE
        await here.verdict(evolve=True)
        rows = rows_in(here.path)
        assert len(rows) > before > 20
        assert [row["Transfer"]["Sender"] is None for row in rows] == [True] * before + [False] * (
            len(rows) - before
        )
        for row in rows:
            del row["Transfer"]["Sender"]
        verdict = here.simulator.ledger.verdict(KEYED, rows)
        assert verdict.exact, verdict


@pytest.mark.parametrize(
    ("document", "changed", "said"),
    [
        (ALIKE, ALIKE.replace("PriceInUSD", "PriceInUSD Amount"), "have no key"),
        (
            TRANSFERS.replace("Block { Number Time }", "Block { Time }"),
            TRANSFERS,
            "the document has changed in fields",
        ),
    ],
)
def test_a_document_whose_rows_cannot_be_told_from_the_former_ones_is_refused(
    tmp_path: Path, document: str, changed: str, said: str
) -> None:
    @virtual_time
    async def run() -> None:
        async with place(tmp_path, document) as here:
            async with here.collecting() as (collector, task):
                await asyncio.sleep(6)
                collector.stop()
                await task
            stored = rows_in(here.path)
            async with here.collecting(document=changed, evolve=True) as (_, task):
                with pytest.raises(UsageError, match=said):
                    await task
            assert rows_in(here.path) == stored

    run()


@virtual_time
async def test_a_cube_that_is_asked_for_no_more_and_a_new_one_are_no_obstacle(tmp_path: Path) -> None:
    async with place(tmp_path, TWO) as here:
        async with here.collecting() as (collector, task):
            await asyncio.sleep(4)
            collector.stop()
            await task
        changed = TWO.replace("Heads: Blocks { Block { Time } }", "Others: Calls { Call { Index } }")
        async with here.collecting(document=changed, evolve=True, name=collector.name) as (collector, task):
            await asyncio.sleep(6)
            collector.stop()
            assert (await task).holes == 0
        with contextlib.closing(sqlite3.connect(here.path)) as database:
            assert database.execute("SELECT count(*) FROM Others").fetchone()[0] > 3
