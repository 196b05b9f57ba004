"""The load server, a process of its own: frames are encoded once a subscription, so that it never is what is slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

SUBPROTOCOL = "graphql-transport-ws"
AT_ONCE = 128 * 1024  # bytes that are written at once
# What a row shows, by the field's path; whatever stands nowhere here is a small number.
VALUES = {
    "Block.Number": "21000000",
    "Block.Hash": "0x" + "e" * 64,
    "Block.Time": "2024-10-19T12:00:00Z",
    "Transfer.Amount": "123456789.000000000000000001",
    "Transfer.Sender": "0x" + "a" * 40,
    "Transfer.Receiver": "0x" + "b" * 40,
    "Transfer.Type": "token",
    "Transfer.AmountInUSD": 1234.5678,
    "Transaction.Hash": "0x" + "c" * 64,
    "Transaction.From": "0x" + "d" * 40,
    "Transaction.To": "0x" + "e" * 40,
    "Transaction.GasPrice": "25000000000",
    "Transaction.Cost": "0.000525000000000000",
    "Call.From": "0x" + "a" * 40,
    "Call.To": "0x" + "b" * 40,
    "Log.SmartContract": "0x" + "f" * 40,
    "Log.Signature.Name": "Transfer",
    "Log.Signature.SignatureHash": "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
    "Transfer.Currency.Symbol": "WETH",
    "Transfer.Currency.Name": "Wrapped Ether",
    "Transfer.Currency.SmartContract": "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
    "Transfer.Currency.Fungible": True,
}


def row_of(selection: Any, path: tuple[str, ...] = (), values: Mapping[str, Any] = VALUES) -> dict[str, Any]:
    """A row as the document selects it, hidden fields and their aliases included."""
    row = {}
    for field in selection.selections:
        name = (*path, field.name.value)
        key = field.alias.value if field.alias else field.name.value
        below = field.selection_set
        row[key] = row_of(below, name, values) if below else values.get(".".join(name), 7)
    return row


def payload_of(document: str, rows: int | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the document's one cube brings: so many rows that differ in nothing, or one with each of these values."""
    from graphql import parse

    (operation,) = parse(document).definitions
    (root,) = operation.selection_set.selections  # type: ignore[attr-defined]
    (cube,) = root.selection_set.selections
    if isinstance(rows, int):
        made = [row_of(cube.selection_set)] * rows
    else:
        made = [row_of(cube.selection_set, values=values) for values in rows]
    return {"data": {root.name.value: {cube.name.value: made}}}


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def framed(text: bytes) -> bytes:
    """An unfragmented, unmasked text frame (RFC 6455, section 5.2)."""
    size = len(text)
    if size < 126:
        head = bytes((0x81, size))
    elif size < 65536:
        head = bytes((0x81, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x81, 127)) + size.to_bytes(8, "big")
    return head + text


class CouldNotKeepPace(Exception):
    """The load was not what it was to be, so that nothing could be measured with it."""


class Load(Protocol):
    """What a connection that was acknowledged is sent. It is made in one process and serves in another."""

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        """Serve one connection; ``tell`` sends the benchmark what only the server knows."""


async def subscribed(socket: ServerConnection, count: int) -> list[dict[str, Any]]:
    """The next so many subscriptions."""
    return [json.loads(await socket.recv()) for _ in range(count)]


async def complete(socket: ServerConnection, asked: list[dict[str, Any]]) -> None:
    """Complete the subscriptions and wait until the client has gone."""
    for one in asked:
        await socket.send(json.dumps({"id": one["id"], "type": "complete"}))
    await socket.wait_closed()


def next_frame(one: dict[str, Any], payload: dict[str, Any]) -> bytes:
    """A frame with a message of this subscription."""
    return framed(encoded({"id": one["id"], "type": "next", "payload": payload}))


@dataclass(frozen=True)
class Flood:
    """Await that many subscriptions on each connection, send each in turn a message of so many rows, as fast as they
    are read, ``messages`` of them in all, and complete it."""

    messages: int
    rows: int
    subscriptions: int = 1

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        asked = await subscribed(socket, self.subscriptions)
        payload = payload_of(asked[0]["payload"]["query"], self.rows)
        turn = b"".join(next_frame(one, payload) for one in asked)
        several = max(1, AT_ONCE // len(turn))
        chunk = turn * several
        left = self.messages // self.subscriptions
        while left:
            count = min(several, left)
            left -= count
            # Past the library, which would take longer to send a message than a client takes to read it.
            socket.transport.write(chunk if count == several else turn * count)
            await socket.drain()
            await asyncio.sleep(0)
        await complete(socket, asked)


def _serve(load: Load, port: Connection) -> None:
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed

    async def handle(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionError, ConnectionClosed):  # a reader that was stopped
            await socket.recv()
            await socket.send('{"type":"connection_ack"}')
            await load.serve(socket, port.send)

    async def main() -> None:
        options: dict[str, Any] = {"subprotocols": [SUBPROTOCOL], "compression": None, "ping_interval": None}
        async with listen(handle, "127.0.0.1", 0, **options) as server:
            port.send(next(iter(server.sockets)).getsockname()[1])
            await asyncio.get_running_loop().create_future()

    asyncio.run(main())


class Serving(NamedTuple):
    """A load server's address, and what it tells."""

    url: str
    told: Connection


@contextlib.contextmanager
def serving(load: Load) -> Iterator[Serving]:
    """A load server that is there until the block is left."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(load, there), daemon=True)
    server.start()
    try:
        yield Serving(f"ws://127.0.0.1:{here.recv()}/graphql", here)
    finally:
        server.terminate()
        server.join()
