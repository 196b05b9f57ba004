"""How do I run many subscriptions on one client?

python examples/many_subscriptions.py
"""

import asyncio

from service import DOCUMENTS, service

from bqstream import Client

NETWORKS = ("eth", "bsc", "base", "arbitrum", "optimism", "matic")
DOCUMENT = DOCUMENTS / "chain.graphql"


async def count_rows(client: Client, network: str, enough: int) -> tuple[str, dict[str, int]]:
    """Each subscription has its own task; one that fails would end that one alone."""
    counts: dict[str, int] = {}
    async with client.subscribe(DOCUMENT, {"network": network}) as stream:
        async for row in stream.rows():
            (cube,) = row  # with several cubes in a document each row says which
            counts[cube] = counts.get(cube, 0) + 1
            if sum(counts.values()) >= enough:
                break
    return network, counts


async def main() -> None:
    async with service(), Client() as client:  # connections=2 would spread them over two links
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(count_rows(client, network, enough=50)) for network in NETWORKS]
        for task in tasks:
            network, counts = task.result()
            print(f"{network}: {counts}")
        print(f"{len(tasks)} subscriptions shared {len(client.status().links)} link")


if __name__ == "__main__":
    asyncio.run(main())
