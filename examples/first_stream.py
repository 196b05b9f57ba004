"""How do I read the rows of a subscription?

python examples/first_stream.py
"""

import asyncio

from service import DOCUMENTS, service

from bqstream import Client


async def main() -> None:
    # Client() takes its credentials from the environment: BITQUERY_TOKEN, or BITQUERY_CLIENT_ID and _SECRET.
    async with (
        service(),
        Client() as client,
        client.subscribe(DOCUMENTS / "trades.graphql", {"network": "eth"}) as stream,
    ):
        count = 0
        async for row in stream.rows():
            buy = row["Trade"]["Buy"]
            print(f"block {row['Block']['Number']}: {buy['Amount']} {buy['Currency']['Symbol']} bought")
            count += 1
            if count == 10:
                break


if __name__ == "__main__":
    asyncio.run(main())
