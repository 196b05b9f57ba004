"""Each sink: its collector is killed at every named point and at random, under faults and with tokens of five seconds,
and what is read back from the sink is what was emitted, each row once."""

from __future__ import annotations

import os
import time
from random import Random
from typing import Any

import pytest

from bqstream.simulator import Simulator

from .lives import Lives
from .places import PLACES

SERVICE: dict[str, Any] = {
    "block_interval": 0.1,
    "transactions": 8,  # what two cores carry, with seven collectors that die and catch up side by side
    "query_lag": 0.2,
    "token_ttl": 5.0,
    "keepalive": 0.5,
}
# How long the long one goes on; seconds.
SECONDS = float(os.environ.get("BQSTREAM_COLLECT_SECONDS", "600"))


async def killed(
    name: str,
    request: pytest.FixtureRequest,
    seed: int,
    *,
    points: int,
    random: int,
    seconds: float = 0,
) -> None:
    """Be killed at so many of each of the named points and so often at random, and on until the time is over."""
    started = time.monotonic()
    with PLACES[name](request.getfixturevalue("tmp_path"), request) as place:
        async with Simulator(seed=seed, **SERVICE) as simulator:
            lives = Lives(simulator, place, Random(seed))
            await lives.die(points=points, random=random, until=started + seconds)
            verdict = await lives.verdict()
    deaths = ", ".join(f"{count} {point}" for point, count in sorted(lives.died.items()))
    print(
        f"{name}: {time.monotonic() - started:.0f} s, killed {deaths}; {lives.faults} faults; {verdict.emitted} rows "
        f"emitted, {verdict.delivered} read back, {verdict.early} early, {verdict.lost} lost, "
        f"{verdict.repeated} repeated, {verdict.foreign} foreign"
    )
    assert verdict.exact, verdict
    assert verdict.delivered


@pytest.mark.soak
@pytest.mark.asyncio
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", PLACES)
async def test_a_slice_of_a_minute_of_each_sink_stores_each_row_once(
    name: str, request: pytest.FixtureRequest, seed: int
) -> None:
    await killed(name, request, seed, points=1, random=1, seconds=30)


@pytest.mark.soak
@pytest.mark.asyncio
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PLACES)
async def test_ten_minutes_of_each_sink_store_each_row_once(
    name: str, request: pytest.FixtureRequest, seed: int
) -> None:
    await killed(name, request, seed, points=10, random=20, seconds=SECONDS)
