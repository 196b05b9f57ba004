"""Scenario ``handover``: what a message costs while two links bring the same rows, beside the steady state.

The server numbers its rows, so that each is another one, in the order of blocks. The first link brings so many
messages alone; then the client's token is renewed, and both links bring as many more, each of them all. They overlap
until the benchmark is over, so that every message of the second half is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .load import CouldNotKeepPace, encoded, framed, payload_of, serving, subscribed
from .readers import DOCUMENT, rows_in
from .rounds import Figures

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

LOADS = ((1, 8_000), (100, 100))  # rows a message, messages on each half
BLOCK_ROWS = 200
TURN = 64 * 1024  # bytes that a link is given before the other has its turn
# The token is renewed when about 0.4 of this has gone, and the old link may go on until 0.9 of it has; seconds.
LIFETIME = 8.0
BLOCK, HASH, LOG = '"Number":"21000000"', '"Hash":"0x' + "e" * 64, '"Index":7,"SmartContract"'


def numbered(document: str, rows: int, messages: int) -> list[bytes]:
    """Payloads of rows that differ, as the document selects them: by block, and within it by the log's index."""
    text = encoded(payload_of(document, 1)).decode()
    begin, end = text.index("[") + 1, text.rindex("]")
    template = text[begin:end]
    assert template.count(BLOCK) == template.count(HASH) == template.count(LOG) == 1, template

    def row(number: int) -> str:
        block, log = divmod(number, BLOCK_ROWS)
        found = template.replace(BLOCK, f'"Number":"{21_000_000 + block}"')
        return found.replace(HASH, f'"Hash":"0x{block:064x}').replace(LOG, f'"Index":{log},"SmartContract"')

    return [
        (text[:begin] + ",".join(map(row, range(start, start + rows))) + text[end:]).encode()
        for start in range(0, messages * rows, rows)
    ]


@dataclass
class Twins:
    """``messages`` on the first link alone, and as many more on it and on the link that comes second."""

    rows: int
    messages: int
    old: tuple[ServerConnection, str, list[bytes]] | None = None

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        (asked,) = await subscribed(socket, 1)
        if self.old is None:
            payloads = numbered(asked["payload"]["query"], self.rows, 2 * self.messages)
            self.old = socket, asked["id"], payloads[self.messages :]
            await send([(socket, asked["id"])], payloads[: self.messages])
        else:
            (old, name, payloads), self.old = self.old, None
            await send([(old, name), (socket, asked["id"])], payloads)
        await socket.wait_closed()


async def send(links: list[tuple[ServerConnection, str]], payloads: list[bytes]) -> None:
    """Write the payloads to each link, as fast as they are read, a few at a time in turn."""
    heads = [b'{"id":' + encoded(name) + b',"type":"next","payload":' for _, name in links]
    several = max(1, TURN // len(payloads[0]))
    for start in range(0, len(payloads), several):
        turn = payloads[start : start + several]
        for (socket, _), head in zip(links, heads, strict=True):
            socket.transport.write(b"".join(framed(head + payload + b"}") for payload in turn))
        for socket, _ in links:
            await socket.drain()
        await asyncio.sleep(0)


class Took(NamedTuple):
    """Seconds a message, by the clock and by processor time: on one link, and on two; and for how many seconds at most
    the loop stood still meanwhile."""

    clock: float
    processor: float
    clock_on_two: float
    processor_on_two: float
    stood_still: float


async def read(url: str, load: Twins) -> Took:
    from bqstream import Client, Token, events

    tokens = iter((Token("token-of-the-benchmark", expires_in=LIFETIME),))
    dialled: list[tuple[float, float]] = []
    over: list[events.Event] = []

    async def credentials() -> Token:
        return next(tokens, Token("another-token-of-the-benchmark"))

    def hear(event: events.Event) -> None:
        if isinstance(event, events.Connected):
            dialled.append(now())
        elif isinstance(event, events.HandedOver | events.Lost | events.GapNamed):
            over.append(event)

    messages, rows = load.messages, load.rows
    async with (
        Client(credentials, endpoint=url, on_event=hear) as client,
        client.subscribe(DOCUMENT) as stream,
        still() as stood,
    ):

        async def some() -> tuple[float, float]:
            """Read one half; gives the time of its first message."""
            count = rows_in((await anext(stream)).data)
            began = now()
            for _ in range(messages - 1):
                count += rows_in((await anext(stream)).data)
            assert count == messages * rows, f"{count} rows came, of {messages * rows}"
            return began

        began = await some()
        ended = now()
        stood.clear()
        await some()
        # The last message is in hand once one link has brought it; the work is done once the other one has too.
        while (merged := client.status().subscriptions[0].merged) < messages * rows and not over:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        ended_again = now()
        if over:
            raise CouldNotKeepPace(
                f"the links did not overlap to the end: {merged} rows merged, then {over[0]}"
            )
    # On two from the second link's ack on: what was delivered lately is read then, to be compared with.
    (clock, processor), (clock_on_two, processor_on_two) = (
        ((end[0] - begin[0]) / messages, (end[1] - begin[1]) / messages)
        for begin, end in ((began, ended), (dialled[1], ended_again))
    )
    return Took(clock, processor, clock_on_two, processor_on_two, max(stood))


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@contextlib.asynccontextmanager
async def still() -> AsyncIterator[list[float]]:
    """By how many seconds a timer of the loop came late, again and again."""
    late: list[float] = []

    async def look() -> None:
        while True:
            due = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            late.append(time.perf_counter() - due)

    looking = asyncio.create_task(look())
    try:
        yield late
    finally:
        looking.cancel()


def run(*, quick: bool) -> Figures:
    figures: Figures = []
    for rows, messages in LOADS:
        load = Twins(rows, messages)
        with serving(load) as server:
            took = [asyncio.run(read(server.url, load)) for _ in range(1 if quick else 5)]
        middle = Took(*(statistics.median(column) for column in zip(*took, strict=True)))
        by_clock = statistics.median(one.clock_on_two / one.clock for one in took)
        by_processor = statistics.median(one.processor_on_two / one.processor for one in took)
        print(f"\nhandover: {rows} row(s) a message, {messages:,} messages alone and as many on both links")
        print(f"  {'':24}{'messages/s':>12}{'processor us':>14}")
        print(f"  {'one link':24}{1 / middle.clock:>12,.0f}{middle.processor * 1e6:>14.1f}")
        print(
            f"  {'two links, merged':24}{1 / middle.clock_on_two:>12,.0f}{middle.processor_on_two * 1e6:>14.1f}"
        )
        print(f"  the loop stood still for {middle.stood_still * 1e3:.0f} ms at most while there were two")
        print(
            f"  a message delivered takes {by_clock:.1f} x the time, and {by_processor:.1f} x the processor's"
        )
        figures.append(
            {
                "rows": rows,
                "times_the_clock": by_clock,
                "times_the_processor": by_processor,
                **middle._asdict(),
            }
        )
    return figures
