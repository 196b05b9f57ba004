from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from bqstream.transport.base import Engine
from bqstream.transport.frames import AT_ONCE

from .conftest import EngineFactory
from .harness import client_tls, running, server, server_tls, settled

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.asyncio]
MEBIBYTE = 1024 * 1024


async def test_text_and_binary_are_told_apart_and_come_in_order(engine: Engine) -> None:
    sent: list[tuple[bytes, bool]] = [
        (b"{}", False),
        (b"\x00\xff", True),
        ("é 🦊".encode(), False),
        (b"", False),
    ]

    async def handler(peer: ServerConnection) -> None:
        for frame, binary in sent:
            await peer.send(frame, text=not binary)

    async with server(handler) as url, running(engine, url) as client:
        assert [await client.received.get() for _ in sent] == sent


async def test_what_is_sent_goes_out_as_text_in_order_and_before_run_is_called_too(engine: Engine) -> None:
    frames = [json.dumps({"id": number, "name": "é"}).encode() for number in range(100)]
    received: list[object] = []

    async def handler(peer: ServerConnection) -> None:
        received.extend([frame async for frame in peer])

    async with server(handler) as url, running(engine, url) as client:
        # The task that runs the connection has not had its first turn yet.
        for frame in frames:
            client.connection.send(frame)
        await client.connection.close(timeout=5)
    assert received == [frame.decode() for frame in frames]


@pytest.mark.parametrize("compression", [False, True])
async def test_a_message_of_eight_mebibytes_comes_through(engine: Engine, compression: bool) -> None:
    big = os.urandom(4 * MEBIBYTE).hex().encode()
    agreed: list[int] = []

    async def handler(peer: ServerConnection) -> None:
        agreed.append(len(peer.protocol.extensions))
        await peer.send(big, text=True)

    async with server(handler) as url, running(engine, url, compression=compression) as client:
        assert await client.next() == big
    assert agreed == [int(compression)]


@pytest.mark.parametrize("way", ["whole", "in fragments", "compressed"])
async def test_a_message_over_the_limit_closes_with_1009_which_names_the_limit(
    engine: Engine, way: str
) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send("x" * 1000)
        await peer.send(["x" * 400] * 3 if way == "in fragments" else "x" * 1001)
        await peer.wait_closed()
        codes.append((peer.protocol.close_rcvd and peer.protocol.close_rcvd.code) or 0)

    codes: list[int] = []
    options: dict[str, Any] = {"compression": way == "compressed", "max_message_bytes": 1000}
    async with server(handler) as url, running(engine, url, **options) as client:
        closed = await client.closed()
        assert closed.code == 1009
        assert "max_message_bytes is 1000" in closed.reason
        assert client.left() == [b"x" * 1000]
    assert codes == [1009]


