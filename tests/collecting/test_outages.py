"""Sinks that go away for a while, disks that fill up, collectors that are stopped in the middle of a batch: what is in
the sink in the end is what was emitted, each row once; and what cannot be written meanwhile is held within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bqstream import Backoff, Buffer, Client, Timeouts
from bqstream.collect import Batching, Collector
from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict, canonical
from tests.integration.harness import client_for, until
from tests.integration.test_cli import environment, started
from tests.postgresql_server import PostgreSQLServer

from .documents import DOCUMENT
from .lives import ROOT, Life, Lives
from .places import PLACES, Place, duckdb_file

pytestmark = pytest.mark.soak
SERVICE: dict[str, Any] = {
    "block_interval": 0.1,
    "query_lag": 0.2,
    "transactions": 8,
    "keepalive": 0.5,
}
ROTATING = SERVICE | {"token_ttl": 5.0}
# What may wait in a subscription's buffer, in bytes: what comes in about two seconds; and the message that fills it.
BOUND, MESSAGE = 400_000, 40_000


# ---------------------------------------------------------------------- a collector in this process


@dataclass
class Here:
    """A collector at work, and the most that waited for it."""

    simulator: Simulator
    place: Place
    client: Client
    collector: Collector
    waited: int = 0
    parked: bool = False
    states: set[str] = field(default_factory=set)

    async def watch(self) -> None:
        while True:
            for stream in self.client.status().subscriptions:
                self.waited = max(self.waited, stream.waiting_bytes)
                self.parked |= stream.parked
            self.states.add(self.collector.status().state)
            await asyncio.sleep(0.01)

    @property
    def rows(self) -> int:
        return self.collector.status().rows

    def verdict(self) -> Verdict:
        return self.simulator.ledger.verdict(DOCUMENT, self.place.read())

    async def outage(self, goes: Callable[[], None], comes: Callable[[], None], blocks: int) -> None:
        """The sink is away for so many blocks, and until the subscription is parked."""
        await until(lambda: self.collector.status().commits > 2)
        await asyncio.to_thread(goes)
        try:
            await until(lambda: self.collector.status().state == "retrying")
            await self.simulator.blocks(blocks)
            await until(lambda: self.parked)
            assert self.collector.status().trouble
            assert 0 < self.waited <= BOUND + MESSAGE
        finally:
            await asyncio.to_thread(comes)
        # A gap is closed while what comes meanwhile is held, in the same bounds: a calmer chain leaves time for that.
        self.simulator.settings.block_interval = 0.5
        committed = self.rows
        await until(lambda: self.rows > committed and self.collector.status().state == "collecting")

    async def exact(self, task: asyncio.Task[Any]) -> None:
        """Gaps are closed; then nothing is missing, and nothing too much."""
        self.simulator.settings.token_ttl = 3600
        await until(lambda: self.calm, within=60)
        self.simulator.pause()
        await self.simulator.drained()
        await until(lambda: not self.verdict().lost)
        self.collector.stop()
        collected = await task
        verdict = self.verdict()
        assert verdict.exact, verdict
        assert collected.gaps
        assert collected.holes == collected.misfits == 0
        assert all(gap.closed for gap in self.collector._named)

    @property
    def calm(self) -> bool:
        """Whether no gap is being closed, and no link is about to be handed over, by which another would be named."""
        status = self.client.status()
        expires = status.token_expires_at
        late = expires is not None and expires - datetime.now(UTC) > timedelta(minutes=1)
        return late and status.state == "live" and not any(one.closing for one in status.subscriptions)


@contextlib.asynccontextmanager
async def collecting(
    simulator: Simulator, place: Place, dead_letters: Path
) -> AsyncIterator[tuple[Here, asyncio.Task[Any]]]:
    backoff = Backoff(initial=0.1, maximum=0.5)
    timeouts = Timeouts(connect=2.0, ack=2.0, idle=2.0, grace=0.3, block=0.3)
    async with client_for(
        simulator, timeouts=timeouts, backoff=backoff, buffer=Buffer(bytes=BOUND)
    ) as client:
        collector = Collector(
            client,
            DOCUMENT,
            place.address,
            name="all",
            batching=Batching(seconds=0.2),
            backoff=backoff,
            dead_letters=dead_letters,
        )
        here = Here(simulator, place, client, collector)
        tasks = [asyncio.create_task(collector.run()), asyncio.create_task(here.watch())]
        try:
            yield here, tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def postgresql_is_down(
    request: pytest.FixtureRequest, server: PostgreSQLServer, folder: Path, seed: int, blocks: int
) -> None:
    with PLACES["postgresql"](folder, request) as place:
        async with (
            Simulator(seed=seed, **ROTATING) as simulator,
            collecting(simulator, place, folder / "dead") as (here, task),
        ):
            await here.outage(server.stop, server.start, blocks)
            await here.exact(task)


@pytest.mark.asyncio
async def test_postgresql_that_is_down_for_five_seconds_has_each_row_once(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, tmp_path: Path, seed: int
) -> None:
    await postgresql_is_down(request, postgresql_server, tmp_path, seed, blocks=50)


@pytest.mark.asyncio
async def test_postgresql_that_is_down_for_half_a_minute_has_each_row_once(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, tmp_path: Path, seed: int
) -> None:
    await postgresql_is_down(request, postgresql_server, tmp_path, seed, blocks=300)


@pytest.mark.asyncio
async def test_nats_that_is_down_has_each_row_once(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    with PLACES["nats"](tmp_path, request) as place:
        assert place.server is not None
        async with (
            Simulator(seed=seed, **ROTATING) as simulator,
            collecting(simulator, place, tmp_path / "dead") as (here, task),
        ):
            await here.outage(place.server.kill, place.server.start, 10)
            await here.exact(task)


# ---------------------------------------------------------------------- a collector in a process of its own


async def exact(lives: Lives, life: Life) -> None:
    """Gaps are closed, it ends as it is told, and in the sink nothing is missing, and nothing too much."""
    simulator = lives.simulator

    def verdict() -> Verdict:
        return simulator.ledger.verdict(DOCUMENT, lives.place.read())

    def mended() -> bool:
        return bool(life.said("commits")) and not life.said("closing") and not life.said("trouble")

    def whole() -> bool:
        return mended() and not verdict().lost

    await life.until(mended)
    simulator.pause()
    await simulator.drained()
    await life.until(whole)
    assert await ended(life) == 0
    assert life.said("holes") == life.said("misfits") == 0, life.last
    found = verdict()
    assert found.exact, found


async def committed(life: Life) -> None:
    """Wait until it has committed something more."""
    before = life.said("commits")
    await life.until(lambda: life.said("commits") > before)
    assert not life.ended, life.last


async def ended(life: Life) -> int:
    """Stop it; its exit code."""
    life.process.send_signal(signal.SIGTERM)
    await life.until(lambda: life.ended)
    return await life.process.wait()


class Disk:
    """A small file system of its own; where this user may mount none, a limit to how long files may grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0

    def fill(self, pid: int) -> None:
        """There is no room any more for what the process ``pid`` writes."""
        if not self.mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            return
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(2**16))

    def make_room(self, pid: int) -> None:
        if self.mounted:
            self._ballast.unlink()
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = Disk(folder)
    yield made
    made.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["jsonl", "sqlite", "duckdb", "parquet"])
