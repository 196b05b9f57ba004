"""Reading a subscription, over a service in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream import Message, Subscription, UsageError
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
        (outcome,) = await asyncio.gather(reading, return_exceptions=True)
        read = [outcome] if isinstance(outcome, Message) else []
        while len(read) < 2:
            read.append(await anext(stream))
        assert [message.data["EVM"]["Blocks"] for message in read] == [[{"N": 1}], [{"N": 2}]]
