"""Many callers, one token; many subscriptions, one link.

Quick runs take virtual time, so that a slow machine changes nothing; ``-s`` shows what they cost in real seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from bqstream import Client, Timeouts
from bqstream.credentials.keeper import Keeper
from bqstream.events import HandedOver, Lost
from bqstream.simulator import Simulator
from bqstream.simulator.settings import Behaviour
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, Reader, client_for, settled, until

CALLERS = 1_000
SUBSCRIPTIONS = 2_000
DOCUMENTS = [TRANSFERS.replace("Transfers {", f"cube{n}: Transfers {{", 1) for n in range(20)]
QUERY = "query { EVM(network: eth) { Transfers(limit: {count: 1}) { Transfer { Amount } } } }"


@contextlib.contextmanager
def costs(title: str) -> Iterator[None]:
    """Print what the block took, in real seconds: on the clock, and of this process's processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    print(f"{title}: {time.perf_counter() - clock:.1f} s, processor {time.process_time() - processor:.1f} s")


def keeper_of(client: Client) -> Keeper:
    assert client._queries is not None
    keeper = client._queries._keeper
    assert isinstance(keeper, Keeper)
    return keeper


# ---------------------------------------------------------------------- one token request


@virtual_time
async def test_a_thousand_callers_of_the_keeper_share_one_token_request() -> None:
    async with Simulator() as simulator, client_for(simulator) as client:
        keeper = keeper_of(client)
        first = await keeper.current()
        simulator.faults.token_endpoint("slow", seconds=1)
        keeper.refused(first, "as asked")
        with costs(f"{CALLERS} callers of current()"):
            held = await asyncio.gather(*(keeper.current() for _ in range(CALLERS)))
        assert simulator.counters["token_requests"] == 2, "the first, and one for all of them"
        assert {token.generation for token in held} == {first.generation + 1}


@virtual_time
async def test_a_thousand_queries_with_a_revoked_token_share_one_token_request() -> None:
    async with Simulator(block_interval=0.2) as simulator, client_for(simulator) as client:
        await simulator.blocks(2)
        simulator.faults.revoke()
        simulator.faults.token_endpoint("slow", seconds=1)
        with costs(f"{CALLERS} calls of execute()"):
            answers = await asyncio.gather(*(client.execute(QUERY) for _ in range(CALLERS)))
        assert simulator.counters["token_requests"] == 2
        assert simulator.counters["queries"] <= 2 * CALLERS, "each was refused once at most"
        assert all(answer["EVM"]["Transfers"] for answer in answers)


@virtual_time
async def test_a_thousand_subscribers_during_a_refresh_share_one_token_request_and_one_link() -> None:
    async with Simulator(block_interval=0.2, transactions=1) as simulator, client_for(simulator) as client:
        keeper = keeper_of(client)
        simulator.faults.token_endpoint("slow", seconds=1)
        keeper.refused(await keeper.current(), "as asked")
        with costs(f"{CALLERS} calls of subscribe()"):
            streams = await asyncio.gather(*(client.subscribe(TRANSFERS) for _ in range(CALLERS)))
        messages = await asyncio.gather(*(anext(stream) for stream in streams))
        assert all(message.data for message in messages)
        assert simulator.counters["token_requests"] == 2
        assert simulator.counters["dials"] == 1
        assert simulator.counters["subscribes"] == CALLERS


# ---------------------------------------------------------------------- one link


async def handed_over(
    count: int, *, lag: float = 0.0, handovers: int = 1, grace: float = 1.5, block_interval: float = 1
) -> None:
    """``count`` subscriptions on one link, each read by a task of its own, and a hand-over under all of them."""
    seen = Events()
    behaviours = (Behaviour(), Behaviour(lag=lag)) if lag else (Behaviour(),)
    async with (
        Simulator(
            block_interval=block_interval,
            token_ttl=10 * grace,
            transactions=4,
            portions=1,
            behaviours=behaviours,
        ) as simulator,
        client_for(simulator, on_event=seen.append, timeouts=Timeouts(grace=grace)) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        with costs(f"{count} subscriptions made"):
            documents = [DOCUMENTS[n % len(DOCUMENTS)] for n in range(count)]
            streams = await asyncio.gather(*(client.subscribe(document) for document in documents))
        for stream in streams:
            await stack.enter_async_context(stream)
        readers = [Reader(stream, document) for stream, document in zip(streams, documents, strict=True)]
        with costs(f"{count} subscriptions handed over {handovers} times"):
            await until(lambda: len(seen.of(HandedOver)) >= handovers, within=60 * handovers)
            await simulator.blocks(3)
        moved = seen.of(HandedOver)
        gaps = [gap for reader in readers for gap in reader.subscription.gaps]
        with costs("the ledger asked"):
            verdicts = await settled(simulator, *readers)
        lost, repeated = sum(v.lost for v in verdicts), sum(v.repeated for v in verdicts)
        print(
            f"{sum(v.emitted for v in verdicts)} rows, lost {lost}, repeated {repeated}, "
            f"merged {[event.merged for event in moved]}, gaps {len(gaps)}"
        )
        assert [reader.error for reader in readers if reader.error] == []
        assert [verdict for verdict in verdicts if not verdict.exact or not verdict.emitted] == []
        assert gaps == []
        assert seen.of(Lost) == []
        assert [(e.mode, e.operations, e.unproven) for e in moved] == [("overlap", count, 0)] * handovers
        starts = Counter(
            (happening.detail["socket"], happening.detail["operation"])
            for happening in simulator.counters.recent("subscribes")
        )
        assert set(starts.values()) == {1}
        sockets = Counter(
            socket for socket, _ in starts
        )  # there may be another hand-over while gaps are closed
        assert {n: sockets[n] for n in range(1, handovers + 2)} == dict.fromkeys(
            range(1, handovers + 2), count
        )
        for reader in readers:
            reader.task.cancel()


@pytest.mark.soak
@virtual_time
async def test_two_thousand_subscriptions_on_one_link_are_all_handed_over() -> None:
    await handed_over(SUBSCRIPTIONS)


@virtual_time
async def test_hundreds_of_subscriptions_are_handed_over_twice_to_links_that_lag() -> None:
    await handed_over(300, lag=1.0, handovers=2)


@pytest.mark.soak
@pytest.mark.asyncio
async def test_two_thousand_subscriptions_on_one_link_are_all_handed_over_in_real_time() -> None:
    """Client and service share one processor here: a grace that its backlog fits in, and blocks every two seconds."""
    await handed_over(SUBSCRIPTIONS, grace=5, block_interval=2)
