"""Cancelled at any await whatever: no task, socket, entry or warning is left, and the next client works."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream import Client, ClientCredentials
from bqstream.config import Backoff, Timeouts
from bqstream.events import HandedOver
from bqstream.simulator import Simulator
from tests.integration.harness import TRANSFERS, Events, until
from tests.stepping import When, Whom, cancelled_everywhere
from tests.virtual_time import virtual_clock, virtual_time

OPTIONS: dict[str, Any] = {
    "timeouts": Timeouts(grace=0.1, close=0.5),
    "backoff": Backoff(initial=0.1, maximum=0.1),
    "proxy": None,
}


class Scenes:
    """What is cancelled: scenarios with one client each, which is kept to look at afterwards."""

    def __init__(self, simulator: Simulator, **options: Any) -> None:
        self.simulator = simulator
        self.options = OPTIONS | options
        self.seen = Events()
        self.client: Client | None = None

    def new_client(self) -> Client:
        simulator = self.simulator
        credentials = ClientCredentials(
            simulator.client_id, simulator.client_secret, token_url=simulator.token_url
        )
        self.seen = Events()
        client = Client(credentials, endpoint=simulator.endpoint, on_event=self.seen.append, **self.options)
        client._clock = virtual_clock()
        self.client = client
        return client

    async def life(self) -> None:
        """Open, subscribe twice, read, unsubscribe, query and close."""
        async with self.new_client() as client:
            async with client.subscribe(TRANSFERS) as stream, client.subscribe(TRANSFERS) as other:
                await anext(stream)
                async for _ in other.rows():
                    break
            await client.execute("{ EVM(network: eth) { Blocks(limit: {count: 1}) { Block { Number } } } }")

    async def handover(self) -> None:
        """Read on until the links were exchanged."""
        async with self.new_client() as client, client.subscribe(TRANSFERS) as stream:
            async for _ in stream:
                if self.seen.of(HandedOver):
                    break

    async def replace(self) -> None:
        """The same, closing the old link first."""
        self.options["handover"] = "replace"
        await self.handover()

    async def reconnect(self) -> None:
        """Read on over a link that is lost, while the next dial fails as well."""
        async with self.new_client() as client, client.subscribe(TRANSFERS) as stream:
            await anext(stream)
            self.simulator.faults.refuse_dials(1, 503)
            self.simulator.faults.abort()
            while client.status().reconnects == 0 or client.status().state != "live":
                await anext(stream)

    async def nothing_left(self) -> None:
        assert self.simulator.counters.open_sockets == 0
        if self.client is not None:
            assert not self.client._open
            assert self.client.status().links == ()
            assert self.client.status().state in ("idle", "closed")
            self.client = None
        async with self.new_client() as client, client.subscribe(TRANSFERS) as stream:
            assert [row async for row in _some(stream.rows(), 3)]
        self.client = None


async def _some(rows: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    async for row in rows:
        yield row
        count -= 1
        if not count:
            return


@pytest.mark.parametrize("when", ["waiting", "waking"])
@pytest.mark.parametrize("whom", ["the user", "everybody"])
@pytest.mark.parametrize("scene", ["life", "handover", "replace", "reconnect"])
@pytest.mark.parametrize(
    "step", [pytest.param(1, id="every await", marks=pytest.mark.soak), pytest.param(8, id="every eighth")]
)
@virtual_time
async def test_cancelled_at_an_await_it_leaves_nothing(
    scene: str, whom: Whom, when: When, step: int, seed: int
) -> None:
    chance = random.Random(f"{seed} {scene} {whom} {when}")
    first = chance.randint(1, step)
    subprotocol = chance.choice(["graphql-transport-ws", "graphql-ws"])
    async with Simulator(token_ttl=0.8, block_interval=0.1, transactions=2, portions=2) as simulator:
        scenes = Scenes(simulator, subprotocol=subprotocol)
        awaits = await cancelled_everywhere(
            getattr(scenes, scene), scenes.nothing_left, whom=whom, when=when, first=first, step=step
        )
    tried = len(range(first, awaits + 1, step))
    print(f"{scene}, {subprotocol}: cancelled {whom} {when} at {tried} of {awaits} awaits")
    assert awaits > 30


@pytest.mark.parametrize("when", ["waiting", "waking"])
@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "graphql-ws"])
@virtual_time
async def test_a_cancelled_subscription_leaves_no_entry_in_a_client_that_goes_on(
    subprotocol: str, when: When
) -> None:
    async with Simulator(block_interval=0.1, transactions=2) as simulator:
        scenes = Scenes(simulator, subprotocol=subprotocol)
        async with scenes.new_client() as client:

            async def subscription() -> None:
                async with client.subscribe(TRANSFERS) as stream:
                    await anext(stream)
                    await anext(stream)

            async def nothing_left() -> None:
                await until(lambda: client.status().state == "idle" and not client.status().links)
                assert client._session is not None
                assert not client._open
                assert not any(supervisor.operations for supervisor in client._session.supervisors)
                assert simulator.counters.open_sockets == 0
                await subscription()
                await until(lambda: not client.status().links)

            awaits = await cancelled_everywhere(subscription, nothing_left, whom="the user", when=when)
        assert awaits >= 3
        assert simulator.counters["subscribes"] > awaits
