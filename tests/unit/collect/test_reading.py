"""What is read is handed over in batches, in order, whole, and in time; over a service in memory, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream import Backoff, Buffer, Client, OperationFailed, UsageError
from bqstream.collect.collector import PATIENCE
from bqstream.collect.reading import Batch, Batching, End, Reading
from bqstream.subscription import Subscription
from tests.unit.session.service import Service, settle
from tests.unit.test_client import client_of, service_of
from tests.virtual_time import virtual_time

DOCUMENT = "subscription { EVM { Blocks { N } } }"


class Reader:
    """The reading side at work, and the test in the place of the writing side."""

    def __init__(
        self, client: Client, stream: Subscription[Any], batching: Batching, limit: int | None
    ) -> None:
        self.client = client
        self.stream = stream
        self.service: Service = service_of(client)
        self.reading = Reading(stream, batching, batching.seconds or PATIENCE, limit)
        self.task = asyncio.create_task(self.reading.run())
        self.time = asyncio.get_running_loop().time

    def publish(self, *numbers: int) -> None:
        """A message for each."""
        for number in numbers:
            self.service.publish(json.dumps({"EVM": {"Blocks": [{"N": number}]}}))

    async def next(self) -> list[int]:
        batch = await self.reading.batches.get()
        assert isinstance(batch, Batch)
        assert (batch.checkpoint is None) == (not batch.messages)
        return numbers(batch)

    async def rest(self) -> list[Batch | End]:
        """All that comes until the end."""
        found: list[Batch | End] = []
        while not found or isinstance(found[-1], Batch):
            found.append(await self.reading.batches.get())
        await self.task
        return found


def numbers(batch: Batch | End) -> list[int]:
    assert isinstance(batch, Batch)
    return [row["N"] for message in batch.messages for row in message.rows()]


@contextlib.asynccontextmanager
async def reading(limit: int | None = None, client: Any = None, **batching: Any) -> AsyncIterator[Reader]:
    async with client_of(**(client or {})) as opened, opened.subscribe(DOCUMENT) as stream:
        await settle()
        reader = Reader(opened, stream, Batching(**batching), limit)
        await settle()
        try:
            yield reader
        finally:
            reader.task.cancel()
            await asyncio.wait({reader.task})


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"messages": -1}, {"bytes": float("inf")}, {"messages": 1.5}, {"seconds": True}]
)
def test_batching_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Batching(**wrong)


@virtual_time
async def test_a_batch_is_handed_over_when_it_has_so_many_messages() -> None:
    async with reading(messages=3) as reader:
        reader.publish(1, 2, 3, 4)
        assert await reader.next() == [1, 2, 3]
        assert reader.time() < 1


@virtual_time
async def test_a_batch_is_handed_over_when_it_has_so_many_bytes_and_is_at_most_a_message_longer() -> None:
    async with reading(bytes=1000) as reader:
        reader.publish(*range(200))
        read = 0
        while read < 150:
            batch = await reader.reading.batches.get()
            assert numbers(batch) == list(range(read, read + len(numbers(batch))))
            read += len(numbers(batch))
            assert isinstance(batch, Batch)
            sizes = [message.size for message in batch.messages]
            assert 1000 <= sum(sizes) < 1000 + max(sizes)
        assert reader.time() < 1


@pytest.mark.parametrize("begins", [0.5, 5.5, 9.5, 10.5, 14.0])
def test_a_batch_is_handed_over_so_many_seconds_after_its_first_message(begins: float) -> None:
    @virtual_time
    async def run() -> None:
        async with reading(seconds=5) as reader:
            await asyncio.sleep(begins)
            reader.publish(1)
            assert await reader.next() == [1]
            assert reader.time() <= begins + 5.1

    run()


@virtual_time
async def test_a_gap_is_told_within_twice_that_time_while_no_row_comes() -> None:
    async with reading(
        seconds=5, client={"backoff": Backoff(initial=1000, maximum=1000, jitter=0)}
    ) as reader:
        reader.publish(1)
        assert await reader.next() == [1]
        begun = reader.time()
        reader.service.open[0].shut()
        batch = await reader.reading.batches.get()
        assert isinstance(batch, Batch)
        assert (batch.messages, batch.checkpoint) == ((), None)
        assert [gap.cause for gap in batch.gaps.values()] == ["lost"]
        assert reader.time() <= begun + 10.5
        await asyncio.sleep(100)
        assert reader.reading.batches.empty(), "it is told once"


@virtual_time
async def test_stop_hands_over_what_came_in_and_ends() -> None:
    async with reading(seconds=5, messages=2) as reader:
        reader.publish(1, 2, 3)
        await settle()
        begun = reader.time()
        reader.reading.stop()
        reader.reading.stop()
        *batches, end = await reader.rest()
        assert [number for batch in batches for number in numbers(batch)] == [1, 2, 3]
        assert end == End()
        assert reader.time() - begun < 1


@virtual_time
async def test_stop_leaves_nothing_behind_of_what_waits_behind_a_slow_writer() -> None:
    async with reading(messages=2) as reader:
        reader.publish(*range(50))
        await asyncio.sleep(1)
        reader.reading.stop()
        *batches, _ = await reader.rest()
        assert [number for batch in batches for number in numbers(batch)] == list(range(50))


@virtual_time
async def test_stop_does_not_read_on_while_rows_keep_coming() -> None:
    async with reading(seconds=5) as reader:

        async def publish() -> None:
            for number in range(100_000):
                reader.publish(number)
                await asyncio.sleep(0.001)

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(1)
        reader.reading.stop()
        *batches, _ = await reader.rest()
        found = [number for batch in batches for number in numbers(batch)]
        assert found == list(range(len(found)))
        assert 990 < len(found) < 1200
        publishing.cancel()
        await asyncio.wait({publishing})


@virtual_time
async def test_stop_before_it_has_begun_reads_what_waits() -> None:
    async with client_of() as client, client.subscribe(DOCUMENT) as stream:
        await settle()
        side = Reading(stream, Batching(), PATIENCE, None)
        service_of(client).publish('{"EVM":{"Blocks":[{"N":1}]}}')
        await settle()
        side.stop()
        task = asyncio.create_task(side.run())
        assert numbers(await side.batches.get()) == [1]
        assert await side.batches.get() == End()
        await task


@virtual_time
async def test_a_limit_ends_with_the_message_that_reaches_it() -> None:
    async with reading(limit=3, messages=10) as reader:
        reader.service.publish('{"EVM":{"Blocks":[{"N":1},{"N":2}]}}')
        reader.service.publish('{"EVM":{"Blocks":[{"N":3},{"N":4}]}}')
        reader.publish(5)
        batch, end = await reader.rest()
        assert numbers(batch) == [1, 2, 3, 4]
        assert end == End()


@virtual_time
async def test_the_rows_of_a_limit_are_handed_over_as_soon_as_all_are_there() -> None:
    async with reading(limit=3, seconds=60) as reader:
        reader.publish(1, 2)
        await asyncio.sleep(1)
        reader.publish(3)
        batch, end = await reader.rest()
        assert numbers(batch) == [1, 2, 3]
        assert end == End()
        assert reader.time() < 2


@virtual_time
async def test_rows_that_do_not_reach_the_limit_are_handed_over_as_without_one() -> None:
    async with reading(limit=10, seconds=60, messages=2) as reader:
        reader.publish(1, 2, 3)
        assert await reader.next() == [1, 2]
        assert reader.time() < 1
        assert await reader.next() == [3]
        assert 60 <= reader.time() < 62
        reader.publish(4)
        await settle()
        reader.reading.stop()
        batch, end = await reader.rest()
        assert numbers(batch) == [4]
        assert end == End()


@pytest.mark.parametrize("word", ["complete", "error"])
def test_an_end_before_the_limit_comes_after_the_last_rows(word: str) -> None:
    @virtual_time
    async def run() -> None:
        async with reading(limit=10, seconds=60) as reader:
            reader.publish(1, 2)
            (socket,) = reader.service.open
            (name,) = socket.live
            socket.say(word, name, [{"message": "no more"}] if word == "error" else None)
            batch, end = await reader.rest()
            assert numbers(batch) == [1, 2]
            assert isinstance(end, End)
            assert (end.error is None) == (word == "complete")

    run()


@virtual_time
async def test_a_payload_that_cannot_be_decoded_counts_as_a_row_and_ends_nothing() -> None:
    async with reading(limit=2, messages=1) as reader:
        reader.service.publish('{"EVM":{"Blocks":[{"N":1e999}]}}')
        reader.publish(1)
        bad, good, end = await reader.rest()
        assert isinstance(bad, Batch)
        assert b"1e999" in bad.messages[0].raw
        assert numbers(good) == [1]
        assert end == End()


@pytest.mark.parametrize("word", ["complete", "error"])
def test_the_end_and_the_error_of_a_stream_come_after_its_last_rows(word: str) -> None:
    @virtual_time
    async def run() -> None:
        async with reading(messages=2) as reader:
            reader.publish(1, 2, 3)
            (socket,) = reader.service.open
            (name,) = socket.live
            socket.say(word, name, [{"message": "no more"}] if word == "error" else None)
            *batches, end = await reader.rest()
            assert isinstance(end, End)
            assert isinstance(end.error, OperationFailed) == (word == "error")
            assert [number for batch in batches for number in numbers(batch)] == [1, 2, 3]

    run()


@virtual_time
async def test_one_batch_waits_at_most_and_the_rest_stays_in_the_buffer() -> None:
    async with reading(messages=2, client={"buffer": Buffer(messages=1000)}) as reader:
        reader.publish(*range(20))
        await asyncio.sleep(100)
        assert reader.reading.batches.qsize() == 1
        (one,) = reader.client.status().subscriptions
        assert one.waiting_messages == 16, "one batch waits, and one is in hand"


@pytest.mark.parametrize("turns", range(6))
def test_a_cancelled_reading_leaves_no_task_and_loses_no_message_of_the_stream(turns: int) -> None:
    @virtual_time
    async def run() -> None:
        async with reading(messages=3) as reader:
            reader.publish(1, 2)
            for _ in range(turns):
                await asyncio.sleep(0)
            reader.task.cancel()
            await asyncio.wait({reader.task})
            if reader.reading.batches.empty():
                async with asyncio.timeout(1):
                    assert [[row["N"] for row in (await anext(reader.stream)).rows()] for _ in "12"] == [
                        [1],
                        [2],
                    ]

    run()


@virtual_time
async def test_the_checkpoint_of_a_batch_is_that_of_its_last_message() -> None:
    async with reading(messages=2) as reader:
        reader.publish(1, 2)
        batch = await reader.reading.batches.get()
        assert isinstance(batch, Batch)
        assert batch.checkpoint == batch.messages[-1].checkpoint.dumps()
