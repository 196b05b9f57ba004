from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from bqstream.transport.base import Closed, Engine, Target
from bqstream.transport.frames import AT_ONCE
from tests.virtual_time import virtual_time

from .harness import Running, client_tls, running, server, server_tls, settled

pytestmark = pytest.mark.usefixtures("nothing_left")


class Peer:
    """The server's end: the open connection, and how it ended."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.open: asyncio.Future[ServerConnection] = loop.create_future()
        self.over: asyncio.Future[tuple[int | None, str | None]] = loop.create_future()
        self.received: list[object] = []

    async def __call__(self, peer: ServerConnection) -> None:
        self.open.set_result(peer)
        try:
            async for frame in peer:
                self.received.append(frame)
        finally:
            await peer.wait_closed()
            self.over.set_result((peer.close_code, peer.close_reason))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "closed",
    [Closed(1000), Closed(1001, "away"), Closed(1013, "slow consumer"), Closed(4401, "Unauthorized")],
    ids=lambda closed: str(closed.code),
)
async def test_the_peers_code_and_reason_are_what_run_returns(engine: Engine, closed: Closed) -> None:
    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        await (await peer.open).close(closed.code, closed.reason)
        assert await client.closed() == closed


@pytest.mark.asyncio
async def test_a_close_frame_without_a_code_is_1005(engine: Engine) -> None:
    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        (await peer.open).transport.write(b"\x88\x00")
        assert await client.closed() == Closed(1005)


@pytest.mark.asyncio
@pytest.mark.parametrize("tls", [False, True])
async def test_an_end_without_a_close_frame_is_1006(engine: Engine, tls: bool) -> None:
    peer = Peer()
    options: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    async with server(peer, **options) as url, running(engine, url, tls=client_tls()) as client:
        (await peer.open).transport.abort()
        assert (await client.closed()).code == 1006


@pytest.mark.asyncio
@pytest.mark.parametrize("tls", [False, True])
async def test_closing_sends_what_is_queued_then_code_and_reason(engine: Engine, tls: bool) -> None:
    peer = Peer()
    options: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    async with server(peer, **options) as url, running(engine, url, tls=client_tls()) as client:
        for number in range(20):
            client.connection.send(str(number).encode() * 100_000)
        await client.connection.close(4400, "not one of ours", timeout=10)
        assert await peer.over == (4400, "not one of ours")
        assert peer.received == [str(number) * 100_000 for number in range(20)]
        assert await client.closed() == Closed(4400, "not one of ours")  # as the peer echoes it


@pytest.mark.asyncio
async def test_a_connection_that_never_ran_is_closed_all_the_same(engine: Engine) -> None:
    peer = Peer()
    async with server(peer) as url:
        connection = await engine.dial(Target(url=url, proxy=None))
        connection.send(b"hello")
        await connection.close(timeout=10)
        assert await peer.over == (1000, "")
        assert peer.received == ["hello"]


@pytest.mark.asyncio
async def test_a_reason_that_is_too_long_is_cut_between_characters(engine: Engine) -> None:
    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        await client.connection.close(4400, "é" * 200, timeout=10)
        assert await peer.over == (4400, "é" * 61)


@pytest.mark.asyncio
async def test_frames_on_their_way_when_we_close_are_still_handed_out(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send("early")
        peer.transport.pause_reading()  # the close frame stays unread until what comes before it is sent
        ready.set_result(peer)
        await peer.wait_closed()

    ready: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
    async with server(handler) as url, running(engine, url) as client:
        peer = await ready
        closing = asyncio.create_task(client.connection.close(timeout=10))
        await asyncio.sleep(0)
        for number in range(5):
            await peer.send(str(number))
        peer.transport.resume_reading()
        await closing
        assert (await client.closed()).code == 1000
        assert client.left() == [b"early", b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.asyncio
async def test_closing_while_paused_completes_and_hands_nothing_out(engine: Engine) -> None:
    async def handler(peer: ServerConnection) -> None:
        for number in range(100):
            await peer.send(str(number) * 10_000)
        await peer.wait_closed()

    async with server(handler) as url, running(engine, url) as client:
        client.on_frame = client.connection.pause_reading
        assert await client.next() == b"0" * 10_000
        assert len(client.left()) < AT_ONCE
        await client.connection.close(timeout=10)
        assert await client.closed() == Closed(1000)
        client.connection.resume_reading()
        assert client.left() == []


@virtual_time
async def test_a_peer_that_does_not_answer_the_close_is_dropped_in_time(engine: Engine) -> None:
    peer = Peer()
    async with server(peer, close_timeout=1000) as url:
        client = Running(await engine.dial(Target(url=url, proxy=None)))
        (await peer.open).transport.pause_reading()
        started = asyncio.get_running_loop().time()
        await client.connection.close(timeout=30)
        assert asyncio.get_running_loop().time() - started == pytest.approx(30)
        assert client.task.done() or await settled(lambda: int(client.task.done()))
        assert (await client.closed()).code == 1006
        (await peer.open).transport.resume_reading()
        assert (await peer.over)[0] in (1000, 1006)


@virtual_time
@pytest.mark.parametrize("frame", [b"\x88\x02\x03\xe8", b"\x83\x00"], ids=["close", "against the protocol"])
async def test_a_peer_that_says_its_last_word_and_leaves_tcp_open_is_dropped(
    engine: Engine, frame: bytes
) -> None:
    peer = Peer()
    async with server(peer, close_timeout=1000) as url:
        client = Running(await engine.dial(Target(url=url, proxy=None)))
        transport = (await peer.open).transport
        transport.write(frame)
        transport.pause_reading()
        closed = await client.closed()
        assert closed.code == (1000 if frame[0] == 0x88 else 1002)
        assert asyncio.get_running_loop().time() < 5
        transport.resume_reading()
        await peer.over


@pytest.mark.asyncio
async def test_a_cancelled_close_drops_the_connection(engine: Engine) -> None:
    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        (await peer.open).transport.pause_reading()
        closing = asyncio.create_task(client.connection.close(timeout=1000))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert (await client.closed()).code == 1006
        (await peer.open).transport.resume_reading()


@pytest.mark.asyncio
@pytest.mark.parametrize("paused", [False, True])
async def test_an_aborted_connection_is_gone_and_hands_nothing_more_out(engine: Engine, paused: bool) -> None:
    async def handler(peer: ServerConnection) -> None:
        for number in range(10):
            await peer.send(str(number))
        sent.set()
        await peer.wait_closed()
        over.set_result(peer.close_code)

    sent = asyncio.Event()
    over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    async with server(handler) as url, running(engine, url) as client:
        if paused:
            client.on_frame = client.connection.pause_reading
        assert await client.next() == b"0"
        await sent.wait()
        client.left()
        client.connection.abort()
        assert (await client.closed()).code == 1006
        assert client.left() == []
        assert await over == 1006


@pytest.mark.asyncio
@pytest.mark.parametrize("paused", [False, True])
async def test_cancelling_run_drops_the_connection(engine: Engine, paused: bool) -> None:
    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        if paused:
            client.on_frame = client.connection.pause_reading
            await (await peer.open).send("one")
            await client.next()
            await (await peer.open).send("two")
        await settled(client.received.qsize)
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.task
        assert (await peer.over)[0] == 1006


@pytest.mark.asyncio
async def test_an_error_in_the_receiver_comes_out_of_run_and_drops_the_connection(engine: Engine) -> None:
    def fail() -> None:
        raise LookupError("a bug")

    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        client.on_frame = fail
        await (await peer.open).send("one")
        with pytest.raises(LookupError, match="a bug"):
            await client.task
        assert (await peer.over)[0] == 1006


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["closed by the peer", "closed by us", "dropped"])
async def test_after_the_end_every_call_is_harmless(engine: Engine, way: str) -> None:
    peer = Peer()
    async with server(peer) as url, running(engine, url) as client:
        connection = client.connection
        if way == "closed by the peer":
            await (await peer.open).close()
        elif way == "closed by us":
            await connection.close(timeout=10)
        else:
            connection.abort()
        await client.closed()
        connection.send(b"too late")
        connection.pause_reading()
        connection.resume_reading()
        connection.abort()
        await connection.close(timeout=10)
        await connection.close(timeout=10)
        with pytest.raises(ConnectionError):
            await connection.ping()
        await peer.over
        assert peer.received == []
