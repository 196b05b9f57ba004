"""Looking at a subscription, over a service in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from bqstream import Buffer, Client, Message, Subscription
from bqstream.events import Connected, Event, Paused
from bqstream.tap import LINGER, Tap
from tests.unit.session.service import Service, settle
from tests.unit.test_client import client_of, service_of
from tests.virtual_time import virtual_time

DOCUMENT = "subscription { EVM { Blocks { N } } }"


class Looking:
    """Looks on at ``subscription`` and remembers what it saw."""

    def __init__(self, subscription: Subscription) -> None:
        self.messages: list[Message[Any]] = []
        self.events: list[Event] = []
        self.closed = 0
        self.tap = Tap(
            subscription, on_messages=self._saw, on_event=self.events.append, on_closed=self._was_closed
        )

    def _saw(self, messages: Sequence[Message[Any]]) -> None:
        self.messages.extend(messages)

    def _was_closed(self) -> None:
        self.closed += 1

    @property
    def rows(self) -> list[int]:
        return [row["N"] for message in self.messages for row in message.rows()]


@contextlib.asynccontextmanager
async def subscribed(
    document: str = DOCUMENT, **options: Any
) -> AsyncIterator[tuple[Subscription, Service, Client]]:
    async with client_of(**options) as client, client.subscribe(document) as stream:
        await settle()
        yield stream, service_of(client), client


def block(*numbers: int) -> str:
    return json.dumps({"EVM": {"Blocks": [{"N": number} for number in numbers]}})


async def publish(service: Service, *numbers: int) -> None:
    for number in numbers:
        service.publish(block(number))
    await settle()


@virtual_time
async def test_it_sees_every_message_and_the_reader_gets_each_of_them() -> None:
    async with subscribed() as (stream, service, _):
        looking = Looking(stream)
        await publish(service, 1, 2)
        service.publish(block(3, 4))
        await settle()
        assert looking.rows == [1, 2, 3, 4]
        read = []
        async for row in stream.rows():
            read.append(row["N"])
            looking.tap.let_go()
            if len(read) == 4:
                break
        assert read == [1, 2, 3, 4]
        assert looking.tap.viewed == 0


@virtual_time
async def test_what_waits_already_is_seen_at_once() -> None:
    async with subscribed() as (stream, service, _):
        await publish(service, 1, 2)
        assert Looking(stream).rows == [1, 2]


@virtual_time
async def test_what_nobody_reads_is_let_go_after_a_while_and_counted_by_rows() -> None:
    async with subscribed() as (stream, service, client):
        looking = Looking(stream)
        service.publish(block(1, 2, 3))
        await settle()
        await asyncio.sleep(LINGER - 0.1)
        await publish(service, 4)
        looking.tap.let_go()
        assert looking.tap.viewed == 0
        await asyncio.sleep(0.1)
        looking.tap.let_go()
        assert looking.tap.viewed == 3
        assert client.status().subscriptions[0].waiting_messages == 1
        assert [row["N"] for row in (await anext(stream)).rows()] == [4]


@virtual_time
async def test_a_loop_that_goes_on_keeps_its_rows_however_slow_it_is() -> None:
    async with subscribed() as (stream, service, _):
        looking = Looking(stream)
        await publish(service, *range(5))
        read: list[int] = []
        async for message in stream:
            read.extend(row["N"] for row in message.rows())
            await asyncio.sleep(10 * LINGER)
            looking.tap.let_go()
            if len(read) == 5:
                break
        assert read == [0, 1, 2, 3, 4]
        assert looking.tap.viewed == 0


@pytest.mark.parametrize("how", ["break", "error", "cancellation"])
@virtual_time
async def test_whoever_has_left_a_loop_reads_no_more(how: str) -> None:
    async with subscribed() as (stream, service, _):
        looking = Looking(stream)

        async def read() -> None:
            async for _ in stream.message_batches(messages=1):
                if how == "break":
                    break
                if how == "error":
                    raise LookupError

        await publish(service, 1)
        reading = asyncio.create_task(read())
        await settle()
        if how == "cancellation":
            assert looking.tap.is_read
            reading.cancel()
        result = await asyncio.gather(
            reading, return_exceptions=True
        )  # a notebook keeps errors, with their frames
        assert looking.tap.is_read
        await asyncio.sleep(LINGER)
        assert not looking.tap.is_read, result


@virtual_time
async def test_a_single_read_counts_as_a_reader_for_a_while() -> None:
    async with subscribed() as (stream, service, _):
        looking = Looking(stream)
        await publish(service, 1, 2)
        await cell(stream)
        await asyncio.sleep(LINGER - 0.1)
        assert looking.tap.is_read
        await publish(service, 3)
        await cell(stream)
        assert looking.tap.is_read
        await asyncio.sleep(LINGER)
        assert not looking.tap.is_read


async def cell(stream: Subscription) -> list[int]:
    """Read a message in a task that is over then, as a notebook's cells are."""
    message = await asyncio.create_task(stream.__anext__())
    return [row["N"] for row in message.rows()]


