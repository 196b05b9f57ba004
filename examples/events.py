"""How do I see what happens to the connection?

python examples/events.py
"""

import asyncio

from service import DOCUMENTS, service

from bqstream import Client, Timeouts
from bqstream.events import Connected, Event, GapNamed, HandedOver, TokenRefreshed


def on_event(event: Event) -> None:
    """Called for every event, in the loop's own thread: be quick, and log or count."""
    match event:
        case Connected(link=link, subprotocol=subprotocol):
            print(f"connected: link {link} speaks {subprotocol}")
        case TokenRefreshed(expires_at=expires_at):
            print(f"new token, good until {expires_at}")
        case HandedOver(old=old, new=new, mode=mode, unproven=unproven):
            print(f"link {old} handed over to {new} by {mode}, {unproven} operations unproven")
        case GapNamed(gap=gap):
            print(f"rows may be missing: {gap}")
        case _:
            print(event)


async def main() -> None:
    async with (
        service(token_ttl=4),
        Client(on_event=on_event, timeouts=Timeouts(grace=0.5)) as client,
        client.subscribe(DOCUMENTS / "trades.graphql", {"network": "bsc"}) as stream,
    ):
        async for message in stream:
            if client.status().rotations:
                print(f"last message: {message}")
                break
        status = client.status()
        print(f"{status.state}: {status.rotations} hand-overs, {status.reconnects} reconnects")
        for subscription in status.subscriptions:
            print(f"operation {subscription.operation}: {subscription.messages} messages")


if __name__ == "__main__":
    asyncio.run(main())
