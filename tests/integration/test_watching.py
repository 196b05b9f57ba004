"""A stream that is watched, over real sockets: what its reader gets is the ledger's, and without one it never fills."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from bqstream import Buffer, Client, Subscription, Timeouts
from bqstream.events import HandedOver
from bqstream.notebook.watching import Watching
from bqstream.simulator import Simulator
from bqstream.tap import LINGER

from .harness import TRANSFERS, Events, client_for, reading, settled, until

pytestmark = pytest.mark.asyncio
SMALL = Buffer(messages=20)


class Browser:
    """Looks on, and knows what it was told last."""

    def __init__(self, stream: Subscription) -> None:
        self.known: dict[str, Any] = {}
        self.watching = Watching(
            stream, key="a-key", send=self._told, draw=lambda html: None, on_closed=lambda: None
        )
        self.watching.told({"kind": "look", "view": "1"})

    def _told(self, message: Mapping[str, Any]) -> None:
        self.known.update(message["parts"])


@contextlib.asynccontextmanager
async def looking(stream: Subscription) -> AsyncIterator[Browser]:
    browser = Browser(stream)
    try:
        yield browser
    finally:
        browser.watching.close()


def waiting(client: Client) -> int:
    return client.status().subscriptions[0].waiting_messages


async def test_a_reader_gets_every_row_once_while_its_stream_is_watched_over_hand_overs() -> None:
    seen = Events()
    async with (
        Simulator(block_interval=0.1, transactions=3, token_ttl=3) as simulator,
        client_for(simulator, on_event=seen.append, timeouts=Timeouts(grace=0.3), buffer=SMALL) as client,
        reading(client) as reader,
        looking(reader.subscription) as browser,
    ):
        await until(lambda: len(seen.of(HandedOver)) >= 3)
        (verdict,) = await settled(simulator, reader)
        assert verdict.exact, verdict
        await until(lambda: browser.known["seen"] == len(reader.rows))
        assert browser.known["viewed"] == 0
        assert browser.known["read"] is True
        assert browser.known["client"]["rotations"] >= 3


async def test_without_a_reader_the_buffer_never_fills_and_each_row_is_viewed_or_read() -> None:
    async with (
        Simulator(block_interval=0.05, transactions=3) as simulator,
        client_for(simulator, buffer=SMALL) as client,
        client.subscribe(TRANSFERS) as stream,
        looking(stream) as browser,
    ):
        most = 0
        while browser.known.get("viewed", 0) < 200:
            most = max(most, waiting(client))
            await asyncio.sleep(0.005)
        assert 0 < most <= SMALL.messages // 2
        simulator.pause()
        await simulator.drained()
        await until(lambda: browser.known["seen"] == simulator.ledger.verdict(TRANSFERS, []).emitted)
        rest = []

        async def read() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for row in stream.rows():
                        rest.append(row)

        await asyncio.create_task(read())  # as a notebook's cell does
        assert rest
        await until(lambda: browser.known["read"] is False, within=2 * LINGER)
        assert browser.known["viewed"] + len(rest) == browser.known["seen"]
        assert stream.gaps == ()
        verdict = simulator.ledger.verdict(TRANSFERS, rest)
        assert (verdict.repeated, verdict.foreign) == (0, 0)


async def test_the_button_unsubscribes_and_resuming_brings_what_was_missed() -> None:
    async with (
        Simulator(block_interval=0.1, transactions=3) as simulator,
        client_for(simulator) as client,
        reading(client) as reader,
        looking(reader.subscription) as browser,
    ):
        await until(lambda: reader.messages > 5)
        browser.watching.told({"kind": "pause"})
        assert browser.known["state"] == "paused"
        await until(lambda: all(socket.closed is not None for socket in simulator.counters.sockets))
        await simulator.blocks(5)
        browser.watching.told({"kind": "resume"})
        (verdict,) = await settled(simulator, reader)
        assert verdict.exact, verdict
        await until(lambda: [named["gap"]["closed"] for named in browser.known["gaps"]] == [True])
        assert browser.known["gaps"][0]["gap"]["cause"] == "paused"


async def test_a_closed_gap_leaves_nothing_behind_though_each_message_fills_the_buffer() -> None:
    async with (
        Simulator(block_interval=0.05, transactions=3) as simulator,
        client_for(simulator, timeouts=Timeouts(grace=0.3), buffer=Buffer(messages=1)) as client,
        client.subscribe(TRANSFERS) as stream,
        looking(stream) as browser,
    ):
        await until(lambda: browser.known.get("seen", 0) > 10)
        await stream.pause()
        await simulator.blocks(5)
        await stream.resume()
        await until(lambda: [gap.closed for gap in stream.gaps] == [True])
        assert not stream._stream._merge.lacks(stream._stream.taken)