async def while_looked_on(tap: Tap, seconds: float) -> None:
    for _ in range(math.ceil(4 * seconds)):
        tap.let_go()
        await asyncio.sleep(0.25)


@virtual_time
async def test_what_was_read_once_waits_for_the_next_cell_until_the_buffer_is_half_full() -> None:
    async with subscribed(buffer=Buffer(messages=10)) as (stream, service, client):
        looking = Looking(stream)
        await publish(service, 1)
        assert await cell(stream) == [1]
        await publish(service, 2, 3)
        await while_looked_on(looking.tap, 10 * LINGER)
        assert looking.tap.viewed == 0
        assert await cell(stream) == [2]
        await while_looked_on(looking.tap, 2 * LINGER)
        await publish(service, *range(4, 13))
        assert client.status().subscriptions[0].waiting_messages == 5
        assert looking.tap.viewed == 5
        assert await cell(stream) == [8]
        assert stream.gaps == ()


@pytest.mark.parametrize("how", ["messages", "tables"])
@virtual_time
async def test_a_task_that_works_between_its_reads_loses_nothing(how: str) -> None:
    async with subscribed(buffer=Buffer(messages=10)) as (stream, service, _):
        looking, read = Looking(stream), list[int]()

        async def serve() -> None:
            while len(read) < 8:
                if how == "messages":
                    read.extend(row["N"] for row in (await anext(stream)).rows())
                else:
                    read.extend((await stream.to_arrow(rows=1)).column("N").to_pylist())
                await asyncio.sleep(4 * LINGER)

        serving = asyncio.create_task(serve())
        await publish(service, *range(8))
        while not serving.done():
            await while_looked_on(looking.tap, LINGER)
        await serving
        assert read == list(range(8))
        assert looking.tap.viewed == 0


@virtual_time
async def test_a_loop_over_record_batches_keeps_its_rows_until_it_is_left() -> None:
    async with subscribed(buffer=Buffer(messages=10)) as (stream, service, _):
        looking, read = Looking(stream), list[int]()

        async def serve() -> None:
            async for batch in stream.arrow_batches(rows=1):
                read.extend(batch.column("N").to_pylist())
                await asyncio.create_task(while_looked_on(looking.tap, 2 * LINGER))

        serving = asyncio.create_task(serve())
        await publish(service, *range(8))
        await asyncio.sleep(20 * LINGER)
        assert read == list(range(8))
        assert looking.tap.viewed == 0
        serving.cancel()
        result = await asyncio.gather(serving, return_exceptions=True)
        await asyncio.sleep(LINGER)
        assert not stream.is_read, result


@virtual_time
async def test_a_reader_that_leaves_a_full_buffer_is_not_waited_for() -> None:
    async with subscribed(buffer=Buffer(messages=10)) as (stream, service, client):
        looking = Looking(stream)
        await publish(service, 0)
        reading = asyncio.create_task(anext_and_wait(stream))
        await settle()
        await publish(service, *range(1, 11))
        await while_looked_on(looking.tap, 2 * LINGER)
        assert client.status().subscriptions[0].waiting_messages == 10
        reading.cancel()
        await while_looked_on(looking.tap, 1)
        assert client.status().subscriptions[0].waiting_messages == 5
        assert looking.tap.viewed == 5


async def anext_and_wait(stream: Subscription) -> None:
    await anext(stream)
    await asyncio.Event().wait()


