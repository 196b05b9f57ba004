"""A view of a stream and a browser that looks on, over a service in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bqstream import Subscription
from bqstream.notebook.watching import BEAT, STILL, TICK, Watching
from bqstream.tap import LINGER
from tests.unit.session.service import Service, settle
from tests.unit.test_client import client_of, service_of
from tests.virtual_time import virtual_clock, virtual_time

DOCUMENT = "subscription { EVM { Blocks { Number } } }"


class Screen:
    """What the view sends and draws."""

    def __init__(self, subscription: Subscription) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.stills: list[str] = []
        self.known: dict[str, Any] = {}  # what was told of each part last
        self.closed = 0
        self.watching = Watching(
            subscription,
            key="a-key",
            send=self._sent,
            draw=self.stills.append,
            on_closed=self._closed,
            clock=virtual_clock(),
        )

    def _sent(self, message: Mapping[str, Any]) -> None:
        self.sent.append(json.loads(json.dumps(message)))  # as it comes to a browser
        self.known.update(self.newest)

    def _closed(self) -> None:
        self.closed += 1

    def look(self) -> None:
        self.watching.told({"kind": "look", "view": "1"})

    @property
    def kinds(self) -> list[str]:
        return [message["kind"] for message in self.sent]

    @property
    def newest(self) -> Mapping[str, Any]:
        """The parts that were sent last."""
        parts: Mapping[str, Any] = self.sent[-1]["parts"]
        return parts


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[tuple[Screen, Subscription, Service]]:
    async with client_of() as client, client.subscribe(DOCUMENT) as stream:
        await settle()
        screen = Screen(stream)
        yield screen, stream, service_of(client)
        screen.watching.close()


def block(number: int) -> str:
    return json.dumps({"EVM": {"Blocks": [{"Number": number}]}})


async def publish(service: Service, number: int) -> None:
    service.publish(block(number))
    await settle()


@virtual_time
async def test_who_looks_on_gets_the_whole_and_then_what_has_changed() -> None:
    async with watched() as (screen, _, service):
        await publish(service, 1)
        await asyncio.sleep(TICK)
        screen.look()
        assert screen.kinds[-1] == "picture"
        assert [cells for _, cells in screen.newest["rows"]["Blocks"]] == [[["Number", "1"]]]
        await publish(service, 2)
        await asyncio.sleep(TICK)
        assert screen.kinds[-1] == "change"
        assert [cells for _, cells in screen.newest["rows"]["Blocks"]] == [[["Number", "2"]]]
        assert [point[2] for point in screen.newest["points"]["Number"]] == [2.0]
        assert screen.known["seen"] == 2
        assert "events" not in screen.newest


@virtual_time
async def test_what_does_not_change_is_told_once_a_second_to_those_who_look_on_and_to_nobody_else() -> None:
    async with watched() as (screen, _, _):
        screen.look()
        await asyncio.sleep(10 * BEAT)
        assert 10 <= len(screen.sent) <= 12
        screen.watching.told({"kind": "left", "view": "1"})
        sent = len(screen.sent)
        await asyncio.sleep(10 * BEAT)
        assert len(screen.sent) == sent


@virtual_time
async def test_while_no_word_of_a_browser_comes_in_as_when_a_cell_runs_the_whole_is_sent_each_second() -> (
    None
):
    async with watched() as (screen, _, service):
        for number in range(5):
            await publish(service, number)
            await asyncio.sleep(BEAT)
        assert set(screen.kinds) == {"picture"}
        assert 4 <= len(screen.sent) <= 6
        assert screen.known["seen"] >= 4


@virtual_time
async def test_the_button_pauses_and_resumes_the_stream_and_a_still_says_so_at_once() -> None:
    async with watched() as (screen, stream, _):
        screen.look()
        stills = len(screen.stills)
        screen.watching.told({"kind": "pause"})
        assert stream.paused
        assert screen.known["state"] == "paused"
        assert len(screen.stills) == stills + 1
        assert "paused" in screen.stills[-1]
        screen.watching.told({"kind": "resume"})
        assert not stream.paused
        assert screen.known["state"] == "open"


@virtual_time
async def test_another_column_is_sent_whole_and_nonsense_is_passed_over() -> None:
    async with watched() as (screen, _, service):
        screen.look()
        await publish(service, 7)
        await asyncio.sleep(TICK)
        odd: list[Any] = [None, 5, [], {}, {"kind": "column", "name": "none"}, {"kind": 3}, {"kind": "look"}]
        for nonsense in odd:
            screen.watching.told(nonsense)
        service.publish(json.dumps({"EVM": {"Blocks": [{"Gas": 3, "Number": 8}]}}))
        await settle()
        await asyncio.sleep(TICK)
        screen.watching.told({"kind": "column", "name": "Number"})
        assert screen.newest["column"] == "Number"
        assert [point[2] for point in screen.newest["points"]["Number"]] == [7.0, 8.0]


@virtual_time
async def test_a_stream_that_nobody_reads_is_drained_and_a_reader_gets_all_that_comes_from_then_on() -> None:
    async with watched() as (screen, stream, service):
        screen.look()
        await publish(service, 1)
        await asyncio.sleep(LINGER + TICK)
        assert screen.known["viewed"] == 1
        assert screen.known["read"] is False
        await publish(service, 2)
        async for message in stream:
            assert [row["Number"] for row in message.rows()] == [2]
            await asyncio.sleep(2 * LINGER)
            assert screen.known["read"] is True
            break
        assert screen.known["viewed"] == 1


@virtual_time
async def test_stills_are_drawn_now_and_then_and_when_it_is_closed() -> None:
    async with watched() as (screen, _, service):
        await asyncio.sleep(4 * STILL + 1)
        assert len(screen.stills) == 5
        await publish(service, 12345)
        screen.watching.close()
        assert len(screen.stills) == 6
        assert "12345" in screen.stills[-1]
        assert screen.closed == 1
        screen.watching.close()
        assert screen.closed == 1


@virtual_time
async def test_the_end_of_a_stream_is_the_last_that_is_shown_and_nothing_is_left_behind() -> None:
    tasks = asyncio.all_tasks()
    async with watched() as (screen, stream, service):
        screen.look()
        await publish(service, 1)
        await stream.aclose()
        await asyncio.sleep(LINGER + 1)
        assert screen.known["state"] == "ended"
        sent = len(screen.sent)
        await asyncio.sleep(60)
        screen.watching.told({"kind": "pause"})
        assert len(screen.sent) == sent
        screen.look()
        assert screen.known["state"] == "ended"
        assert screen.known["seen"] == 1
    assert asyncio.all_tasks() == tasks


@virtual_time
async def test_a_second_view_of_a_stream_takes_the_place_of_the_first() -> None:
    async with watched() as (first, stream, service):
        tasks = asyncio.all_tasks()
        second = Screen(stream)
        assert first.closed == 1
        first.look()
        sent = len(first.sent)
        await publish(service, 1)
        await asyncio.sleep(BEAT)
        assert len(first.sent) == sent
        assert second.known["seen"] == 1
        assert asyncio.all_tasks() == tasks
        second.watching.close()
