"""A message of the service is cut short without a word; the ledger and a query know of all rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bqstream.simulator import Behaviour, Simulator
from bqstream.simulator.carriage import clipped, messages
from bqstream.simulator.ledger import canonical

from ...virtual_time import virtual_time
from .peer import Peer, ask, settle, subscribed

CROWDED: dict[str, Any] = {"block_interval": 1.0, "transactions": 1200, "portions": 1, "seed": 7}
TRADES = "subscription { EVM(network: eth) { DEXTrades%s { Block { Number } Transaction { Hash } Trade { Index } } } }"


def counted(rows: list[Any]) -> Counter[Any]:
    return Counter(canonical("DEXTrades", row) for row in rows)


async def read(simulator: Simulator, peer: Peer) -> list[Any]:
    """The rows of a message or two, the chain then at rest."""
    await peer.data()
    await settle(simulator, peer)
    return [row for _, row in peer.rows]


@virtual_time
async def test_a_message_carries_800_rows_and_the_rest_is_owed_and_found_by_a_query() -> None:
    document = TRADES % ""
    async with Simulator(**CROWDED) as simulator, subscribed(simulator, document=document) as peer:
        rows = await read(simulator, peer)
        assert set(peer.sizes) == {800}
        verdict = simulator.ledger.verdict(document, rows)
        assert verdict.lost > 800 * len(peer.sizes)
        assert verdict.lost == verdict.emitted - len(rows)
        assert not verdict.foreign
        number = rows[0]["Block"]["Number"]
        owed = [
            row
            for emission, _, row in simulator.ledger.rows(document)
            if emission.block.number == int(number)
        ]
        where = f'(where: {{Block: {{Number: {{eq: "{number}"}}}}}})'
        status, answer = await ask(simulator, (TRADES % where).replace("subscription", "query"))
        assert status == 200
        assert counted(answer["data"]["EVM"]["DEXTrades"]) == counted(owed)
        assert len(owed) > 1600


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(reorder=True), Behaviour(max_rows=2)])
@pytest.mark.parametrize("count", [5, 1000])
@virtual_time
async def test_a_cube_s_own_limit_holds_in_place_of_the_service_s_for_what_is_sent_and_owed(
    behaviour: Behaviour, count: int
) -> None:
    document = TRADES % f"(limit: {{count: {count}}})"
    async with (
        Simulator(behaviours=(behaviour,), **CROWDED) as simulator,
        subscribed(simulator, document=document) as peer,
    ):
        rows = await read(simulator, peer)
        assert set(peer.sizes) == {count}
        assert simulator.ledger.verdict(document, rows).exact


@virtual_time
async def test_the_service_s_limit_can_be_set_and_taken_away() -> None:
    document = TRADES % ""
    async with (
        Simulator(behaviours=(Behaviour(max_rows=None), Behaviour(max_rows=3)), **CROWDED) as simulator,
        subscribed(simulator, document=document) as whole,
        subscribed(simulator, document=document) as cut,
    ):
        await cut.data()
        rows = await read(simulator, whole)
        await settle(simulator, cut)
        assert simulator.ledger.verdict(document, rows).exact
        assert set(cut.sizes) == {3}


def test_each_cube_of_a_message_is_cut_by_itself() -> None:
    data = {"EVM": {"a": [1, 2, 3], "b": [4], "c": [5, 6, 7], "n": 8}}
    assert clipped(data, 2, {"c"}) == {"EVM": {"a": [1, 2], "b": [4], "c": [5, 6, 7], "n": 8}}
    assert clipped(data, None) == data
    (sent,) = messages(Behaviour(max_rows=1), "", [data], {"a"})
    assert sent == {"EVM": {"a": [1, 2, 3], "b": [4], "c": [5], "n": 8}}
