"""The service's one clock: blocks and the ``Date`` of every answer tell the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from bqstream.simulator import Simulator
from bqstream.simulator.chain import Chain
from bqstream.simulator.ledger import Emission

from ...virtual_time import VirtualTimeLoop, virtual_time
from .peer import MODERN, QUERY, TRADES, dial, http

GRANT = {"grant_type": "client_credentials"}
PACES = [{"block_interval": 0.25}, {"block_interval": 1.0}, {"block_interval": 12.0, "portions": 5}]


def clock(simulator: Simulator) -> datetime:
    """What a virtual loop that began at 0 with the simulator makes of its first block's time."""
    first = next(simulator.chain.blocks())
    return first.time + timedelta(seconds=asyncio.get_running_loop().time())


def emissions(simulator: Simulator) -> Iterator[Emission]:
    seen = set()
    for emission, _, _ in simulator.ledger.rows(TRADES, since=0):
        if emission.sequence not in seen:
            seen.add(emission.sequence)
            yield emission


def lags(simulator: Simulator) -> list[float]:
    """For each portion, by how much its block's time was behind the clock when it went out."""
    start = next(simulator.chain.blocks()).time
    return [round((start - e.block.time).total_seconds() + e.time, 6) for e in emissions(simulator)]


class Dates:
    """Asks for every kind of answer; each has to carry the date of its moment."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.statuses: list[int] = []

    @contextlib.contextmanager
    def expected(self) -> Iterator[Callable[[int, Mapping[str, str] | None], None]]:
        before = clock(self.simulator).replace(microsecond=0)

        def check(status: int, headers: Mapping[str, str] | None) -> None:
            assert headers is not None
            date = parsedate_to_datetime(headers["Date"])
            assert format_datetime(date, usegmt=True) == headers["Date"]
            assert before <= date <= clock(self.simulator)
            self.statuses.append(status)

        yield check

    async def post(self, session: aiohttp.ClientSession, url: str, **request: Any) -> None:
        with self.expected() as check:
            async with session.post(url, **request) as response:
                check(response.status, response.headers)

    async def dial(self, session: aiohttp.ClientSession) -> None:
        with self.expected() as check:
            try:
                where = {"token": self.simulator.token()}
                async with session.ws_connect(
                    self.simulator.endpoint, params=where, protocols=[MODERN]
                ) as ws:
                    check(ws._response.status, ws._response.headers)
            except aiohttp.WSServerHandshakeError as refused:
                check(refused.status, refused.headers)


@virtual_time
async def test_every_answer_and_upgrade_carries_the_date_of_the_chain() -> None:
    async with Simulator(block_interval=1.0) as simulator, http() as session:
        bearer = {"Authorization": f"Bearer {simulator.token()}"}
        right = {**GRANT, "client_id": simulator.client_id, "client_secret": simulator.client_secret}
        for pause in (0, 41.5, 600):
            await asyncio.sleep(pause)
            await simulator.blocks()
            simulator.faults.refuse_queries(1, 429)
            simulator.faults.refuse_dials(1, 503)
            dates = Dates(simulator)
            await dates.post(session, simulator.token_url, data=right)
            await dates.post(session, simulator.token_url, data=GRANT)
            for document in (QUERY, QUERY, "{"):
                await dates.post(session, simulator.endpoint, json={"query": document}, headers=bearer)
            await dates.post(session, simulator.endpoint, json={"expires_in": 60}, headers=bearer)
            await dates.post(session, simulator.endpoint, json={"query": QUERY})
            await dates.post(session, f"{simulator.endpoint}/elsewhere")
            for _ in range(2):
                await dates.dial(session)
            assert dates.statuses == [200, 401, 429, 200, 200, 200, 401, 404, 503, 101]


@pytest.mark.parametrize("pace", PACES)
def test_no_row_tells_of_a_time_after_the_date_nor_of_one_long_before_it(pace: dict[str, Any]) -> None:
    @virtual_time
    async def play() -> None:
        async with Simulator(**pace) as simulator:
            await simulator.blocks(30)
            found = lags(simulator)
            assert min(found) >= 0
            assert max(found) < 1 + pace["block_interval"]  # whole seconds, and the block's last portion

    play()


@virtual_time
async def test_after_a_pause_the_next_block_is_of_the_time_that_it_comes_at() -> None:
    async with Simulator(block_interval=1.0) as simulator:
        for _ in range(3):
            await simulator.blocks(3)
            simulator.pause()
            await simulator.drained()
            before = simulator.chain.head
            assert before is not None
            await asyncio.sleep(60)
            assert simulator.chain.head is before
            simulator.resume()
            await simulator.blocks()
            after = simulator.chain.head
            assert after is not None
            assert (after.number, after.parent_hash) == (before.number + 1, before.hash)
            assert 0 <= (clock(simulator) - after.time).total_seconds() < 2
        assert 0 <= min(lags(simulator)) <= max(lags(simulator)) < 2


@virtual_time
async def test_pauses_that_hurry_blocks_along_never_put_the_chain_ahead_of_the_clock() -> None:
    async with Simulator(block_interval=10.0) as simulator:
        for _ in range(20):
            simulator.pause()
            await simulator.drained()
            simulator.resume()
            await simulator.blocks()
        assert 0 <= min(lags(simulator)) <= max(lags(simulator)) < 11


@virtual_time
async def test_an_emitter_that_was_held_up_goes_on_with_the_time_that_it_is() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    async with Simulator(block_interval=1.0) as simulator:
        await simulator.blocks(3)
        loop.now += 300  # nothing ran meanwhile
        await simulator.blocks(3)
        assert simulator.chain.head is not None
        assert 0 <= (clock(simulator) - simulator.chain.head.time).total_seconds() < 2


@virtual_time
async def test_a_fork_keeps_the_times_of_its_heights_and_the_chain_goes_on_by_the_clock() -> None:
    async with Simulator(block_interval=1.0) as simulator:
        await simulator.blocks(6)
        times = {block.number: block.time for block in simulator.chain.blocks()}
        simulator.faults.fork(3)
        await simulator.blocks(6)
        blocks = list(simulator.chain.blocks())
        assert {1} == {block.branch for block in blocks[-4:]}
        assert all(times[block.number] == block.time for block in blocks if block.number in times)
        assert [block.time for block in blocks] == sorted(block.time for block in blocks)
        assert 0 <= (clock(simulator) - blocks[-1].time).total_seconds() < 2
        assert min(lags(simulator)) >= 0


def test_the_same_calls_give_the_same_times_in_virtual_time() -> None:
    runs: list[list[timedelta]] = []

    @virtual_time
    async def play() -> None:
        async with Simulator(block_interval=0.7, seed=3) as simulator:
            await simulator.blocks(5)
            simulator.pause()
            await asyncio.sleep(33.3)
            simulator.resume()
            await simulator.blocks(5)
            blocks = list(simulator.chain.blocks())
            runs.append([block.time - blocks[0].time for block in blocks])

    play()
    play()
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 5


def test_a_block_has_the_second_that_it_is_given_but_never_one_before_its_parent_s() -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    chain = Chain(start=start, block_interval=10)
    given = [None, start + timedelta(seconds=3.9), start, start + timedelta(hours=1), None]
    blocks = [chain.mine(at) for at in given]
    assert [(block.time - start).total_seconds() for block in blocks] == [0, 3, 3, 3600, 3600]
    assert [block.time for block in chain.fork(3)] == [block.time for block in blocks[2:]]


@virtual_time
async def test_a_token_expires_though_its_timer_is_early_by_less_than_the_loop_tells() -> None:
    loop = asyncio.get_running_loop()
    async with Simulator(on_expiry="close", block_interval=1.0, keepalive=None) as simulator:
        token = simulator._tokens.issue("access", 60.5)
        async with dial(simulator, token=token.value) as peer:
            await peer.initialise()
            loop.call_at(token.expires_at - 5e-10, int)  # wakes the loop, which then runs both
            async with asyncio.timeout(200):
                assert (await peer.closed()).code == 4401