@virtual_time
async def test_what_a_cancelled_batch_has_taken_is_not_counted_as_read_when_others_are_let_go() -> None:
    at = {"Number": "1", "Hash": "0x1", "Time": "2023-11-14T22:13:20Z"}

    async def come(service: Service, *numbers: int) -> None:
        for number in numbers:
            service.publish(json.dumps({"EVM": {"Blocks": [{"N": number, "Block": at}]}}))
        await settle()

    text = "subscription { EVM { Blocks { N Block { Number Hash Time } } } }"
    async with subscribed(text, buffer=Buffer(messages=10)) as (stream, service, _):
        looking = Looking(stream)
        await come(service, -1)
        assert await cell(stream) == [-1]
        reading: asyncio.Future[Any] = asyncio.ensure_future(anext(stream.message_batches(100, None)))
        await come(service, 0, 1)
        reading.cancel()
        await settle()
        before = stream.checkpoint
        await come(service, *range(2, 12))
        await while_looked_on(looking.tap, 2 * LINGER)
        assert looking.tap.viewed == 5
        assert stream.checkpoint == before
        assert [await cell(stream) for _ in range(3)] == [[0], [1], [7]]


@virtual_time
async def test_while_nobody_reads_the_buffer_never_fills_though_nobody_lets_go() -> None:
    async with subscribed(buffer=Buffer(messages=10)) as (stream, service, client):
        looking = Looking(stream)
        for number in itertools.islice(itertools.count(), 100):
            await publish(service, number)
            assert client.status().subscriptions[0].waiting_messages <= 5
        assert looking.tap.viewed == 95
        assert looking.rows == list(range(100))
        assert stream.gaps == ()


@virtual_time
async def test_a_reader_that_is_slow_is_left_to_the_buffer() -> None:
    async with subscribed(buffer=Buffer(messages=10)) as (stream, service, client):
        looking = Looking(stream)
        loop = aiter(stream)
        for number in range(9):
            await publish(service, number)
        assert client.status().subscriptions[0].waiting_messages == 9
        assert looking.tap.viewed == 0
        assert [row["N"] for row in (await anext(loop)).rows()] == [0]


@virtual_time
async def test_it_gets_the_newest_events_and_then_each_that_happens_until_it_is_closed() -> None:
    async with subscribed() as (stream, _, _):
        looking = Looking(stream)
        assert [type(event) for event in looking.events].count(Connected) == 1
        await stream.pause()
        assert any(isinstance(event, Paused) for event in looking.events)
        looking.tap.close()
        seen = len(looking.events)
        await stream.resume()
        assert len(looking.events) == seen


@virtual_time
async def test_another_takes_its_place() -> None:
    async with subscribed() as (stream, service, _):
        first = Looking(stream)
        second = Looking(stream)
        assert first.closed == 1
        await publish(service, 1)
        assert (first.rows, second.rows) == ([], [1])
        first.tap.close()
        await publish(service, 2)
        assert second.rows == [1, 2]


@pytest.mark.parametrize("what", ["messages", "events"])
@virtual_time
async def test_a_bug_of_whoever_looks_on_ends_their_looking_on_alone(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with subscribed() as (stream, service, _):
        closed = []

        def fail(_: Any) -> None:
            raise LookupError

        def look(_: Any) -> None: ...

        tap = Tap(
            stream,
            on_messages=fail if what == "messages" else look,
            on_event=fail if what == "events" else look,
            on_closed=lambda: closed.append(True),
        )
        await publish(service, 1, 2)
        await stream.pause()
        await stream.resume()
        await asyncio.sleep(1)
        assert (closed, stream._tap) == ([True], None)
        assert [await cell(stream) for _ in range(2)] == [[1], [2]]
        await publish(service, 3)
        assert await cell(stream) == [3]
        assert [record.message[:13] for record in caplog.records if record.exc_info] == ["what looks on"]
        tap.close()


def let_go(held: list[Any], index: int) -> None:
    del held[index]
    gc.collect()


@virtual_time
async def test_it_keeps_no_stream_and_once_closed_no_client() -> None:
    client = await client_of().open()
    stream = await client.subscribe(DOCUMENT)
    service = service_of(client)
    looking = Looking(stream)
    await publish(service, 1)
    held = [stream, client]
    del stream, client
    with pytest.warns(ResourceWarning, match="Subscription 1"):
        let_go(held, 0)
    await settle()
    assert looking.tap.over
    assert not looking.tap.is_read
    looking.tap.let_go()
    assert (looking.tap.waits, looking.tap.viewed) == (0, 1)
    looking.tap.close()
    looking.messages.clear()
    with pytest.warns(ResourceWarning, match="a Client was never closed"):
        let_go(held, 0)
    await asyncio.sleep(60)
    assert [task for task in asyncio.all_tasks() if "bqstream" in task.get_name()] == []
