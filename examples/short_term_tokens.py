"""How do I keep the long-lived token away from the stream, and does the stream outlive the short ones?

python examples/short_term_tokens.py
"""

import asyncio
import os

from service import DOCUMENTS, service

from bqstream import Client, ClientCredentials, ShortTermToken, Timeouts
from bqstream.events import Event, HandedOver

HANDOVERS = 2


async def main() -> None:
    done = asyncio.Event()
    seen = 0

    def on_event(event: Event) -> None:
        nonlocal seen
        if isinstance(event, HandedOver):
            seen += 1
            print(f"link {event.old} handed over to {event.new}; {event.merged} rows came twice, kept once")
            if seen == HANDOVERS:
                done.set()

    async with service(token_ttl=60):
        credentials = ShortTermToken(
            ClientCredentials(os.environ["BITQUERY_CLIENT_ID"], os.environ["BITQUERY_CLIENT_SECRET"]),
            expires_in=4,  # so that there is something to see; 3600 is a good value
        )
        async with (
            Client(credentials, on_event=on_event, timeouts=Timeouts(grace=0.5)) as client,
            client.subscribe(DOCUMENTS / "trades.graphql", {"network": "eth"}) as stream,
        ):
            rows = 0
            async for _ in stream.rows():
                rows += 1
                if done.is_set():
                    break
            print(f"{rows} rows over {seen} hand-overs, {len(stream.gaps)} gaps")


if __name__ == "__main__":
    asyncio.run(main())
