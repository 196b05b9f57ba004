"""A client of the tests' own: it speaks either subprotocol by hand and shares nothing with bqstream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from bqstream.simulator import Simulator

MODERN, LEGACY = "graphql-transport-ws", "graphql-ws"
FIELDS = "Block { Number Hash } Transaction { Hash Index } Trade { Buy { Amount } Sell { Amount } }"
TRADES = f"subscription {{ EVM(network: eth) {{ DEXTrades {{ {FIELDS} }} }} }}"
QUERY = TRADES.replace("subscription", "query")
QUICK: dict[str, Any] = {"block_interval": 0.02, "seed": 7}


class Closed(Exception):
    """The server closed the socket; ``code`` 1006 stands for no close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Peer:
    """One socket and what came over it."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, subprotocol: str) -> None:
        self.ws = ws
        self.modern = subprotocol == MODERN
        self.rows: list[tuple[str, Any]] = []
        self.sizes: list[int] = []

    async def say(self, kind: str, **fields: Any) -> None:
        await self.ws.send_str(msgspec.json.encode({"type": kind, **fields}).decode())

    async def frame(self) -> aiohttp.WSMessage:
        """The next frame as it is; a close is raised."""
        message = await self.ws.receive()
        if message.type is aiohttp.WSMsgType.CLOSE:
            raise Closed(message.data, message.extra or "")
        if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR):
            raise Closed(1006, "")
        return message

    async def hear(self) -> dict[str, Any]:
        """The next message; rows in it are kept."""
        message: dict[str, Any] = msgspec.json.decode((await self.frame()).data)
        if message["type"] in ("next", "data"):
            rows = rows_in(message["payload"])
            self.rows += rows
            self.sizes += [len(rows)] if rows else []
        return message

    async def hear_until(self, *kinds: str) -> dict[str, Any]:
        """Read on until a message of one of these types."""
        while (message := await self.hear())["type"] not in kinds:
            pass
        return message

    async def data(self) -> dict[str, Any]:
        """The next message with data."""
        return await self.hear_until("next", "data")

    async def closed(self) -> Closed:
        """Read on until the server closes."""
        try:
            while True:
                await self.frame()
        except Closed as closed:
            return closed

    async def initialise(self, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        await self.say("connection_init", **({} if payload is None else {"payload": payload}))
        return await self.hear_until("connection_ack", "connection_error")

    async def subscribe(self, document: str = TRADES, operation: str = "1", **payload: Any) -> None:
        kind = "subscribe" if self.modern else "start"
        await self.say(kind, id=operation, payload={"query": document, **payload})

    async def catch_up(self) -> None:
        """Read all that was written before now: on an ordered stream a last answer marks the end."""
        operation = f"mark{len(self.rows)}"
        await self.subscribe(
            "query { EVM(network: eth) { Blocks(limit: {count: 0}) { Block { Number } } } }", operation
        )
        while True:
            message = await self.hear()
            if message.get("id") == operation and message["type"] in ("complete", "error"):
                return


def rows_in(payload: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (cube, row)
        for cubes in (payload.get("data") or {}).values()
        for cube, rows in cubes.items()
        for row in rows
    ]


@contextlib.asynccontextmanager
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@contextlib.asynccontextmanager
async def dial(
    simulator: Simulator,
    subprotocol: str = MODERN,
    *,
    token: str | None = None,
    place: str = "query",
    **options: Any,
) -> AsyncIterator[Peer]:
    """Open a socket with a token (a static one by default) in the header, in the URL or nowhere."""
    value = simulator.token() if token is None else token
    headers = {"Authorization": f"Bearer {value}"} if place == "header" else {}
    params = {"token": value} if place == "query" else {}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            simulator.endpoint,
            protocols=[subprotocol],
            headers=headers,
            params=params,
            autoclose=True,
            **{"max_msg_size": 0, **options},
        ) as ws,
    ):
        yield Peer(ws, subprotocol)


@contextlib.asynccontextmanager
async def subscribed(
    simulator: Simulator, subprotocol: str = MODERN, document: str = TRADES, **options: Any
) -> AsyncIterator[Peer]:
    """A socket with one live operation."""
    async with dial(simulator, subprotocol, **options) as peer:
        assert (await peer.initialise())["type"] == "connection_ack"
        await peer.subscribe(document)
        yield peer


async def settle(simulator: Simulator, *peers: Peer) -> None:
    """Let the chain stand still and read what is on its way."""
    simulator.pause()
    await simulator.drained()
    for peer in peers:
        await peer.catch_up()


async def ask(
    simulator: Simulator, document: str = QUERY, *, token: str | None = None, **body: Any
) -> tuple[int, Any]:
    """One query over HTTP: status and body."""
    headers = {"Authorization": f"Bearer {simulator.token() if token is None else token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(simulator.endpoint, json={"query": document, **body}, headers=headers) as response,
    ):
        text = await response.read()
        return response.status, msgspec.json.decode(text) if text.startswith(b"{") else text.decode()
