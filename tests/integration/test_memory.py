"""A slow reader under a fast stream: bounded memory, nothing missing in the end, and neighbours that notice nothing.

What happens is tested in virtual time; what it costs is measured against a service in another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream import Buffer, Client, ClientCredentials, Timeouts
from bqstream.config import MEBIBYTE, Overflow
from bqstream.errors import BufferOverflow
from bqstream.events import GapNamed, Lost, Parked
from bqstream.simulator import Simulator
from bqstream.subscription import Subscription
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, Reader, client_for, reading, settled, until
from .scene import passed, unnamed_losses

SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
SLOW = TRANSFERS.replace("Hash }", "Hash From }")
BLOCK = 0.2
LATE = 0.25


@contextlib.asynccontextmanager
async def neighbours(
    buffer: Buffer, *, block: float = 1.0, subprotocol: str = "auto", **asked: Any
) -> AsyncIterator[tuple[Simulator, Client, Reader, Subscription, Events]]:
    """Two subscriptions on one link: a reader that keeps up, and one that nobody reads yet."""
    seen = Events()
    options: dict[str, Any] = {"timeouts": Timeouts(block=block, idle=3), "subprotocol": subprotocol}
    async with (
        Simulator(block_interval=BLOCK, keepalive=1) as simulator,
        client_for(simulator, on_event=seen.append, **options) as client,
        reading(client) as quick,
        client.subscribe(SLOW, buffer=buffer, **asked) as slow,
    ):
        yield simulator, client, quick, slow, seen


@contextlib.asynccontextmanager
async def caught_up(slow: Subscription) -> AsyncIterator[Reader]:
    """The reader is there at last, and quick from now on."""
    reader = Reader(slow, SLOW)
    try:
        yield reader
    finally:
        reader.task.cancel()
        await asyncio.wait({reader.task})


# ---------------------------------------------------------------------- block: parked and resumed


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_slow_reader_is_parked_its_gap_has_start_and_end_and_its_neighbours_lose_nothing(
    subprotocol: str,
) -> None:
    async with neighbours(Buffer(messages=10), subprotocol=subprotocol) as (sim, client, quick, slow, seen):
        await until(lambda: seen.of(Parked))
        (gap,) = slow.gaps
        assert (gap.cause, gap.end) == ("parked", None)
        before = quick.messages
        await passed(10)
        assert quick.messages >= before + 10 / BLOCK, "the neighbour reads on while the other is parked"
        (_, status) = client.status().subscriptions
        assert status.parked
        assert status.dropped >= 10 / BLOCK
        assert status.waiting_messages == 10
        async with caught_up(slow) as reader:
            await until(lambda: reader.messages >= 30)
            verdicts = await settled(sim, quick, reader, within=2)
        (gap,) = slow.gaps
        assert gap.end is not None
        assert (gap.end - gap.start).total_seconds() > 10
        assert verdicts[0].exact, verdicts[0]
        assert verdicts[1].repeated == verdicts[1].foreign == verdicts[1].lost == 0, (
            "what was let go is asked for"
        )
        assert gap.closed
        assert [(event.operation, event.resumed) for event in seen.of(Parked)] == [(2, False), (2, True)]
        assert [event.gap.closed for event in seen.of(GapNamed)] == [False, True]
        assert seen.of(Lost) == []
        print(f"parked for {(gap.end - gap.start).total_seconds():.1f} s, {status.dropped} messages let go")


@virtual_time
async def test_the_link_pauses_for_timeouts_block_at_most_and_nothing_is_lost_when_the_reader_comes_in_time() -> (
    None
):
    async with neighbours(Buffer(messages=10), block=5) as (sim, client, quick, slow, seen):
        await until(lambda: client.status().subscriptions[1].waiting_messages >= 10)
        before = quick.messages
        await passed(4)
        assert quick.messages - before <= 1, "a full buffer stops the link from reading"
        async with caught_up(slow) as reader:
            await until(lambda: quick.messages >= before + 40)
            verdicts = await settled(sim, quick, reader)
        assert all(verdict.exact for verdict in verdicts), verdicts
        assert slow.gaps == ()
        assert seen.of(Parked) == []


@pytest.mark.asyncio
async def test_a_reader_that_could_not_read_since_the_program_stood_still_is_not_parked() -> None:
    block = 0.4
    async with neighbours(Buffer(messages=10), block=block) as (sim, client, quick, slow, seen):
        await until(lambda: client.status().subscriptions[1].waiting_messages >= 10)
        time.sleep(1.2 * block)  # noqa: ASYNC251 - it is what happens here
        for _ in range(5):  # the reader has other things to do while the timers that are due fire
            await asyncio.sleep(0)
        async with caught_up(slow) as reader:
            verdicts = await settled(sim, quick, reader)
        assert all(verdict.exact for verdict in verdicts), verdicts
        assert slow.gaps == ()
        assert seen.of(Parked) == []


@pytest.mark.parametrize("backfill", ["auto", "off"])
@virtual_time
async def test_a_reader_that_is_parked_again_and_again_gets_all_in_the_end_or_has_every_hole_named(
    backfill: str,
) -> None:
    buffer = Buffer(messages=10)
    async with neighbours(buffer, block=0.5, backfill=backfill) as (sim, client, quick, slow, seen):
        reader = Reader(slow, SLOW)
        reader.task.cancel()
        await asyncio.wait({reader.task})
        for round_ in range(1, 6):
            await until(lambda round_=round_: seen.of(Parked)[2 * round_ - 2 :])  # type: ignore[misc]
            await passed(2)
            while client.status().subscriptions[1].waiting_messages:
                reader.rows.extend((await anext(slow)).rows())
        async with caught_up(slow) as last:
            verdicts = await settled(sim, quick, last, within=2)
            last.rows = reader.rows + last.rows
            verdict = last.verdict(sim)
            assert verdict.repeated == verdict.foreign == 0, verdict
            if backfill == "auto":
                assert verdict.exact, verdict
                assert last.unclosed == []
            else:
                assert verdict.lost
                assert not unnamed_losses(sim, client, last, late=LATE)
                assert len(slow.gaps) == 5
        assert verdicts[0].exact
        assert [event.resumed for event in seen.of(Parked)] == [False, True] * 5
        assert all(gap.cause == "parked" and gap.end is not None for gap in slow.gaps)


@virtual_time
async def test_a_reader_that_is_parked_again_and_again_loses_nothing() -> None:
    async with neighbours(Buffer(messages=10), block=0.5) as (sim, client, quick, slow, seen):
        rows: list[Any] = []
        for round_ in range(1, 4):
            await until(lambda round_=round_: [e.resumed for e in seen.of(Parked)].count(False) >= round_)  # type: ignore[misc]
            await passed(2)
            while client.status().subscriptions[1].waiting_messages:
                rows.extend((await anext(slow)).rows())
        async with caught_up(slow) as last:
            last.rows = rows
            verdicts = await settled(sim, quick, last)
        assert [verdict.exact for verdict in verdicts] == [True, True], verdicts
        assert all(gap.closed for gap in slow.gaps)


@virtual_time
async def test_a_parked_reader_crosses_a_hand_over_and_has_one_gap() -> None:
    """What is let go is let go on whichever link it comes; the hand-over itself loses nothing for its neighbour."""
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK, token_ttl=12) as sim,
        client_for(sim, on_event=seen.append, timeouts=Timeouts(block=1, grace=1)) as client,
        reading(client) as quick,
        client.subscribe(SLOW, buffer=Buffer(messages=10)) as slow,
    ):
        await until(lambda: client.status().rotations >= 1, within=60)
        await passed(2)
        async with caught_up(slow) as reader:
            await passed(2)
            verdicts = await settled(sim, quick, reader, within=2)
            assert verdicts[0].exact, verdicts[0]
            assert verdicts[1].exact, verdicts[1]
        assert [gap.cause for gap in slow.gaps if gap.cause != "quiet"] == ["parked"]
        assert all(gap.closed for gap in slow.gaps)


# ---------------------------------------------------------------------- drop_oldest, error


@virtual_time
async def test_drop_oldest_keeps_the_newest_and_names_what_went() -> None:
    buffer = Buffer(messages=10, overflow="drop_oldest")
    async with neighbours(buffer) as (sim, client, quick, slow, seen):
        await passed(10)
        async with caught_up(slow) as reader:
            await until(lambda: reader.messages >= 30)
            verdicts = await settled(sim, quick, reader, within=2)
        assert verdicts[0].exact
        assert verdicts[1].lost
        assert verdicts[1].repeated == verdicts[1].foreign == 0
        assert not unnamed_losses(sim, client, reader, late=LATE)
        (gap,) = slow.gaps
        assert gap.cause == "dropped"
        assert gap.end is not None
        assert seen.of(Parked) == []
        assert quick.messages > 10 / BLOCK


@virtual_time
async def test_error_ends_the_slow_subscription_alone_after_what_it_held() -> None:
    async with neighbours(Buffer(messages=10, overflow="error")) as (sim, client, quick, slow, _seen):
        await passed(5)
        async with caught_up(slow) as reader:
            await asyncio.wait({reader.task})
            assert isinstance(reader.error, BufferOverflow)
            assert reader.messages == 10
            (verdict,) = await settled(sim, quick)
            assert verdict.exact
            assert not unnamed_losses(sim, client, reader, late=LATE)
        assert [gap.cause for gap in slow.gaps] == ["dropped"]
        assert len(client.status().subscriptions) == 1
        assert sim.counters.open_sockets == 1


# ---------------------------------------------------------------------- bytes, measured

# What a subscription may hold beside its buffer: the ring of what was delivered, for hand-overs (as many
# bytes again), what was on its way when its link was asked to stop (1 MiB), and the frame in hand, which
# exists as received bytes, joined bytes, text, bytes again and payload. The rest is a client, its link and
# Python itself.
OVERRUN = MEBIBYTE
COPIES = 6
REST = 3 * MEBIBYTE
CUBE = "cube{}: Transfers {{ Block {{ Number Time Hash ParentHash }} Transfer {{ Amount Sender Receiver }} }}"
WIDE = f"subscription {{ EVM(network: eth) {{ {' '.join(CUBE.format(n) for n in range(8))} }} }}"


@contextlib.asynccontextmanager
async def service(*arguments: str) -> AsyncIterator[dict[str, str]]:
    """A simulator in a process of its own, so that its memory is not the client's; what its first line says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bqstream.cli", "simulator", "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        await process.communicate()