async def test_text_that_is_not_utf8_closes_with_1007(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(b"\xff\xfe", text=True)
        await peer.wait_closed()

    async with server(handler) as url, running(engine, url) as client:
        assert (await client.closed()).code == 1007
        assert client.left() == []


async def test_a_frame_against_the_protocol_closes_with_1002(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        peer.transport.write(b"\x83\x00")  # opcode 3 is reserved, RFC 6455 section 5.2
        await peer.wait_closed()

    async with server(handler) as url, running(engine, url) as client:
        assert (await client.closed()).code == 1002


async def test_a_pause_stops_what_did_not_come_at_once_and_nothing_is_missing_after_it(
    engine: Engine,
) -> None:
    count = 10 * AT_ONCE

    async def handler(peer: ServerConnection) -> None:
        for number in range(count):
            await peer.send(str(number))
        await peer.wait_closed()

    async with server(handler) as url, running(engine, url) as client:
        client.on_frame = client.connection.pause_reading
        came = [await client.next()]
        await settled(client.received.qsize)
        came += client.left()
        while len(came) < count:
            client.connection.resume_reading()
            came.append(await client.next())
            assert await settled(client.received.qsize) < AT_ONCE
            came += client.left()
        assert came == [str(number).encode() for number in range(count)]


async def test_a_pause_from_outside_holds_the_frame_that_comes_in_next(engine: Engine) -> None:
    sent = asyncio.Event()

    async def handler(peer: ServerConnection) -> None:
        await peer.recv()
        await peer.send("one")
        sent.set()
        await peer.wait_closed()

    async with server(handler) as url, running(engine, url) as client:
        await asyncio.sleep(0)
        client.connection.pause_reading()
        client.connection.pause_reading()
        client.connection.send(b"go")
        await sent.wait()
        assert await settled(client.received.qsize) == 0
        client.connection.resume_reading()
        client.connection.resume_reading()
        assert await client.next() == b"one"


async def test_a_paused_reader_blocks_the_server_and_then_gets_everything(engine: Engine) -> None:
    count, sent = 64, 0

    async def handler(peer: ServerConnection) -> None:
        nonlocal sent
        for number in range(count):
            await peer.send(bytes([number]) * MEBIBYTE)
            sent += 1
        done.set_result(None)
        await peer.wait_closed()

    done = asyncio.get_running_loop().create_future()
    async with server(handler) as url, running(engine, url) as client:
        client.on_frame = client.connection.pause_reading
        assert await client.next() == bytes(MEBIBYTE)
        # What is under way is what the kernel and the engine hold, some mebibytes, and not all of it.
        assert await settled(lambda: sent, done) < count / 2
        client.on_frame = lambda: None
        client.connection.resume_reading()
        for number in range(1, count):
            assert await client.next() == bytes([number]) * MEBIBYTE
        await done


async def test_what_came_before_the_end_is_handed_out_after_a_pause(engine: Engine) -> None:
    over = asyncio.Event()

    async def handler(peer: ServerConnection) -> None:
        for number in range(3):
            await peer.send(str(number))
        await peer.close(4401, "Unauthorized")
        over.set()

    async with server(handler) as url, running(engine, url) as client:
        client.on_frame = client.connection.pause_reading
        assert await client.next() == b"0"
        client.on_frame = lambda: None
        await over.wait()
        client.connection.resume_reading()
        closed = await client.closed()
        assert (closed.code, closed.reason) == (4401, "Unauthorized")
        assert client.left() == [b"1", b"2"]


async def test_a_ping_returns_when_its_pong_is_in(engine: Engine) -> None:
    async with server() as url, running(engine, url) as client:
        await client.connection.ping()
        await asyncio.gather(*(client.connection.ping() for _ in range(10)))


async def test_a_ping_ends_in_an_error_when_the_connection_does(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        peer.transport.pause_reading()  # no pong
        pinged.set_result(peer)
        await peer.wait_closed()

    pinged: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
    async with server(handler) as url, running(engine, url) as client:
        peer = await pinged
        ping = asyncio.create_task(client.connection.ping())
        await asyncio.sleep(0)
        peer.transport.abort()
        with pytest.raises(ConnectionError) as caught:
            await ping
        assert caught.value.__context__ is None
        assert (await client.closed()).code == 1006


async def test_a_cancelled_ping_leaves_the_next_one_unharmed(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        peer.transport.pause_reading()
        paused.set_result(peer)
        await peer.wait_closed()

    paused: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
    async with server(handler) as url, running(engine, url) as client:
        peer = await paused
        ping = asyncio.create_task(client.connection.ping())
        await asyncio.sleep(0)
        ping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ping
        peer.transport.resume_reading()
        await client.connection.ping()


async def test_pings_of_the_server_are_answered(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        await (await peer.ping())
        await peer.send("ponged")

    async with server(handler) as url, running(engine, url) as client:
        assert await client.next() == b"ponged"


@pytest.mark.parametrize("tls", [False, True])
async def test_an_outbox_over_its_bound_drops_the_connection_and_says_so(
    make_engine: EngineFactory, tls: bool
) -> None:
    async def handler(peer: ServerConnection) -> None:
        peer.transport.pause_reading()
        deaf.set()
        await peer.wait_closed()

    deaf = asyncio.Event()
    engine = make_engine(outbox_bytes=2 * MEBIBYTE)
    options: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    async with server(handler, **options) as url, running(engine, url, tls=client_tls()) as client:
        await deaf.wait()
        for _ in range(64):
            client.connection.send(b"x" * MEBIBYTE)
            if await settled(lambda: int(client.task.done())):
                break
        closed = await client.closed()
        assert closed.code == 1006
        assert str(2 * MEBIBYTE) in closed.reason
