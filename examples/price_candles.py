"""How do I make candles of a token's price, right ones, as its trades come in?

python examples/price_candles.py

A candle is worked out from its trades when it is over: in the chain's order, whatever order they came in, less
those that a fork took back. It is over when the chain has gone beyond it for longer than rows come late, or forks
come, and no gap is being closed. The stream begins where a candle does, so that the first one is whole too.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from service import service

from bqstream import Client, Timeouts, Undo

WETH = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
TRADES = """subscription Trades($token: String!) { EVM(network: eth) {
    DEXTradeByTokens(where: { Trade: { Currency: { SmartContract: { is: $token } } } }) {
        Block { Number Time Hash } Transaction { Hash Index } Log { Index } Trade { Index Amount PriceInUSD }
    }
} }"""
LENGTH = timedelta(seconds=2)  # so that there is something to see; a minute is a good value
GRACE = (
    1.0  # how late a row may come, or a fork, in seconds; 5 is a good value, or a minute where forks are deep
)


class Candle(NamedTuple):
    start: datetime
    open: float
    high: float
    low: float
    close: float
    trades: int


def start_of(time: str | datetime) -> datetime:
    """Where the candle of this moment begins."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment - (moment - datetime.fromtimestamp(0, UTC)) % LENGTH


def place(row: Any) -> tuple[int, int, int, int, str]:
    """Where a trade stands on the chain: no other has the same place."""
    numbers = row["Block"]["Number"], row["Transaction"]["Index"], row["Log"]["Index"], row["Trade"]["Index"]
    block, transaction, log, trade = map(int, numbers)
    return block, transaction, log, trade, row["Block"]["Hash"]


async def candles(client: Client, token: str) -> AsyncGenerator[Candle, None]:
    """One candle after another, oldest first; a time without a trade has none."""
    trades: dict[datetime, dict[Any, float]] = defaultdict(dict)
    told = since = start_of(datetime.now(UTC))
    async with client.subscribe(TRADES, {"token": token}, since=since, undo=True) as stream:
        async for row in stream.rows():
            if isinstance(row, Undo):
                for gone in row.rows["DEXTradeByTokens"]:
                    trades[start_of(gone["Block"]["Time"])].pop(place(gone), None)
                continue
            time = datetime.fromisoformat(row["Block"]["Time"])
            trades[start_of(time)][place(row)] = row["Trade"]["PriceInUSD"]
            over = start_of(time - timedelta(seconds=GRACE))
            for start in sorted(start for start in trades if start < over and not stream.closing):
                prices = [price for _, price in sorted(trades.pop(start).items())]
                if prices and start >= told:  # what comes later than that is too late
                    told = start + LENGTH
                    yield Candle(start, prices[0], max(prices), min(prices), prices[-1], len(prices))


async def main() -> None:
    async with service(token_ttl=5), Client(timeouts=Timeouts(grace=GRACE)) as client:
        left = 4
        async for candle in candles(client, WETH):
            prices = " ".join(f"{price:12.6f}" for price in candle[1:5])
            print(f"{candle.start:%H:%M:%S} {prices} {candle.trades:5} trades")
            left -= 1
            if not left:
                break
        print(f"{client.status().rotations} hand-overs meanwhile")


if __name__ == "__main__":
    asyncio.run(main())
