"""Who reads the load: bqstream in its ways, and its peers, each decoding every message and handing it to its caller.

The floor is a bare loop over picows, the fastest WebSocket client for asyncio, with orjson: no error handling, no
token, no reconnecting, nothing that tells one subscription from another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from .load import SUBPROTOCOL
from .rounds import Read
from .typed import Data

# About a kilobyte a row; it selects its cube's own keys, so that every client gets the same bytes.
DOCUMENT = """subscription { EVM { Transfers {
    Block { Number Hash Time } Call { Index From To } Log { Index SmartContract Signature { Name SignatureHash } }
    Transaction { Hash From To Index Gas GasPrice Type Cost }
    Transfer { Index Type Amount AmountInUSD Sender Receiver Currency { Symbol Name Decimals SmartContract Fungible } }
} } }"""
INIT = '{"type":"connection_init"}'
# What is done with each message in hand; gives how many rows it had.
Take = Callable[[Any], int]


def rows_in(data: Any) -> int:
    return len(data["EVM"]["Transfers"])


def subscribe(number: int) -> str:
    return json.dumps({"id": str(number), "type": "subscribe", "payload": {"query": DOCUMENT}})


def typed_rows_in(data: Data) -> int:
    return len(data.EVM.Transfers)


def bqstream(subscriptions: int = 1, *, take: Take = rows_in, raw_rows: int = 0, typed: bool = False) -> Read:
    """``raw_rows``: take the bytes alone, of messages of so many rows; ``typed``: decode into structs."""
    if typed:
        take = typed_rows_in

    async def read(url: str) -> int:
        from bqstream import Client

        async with Client("token-of-the-benchmark", endpoint=url) as client:

            async def one() -> int:
                count = 0
                async with client.subscribe(DOCUMENT, type=Data if typed else None) as stream:
                    if raw_rows:
                        async for message in stream:
                            count += raw_rows * message.raw.startswith(b"{")
                        return count
                    async for message in stream:
                        count += take(message.data)
                return count

            return sum(await asyncio.gather(*(one() for _ in range(subscriptions))))

    return read


def gql_transport(url: str, transport: str) -> Any:
    from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
    from gql.transport.websockets import WebsocketsTransport

    chosen = WebsocketsTransport if transport == "websockets" else AIOHTTPWebsocketsTransport
    return chosen(url=url, subprotocols=[SUBPROTOCOL])


def gql(subscriptions: int = 1, *, take: Take = rows_in, transport: str = "websockets") -> Read:
    async def read(url: str) -> int:
        from gql import Client
        from gql import gql as parsed

        async with Client(transport=gql_transport(url, transport)) as session:

            async def one() -> int:
                count = 0
                async for data in session.subscribe(parsed(DOCUMENT)):
                    count += take(data)
                return count

            return sum(await asyncio.gather(*(one() for _ in range(subscriptions))))

    return read


async def read_bare(
    send: Callable[[str], Awaitable[None]],
    receive: Callable[[], Awaitable[Any]],
    subscriptions: int,
    take: Take,
) -> int:
    """Read until all subscriptions are completed; ``receive`` gives a frame's bytes."""
    import orjson

    count = ended = 0
    await send(INIT)
    await receive()
    for number in range(subscriptions):
        await send(subscribe(number + 1))
    while ended < subscriptions:
        message = orjson.loads(await receive())
        if message["type"] == "complete":
            ended += 1
        else:
            count += take(message["payload"]["data"])
    return count


def bare_websockets(subscriptions: int = 1, *, take: Take = rows_in) -> Read:
    async def read(url: str) -> int:
        from websockets.asyncio.client import connect

        async with connect(url, subprotocols=[SUBPROTOCOL], compression=None, max_size=None) as socket:  # type: ignore[list-item]
            return await read_bare(socket.send, lambda: socket.recv(decode=False), subscriptions, take)

    return read


def bare_aiohttp(subscriptions: int = 1, *, take: Take = rows_in) -> Read:
    async def read(url: str) -> int:
        import aiohttp

        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=[SUBPROTOCOL], max_msg_size=0, decode_text=False) as socket,
        ):

            async def receive() -> Any:
                return (await socket.receive()).data

            return await read_bare(socket.send_str, receive, subscriptions, take)

    return read


def bare_picows(subscriptions: int = 1, *, take: Take = rows_in) -> Read:
    async def read(url: str) -> int:
        import orjson
        from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

        count = ended = 0
        done = asyncio.get_running_loop().create_future()

        class Listener(WSListener):
            def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
                nonlocal count, ended
                if frame.msg_type is not WSMsgType.TEXT:
                    return
                message = orjson.loads(frame.get_payload_as_memoryview())
                if message["type"] == "next":
                    count += take(message["payload"]["data"])
                elif message["type"] == "complete":
                    ended += 1
                    if ended == subscriptions:
                        done.set_result(None)
                else:
                    for number in range(subscriptions):
                        transport.send(WSMsgType.TEXT, subscribe(number + 1).encode())

        transport, _ = await ws_connect(
            Listener, url, extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL}, max_frame_size=2**30
        )
        transport.send(WSMsgType.TEXT, INIT.encode())
        await done
        transport.disconnect()
        await transport.wait_disconnected()
        return count

    return read
