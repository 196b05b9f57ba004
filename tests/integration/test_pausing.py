"""Pausing and resuming, against the ledger: the service is left in peace meanwhile, and then no row is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from bqstream import Backoff, Buffer, Checkpoint, GapFound, Timeouts
from bqstream.events import Connected, GapNamed, HandedOver, Parked, Paused, Resumed
from bqstream.simulator import Simulator
from tests.conftest import SEED
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, Reader, client_for, reading, settled, until
from .scene import BLOCK, Scene, passed, playing

BLOCKS = "subscription { EVM(network: eth) { Blocks { Block { Number } } } }"
COUNTED = "subscription { EVM(network: eth) { Transfers { count Transfer { Currency { Symbol } } } } }"
EXACT = Backoff(jitter=0)
ROUNDS = 25


async def paused_for(scene: Scene, seconds: float) -> None:
    """Pause, see that nothing more comes once what waited was read, and resume."""
    stream, reader = scene.reader.subscription, scene.reader
    await stream.pause()
    await passed(0.1)
    before = reader.messages
    await passed(seconds)
    assert reader.messages == before
    await stream.resume()


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize("company", [False, True], ids=["alone on its link", "beside another"])
@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "graphql-ws"])
@virtual_time
async def test_many_rounds_of_pause_and_resume_under_tokens_of_five_seconds_lose_and_repeat_nothing(
    company: bool, subprotocol: Any
) -> None:
    chance = random.Random(SEED)
    client = {"backoff": EXACT, "subprotocol": subprotocol, "timeouts": Timeouts(grace=0.5)}
    async with playing(service={"token_ttl": 5}, client=client) as scene:
        stream = scene.reader.subscription
        beside = await scene.client.subscribe(BLOCKS) if company else None
        other = Reader(beside, BLOCKS, None, scene.client) if beside is not None else None
        for _ in range(ROUNDS):
            await stream.pause()
            await passed(chance.choice((0.0, 0.001, 0.05, 0.5, 2.0)))
            await stream.resume()
            await passed(chance.choice((0.0, 0.001, 0.5, 2.0, 10.0, 10.0, 10.0)))
        verdict = await scene.assert_exact()
        assert sum(gap.cause == "paused" for gap in scene.gaps) > 1
        assert scene.client.status().rotations > 0 or not company
        print(
            f"{ROUNDS} rounds over {scene.links} links: {verdict.emitted} emitted, {verdict.delivered} delivered, "
            f"{verdict.lost} lost, {verdict.repeated} repeated, {len(scene.gaps)} gaps"
        )
        if other is not None:
            assert other.verdict(scene.simulator).exact
            other.task.cancel()
            await other.subscription.aclose()


@virtual_time
async def test_a_paused_subscription_is_none_to_the_service_and_costs_no_link() -> None:
    async with playing() as scene:
        stream = scene.reader.subscription
        await stream.pause()
        await until(lambda: scene.simulator.counters.open_sockets == 0)
        status = scene.client.status()
        assert (status.state, status.links) == ("idle", ())
        assert [(one.paused, one.closing) for one in status.subscriptions] == [(True, True)]
        await stream.resume()
        await scene.goes_on()
        assert [one.paused for one in scene.client.status().subscriptions] == [False]
        await scene.assert_exact()


@virtual_time
async def test_beside_one_that_is_paused_another_goes_on_and_its_hand_overs_start_it_alone() -> None:
    async with playing(service={"token_ttl": 5}) as scene:
        stream = scene.reader.subscription
        async with reading(scene.client, BLOCKS) as other:
            await until(lambda: other.messages > 3)
            await stream.pause()
            subscribes = scene.simulator.counters["subscribes"]
            handed = len(scene.seen.of(HandedOver))
            await until(lambda: len(scene.seen.of(HandedOver)) >= handed + 3)
            crossings = scene.seen.of(HandedOver)[handed:]
            assert {event.operations for event in crossings[1:]} == {1}
            assert scene.simulator.counters["subscribes"] <= subscribes + len(crossings) + 1
            assert {link.operations for link in scene.client.status().links} == {1}
            await stream.resume()
            await scene.assert_exact()
            assert other.verdict(scene.simulator).exact


@virtual_time
async def test_silence_of_what_is_paused_is_no_stall() -> None:
    async with playing(client={"timeouts": Timeouts(idle=2)}) as scene:
        stream = scene.reader.subscription
        await paused_for(scene, 600)
        assert not stream.paused
        await scene.assert_exact()
        assert scene.waits() == []


# ---------------------------------------------------------------------- the reader


@virtual_time
async def test_what_waits_can_be_read_while_paused_and_then_the_reader_waits_for_another_task_to_resume() -> (
    None
):
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator) as client,
        client.subscribe(TRANSFERS) as stream,
    ):
        await until(lambda: client.status().subscriptions[0].waiting_messages > 5)
        await stream.pause()
        waiting = client.status().subscriptions[0].waiting_messages
        for _ in range(waiting):
            await anext(stream)
        reading_on = asyncio.create_task(anext(stream))
        await passed(30)
        assert not reading_on.done()
        await asyncio.create_task(stream.resume())
        assert (await reading_on).replayed


@virtual_time
async def test_each_pause_and_resume_is_told_once_however_often_it_is_asked_for() -> None:
    async with playing() as scene:
        stream = scene.reader.subscription
        await stream.resume()
        assert "open" in repr(stream)
        for _ in range(3):
            await stream.pause()
            assert stream.paused
        assert "paused" in repr(stream)
        for _ in range(3):
            await stream.resume()
            assert not stream.paused
        assert len(scene.seen.of(Paused)) == len(scene.seen.of(Resumed)) == 1
        await scene.assert_exact()
        named = [event.gap.closed for event in scene.seen.of(GapNamed) if event.gap.cause == "paused"]
        assert named == [False, True]


@pytest.mark.parametrize("what", ["stream", "client"])
@virtual_time
async def test_what_is_closed_while_paused_ends_its_reader_and_leaves_the_gap_open(what: str) -> None:
    async with playing() as scene:
        stream = scene.reader.subscription
        await stream.pause()
        await (stream if what == "stream" else scene.client).aclose()
        await scene.reader.task
        assert not stream.paused
        (gap,) = scene.gaps
        assert (gap.cause, gap.is_hole) == ("paused", True)
        await stream.resume()
        await stream.pause()
        assert len(scene.seen.of(Resumed)) == 0
        assert scene.client.status().subscriptions == ()


# ---------------------------------------------------------------------- while other things happen


async def during_a_hand_over(scene: Scene) -> AsyncIterator[None]:
    links = scene.links
    await until(lambda: scene.links > links)  # the old one goes on until all have crossed
    assert len(scene.client.status().links) == 2
    yield
    await scene.goes_on()


async def while_a_gap_is_being_closed(scene: Scene) -> AsyncIterator[None]:
    scene.simulator.faults.close(1012)
    await until(lambda: scene.reader.subscription.closing and scene.client.status().state == "live")
    await passed(1)
    assert scene.reader.subscription.closing
    yield
    await scene.goes_on()


async def while_the_link_is_down(scene: Scene) -> AsyncIterator[None]:
    scene.simulator.faults.down(5)
    await until(lambda: scene.client.status().state == "waiting")
    yield
    await passed(10)


MOMENTS: dict[str, Callable[[Scene], AsyncIterator[None]]] = {
    "during a hand-over": during_a_hand_over,
    "while a gap is being closed": while_a_gap_is_being_closed,
    "while the link is down": while_the_link_is_down,
}


@pytest.mark.parametrize("seconds", [0.0, 0.3, 8.0])
@pytest.mark.parametrize("moment", MOMENTS)
@virtual_time
async def test_a_pause_at_a_bad_moment_loses_and_repeats_nothing(moment: str, seconds: float) -> None:
    async with playing(service={"token_ttl": 20, "query_lag": 3}, client={"backoff": EXACT}) as scene:
        async for _ in MOMENTS[moment](scene):
            await scene.reader.subscription.pause()
            await passed(seconds)
            await scene.reader.subscription.resume()
        await scene.goes_on()
        await scene.assert_exact()


@pytest.mark.parametrize("seconds", [0.0, 8.0])
@virtual_time
async def test_one_that_is_paused_before_its_first_message_is_owed_all_since_it_was_subscribed(
    seconds: float,
) -> None:
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator, on_event=seen.append) as client,
        reading(client) as reader,
    ):
        await reader.subscription.pause()
        await passed(seconds)
        assert not reader.messages
        await reader.subscription.resume()
        await until(lambda: reader.messages > 10)
        (verdict,) = await settled(simulator, reader)
        assert verdict.lost == verdict.repeated == verdict.foreign == 0, verdict
        assert not reader.unclosed


@virtual_time
async def test_a_parked_reader_that_pauses_gets_all_after_it_has_resumed() -> None:
    timeouts = Timeouts(block=0.5)
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator, on_event=seen.append, timeouts=timeouts) as client,
        client.subscribe(TRANSFERS, buffer=Buffer(messages=3)) as stream,
    ):
        await until(lambda: bool(seen.of(Parked)))
        await stream.pause()
        await passed(3)
        reader = Reader(stream, TRANSFERS, None, client)
        await passed(3)
        await stream.resume()
        await until(lambda: reader.messages > 10)
        (verdict,) = await settled(simulator, reader)
        reader.task.cancel()
        assert verdict.exact, verdict
        assert not reader.unclosed


@virtual_time
async def test_an_outage_that_outlasts_a_resume_is_waited_for_like_any_other() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        await scene.reader.subscription.pause()
        scene.simulator.faults.down(10)
        await passed(1)
        await scene.reader.subscription.resume()
        await until(lambda: scene.client.status().state == "waiting")
        await scene.goes_on()
        await scene.assert_exact()
        assert scene.waits()


# ---------------------------------------------------------------------- what cannot be closed, and checkpoints


@virtual_time
async def test_where_the_gap_cannot_be_closed_it_is_a_named_hole_that_ends_with_the_next_row() -> None:
    async with playing(document=COUNTED, client={"backfill": "off"}) as scene:
        for _ in range(3):
            await paused_for(scene, 3)
            await scene.goes_on()
        holes = [gap for gap in scene.gaps if gap.cause == "paused"]
        assert len(holes) == 3
        assert all(gap.is_hole and gap.end is not None for gap in holes)
        assert all((gap.end - gap.start).total_seconds() > 3 for gap in holes if gap.end is not None)


@virtual_time
async def test_who_wants_to_be_stopped_at_a_hole_is_stopped_by_a_pause_that_makes_one() -> None:
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator) as client,
        client.subscribe(COUNTED, on_gap="raise") as stream,
    ):
        await anext(stream)
        await stream.pause()
        with pytest.raises(GapFound):
            await _read_on(stream)
        assert not stream.paused
        await until(lambda: not client.status().links)


async def _read_on(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def from_the_stream(reader: Reader) -> Checkpoint:
    return reader.subscription.checkpoint


async def after_the_end(reader: Reader) -> Checkpoint:
    await reader.subscription.aclose()
    return reader.subscription.checkpoint


@pytest.mark.parametrize("taken", [from_the_stream, after_the_end])
@pytest.mark.parametrize("closing", [False, True], ids=["all was well", "a gap was being closed"])
@virtual_time
async def test_a_checkpoint_of_a_paused_subscription_has_another_client_close_the_gap(
    taken: Callable[[Reader], Awaitable[Checkpoint]], closing: bool
) -> None:
    async with Simulator(block_interval=BLOCK, query_lag=3) as simulator:
        seen = Events()
        async with (
            client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
            reading(client) as reader,
        ):
            await until(lambda: reader.messages > 20)
            if closing:
                simulator.faults.close(1012)
                await until(lambda: len(seen.of(Connected)) == 2)
                await passed(1)
                assert reader.subscription.closing
            await reader.subscription.pause()
            await passed(5)
            checkpoint = Checkpoint.loads((await taken(reader)).dumps())
        async with client_for(simulator) as client, reading(client, resume=checkpoint) as other:
            other.rows[:0] = reader.rows
            await until(lambda: other.messages > 10)
            (verdict,) = await settled(simulator, other)
            assert verdict.exact, verdict
            assert not other.unclosed
