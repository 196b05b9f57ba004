"""The network in memory carries what a network carries, and says what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.memory_network import CAPACITY, HOST, MemoryLoop, in_memory


class Peer(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.data = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.told.append(type(exc).__name__ if exc else "lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


def in_memory_loop(test: Callable[[MemoryLoop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, MemoryLoop)
            await test(loop)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with in_memory(), asyncio.Runner(loop_factory=MemoryLoop) as runner:
            runner.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def pair(loop: MemoryLoop) -> tuple[Peer, Peer]:
    """The dialling end and the accepting one."""
    accepted: list[Peer] = []

    def accept() -> Peer:
        accepted.append(Peer())
        return accepted[-1]

    server = await loop.create_server(accept)
    _, dialled = await loop.create_connection(Peer, *server.sockets[0].getsockname())
    server.close()
    assert isinstance(dialled, Peer)
    return dialled, accepted[0]


@in_memory_loop
async def test_bytes_come_in_order_and_the_end_after_them(loop: MemoryLoop) -> None:
    here, there = await pair(loop)
    for n in range(100):
        here.transport.write(bytes([n]) * n)
    here.transport.write_eof()
    await asyncio.sleep(1)
    assert there.data == b"".join(bytes([n]) * n for n in range(100))
    assert there.told == ["made", "eof", "lost"]
    assert here.told == ["made", "eof", "lost"]


@in_memory_loop
async def test_latency_delays_and_keeps_the_order(loop: MemoryLoop) -> None:
    here, there = await pair(loop)
    delays = iter((0.5, 0.1, 0.2))
    loop.latency = lambda: next(delays)
    for text in (b"a", b"b", b"c"):
        here.transport.write(text)
    await asyncio.sleep(0.4)
    assert there.data == b""
    await asyncio.sleep(0.11)
    assert there.data == b"abc"


@in_memory_loop
async def test_a_reader_that_pauses_stops_the_writer_and_lets_it_go_on(loop: MemoryLoop) -> None:
    here, there = await pair(loop)
    there.transport.pause_reading()
    here.transport.write(b"x" * (2 * CAPACITY))
    await asyncio.sleep(1)
    assert there.data == b""
    assert here.told == ["made", "pause"]
    assert here.transport.get_write_buffer_size() == CAPACITY
    there.transport.resume_reading()
    await asyncio.sleep(1)
    assert here.told == ["made", "pause", "resume"]
    assert len(there.data) == 2 * CAPACITY
    here.transport.close()
    await asyncio.sleep(1)


@in_memory_loop
async def test_close_flushes_and_abort_does_not(loop: MemoryLoop) -> None:
    here, there = await pair(loop)
    there.transport.pause_reading()
    here.transport.write(b"x" * (2 * CAPACITY))
    here.transport.close()
    await asyncio.sleep(1)
    assert here.told == ["made", "pause"], "what waits goes first"
    there.transport.resume_reading()
    await asyncio.sleep(1)
    assert len(there.data) == 2 * CAPACITY
    assert here.told[-1] == there.told[-1] == "lost"

    here, there = await pair(loop)
    here.transport.write(b"x")
    here.transport.abort()
    await asyncio.sleep(1)
    assert there.data == b""
    assert here.told == ["made", "lost"]
    assert there.told == ["made", "ConnectionResetError"]


@in_memory_loop
async def test_a_reader_that_pauses_learns_of_a_reset_when_it_goes_on_or_writes(loop: MemoryLoop) -> None:
    for notice in ("resume_reading", "write"):
        here, there = await pair(loop)
        there.transport.pause_reading()
        here.transport.abort()
        await asyncio.sleep(1)
        assert there.told == ["made"]
        getattr(there.transport, notice)(*([b"x"] if notice == "write" else []))
        await asyncio.sleep(1)
        assert there.told == ["made", "ConnectionResetError"]


@in_memory_loop
async def test_writing_to_an_end_that_is_gone_is_answered_by_a_reset(loop: MemoryLoop) -> None:
    here, there = await pair(loop)
    there.eof_received = lambda: True  # type: ignore[method-assign]
    here.transport.close()
    await asyncio.sleep(1)
    there.transport.write(b"x")
    await asyncio.sleep(1)
    assert there.told == ["made", "ConnectionResetError"]


@in_memory_loop
async def test_where_nobody_listens_a_dial_is_refused(loop: MemoryLoop) -> None:
    server = await loop.create_server(Peer)
    address = server.sockets[0].getsockname()
    with pytest.raises(OSError, match="in use"):
        await loop.create_server(Peer, *address)
    server.close()
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Peer, *address)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{HOST}:{address[1]}/")


@in_memory_loop
async def test_aiohttp_and_websockets_run_on_it(loop: MemoryLoop) -> None:
    loop.latency = lambda: 0.01

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    server = await serve(echo, HOST, 0)
    async with connect(f"ws://{HOST}:{server.sockets[0].getsockname()[1]}/", proxy=None) as socket:
        await socket.send("x" * 1_000_000)
        assert await socket.recv() == "x" * 1_000_000
    server.close()
    await server.wait_closed()
    app = web.Application(client_max_size=2_000_000)
    app.router.add_post("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    listener = await loop.create_server(runner.server)
    async with aiohttp.ClientSession() as session:
        url = f"http://{HOST}:{listener.sockets[0].getsockname()[1]}/"
        async with session.post(url, data=b"y" * 1_000_000) as response:
            assert await response.read() == b"y" * 1_000_000
    listener.close()
    await runner.cleanup()
