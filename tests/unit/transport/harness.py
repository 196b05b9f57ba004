"""Real servers on this machine, and a client's connection together with what it has received."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import trustme
from websockets.asyncio.server import Server, ServerConnection, serve

from bqstream.transport.base import Closed, Connection, Engine, Target

SILENT = logging.getLogger("tests.silent_server")
SILENT.disabled = True  # what a server logs must not be taken for what the client does

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(peer: ServerConnection) -> None:
    async for frame in peer:
        await peer.send(frame)


@asynccontextmanager
async def server(handler: Handler = echo, **options: Any) -> AsyncIterator[str]:
    """A WebSocket server on a free port; gives its URL."""
    options = {"ping_interval": None, "close_timeout": 0.2, "max_size": None, "logger": SILENT, **options}
    async with serve(handler, "127.0.0.1", 0, **options) as running:
        yield f"{'wss' if options.get('ssl') else 'ws'}://127.0.0.1:{_port(running)}/graphql"


@asynccontextmanager
async def tcp_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server on a free port; gives the port. What a handler raises fails the test."""
    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.create_task(handle(reader, writer)))

    running = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield _port(running)
    finally:
        running.close()
        for task in handlers:
            task.cancel()
        for outcome in await asyncio.gather(*handlers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await running.wait_closed()


def _port(running: Server | asyncio.Server) -> int:
    port: int = next(iter(running.sockets)).getsockname()[1]
    return port


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(name).configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """Trusts the tests' authority alone."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


class Running:
    """A connection whose ``run`` goes on in a task; ``received`` gets what it hands out."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.received: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        self.on_frame: Callable[[], None] = lambda: None
        self.task = asyncio.create_task(connection.run(self._receive))

    def _receive(self, frames: list[bytes], binary: bool) -> None:
        for frame in frames:
            self.received.put_nowait((frame, binary))
        self.on_frame()

    async def next(self) -> bytes:
        return (await self.received.get())[0]

    async def closed(self) -> Closed:
        return await self.task

    def left(self) -> list[bytes]:
        """What was received and not taken yet."""
        return [self.received.get_nowait()[0] for _ in range(self.received.qsize())]


@asynccontextmanager
async def running(engine: Engine, url: str, **options: Any) -> AsyncIterator[Running]:
    client = Running(await engine.dial(Target(url=url, **{"proxy": None, **options})))
    try:
        yield client
    finally:
        client.task.cancel()
        await asyncio.wait([client.task])


async def settled(number: Callable[[], int], until: asyncio.Future[Any] | None = None) -> int:
    """The number once the loop has nothing more to do that changes it, or ``until`` is done."""
    last, unchanged = number(), 0
    while unchanged < 500 and not (until and until.done()):
        await asyncio.sleep(0)
        unchanged = unchanged + 1 if number() == last else 0
        last = number()
    return last


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that led to it, suppressed or not."""
    seen: list[BaseException | None] = [None]
    while error not in seen:
        assert error is not None
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def fragments(secret: str, length: int = 8) -> set[str]:
    return {secret[i : i + length] for i in range(len(secret) - length + 1)}


def shown(secret: str, text: str) -> set[str]:
    """Which pieces of the secret the text shows."""
    return {piece for piece in fragments(secret) if piece in text}
