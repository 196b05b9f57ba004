"""Reading a subscription, over a service in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream import Buffer, Message, Subscription, UsageError
from tests.unit.session.service import Service, settle
from tests.unit.test_client import client_of, service_of
from tests.virtual_time import virtual_time

DOCUMENT = "subscription { EVM { Blocks { N } Calls { N } } }"


@contextlib.asynccontextmanager
async def subscribed(document: str = DOCUMENT) -> AsyncIterator[tuple[Subscription, Service]]:
    async with client_of() as client, client.subscribe(document) as stream:
        await settle()
        yield stream, service_of(client)


def block(*numbers: int, calls: tuple[int, ...] = ()) -> str:
    cubes = {"Blocks": [{"N": n} for n in numbers], "Calls": [{"N": n} for n in calls]}
    return json.dumps({"EVM": cubes})


async def take(rows: AsyncIterator[Any], count: int) -> list[Any]:
    found: list[Any] = []
    async for row in rows:
        found.append(row)
        if len(found) == count:
            break
    return found


@virtual_time
async def test_rows_go_on_in_the_middle_of_a_message_after_a_break() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(1, 2, 3))
        service.publish(block(4))
        await settle()
        assert await take(stream.rows("Blocks"), 2) == [{"N": 1}, {"N": 2}]
        assert await take(stream.rows("Blocks"), 2) == [{"N": 3}, {"N": 4}]


@virtual_time
async def test_what_has_to_be_awaited_says_so() -> None:
    async with client_of() as client:
        forgotten = client.subscribe(DOCUMENT)
        assert "not open: stream = await client.subscribe(…)" in repr(forgotten)
        with pytest.raises(UsageError, match=r"stream = await client\.subscribe"):
            aiter(forgotten)
        with pytest.raises(AttributeError, match=r"its rows is used: stream = await client\.subscribe"):
            forgotten.rows()
    async with subscribed() as (stream, _):
        ways = [stream.rows("Blocks"), stream.message_batches(), aiter(stream)]
        for way in ways:
            with pytest.raises(UsageError, match="async for, not for"):
                list(way)  # type: ignore[call-overload]
        assert not stream.is_read, "nobody is in a loop that did not begin"


@virtual_time
async def test_rows_that_were_left_come_after_messages_that_were_read_in_between() -> None:
    async with subscribed() as (stream, service):
        for numbers in ((1, 2), (3, 4), (5,)):
            service.publish(block(*numbers))
        await settle()
        assert await take(stream.rows(), 1) == [{"Blocks": {"N": 1}}]
        assert list((await anext(stream)).rows("Blocks")) == [{"N": 3}, {"N": 4}]
        assert await take(stream.rows(), 2) == [{"Blocks": {"N": 2}}, {"Blocks": {"N": 5}}]


@virtual_time
async def test_rows_of_another_cube_begin_with_the_next_message_and_repeat_none() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(1, 2, calls=(3,)))
        service.publish(block(4, calls=(5,)))
        await settle()
        assert await take(stream.rows("Blocks"), 1) == [{"N": 1}]
        assert await take(stream.rows("Calls"), 1) == [{"N": 5}]


@virtual_time
async def test_rows_of_a_document_with_two_cubes_say_which_even_when_one_failed() -> None:
    async with subscribed() as (stream, service):
        service.publish('{"EVM":{"Blocks":[{"N":1}],"Calls":null}}')
        await settle()
        assert await take(stream.rows(), 1) == [{"Blocks": {"N": 1}}]


@virtual_time
async def test_rows_of_a_cube_that_the_document_has_not_are_refused_before_any_comes() -> None:
    async with subscribed() as (stream, _):
        with pytest.raises(UsageError, match="Blocks, Calls"):
            stream.rows("Block")


@pytest.mark.parametrize("turns", range(8))
@virtual_time
async def test_a_cancelled_read_takes_no_message(turns: int) -> None:
    async with subscribed() as (stream, service):
        reading = asyncio.create_task(anext(stream))
        await settle()
        service.publish(block(1))
        service.publish(block(2))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        outcome: object
        (outcome,) = await asyncio.gather(reading, return_exceptions=True)
        read: list[Message] = [outcome] if isinstance(outcome, Message) else []
        while len(read) < 2:
            read.append(await anext(stream))
        assert [message.data["EVM"]["Blocks"] for message in read] == [[{"N": 1}], [{"N": 2}]]


# ---------------------------------------------------------------------- batches


def numbers(batch: list[Message]) -> list[int]:
    return [row["N"] for message in batch for row in message.rows("Blocks")]


@virtual_time
async def test_a_batch_holds_as_many_messages_as_wait_up_to_its_bound() -> None:
    async with subscribed() as (stream, service):
        for number in range(5):
            service.publish(block(number))
        batches = stream.message_batches(messages=3, seconds=60)
        assert numbers(await anext(batches)) == [0, 1, 2]
        start = asyncio.get_running_loop().time()
        assert numbers(await anext(batches)) == [3, 4]
        assert asyncio.get_running_loop().time() - start == pytest.approx(60)


@virtual_time
async def test_a_batch_without_a_time_is_waited_for_until_it_is_full() -> None:
    async with subscribed() as (stream, service):
        reading = asyncio.ensure_future(anext(stream.message_batches(messages=2, seconds=None)))
        service.publish(block(1))
        await asyncio.sleep(3600)
        service.publish(block(2))
        assert numbers(await reading) == [1, 2]


@virtual_time
async def test_what_a_cancelled_read_had_taken_comes_with_the_next_batch() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream.message_batches(messages=2, seconds=None)), 10)
        service.publish(block(2))
        service.publish(block(3))
        assert numbers(await anext(stream.message_batches(messages=5, seconds=1))) == [1, 2, 3]


@virtual_time
async def test_the_last_batch_comes_before_the_end_and_before_an_error() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(1))
        service.publish(block(2))
        batches = stream.message_batches(seconds=60)
        reading = asyncio.ensure_future(anext(batches))
        await settle()
        await stream.aclose()
        assert numbers(await reading) == [1, 2]
        assert [batch async for batch in batches] == []


@virtual_time
async def test_a_batch_is_not_larger_than_what_may_wait() -> None:
    async with client_of() as client, client.subscribe(DOCUMENT, buffer=Buffer(bytes=2000)) as stream:
        await settle()
        for _ in range(3):
            service_of(client).publish(block(*range(100)))
        assert len(await anext(stream.message_batches(seconds=60))) == 2


@virtual_time
async def test_a_checkpoint_counts_nothing_of_the_batch_in_hand() -> None:
    text = "subscription { EVM { Blocks { Block { Number Hash Time } } } }"

    def one(number: int) -> str:
        at = {"Number": str(number), "Hash": f"0x{number}", "Time": "2023-11-14T22:13:20Z"}
        return json.dumps({"EVM": {"Blocks": [{"Block": at}]}})

    async with subscribed(text) as (stream, service):
        batches = stream.message_batches(messages=2)
        for number in range(4):
            service.publish(one(number))
        before = stream.checkpoint
        first = await anext(batches)
        assert stream.checkpoint == before
        after = first[-1].checkpoint
        await anext(batches)
        assert stream.checkpoint == after


@pytest.mark.parametrize(
    "given", [{"messages": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"messages": 1.5}]
)
@virtual_time
async def test_a_batch_of_nothing_is_refused(given: dict[str, Any]) -> None:
    async with subscribed() as (stream, _):
        with pytest.raises(UsageError):
            stream.message_batches(**given)


@virtual_time
async def test_what_a_cancelled_batch_had_taken_is_read_first_by_message_too() -> None:
    async with subscribed() as (stream, service):
        for number in range(3):
            service.publish(block(number))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream.message_batches(10, seconds=None)), 10)
        service.publish(block(3))
        read = [await anext(stream) for _ in range(2)]
        assert numbers(read) == [0, 1]
        assert stream._stream._done == read[0]._number, "the message in hand is not done with"
        assert numbers(await anext(stream.message_batches(1))) == [2]
        assert numbers(await anext(stream.message_batches(1))) == [3]


@virtual_time
async def test_two_tasks_cannot_read_batches_of_one_subscription() -> None:
    async with subscribed() as (stream, service):
        service.publish(block(1))
        first = asyncio.ensure_future(anext(stream.message_batches(3, seconds=5)))
        await settle()
        for second in (stream.message_batches(3), stream):
            with pytest.raises(UsageError, match="another task"):
                await anext(second)
        service.publish(block(2))
        assert numbers(await first) == [1, 2]


# ---------------------------------------------------------------------- pausing


@virtual_time
async def test_a_pause_is_a_word_to_the_service_and_what_still_comes_is_not_listened_to() -> None:
    other = DOCUMENT.replace("Calls", "Events")
    async with client_of() as client, client.subscribe(DOCUMENT) as stream, client.subscribe(other):
        await settle()
        socket = service_of(client).newest
        first = next(iter(client._open.values()))[0]
        name = socket.id_of(first)
        await stream.pause()
        assert socket.words[-1] == "complete"
        socket.say("next", name, json.loads(f'{{"data":{block(1)}}}'))
        await settle()
        assert client.status().subscriptions[0].waiting_messages == 0
        await stream.resume()
        await settle()
        assert socket.words[-1] == "subscribe"
        assert socket.id_of(first) != name
        socket.data(first, block(2))
        assert await take(stream.rows("Blocks"), 1) == [{"N": 2}]
        assert {gap.cause for gap in stream.gaps} == {"paused"}


@virtual_time
async def test_a_pause_while_its_link_is_ending_leaves_no_link_that_the_next_one_is_compared_with() -> None:
    async with client_of() as client, client.subscribe(DOCUMENT) as stream:
        await settle()
        service = service_of(client)
        service.publish(block(1))
        await settle()
        service.newest.shut()
        link = client._session.supervisors[0].links[0]  # type: ignore[union-attr]
        while not link.ended:  # noqa: ASYNC110 - to the turn of the loop in which nobody has been told of it yet
            await asyncio.sleep(0)
        await stream.pause()
        await settle()
        assert len(service.sockets) == 1, "nothing is dialled for what is paused"
        await stream.resume()
        await settle()
        service.publish(block(2))
        assert await take(stream.rows("Blocks"), 2) == [{"N": 1}, {"N": 2}]
        assert not client.status().subscriptions[0].unproven
        assert all(gap.end is not None for gap in stream.gaps)
        assert stream.gaps


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@virtual_time
async def test_one_that_is_let_go_is_closed_though_its_warning_is_an_error() -> None:
    client = await client_of().open()
    stream = await client.subscribe(DOCUMENT)
    await settle()
    assert len(client.status().subscriptions) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del stream
        gc.collect()
    await settle()
    assert client.status().subscriptions == ()
    await client.aclose()