async def peak_of_a_slow_reader(overflow: Overflow, *, buffer_bytes: int, total: int) -> None:
    """Nobody reads while ``total`` bytes come in, or, with "error", until it overflows; then the reader wakes."""
    buffer = Buffer(bytes=buffer_bytes, overflow=overflow)
    async with service("--block-interval", "0.03", "--transactions", "100", "--portions", "2") as found:
        credentials = ClientCredentials(
            found["client_id"], found["client_secret"], token_url=found["token_url"]
        )
        timeouts = Timeouts(block=0.5)
        async with (
            Client(credentials, endpoint=found["endpoint"], buffer=buffer, timeouts=timeouts) as client,
            client.subscribe(WIDE) as stream,
        ):
            largest = (await anext(stream)).size
            received = 0
            tracemalloc.start()
            try:

                def enough() -> bool:
                    nonlocal received
                    received = max(received, largest * sum(link.messages for link in client.status().links))
                    return received >= total or stream._stream.over

                await until(enough, within=110)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            waiting = stream._stream.waiting_bytes
            messages = 0
            with contextlib.suppress(BufferOverflow):
                async for message in stream:
                    messages += 1
                    largest = max(largest, message.size)
                    if messages * largest > buffer_bytes and overflow != "error":
                        break
    # What waits, and as much again of what was taken or, where the oldest go, was let go; after an error nothing more
    # comes.
    held = {
        "block": 2 * buffer_bytes,
        "drop_oldest": 2 * buffer_bytes,
        "error": buffer_bytes,
    }[overflow]
    bound = held + OVERRUN + COPIES * largest + REST
    print(
        f"{overflow}: {received / MEBIBYTE:.0f} MiB came in, {waiting / MEBIBYTE:.1f} MiB waited, peak "
        f"{peak / MEBIBYTE:.1f} MiB; bound {bound / MEBIBYTE:.1f} MiB = held {held / MEBIBYTE:g} + "
        f"overrun 1 + {COPIES} x {largest / MEBIBYTE:.2f} + rest 3"
    )
    assert buffer_bytes - largest <= waiting <= buffer_bytes + OVERRUN
    assert peak <= bound
    assert {gap.cause for gap in stream.gaps} == {"parked" if overflow == "block" else "dropped"}


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "error"])
@pytest.mark.asyncio
async def test_the_memory_of_a_slow_reader_stays_within_its_buffers_bound(overflow: Overflow) -> None:
    await peak_of_a_slow_reader(overflow, buffer_bytes=4 * MEBIBYTE, total=12 * MEBIBYTE)


@pytest.mark.soak
@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "error"])
@pytest.mark.asyncio
async def test_the_memory_of_a_slow_reader_stays_within_the_default_buffers_bound(
    overflow: Overflow,
) -> None:
    await peak_of_a_slow_reader(overflow, buffer_bytes=32 * MEBIBYTE, total=512 * MEBIBYTE)
