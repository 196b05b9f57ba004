"""How do I stream with the id and secret of an application, so that no token is ever kept anywhere?

python examples/client_credentials.py
"""

import asyncio
import os

from service import DOCUMENTS, service

from bqstream import Client, ClientCredentials


async def main() -> None:
    async with service():
        credentials = ClientCredentials(
            os.environ["BITQUERY_CLIENT_ID"],
            os.environ["BITQUERY_CLIENT_SECRET"],
            # auth="form",  # where HTTP Basic is not wanted
        )
        print("repr shows no secret:", credentials)
        async with (
            Client(credentials) as client,
            client.subscribe(DOCUMENTS / "solana_transfers.graphql") as stream,
        ):
            count = 0
            async for row in stream.rows():
                print(f"slot {row['Block']['Slot']}: {row['Transfer']['Amount']}")
                count += 1
                if count == 5:
                    break
            print("the token expires at", client.status().token_expires_at, "and is refreshed before that")


if __name__ == "__main__":
    asyncio.run(main())
