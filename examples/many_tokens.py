"""How do I watch many tokens at once?

python examples/many_tokens.py

The addresses are a variable of the document, so many to a subscription; the subscriptions share one client and
its link. A plan counts subscriptions: put as many tokens into each as the service takes in one request.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from service import service

from bqstream import Client

TOKENS = {
    "WETH": "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
    "USDC": "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
    "USDT": "0xdac17f958d2ee523a2206206994597c13d831ec7",
    "WBTC": "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599",
    "DAI": "0x6b175474e89094c44da98b954eedeac495271d0f",
    "LINK": "0x514910771af9ca656af840dff83e8264ecf986ca",
    "UNI": "0x1f9840a85d5af5bf1d1762f925bdaddc4201f984",
    "AAVE": "0x7fc66500c84a76ad7e9c93437bfc5ac33e2ddae9",
    "SHIB": "0x95ad61b0a150d79219dcf64e1e6cc01f0b64c4ce",
    "PEPE": "0x6982508145454ce325ddbe47a25d4ec3d2311933",
}
TRADES = """subscription Trades($tokens: [String!]) { EVM(network: eth) {
    DEXTradeByTokens(where: { Trade: { Currency: { SmartContract: { in: $tokens } } } }) {
        Block { Number } Transaction { Hash } Log { Index }
        Trade { Index Amount PriceInUSD Currency { SmartContract } }
    }
} }"""
PER_SUBSCRIPTION = 4  # so that there are several; a hundred is a good value


async def watch(client: Client, addresses: Sequence[str], trades: Counter[str], enough: int) -> None:
    """Count the trades of some tokens, until all subscriptions together have seen enough."""
    async with client.subscribe(TRADES, {"tokens": list(addresses)}) as stream:
        async for row in stream.rows():
            trades[row["Trade"]["Currency"]["SmartContract"].lower()] += 1
            if trades.total() >= enough:
                break


async def main() -> None:
    addresses = list(TOKENS.values())
    trades: Counter[str] = Counter()
    async with service(), Client() as client:
        async with asyncio.TaskGroup() as group:
            starts = range(0, len(addresses), PER_SUBSCRIPTION)
            for start in starts:
                group.create_task(
                    watch(client, addresses[start : start + PER_SUBSCRIPTION], trades, enough=100)
                )
        for symbol, address in TOKENS.items():
            print(f"{symbol}: {trades.pop(address, 0)} trades")
        links = len(client.status().links)
        print(f"{len(addresses)} tokens in {len(starts)} subscriptions on {links} link, {len(trades)} others")


if __name__ == "__main__":
    asyncio.run(main())
