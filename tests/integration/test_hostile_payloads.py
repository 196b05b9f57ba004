"""Payloads that no honest server sends, in steady state and through hand-overs: at worst one subscription fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from bqstream import Client, Token
from bqstream.config import Backoff, Timeouts
from bqstream.errors import BqstreamError, OperationFailed
from bqstream.events import HandedOver, Lost
from bqstream.message import Message
from tests.integration.harness import Events, until
from tests.virtual_time import virtual_clock, virtual_time

MODERN, LEGACY = "graphql-transport-ws", "graphql-ws"
TICK = 0.05
ROTATIONS = 2
DEEP = "[" * 100_000 + "]" * 100_000


def row(value: str, name: str = "x") -> str:
    return f'{{"data":{{"root":{{"cube":[{{"{name}":{value}}}]}}}}}}'


# What the reader gets of it: each message, messages whose ``data`` is an error, or the end of that subscription.
DELIVERED, UNDECODABLE, FAILED = "delivered", "undecodable", "failed"
HOSTILE: dict[str, tuple[str, str]] = {
    "a number that no double holds": (row("1e999"), UNDECODABLE),
    "one below": (row("-1e999"), UNDECODABLE),
    "a number that is nearly nothing": (row("1e-999"), DELIVERED),
    "a number of 400 digits": (row("9" * 400), DELIVERED),
    "a number of 5,000 digits": (row("9" * 5000), UNDECODABLE),
    "more places than anybody wants": (row("0." + "1" * 5000), DELIVERED),
    "half a surrogate pair": (row(r'"\ud800"'), DELIVERED),
    "the halves swapped": (row(r'"\udc00\ud800"'), DELIVERED),
    "a zero in a text": (row(r'"\u0000"'), DELIVERED),
    "a megabyte of text": (row('"' + "x" * 1_000_000 + '"'), DELIVERED),
    "deep nesting": (row(DEEP), FAILED),
    "deep nesting of errors": ('{"data":null,"errors":' + DEEP + "}", FAILED),
    "deep nesting of extensions": ('{"extensions":' + DEEP + "}", FAILED),
    "nesting that can just be read": (row("[" * 500 + "]" * 500), DELIVERED),
    "a scalar": ('{"data":5}', DELIVERED),
    "a list": ('{"data":[1,[2],{"a":3}]}', DELIVERED),
    "two roots": ('{"data":{"one":{"cube":[1]},"other":{"cube":[2]}}}', DELIVERED),
    "a cube that is none": ('{"data":{"root":{"cube":5,"other":[1]}}}', DELIVERED),
    "a root that is none": ('{"data":{"root":[[1],[2]]}}', DELIVERED),
    "nothing": ('{"data":{}}', DELIVERED),
    "nothing in the root": ('{"data":{"root":{}}}', DELIVERED),
    "names that are empty": ('{"data":{"":{"":[{"":1}]}}}', DELIVERED),
    "rows that are none": ('{"data":{"root":{"cube":[null,1,"x",[],{}]}}}', DELIVERED),
    "the same name twice": ('{"data":{"root":{"cube":[{"x":1,"x":2}],"cube":[{"x":3}]}}}', DELIVERED),
    "data twice": (row("1")[:-1] + "," + row("2")[1:], DELIVERED),
    "null": ('{"data":null}', DELIVERED),
    "null with an error": ('{"data":null,"errors":[{"message":"no luck"}]}', DELIVERED),
    "errors that are none": ('{"data":{"root":{"cube":[1]}},"errors":"x","extensions":[]}', DELIVERED),
    "errors of a strange shape": (
        '{"data":{"root":{"cube":[1]}},"errors":[1,null,{"message":5}]}',
        DELIVERED,
    ),
    "neither data nor errors": ("{}", DELIVERED),
    "an error alone": ('{"errors":[{"message":"no luck"}]}', FAILED),
    "a payload that is null": ("null", FAILED),
    "a payload that is a list": ("[]", FAILED),
    "a payload that is a text": ('"data"', FAILED),
    "a payload that is a number": ("1e999", FAILED),
}


class Server:
    """Sends each live operation a numbered row every tick, the same on every link; to the one that asks for it
    the hostile payload goes beside every third."""

    def __init__(self, hostile: str, ack: str) -> None:
        self.hostile = hostile
        self.ack = ack
        self.links: dict[ServerConnection, dict[str, bool]] = {}
        self.numbers = itertools.count()

    async def handle(self, socket: ServerConnection) -> None:
        modern = socket.subprotocol == MODERN
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                message = json.loads(frame)
                match message["type"]:
                    case "connection_init":
                        await socket.send(self.ack)
                        self.links[socket] = {}
                    case "subscribe" | "start":
                        self.links[socket][message["id"]] = "hostile" in message["payload"]["query"]
                    case "complete" | "stop":
                        self.links[socket].pop(message["id"], None)
                    case "ping" if modern:
                        await socket.send('{"type":"pong"}')
        self.links.pop(socket, None)

    async def emit(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            number = next(self.numbers)
            for socket, operations in list(self.links.items()):
                for name, hostile in list(operations.items()):
                    payloads = [row(str(number), "number")]
                    if hostile and number % 3 == 0:
                        payloads.insert(0, self.hostile)
                    for payload in payloads:
                        word = "next" if socket.subprotocol == MODERN else "data"
                        with contextlib.suppress(ConnectionClosed):
                            await socket.send(f'{{"type":"{word}","id":"{name}","payload":{payload}}}')


@contextlib.asynccontextmanager
async def hostile_server(payload: str, ack: str = '{"type":"connection_ack"}') -> AsyncIterator[str]:
    server = Server(payload, ack)
    emitting = asyncio.create_task(server.emit())
    options: dict[str, Any] = {
        "subprotocols": [Subprotocol(MODERN), Subprotocol(LEGACY)],
        "ping_interval": None,
    }
    try:
        async with serve(server.handle, "127.0.0.1", 0, **options) as listening:
            yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/graphql"
    finally:
        emitting.cancel()
        await asyncio.wait({emitting})


async def token() -> Token:
    return Token("a-token-of-two-seconds", expires_in=2)


async def read(stream: Any, numbers: list[int], raw: list[bytes], undecodable: list[Message]) -> str:
    """Look at all that there is to each message; gives how the stream ended."""
    try:
        async for message in stream:
            raw.append(message.raw)
            try:
                rows = list(message.rows())
                assert repr(message), (message.data, message.errors, message.extensions)
            except OperationFailed:
                undecodable.append(message)
                continue
            numbers += [one["number"] for one in rows if isinstance(one, dict) and "number" in one]
    except BqstreamError as error:
        return type(error).__name__
    return "completed"


def client_of(url: str, seen: Events, subprotocol: Any) -> Client:
    client = Client(
        token,
        endpoint=url,
        subprotocol=subprotocol,
        on_event=seen.append,
        proxy=None,
        timeouts=Timeouts(grace=0.3),
        backoff=Backoff(initial=0.01, maximum=0.1),
    )
    client._clock = virtual_clock()
    return client


@pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])
@pytest.mark.parametrize("name", HOSTILE)
@virtual_time
async def test_a_hostile_payload_crashes_nothing_and_touches_no_neighbour(
    name: str, subprotocol: Any
) -> None:
    payload, expected = HOSTILE[name]
    seen = Events()
    async with hostile_server(payload) as url:
        client = client_of(url, seen, subprotocol)
        numbers: tuple[list[int], list[int]] = ([], [])
        raw: list[bytes] = []
        undecodable: list[Message] = []
        async with client:
            victim = await client.subscribe("subscription { hostile { cube { x } } }")
            neighbour = await client.subscribe("subscription { root { cube { x } } }")
            reading = [
                asyncio.create_task(read(victim, numbers[0], raw, undecodable)),
                asyncio.create_task(read(neighbour, numbers[1], [], [])),
            ]
            await until(lambda: len(seen.of(HandedOver)) >= ROTATIONS)
            assert neighbour.gaps == ()
            if expected == FAILED:
                assert await reading[0] == "OperationFailed"
            else:
                assert not reading[0].done()
            assert not reading[1].done()
        assert await reading[1] == "completed"

    assert not seen.of(Lost)
    first = numbers[1][0]
    assert numbers[1] == list(range(first, first + len(numbers[1])))
    if expected != FAILED:
        good = [number for number in numbers[0] if number >= first]
        assert len(good) == len(set(good)) or victim.gaps
        assert set(range(first, max(good))) <= set(good) or victim.gaps
    assert bool(undecodable) == (expected == UNDECODABLE)
    if expected == UNDECODABLE:
        assert {message.raw for message in undecodable} == {payload.encode()}


@pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])
@pytest.mark.parametrize(
    "payload",
    [
        *("null", "[]", '"text"', DEEP),
        *(
            f'{{"connectionTimeoutMs":{value}}}'
            for value in ("1e308", "9" * 400, "-1", "0", "null", "[]", "1")
        ),
    ],
    ids=lambda payload: payload[:40],
)
@virtual_time
async def test_a_hostile_ack_is_an_ack(payload: str, subprotocol: Any) -> None:
    seen = Events()
    ack = f'{{"type":"connection_ack","payload":{payload}}}'
    async with (
        hostile_server("{}", ack) as url,
        client_of(url, seen, subprotocol) as client,
        client.subscribe("subscription { root { cube { number } } }") as stream,
    ):
        for _ in range(10):
            assert (await anext(stream)).data
    assert not seen.of(Lost)
