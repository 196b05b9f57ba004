from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme

from bqstream.simulator import Simulator, start_in_thread

from .peer import MODERN, QUERY, QUICK, TRADES, ask, dial, http, settle, subscribed


@pytest.mark.asyncio
async def test_leaving_ends_every_task_and_socket() -> None:
    before = asyncio.all_tasks()
    async with Simulator(**QUICK) as simulator:
        port = urlsplit(simulator.endpoint).port
        async with subscribed(simulator) as peer:
            await peer.data()
            await simulator.__aexit__(None, None, None)
            assert (await peer.closed()).code == 1006
    assert asyncio.all_tasks() == before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))  # nobody listens there any more


@pytest.mark.asyncio
async def test_leaving_is_quick_while_a_handler_waits() -> None:
    async with Simulator(slow=3600, **QUICK) as simulator, http() as session:
        asked = asyncio.create_task(session.get(simulator.endpoint).__aenter__())
        while not simulator.counters["dials"]:
            await simulator.blocks()
        await simulator.__aexit__(None, None, None)
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked


@pytest.mark.asyncio
async def test_a_cancelled_simulator_is_stopped_too() -> None:
    entered = asyncio.Event()

    async def use() -> None:
        async with Simulator(**QUICK):
            entered.set()
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    task = asyncio.create_task(use())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_a_port_that_is_taken_and_an_unknown_option_are_errors() -> None:
    async with Simulator(**QUICK) as simulator:
        with pytest.raises(OSError, match="in use"):
            async with Simulator(port=urlsplit(simulator.endpoint).port or 0):
                pass
    with pytest.raises(TypeError, match="colour"):
        Simulator(colour="red")


@pytest.mark.asyncio
async def test_the_same_seed_gives_the_same_blocks() -> None:
    hashes = []
    for seed in (3, 3, 4):
        async with Simulator(seed=seed, block_interval=0.01) as simulator:
            await simulator.blocks(3)
            hashes.append([block.hash for block in simulator.chain.blocks()][:3])
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.asyncio
async def test_blocks_and_the_date_header_tell_the_same_time() -> None:
    async with Simulator(**QUICK) as simulator, http() as session:
        async with session.ws_connect(
            simulator.endpoint, params={"token": simulator.token()}, protocols=[MODERN]
        ) as ws:
            date = parsedate_to_datetime(ws._response.headers["Date"])
        first = next(simulator.chain.blocks())
        assert abs((date - first.time).total_seconds()) < 60


@pytest.mark.asyncio
async def test_the_service_can_be_had_over_tls() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with Simulator(tls=server, **QUICK) as simulator:
        assert simulator.endpoint.startswith("https://")
        async with subscribed(simulator, ssl=client) as peer:
            await peer.data()
            simulator.faults.abort()
            assert (await peer.closed()).code == 1006


@pytest.mark.asyncio
async def test_a_query_brings_what_the_stream_brought() -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator) as peer:
        await simulator.blocks(4)
        await settle(simulator, peer)
        blocks = sorted({int(row["Block"]["Number"]) for _, row in peer.rows})[1:]
        ranged = QUERY.replace(
            "DEXTrades", f'DEXTrades(where: {{Block: {{Number: {{ge: "{blocks[0]}", le: "{blocks[-1]}"}}}}}})'
        )
        status, answer = await ask(simulator, ranged)
        streamed = [row for _, row in peer.rows if int(row["Block"]["Number"]) in blocks]
        assert status == 200
        assert sorted(map(str, answer["data"]["EVM"]["DEXTrades"])) == sorted(map(str, streamed))
        simulator.settings.row_cap = 3
        assert len((await ask(simulator, ranged))[1]["data"]["EVM"]["DEXTrades"]) == 3


@pytest.mark.asyncio
async def test_a_query_needs_a_token_that_is_valid() -> None:
    async with Simulator(**QUICK) as simulator, http() as session:
        async with session.post(simulator.endpoint, json={"query": QUERY}) as response:
            assert response.status == 401
        where = {"params": {"token": simulator.token()}, "json": {"query": QUERY}}
        async with session.post(simulator.endpoint, **where) as response:  # type: ignore[arg-type]
            assert response.status == 200
        async with session.post(
            simulator.endpoint, data=b"{", headers={"Authorization": "Bearer x"}
        ) as response:
            assert response.status == 400


@pytest.mark.asyncio
async def test_an_emitter_that_fails_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(at: datetime) -> Any:
        raise RuntimeError("no more blocks")

    simulator = await Simulator(**QUICK).__aenter__()
    monkeypatch.setattr(simulator.chain, "mine", broken)
    with pytest.raises(RuntimeError, match="no more blocks"):
        await simulator.blocks(1000)
    with pytest.raises(RuntimeError, match="no more blocks"):
        await simulator.__aexit__(None, None, None)


def test_a_simulator_in_a_thread_serves_code_without_a_loop() -> None:
    async def use(simulator: Any) -> list[tuple[str, Any]]:
        async with subscribed(simulator) as peer:
            for _ in range(4):
                await peer.data()
            await asyncio.to_thread(simulator.pause)
            await asyncio.to_thread(simulator.drained)
            await peer.catch_up()
            return peer.rows

    with start_in_thread(**QUICK) as simulator:
        simulator.blocks(2)
        rows = asyncio.run(use(simulator))
        assert simulator.ledger.verdict(TRADES, rows).exact
        assert simulator.ledger.sequence > 0
        assert simulator.counters["subscribes"] == 2
        assert simulator.token() != simulator.token()
        simulator.resume()
        with pytest.raises(LookupError):
            simulator.faults.close(socket=99)
        with pytest.raises(TimeoutError):
            simulator.blocks(10_000, timeout=0.01)
        assert {urlsplit(url).port for url in (simulator.control_url, simulator.ledger_url)}
        assert simulator.client_id == "simulator"
        assert simulator.client_secret
        assert simulator.token_url.endswith("/oauth2/token")
    simulator.stop()  # a second time, which does nothing


def test_a_thread_whose_port_is_taken_says_so() -> None:
    with (
        start_in_thread(**QUICK) as simulator,
        pytest.raises(OSError, match="in use"),
    ):
        start_in_thread(port=urlsplit(simulator.endpoint).port)


@pytest.mark.asyncio
async def test_a_plain_get_is_told_to_upgrade() -> None:
    async with Simulator(**QUICK) as simulator, http() as session:
        async with session.get(simulator.endpoint, params={"token": simulator.token()}) as response:
            assert response.status == 400
        async with dial(simulator, place="header") as peer:
            assert await peer.initialise()
