"""Scenario ``speed``: bqstream beside gql and a bare ``websockets`` loop, each decoding every message."""

from __future__ import annotations

import asyncio
import json

from .load import SUBPROTOCOL, serving
from .rounds import Read, measure, show

DOCUMENT = (
    "subscription { EVM { Transfers { Block { Number } Transfer { Amount Sender } Transaction { Hash } } } }"
)


async def with_bqstream(url: str) -> int:
    from bqstream import Client

    count = 0
    async with Client("token-of-the-benchmark", endpoint=url) as client, client.subscribe(DOCUMENT) as stream:
        async for message in stream:
            count += len(message.data["EVM"]["Transfers"])
    return count


async def with_gql(url: str) -> int:
    from gql import Client, gql
    from gql.transport.websockets import WebsocketsTransport

    count = 0
    transport = WebsocketsTransport(url=url, subprotocols=[SUBPROTOCOL])
    async with Client(transport=transport) as session:
        async for data in session.subscribe(gql(DOCUMENT)):
            count += len(data["EVM"]["Transfers"])
    return count


async def with_bare_websockets(url: str) -> int:
    from websockets.asyncio.client import connect

    count = 0
    async with connect(url, subprotocols=[SUBPROTOCOL], compression=None, max_size=None) as socket:  # type: ignore[list-item]
        await socket.send('{"type":"connection_init"}')
        await socket.recv()
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": DOCUMENT}}))
        async for frame in socket:
            message = json.loads(frame)
            if message["type"] == "complete":
                break
            count += len(message["payload"]["data"]["EVM"]["Transfers"])
    return count


CLIENTS: dict[str, Read] = {
    "bqstream": with_bqstream,
    "gql": with_gql,
    "bare websockets + json": with_bare_websockets,
}


def run(*, quick: bool) -> None:
    rounds = 3 if quick else 5
    for rows, messages in ((1, 20_000 if quick else 60_000), (100, 500 if quick else 2_000)):
        with serving(messages, rows) as url:
            took = asyncio.run(measure(url, CLIENTS, messages, rows, rounds))
        show(f"speed: {rows} row(s) a message, {messages} messages", took, "gql")
