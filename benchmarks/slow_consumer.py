"""Scenario ``slow-consumer``: the memory of a client whose caller takes less than the server sends.

The server sends as fast as it is read, the caller takes a message when its time has come. Memory is the process's
proportional set size, looked at from outside every 20 ms; what it had when it was connected is told apart. The server
answers no query, so that bqstream's gaps stay open: then it holds the most.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal

from .children import Child, child, has_proc
from .load import AT_ONCE, next_frame, payload_of, serving, subscribed
from .readers import DOCUMENT, gql_transport, rows_in
from .rounds import Figures

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

LOADS = ((1, 1_000), (100, 30))  # rows a message, and messages a second that are taken at most
LOOK = 0.02  # seconds
MOST = 1_000.0  # MB at which a client is stopped
CLIENTS = (
    "bqstream",
    'bqstream, backfill="off"',
    "gql, websockets",
    "gql, aiohttp",
)


@dataclass(frozen=True)
class Endless:
    """The same message again and again, as fast as it is read, without an end."""

    rows: int

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        asked = await subscribed(socket, 1)
        frame = next_frame(asked[0], payload_of(asked[0]["payload"]["query"], self.rows))
        chunk = frame * max(1, AT_ONCE // len(frame))
        while not socket.transport.is_closing() and socket.close_code is None:
            with contextlib.suppress(RuntimeError):  # the library has said its last word meanwhile
                socket.transport.write(chunk)
            await socket.drain()
            await asyncio.sleep(0)


async def bqstream_data(url: str, backfill: Literal["auto", "off"]) -> AsyncIterator[Any]:
    from bqstream import Client

    async with (
        Client("token-of-the-benchmark", endpoint=url, backfill=backfill) as client,
        client.subscribe(DOCUMENT) as stream,
    ):
        async for message in stream:
            yield message.data


async def gql_data(url: str, transport: str) -> AsyncIterator[Any]:
    from gql import Client, gql

    async with Client(transport=gql_transport(url, transport)) as session:
        async for data in session.subscribe(gql(DOCUMENT)):
            yield data


def consume(port: Connection, name: str, url: str, pace: int) -> None:
    """Tell of the first message, then take what comes at this pace, and say when asked how many messages that was."""

    async def main() -> None:
        if name.startswith("bqstream"):
            source = bqstream_data(url, "off" if "off" in name else "auto")
        else:
            source = gql_data(url, name.rpartition(" ")[2])
        count, began = 0, 0.0

        async def tell() -> None:  # also while no message comes
            await asyncio.to_thread(port.recv)
            port.send(count)

        async for data in source:
            if not count:
                began = time.monotonic()
                port.send("connected")
                telling = asyncio.create_task(tell())
            assert rows_in(data)
            count += 1
            await asyncio.sleep(max(0.0, began + count / pace - time.monotonic()))
        await telling

    asyncio.run(main())


def watch(running: Child, seconds: float) -> dict[str, Any]:
    """The memory of ``running`` for a while, from its first message on."""
    assert running.port.recv() == "connected"
    began = time.monotonic()
    connected = peak = running.memory()
    while (spent := time.monotonic() - began) < seconds and peak < MOST:
        time.sleep(LOOK)
        peak = max(peak, running.memory())
    return {
        "connected_mb": connected,
        "peak_mb": peak,
        "grown_mb": peak - connected,
        "seconds": spent,
        "messages_taken": running.ask("how many"),
    }


def run(*, quick: bool) -> Figures:
    if not has_proc():
        print("\nslow-consumer: left out, since this system does not tell how much memory a process has")
        return []
    seconds = 3.0 if quick else 20.0
    figures: Figures = []
    for rows, pace in LOADS[:1] if quick else LOADS:
        title = f"slow consumer: {rows} row(s) a message, {pace:,} messages a second taken at most"
        print(f"\n{title}; MB")
        print(f"  {'':26}{'connected':>10}{'peak':>8}{'grown':>8}{'seconds':>9}{'taken':>8}")
        for name in CLIENTS[:1] + CLIENTS[2:3] if quick else CLIENTS:
            with serving(Endless(rows)) as server, child(consume, name, server.url, pace) as running:
                found = watch(running, seconds)
            sizes = f"{found['connected_mb']:>10.0f}{found['peak_mb']:>8.0f}{found['grown_mb']:>8.0f}"
            stopped = "" if found["peak_mb"] < MOST else f"  stopped at {MOST:,.0f} MB"
            print(f"  {name:26}{sizes}{found['seconds']:>9.1f}{found['messages_taken']:>8,}{stopped}")
            figures.append({"load": title, "reader": name, **found})
    return figures
