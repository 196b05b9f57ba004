"""A collector that is killed at each step of a commit: what is stored in the end holds each row once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bqstream.simulator import Simulator

from .harness import until
from .test_collecting import ALIKE, KEYED, rows_in
from .test_kill import ROOT, SERVICE

POINTS = ("written:2", "staged:3", "committed:2", "unacknowledged:3")


@contextlib.asynccontextmanager
async def process(
    simulator: Simulator, database: Path, document: str, failpoint: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BITQUERY_")}
    environment |= {
        "BITQUERY_ENDPOINT": simulator.endpoint,
        "BITQUERY_TOKEN_URL": simulator.token_url,
        "BITQUERY_CLIENT_ID": simulator.client_id,
        "BITQUERY_CLIENT_SECRET": simulator.client_secret,
        "BQSTREAM_FAILPOINT": failpoint,
        "PYTHONPATH": str(ROOT),
    }
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.collecting_process", str(database), document),
        cwd=database.parent,
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


@pytest.mark.timeout(180)
@pytest.mark.asyncio
async def test_collectors_that_are_killed_at_each_step_of_a_commit_store_each_row_once(
    tmp_path: Path, seed: int
) -> None:
    async with asyncio.TaskGroup() as group:
        for name, document in {"keyed": KEYED, "alike": ALIKE}.items():
            group.create_task(_killed(tmp_path / f"{name}.db", document, seed))


async def _killed(database: Path, document: str, seed: int) -> None:
    async with Simulator(seed=seed, **SERVICE) as simulator:
        for point in POINTS:
            async with process(simulator, database, document, point) as killed:
                _, said = await asyncio.wait_for(killed.communicate(), 60)
                assert killed.returncode == -signal.SIGKILL, said.decode()
        async with process(simulator, database, document) as last:
            before = len(rows_in(database))
            await until(lambda: len(rows_in(database)) > before, within=60)
            await asyncio.sleep(4)
            simulator.pause()
            await simulator.drained()
            await asyncio.sleep(1)
            last.send_signal(signal.SIGTERM)
            _, said = await asyncio.wait_for(last.communicate(), 60)
            assert last.returncode == 0, said.decode()
        verdict = simulator.ledger.verdict(document, rows_in(database))
    assert verdict.exact, verdict
    assert verdict.delivered > 50
