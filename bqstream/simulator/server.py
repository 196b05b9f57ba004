"""The simulator: a service on loopback that does what Bitquery's streaming API does, and what goes wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine
from dataclasses import fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from .chain import Chain
from .clock import Clock
from .control import Control
from .counters import Counters
from .emitter import Emitter
from .faults import Faults
from .ledger import Ledger
from .oauth import OAuth, Tokens
from .queries import Queries
from .settings import Settings
from .sockets import Service
from .upgrade import Upgrades

T = TypeVar("T")
_LARGEST_BODY = 16 * 1024 * 1024
_REOPENING = 0.05


class Simulator:
    """A running service, as an async context manager.

        async with Simulator(token_ttl=5, block_interval=0.2) as simulator:
            ...  # simulator.endpoint, simulator.token_url, simulator.client_id, simulator.client_secret
            simulator.faults.close(1013)
            simulator.pause()
            await simulator.drained()
            assert simulator.ledger.verdict(document, rows).exact

    ``host`` and ``port`` (0: any free one) of the service, ``control_port`` of the endpoints beside it,
    ``tls`` a server's SSL context; every other option is a field of `Settings`. All times follow the running
    loop's clock, and so do the blocks and the ``Date`` of every answer: they begin with the wall clock, cut to whole
    seconds, and go on by the loop. Leaving the block resets every connection and leaves no task and no socket, also
    when cancelled.

    Raises:
        OSError: the port is taken.
        TypeError: there is no such option.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int = 0,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        known = [one.name for one in fields(Settings)]
        if unknown := [name for name in options if name not in known]:
            raise TypeError(f"there is no option {', '.join(unknown)}; there are {', '.join(known)}")
        self.settings = Settings(**options)
        self.counters = Counters()
        self.ledger = Ledger()
        self._host = host
        self._tls = tls
        self._ports = {"service": port, "control": control_port}
        self._listeners: dict[str, asyncio.Server] = {}
        self._runners: dict[str, web.AppRunner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reopen: asyncio.Queue[float] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        settings = self.settings
        clock = Clock(datetime.now(UTC))
        self.chain = Chain(
            seed=settings.seed,
            start=clock.start,
            block_interval=settings.block_interval,
            transactions=settings.transactions,
            portions=settings.portions,
        )
        self._tokens = Tokens()
        self._emitter = Emitter(self.chain, clock, self.ledger, settings)
        self._service = Service(
            settings=settings,
            tokens=self._tokens,
            counters=self.counters,
            emitter=self._emitter,
            chain=self.chain,
        )
        oauth = OAuth(settings, self._tokens, self.counters)
        upgrades, queries = Upgrades(self._service), Queries(self._service, oauth)
        self.faults = Faults(self._service, upgrades, queries, oauth, self._take_down)
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.on_response_prepare.append(clock.stamp)
        app.router.add_get("/graphql", upgrades.handle)
        app.router.add_post("/graphql", queries.handle)
        app.router.add_post("/oauth2/token", oauth.token_endpoint)
        try:
            await self._serve("service", app)
            await self._serve("control", Control(self).application())
        except BaseException:
            await self._stop()
            raise
        self._tasks = [asyncio.create_task(self._emitter.run()), asyncio.create_task(self._listen_again())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def endpoint(self) -> str:
        """The GraphQL endpoint over HTTP; a client derives the WebSocket's from it."""
        return f"{self._origin}/graphql"

    @property
    def token_url(self) -> str:
        return f"{self._origin}/oauth2/token"

    @property
    def control_url(self) -> str:
        return f"http://{self._host}:{self._ports['control']}/control"

    @property
    def ledger_url(self) -> str:
        return f"http://{self._host}:{self._ports['control']}/ledger"

    @property
    def client_id(self) -> str:
        return self.settings.client_id

    @property
    def client_secret(self) -> str:
        return self.settings.client_secret

    @property
    def _origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._ports['service']}"

    def token(self) -> str:
        """A new static token, which never expires."""
        return self._tokens.issue("static").value

    def pause(self) -> None:
        """Emit the rest of the current block at once, then let the chain stand still."""
        self._emitter.pause()

    def resume(self) -> None:
        """Let the chain go on."""
        self._emitter.resume()

    async def drained(self) -> None:
        """Wait until no block is half emitted and every socket has sent what waited, lagging data included."""
        await self._guarded(self._drained())

    async def blocks(self, count: int = 1) -> None:
        """Wait until so many more blocks were emitted whole."""
        await self._guarded(self._emitter.blocks(count))

    async def _drained(self) -> None:
        await self._emitter.idle()
        for opened in list(self._service.open.values()):
            await opened.outbox.flushed()

    async def _guarded(self, wait: Coroutine[Any, Any, None]) -> None:
        """Wait, but not for an emitter that has failed: its error is raised instead."""
        waiting = asyncio.create_task(wait)
        try:
            await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in (*self._tasks, waiting):
                if task.done():
                    task.result()
        finally:
            waiting.cancel()

    async def _serve(self, name: str, app: web.Application) -> None:
        # The sockets are reset before a stop, so that no handler is left to wait for.
        runner = self._runners[name] = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await self._listen(name)

    async def _listen(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        server = self._runners[name].server
        assert server is not None
        tls = self._tls if name == "service" else None
        listener = await loop.create_server(server, self._host, self._ports[name], ssl=tls, backlog=1024)
        self._listeners[name] = listener
        self._ports[name] = listener.sockets[0].getsockname()[1]

    def _take_down(self, seconds: float) -> None:
        self._listeners["service"].close()
        self._reset_connections()
        self._reopen.put_nowait(seconds)

    def _reset_connections(self) -> None:
        for opened in list(self._service.open.values()):
            opened.abort()
        server = self._runners["service"].server
        for connection in server.connections if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def _listen_again(self) -> None:
        while True:
            await asyncio.sleep(await self._reopen.get())
            if self._reopen.empty():
                await self._reopen_service()

    async def _reopen_service(self) -> None:
        for _ in range(100):
            with contextlib.suppress(OSError):
                await self._listen("service")
                return
            await asyncio.sleep(_REOPENING)
        raise OSError("another process has taken the port")

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners.values():
            listener.close()
        if "service" in self._runners:
            self._reset_connections()
        for runner in self._runners.values():
            await runner.cleanup()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
