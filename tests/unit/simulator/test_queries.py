"""The query side of a running service: how late it is, what it holds, and how it refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream.simulator import Simulator
from bqstream.simulator.ledger import canonical

from ...virtual_time import virtual_time
from .peer import QUERY, QUICK, TRADES, ask, dial, http, settle, subscribed

SLOW_CHAIN: dict[str, Any] = {"block_interval": 3.0, "portions": 3, "transactions": 20, "seed": 7}
BUSY = "temporarily blocked due to a high number of long-running queries"


def counted(rows: list[Any]) -> Counter[Any]:
    return Counter(canonical("DEXTrades", row) for row in rows)


def number_of(row: Any) -> int:
    return int(row["Block"]["Number"])


async def queried(simulator: Simulator, root: str = "EVM(network: eth)") -> list[Any]:
    """All trades that the query side has."""
    status, answer = await ask(simulator, QUERY.replace("EVM(network: eth)", root))
    assert status == 200
    return list(answer["data"]["EVM"]["DEXTrades"])


def out(simulator: Simulator, before: float) -> list[Any]:
    """The rows that were emitted up to a time of the loop."""
    return [row for emission, _, row in simulator.ledger.rows(TRADES, since=0) if emission.time <= before]


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("message", [BUSY, "no table can query DEXTrade", "points limit exceeded"])
async def test_the_next_queries_can_be_answered_with_an_error_of_graphql_and_no_data(message: str) -> None:
    async with Simulator(**QUICK) as simulator:
        simulator.faults.refuse_queries(2, message=message)
        for _ in range(2):
            assert await ask(simulator) == (200, {"errors": [{"message": message}]})
        status, answer = await ask(simulator)
        assert (status, list(answer)) == (200, ["data"])
        assert simulator.counters["queries"] == 3


@pytest.mark.asyncio
async def test_an_error_of_graphql_may_come_with_any_status_and_a_time_to_wait() -> None:
    async with Simulator(**QUICK) as simulator, http() as session:
        async with session.post(
            simulator.control_url,
            json={"fault": "refuse_queries", "status": 429, "retry_after": 5, "message": BUSY},
        ) as response:
            assert response.status == 200
        bearer = {"Authorization": f"Bearer {simulator.token()}"}
        async with session.post(simulator.endpoint, json={"query": QUERY}, headers=bearer) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "5")
            assert await response.json() == {"errors": [{"message": BUSY}]}
        assert [r.detail["status"] for r in simulator.counters.recent("refusals")] == [429]
        simulator.faults.refuse_queries()
        assert (await ask(simulator))[0] == 503
        with pytest.raises(ValueError, match="a body or a message"):
            simulator.faults.refuse_queries(body="no", message="no")


@pytest.mark.asyncio
async def test_a_dataset_that_fails_is_answered_with_500_again_and_again_and_with_an_error_on_a_socket() -> (
    None
):
    document = "query { Solana(dataset: combined) { Transfers { Block { Slot } } } }"
    async with Simulator(**QUICK) as simulator, dial(simulator) as peer:
        for _ in range(2):
            status, answer = await ask(simulator, document)
            assert status == 500
            assert "500" in answer["errors"][0]["message"]
        assert (await ask(simulator, document.replace("combined", "archive")))[0] == 200
        await peer.initialise()
        await peer.subscribe(document)
        assert "500" in (await peer.hear_until("error"))["payload"][0]["message"]


@pytest.mark.asyncio
async def test_an_argument_that_only_the_other_kind_of_operation_takes_is_an_error_of_graphql() -> None:
    async with Simulator(**QUICK) as simulator, dial(simulator) as peer:
        status, answer = await ask(simulator, QUERY.replace("network: eth", "trigger_on: head"))
        assert status == 200
        assert "trigger_on" in answer["errors"][0]["message"]
        await peer.initialise()
        await peer.subscribe(TRADES.replace("network: eth", "dataset: archive"))
        assert "dataset" in (await peer.hear_until("error"))["payload"][0]["message"]
        await peer.subscribe(TRADES.replace("network: eth", "dataset: realtime, trigger_on: head"), "2")
        assert await peer.data()


# --- datasets and prices ------------------------------------------------------------------------------------------


@virtual_time
async def test_a_query_sees_no_further_back_than_the_window_and_the_archive_ends_before_the_head() -> None:
    async with Simulator(realtime_window=9, archive_lag=6, **SLOW_CHAIN) as simulator:
        await simulator.blocks(10)
        simulator.pause()
        await simulator.drained()
        every = simulator.chain.numbers
        assert {number_of(row) for row in await queried(simulator)} == set(every[-4:])
        assert {number_of(row) for row in await queried(simulator, "EVM(dataset: archive)")} == set(
            every[:-2]
        )
        assert {number_of(row) for row in await queried(simulator, "EVM(dataset: combined)")} == set(every)
        simulator.settings.realtime_window = None
        assert {number_of(row) for row in await queried(simulator)} == set(every)


@virtual_time
async def test_prices_differ_between_stream_and_query_and_the_ledger_does_not_mind() -> None:
    priced = "Block { Number } Trade { Index Buy { Amount PriceInUSD } }"
    document = f"subscription {{ EVM(network: eth) {{ DEXTrades {{ {priced} }} }} }}"
    async with (
        Simulator(reprice=0.02, **SLOW_CHAIN) as simulator,
        subscribed(simulator, document=document) as peer,
    ):
        await simulator.blocks(3)
        await settle(simulator, peer)
        streamed = [row for _, row in peer.rows]
        asked = document.replace("subscription", "query")
        answers = [(await ask(simulator, asked))[1]["data"]["EVM"]["DEXTrades"] for _ in range(2)]
        assert answers[0] == answers[1]
        first = min(map(number_of, streamed))
        found = [row for row in answers[0] if number_of(row) >= first]
        assert counted(found) >= counted(streamed)
        assert not {str(row) for row in found} & {str(row) for row in streamed}
        rows = [row for row in found if canonical("DEXTrades", row) in counted(streamed)]
        assert simulator.ledger.verdict(document, rows).exact


# --- how late -----------------------------------------------------------------------------------------------------


async def looks(simulator: Simulator, lag: float) -> AsyncIterator[tuple[int, int, set[int]]]:
    """Now and then in the course of some blocks: the last one that a query holds, the last one that was out ``lag``
    seconds ago, and which portions of the former were.

    Each time the query is compared with all that was out, but for blocks of which it holds nothing.
    """
    loop = asyncio.get_running_loop()
    await simulator.blocks(4)
    for _ in range(12):
        await asyncio.sleep(0.7)
        before = loop.time() - lag
        rows = await queried(simulator)
        after = loop.time() - lag
        top = max(map(number_of, rows))
        was_out = out(simulator, before)
        assert counted([row for row in was_out if number_of(row) <= top]) <= counted(rows)
        assert counted(rows) <= counted(out(simulator, after))
        emissions = (emission for emission, _, _ in simulator.ledger.rows(TRADES, since=0))
        portions = {e.portion for e in emissions if e.block.number == top and e.time <= after}
        yield top, max(map(number_of, was_out)), portions


@virtual_time
@pytest.mark.parametrize("lag", [0.0, 4.2])
async def test_a_block_is_queried_when_it_is_whole(lag: float) -> None:
    async with Simulator(query_lag=lag, **SLOW_CHAIN) as simulator:
        async for _, _, portions in looks(simulator, lag):
            assert portions == {0, 1, 2}


@virtual_time
@pytest.mark.parametrize("lag", [0.0, 4.2])
async def test_a_query_can_be_made_to_see_what_has_come_of_a_block_that_is_not_whole(lag: float) -> None:
    async with Simulator(query_partial=True, query_lag=lag, **SLOW_CHAIN) as simulator:
        seen = Counter[int]()
        async for top, newest, portions in looks(simulator, lag):
            assert top >= newest  # so that none is left out
            seen[len(portions)] += 1
        assert set(seen) == {1, 2, 3}


@virtual_time
async def test_what_a_fork_mines_again_is_queried_as_late_as_anything_else() -> None:
    async with Simulator(query_lag=5, **{**SLOW_CHAIN, "block_interval": 1.0}) as simulator:
        await simulator.blocks(12)
        simulator.faults.fork(3)
        await simulator.blocks(4)
        simulator.pause()
        await simulator.drained()
        branches = {block.number: block.branch for block in simulator.chain.blocks()}
        assert {branches[number_of(row)] for row in await queried(simulator)} == {0}
        await asyncio.sleep(6)
        rows = await queried(simulator)
        assert {branches[number_of(row)] for row in rows} == {0, 1}
        hashes = {str(block.number): block.hash for block in simulator.chain.blocks()}
        assert all(row["Block"]["Hash"] == hashes[row["Block"]["Number"]] for row in rows)
