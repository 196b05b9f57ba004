"""One row a message, as fast as the wire: bqstream, gql, and a bare ``websockets`` loop, in interleaved rounds.

Only ratios within a round mean anything: the machine is shared, and so every client of a round reads the same frames
from the same server one after the other, decodes every message and hands it to the caller.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from multiprocessing.connection import Connection

DOCUMENT = (
    "subscription { EVM { Transfers { Block { Number } Transfer { Amount Sender } Transaction { Hash } } } }"
)
SUBPROTOCOL = "graphql-transport-ws"
ROW = {
    "Block": {"Number": "21000000"},
    "Transfer": {
        "Amount": "123456789.000000000000000001",
        "Sender": "0x" + "a" * 40,
        "Receiver": "0x" + "b" * 40,
    },
    "Transaction": {"Hash": "0x" + "c" * 64},
}


def serve(messages: int, rows: int, port: Connection) -> None:
    """The load server, in a process of its own: frames are encoded once per connection, so that it never waits."""
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as listen

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"type":"connection_ack"}')
        name = json.loads(await socket.recv())["id"]
        payload = {"data": {"EVM": {"Transfers": [ROW] * rows}}}
        frame = json.dumps({"id": name, "type": "next", "payload": payload})
        for _ in range(messages):
            await socket.send(frame)
        await socket.send(json.dumps({"id": name, "type": "complete"}))
        await socket.wait_closed()

    async def main() -> None:
        async with listen(handle, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None) as server:  # type: ignore[list-item]
            port.send(next(iter(server.sockets)).getsockname()[1])
            await asyncio.get_running_loop().create_future()

    asyncio.run(main())


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


CLIENTS: dict[str, Callable[[str], Awaitable[int]]] = {
    "bqstream": with_bqstream,
    "gql": with_gql,
    "bare websockets + json": with_bare_websockets,
}


async def measure(url: str, messages: int, rows: int, rounds: int) -> dict[str, list[float]]:
    """Messages a second of each client, round by round."""
    speeds: dict[str, list[float]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name, run in CLIENTS.items():
            start = time.perf_counter()
            count = await run(url)
            assert count == messages * rows, f"{name} read {count} rows of {messages * rows}"
            speeds[name].append(messages / (time.perf_counter() - start))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    quick = parser.parse_args().quick
    rounds = 3 if quick else 5
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {multiprocessing.cpu_count()} cores; ",
        end="",
    )
    print(", ".join(f"{name} {version(name)}" for name in ("bqstream", "gql", "websockets", "msgspec")))
    for rows, messages in ((1, 20_000 if quick else 60_000), (100, 500 if quick else 2_000)):
        here, there = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(messages, rows, there), daemon=True)
        server.start()
        try:
            speeds = asyncio.run(measure(f"ws://127.0.0.1:{here.recv()}/graphql", messages, rows, rounds))
        finally:
            server.terminate()
            server.join()
        print(f"\n{rows} row(s) a message, {messages} messages, median of {rounds} interleaved rounds")
        for name, speed in speeds.items():
            ratios = [one / gql for one, gql in zip(speed, speeds["gql"], strict=True)]
            print(
                f"  {name:24} {statistics.median(speed):>10,.0f} messages/s   {statistics.median(ratios):.2f} x gql"
            )


if __name__ == "__main__":
    main()
