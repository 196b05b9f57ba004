"""Trades as a collector of them has them: rows that all differ, block after block, served as fast as they are read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .load import AT_ONCE, VALUES, complete, encoded, framed, payload_of, subscribed

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

# Eleven columns; the client adds its key's other fields, so that a row comes with some seven hundred bytes.
DOCUMENT = """subscription { EVM(network: eth) { DEXTrades {
    Block { Number Time } Transaction { Hash }
    Trade {
        Dex { ProtocolName }
        Buy { Amount AmountInUSD Currency { Symbol SmartContract } }
        Sell { Amount Currency { Symbol SmartContract } }
    }
} } }"""
BLOCK_MESSAGES = 2
_DIFFERENT = 100  # messages; the same ones come again in later blocks
_FIRST = datetime(2026, 1, 2, tzinfo=UTC)
_NUMBER, _HASH, _TIME = '"21000000"', f'"0x{"e" * 64}"', '"2024-10-19T12:00:00Z"'


def _values(rng: random.Random, log: int) -> dict[str, Any]:
    def side(name: str) -> dict[str, Any]:
        currency = rng.randrange(500)
        return {
            f"Trade.{name}.Amount": f"{rng.randrange(10**6)}.{rng.randrange(10**18):018}",
            f"Trade.{name}.AmountInUSD": rng.randrange(10**9) / 1e4,
            f"Trade.{name}.Currency.Symbol": f"TOKEN{currency}",
            f"Trade.{name}.Currency.SmartContract": f"0x{currency:040x}",
        }

    return {
        **VALUES,
        "Transaction.Hash": f"0x{rng.getrandbits(256):064x}",
        "Log.Index": log,
        "Trade.Dex.ProtocolName": rng.choice(("uniswap_v2", "uniswap_v3", "uniswap_v4", "balancer_v3")),
        **side("Buy"),
        **side("Sell"),
    }


@lru_cache(maxsize=4)
def texts(document: str, rows: int) -> list[bytes]:
    """Messages of so many rows each, as ``document`` (with hidden fields or without) selects them, of one block."""
    rng = random.Random(7)
    return [
        encoded(payload_of(document, [_values(rng, log) for log in range(rows)])) for _ in range(_DIFFERENT)
    ]


def payloads(document: str, rows: int) -> Iterator[bytes]:
    """The same without an end, block after block."""
    made = texts(document, rows)
    number = 0
    while True:
        block, _ = divmod(number, BLOCK_MESSAGES)
        time = (_FIRST + timedelta(seconds=block)).strftime('"%Y-%m-%dT%H:%M:%SZ"')
        text = made[number % _DIFFERENT].replace(_NUMBER.encode(), b'"%d"' % (21_000_000 + block))
        yield text.replace(_HASH.encode(), b'"0x%064x"' % block).replace(_TIME.encode(), time.encode())
        number += 1


@dataclass(frozen=True)
class Trades:
    """``messages`` of so many rows to each connection, then the end."""

    messages: int
    rows: int

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        asked = await subscribed(socket, 1)
        head = b'{"id":' + encoded(asked[0]["id"]) + b',"type":"next","payload":'
        made = payloads(asked[0]["payload"]["query"], self.rows)
        chunk, size = [], 0
        for _ in range(self.messages):
            chunk.append(framed(head + next(made) + b"}"))
            size += len(chunk[-1])
            if size >= AT_ONCE:
                socket.transport.write(b"".join(chunk))
                chunk, size = [], 0
                await socket.drain()
                await asyncio.sleep(0)
        socket.transport.write(b"".join(chunk))
        await complete(socket, asked)
