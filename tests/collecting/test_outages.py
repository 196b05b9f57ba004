"""Sinks that go away for a while, disks that fill up, collectors that are stopped in the middle of a batch: what is in
the sink in the end is what was emitted, each row once; and what cannot be written meanwhile is held within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bqstream import Backoff, Buffer, Client, Timeouts
from bqstream.collect import Batching, Collector
from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict
from tests.integration.harness import client_for, until
from tests.integration.test_cli import environment, started
from tests.nats_server import NatsServer
from tests.postgresql_server import PostgreSQLServer

from .documents import DOCUMENT
from .lives import Life, Lives
from .places import PLACES, Place

SERVICE: dict[str, Any] = {
    "block_interval": 0.1,
    "query_lag": 0.2,
    "transactions": 8,
    "token_ttl": 5.0,
    "keepalive": 0.5,
}
# What may wait in a subscription's buffer: what comes in about two seconds.
BOUND = 400_000


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
        finally:
            await asyncio.to_thread(comes)
        committed = self.rows
        await until(lambda: self.rows > committed and self.collector.status().state == "collecting")

    async def exact(self, task: asyncio.Task[Any]) -> None:
        """Gaps are closed; then nothing is missing, and nothing too much."""
        self.simulator.settings.token_ttl = 3600
        await until(lambda: not self.closing, within=60)
        self.simulator.pause()
        await self.simulator.drained()
        await until(lambda: not self.closing and not self.verdict().lost)
        self.collector.stop()
        collected = await task
        verdict = self.verdict()
        assert verdict.exact, verdict
        assert collected.gaps
        assert collected.holes == collected.misfits == 0
        assert all(gap.closed for gap in self.collector._named)
        assert 0 < self.waited <= BOUND

    @property
    def closing(self) -> bool:
        return any(stream.closing or stream.parked for stream in self.client.status().subscriptions)


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
            Simulator(seed=seed, **SERVICE) as simulator,
            collecting(simulator, place, folder / "dead") as (here, task),
        ):
            await here.outage(server.stop, server.start, blocks)
            await here.exact(task)


@pytest.mark.asyncio
async def test_postgresql_that_is_down_for_five_seconds_has_each_row_once(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, tmp_path: Path, seed: int
) -> None:
    await postgresql_is_down(request, postgresql_server, tmp_path, seed, blocks=50)


@pytest.mark.soak
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
            Simulator(seed=seed, **SERVICE) as simulator,
            collecting(simulator, place, tmp_path / "dead") as (here, task),
        ):
            await here.outage(place.server.kill, place.server.start, 10)
            await here.exact(task)


# ---------------------------------------------------------------------- a collector in a process of its own


async def exact(lives: Lives, life: Life) -> None:
    """The process has nothing to mend, ends as it is told, and nothing is lost or comes twice."""
    simulator = lives.simulator

    def verdict() -> Verdict:
        return simulator.ledger.verdict(DOCUMENT, lives.place.read())

    simulator.settings.token_ttl = 3600
    await life.until(lambda: life.said("rows") > 0 and not life.said("closing") and not life.said("trouble"))
    simulator.pause()
    await simulator.drained()
    owed = verdict().emitted
    await until(lambda: life.said("closing") is False and lives.place.read().__len__() >= owed)
    await until(lambda: not verdict().lost)
    life.process.send_signal(signal.SIGTERM)
    await life.until(lambda: life.ended)
    assert await life.process.wait() == 0
    assert life.said("holes") == life.said("misfits") == 0
    found = verdict()
    assert found.exact, found