async def test_a_disk_that_is_full_until_room_is_made_has_each_row_once(
    name: str, request: pytest.FixtureRequest, disk: Disk, seed: int
) -> None:
    with PLACES[name](disk.folder, request) as place:
        async with Simulator(seed=seed, **SERVICE) as simulator:
            lives = Lives(simulator, place, Random(seed))
            async with lives.living() as life:
                await life.until(lambda: life.said("rows") > 0)
                disk.fill(life.process.pid)
                await life.until(lambda: life.said("trouble"))
                assert not life.ended, life.last
                before = life.said("commits")
                await simulator.blocks(10)
                assert life.said("commits") == before
                disk.make_room(life.process.pid)
                await committed(life)
                await exact(lives, life)


@pytest.mark.asyncio
async def test_a_reader_that_holds_the_duckdb_file_is_waited_for(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    with PLACES["duckdb"](tmp_path, request) as place:
        async with Simulator(seed=seed, **SERVICE) as simulator:
            lives = Lives(simulator, place, Random(seed))
            async with lives.living() as life:
                await life.until(lambda: life.said("rows") > 0)
                with duckdb_file(tmp_path / "rows.duckdb"):
                    await life.until(lambda: life.said("trouble"))
                    before = life.said("commits")
                    await simulator.blocks(20)
                    assert life.said("commits") == before
                    assert not life.ended, life.last
                await committed(life)
                await exact(lives, life)


async def stopped(name: str, times: int, folder: Path, request: pytest.FixtureRequest, seed: int) -> None:
    """Be stopped so often, each time at any moment of a batch."""
    random = Random(seed)
    with PLACES[name](folder, request) as place:
        async with Simulator(seed=seed, **SERVICE) as simulator:
            lives = Lives(simulator, place, random)
            for _ in range(times):
                async with lives.living() as life:
                    await committed(life)
                    with contextlib.suppress(TimeoutError):
                        await life.until(lambda: False, within=random.uniform(0, 0.5))
                    assert await ended(life) == 0, life.last
            async with lives.living() as life:
                await exact(lives, life)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_a_collector_that_is_stopped_in_the_middle_of_a_batch_has_each_row_once(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    await stopped(name, 1, tmp_path, request, seed)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_a_collector_that_is_stopped_ten_times_has_each_row_once(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    await stopped(name, 10, tmp_path, request, seed)


# ---------------------------------------------------------------------- a beginning in the past


@pytest.mark.asyncio
async def test_what_was_before_and_what_follows_have_no_seam(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    """By the commands as a user runs them, through hand-overs: the whole chain, from its first block on."""
    since = ("--query", DOCUMENT, "--since", "1h")
    lines = tmp_path / "lines"
    with PLACES["sqlite"](tmp_path, request) as place:
        async with Simulator(seed=seed, **ROTATING | {"block_interval": 0.05}) as simulator:
            await simulator.blocks(20)
            env = environment(simulator)
            collect = ("collect", *since, "--to", place.address, "--batch-seconds", "0.2s")

            def tailed() -> list[tuple[str, Any]]:
                found = lines.read_bytes().split(b"\n")[:-1]
                return [pair for line in found for pair in json.loads(line).items()]

            def stored() -> list[tuple[str, Any]]:
                with contextlib.suppress(sqlite3.OperationalError):  # there is no table yet
                    return place.read()
                return []

            def counted(rows: Iterable[tuple[str, Any]]) -> Counter[Any]:
                return Counter(canonical(cube, row) for cube, row in rows)

            def verdicts() -> list[Verdict]:
                return [simulator.ledger.verdict(DOCUMENT, read(), since=0) for read in (stored, tailed)]

            with lines.open("wb") as output:
                tail = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bqstream.cli", "tail", *since),
                    cwd=ROOT,
                    env=env,
                    stdout=output,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            try:
                async with started(*collect, env=env) as process:
                    await until(lambda: tailed() and stored())
                    await simulator.blocks(100)  # as long as a token lives
                    simulator.settings.token_ttl = 3600
                    await simulator.blocks(100)
                    # Once this is there, no gap is being closed, which takes a chain that goes on.
                    owed = counted((cube, row) for _, cube, row in simulator.ledger.rows(DOCUMENT, since=0))
                    await until(lambda: not any(owed - counted(read()) for read in (stored, tailed)))
                    simulator.pause()
                    await simulator.drained()
                    await until(lambda: not any(one.lost for one in verdicts()))
                    tail.send_signal(signal.SIGINT)
                    process.send_signal(signal.SIGTERM)
                    assert (await tail.wait(), await process.wait()) == (130, 0)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    tail.kill()
                await tail.wait()
    for verdict in verdicts():
        assert verdict.exact, verdict
        assert verdict.emitted > 500
