"""Strawberry on aiohttp: a server of both subprotocols that nobody here wrote."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any, cast

import strawberry
from aiohttp import web
from strawberry import UNSET
from strawberry.aiohttp.views import GraphQLView
from strawberry.exceptions import ConnectionRejectionError
from strawberry.extensions import MaxTokensLimiter
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler

from bqstream import Client
from bqstream.config import Backoff
from tests.virtual_time import VirtualTimeLoop, virtual_clock

TOKEN = "ory_at_strawberry-Fields4ever~"
# Lexical tokens of a document: more is a syntax error at this server, and none at the client.
TOKENS_ALLOWED = 200


@strawberry.type
class Half:
    whole: int

    @strawberry.field
    def broken(self) -> int | None:
        raise ValueError("this half is broken")


@strawberry.type
class Query:
    @strawberry.field
    def sum(self, a: int, b: int = 0) -> int:
        return a + b

    @strawberry.field
    def half(self) -> Half:
        return Half(whole=1)


class Stage:
    """What the resolvers of one test wait for and tell."""

    def reset(self) -> None:
        self.go = asyncio.Event()
        self.started = 0
        self.stopped = 0


STAGE = Stage()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @strawberry.subscription
    async def lists(self, to: int) -> AsyncIterator[list[str]]:
        for number in range(to):
            yield [f"{number}.{place}" for place in range(number)]

    @strawberry.subscription
    async def echo(self, text: str, times: int = 1) -> AsyncIterator[str]:
        for _ in range(times):
            yield text

    @strawberry.subscription
    async def halves(self) -> AsyncIterator[Half]:
        yield Half(whole=1)
        yield Half(whole=2)

    @strawberry.subscription
    async def raising(self, after: int) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise ValueError("the resolver gave up")

    @strawberry.subscription
    async def held(self) -> AsyncIterator[int]:
        """0 at once, 1 when the stage says so; then it goes on for ever."""
        STAGE.started += 1
        try:
            yield 0
            await STAGE.go.wait()
            yield 1
            await asyncio.Event().wait()
        finally:
            STAGE.stopped += 1


SCHEMA = strawberry.Schema(
    Query, subscription=Subscription, extensions=[lambda: MaxTokensLimiter(TOKENS_ALLOWED)]
)


class Modern(BaseGraphQLTransportWSHandler[Any, Any]):
    async def handle_ping(self, message: Any) -> None:
        cast(View, self.view).pings += 1
        await super().handle_ping(message)

    async def handle_pong(self, message: Any) -> None:
        cast(View, self.view).pongs.append(message.get("payload"))


class View(GraphQLView[Any, Any]):
    """``tokens`` are good; what happens to others is ``refusal``: "upgrade", "init" or "params"."""

    graphql_transport_ws_handler_class = Modern

    def __init__(self, **options: Any) -> None:
        super().__init__(SCHEMA, **options)
        self.tokens: Collection[str] = {TOKEN}
        self.refusal = "upgrade"
        self.status_of_refused_documents = 200
        self.sockets: list[web.WebSocketResponse] = []
        self.dials: list[str] = []
        self.params: list[Any] = []
        self.pings = 0
        self.pongs: list[Any] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.dials.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if self.refusal == "upgrade" and self.dials[-1] not in self.tokens:
            return web.Response(status=401, text="Unauthorized")
        return await super().__call__(request)

    async def create_websocket_response(
        self, request: web.Request, subprotocol: str | None
    ) -> web.WebSocketResponse:
        socket = await super().create_websocket_response(request, subprotocol)
        self.sockets.append(socket)
        return socket

    async def on_ws_connect(self, context: Any) -> Any:
        self.params.append(context["connection_params"])
        shown = self.dials[-1]
        if self.refusal == "params":
            shown = (self.params[-1] or {}).get("Authorization", "").removeprefix("Bearer ")
        if shown not in self.tokens:
            raise ConnectionRejectionError({"message": "Unauthorized"})
        return UNSET

    def create_response(self, response_data: Any, sub_response: web.Response) -> web.Response:
        if response_data.get("data") is None:
            sub_response.set_status(self.status_of_refused_documents)
        return super().create_response(response_data, sub_response)


class Server:
    """Strawberry listening on a port of its own; ``stop`` and ``start`` again take the same port."""

    def __init__(self, **options: Any) -> None:
        self.view = View(keep_alive_interval=1, **options)
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/graphql", self.view)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for socket in self.view.sockets:
            await socket.close(code=1001, message=b"going away")
        if self._runner is not None:
            await self._runner.cleanup()

    def client(self, credentials: Any = TOKEN, **options: Any) -> Client:
        options.setdefault("backoff", Backoff(initial=0.01, maximum=0.1))
        client = Client(credentials, endpoint=f"http://127.0.0.1:{self.port}/graphql", **options)
        if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            client._clock = virtual_clock()
        return client


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    STAGE.reset()
    server = Server(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
