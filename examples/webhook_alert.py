"""How do I post an alert to a webhook, each of them once, whatever happens to the webhook or to me?

python examples/webhook_alert.py  # posts to WEBHOOK_URL; without one to a receiver that fails now and then

A post that fails is tried again, later each time. The receiver may have taken it and died before it said so:
that is why every try bears the same Idempotency-Key, which follows from the transfer itself. The checkpoint is
saved after the posts, so that a new process goes on where this one ended, and repeats a message at most, by the
same keys. While posts wait the stream waits too; what that misses is asked for.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
from service import service, webhook
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from bqstream import Checkpoint, Client, Timeouts

WHALES = """subscription { EVM(network: eth) { Transfers(where: { Transfer: { AmountInUSD: { ge: "1000000" } } }) {
    Block { Number } Transaction { Hash } Log { Index } Call { Index }
    Transfer { Index Amount AmountInUSD Sender Receiver Currency { Symbol } }
} } }"""
ENOUGH = 10


def last(saved: Path) -> Checkpoint | None:
    return Checkpoint.load(saved) if saved.exists() else None


def passing(error: BaseException) -> bool:
    """Whether the same post may go through later: not one that the receiver calls wrong."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in (408, 429) or error.status >= 500
    return isinstance(error, aiohttp.ClientError | TimeoutError)


async def post(http: aiohttp.ClientSession, url: str, row: dict[str, Any]) -> int:
    """Post one alert, and give how many tries it took."""
    transfer, transaction = row["Transfer"], row["Transaction"]["Hash"]
    key = f"{transaction}:{row['Log']['Index']}:{row['Call']['Index']}:{transfer['Index']}"
    text = f"{transfer['Amount']} {transfer['Currency']['Symbol']} to {transfer['Receiver']}, {transaction}"
    waits = wait_random_exponential(multiplier=0.2, max=60)
    retrying = retry_if_exception(passing)
    async for attempt in AsyncRetrying(retry=retrying, wait=waits, stop=stop_after_delay(3600), reraise=True):
        with attempt:
            async with http.post(url, json={"text": text}, headers={"Idempotency-Key": key}) as response:
                response.raise_for_status()
    return attempt.retry_state.attempt_number


async def alert(client: Client, url: str, saved: Path) -> tuple[int, int]:
    """Give how many alerts were posted, and in how many tries."""
    alerts = tries = 0
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        client.subscribe(WHALES, resume=last(saved)) as stream,
    ):
        async for message in stream:
            for row in message.rows():
                tries += await post(http, url, row)
                alerts += 1
            message.checkpoint.save(saved)
            if alerts >= ENOUGH:
                break
    return alerts, tries


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:  # somewhere that lasts, in a program of your own
        saved = Path(folder) / "whales.checkpoint"
        async with service(), webhook() as (url, received), Client(timeouts=Timeouts(grace=0.5)) as client:
            for life in (1, 2):
                alerts, tries = await alert(client, url, saved)
                print(f"life {life}: {alerts} alerts, posted in {tries} tries")
            if received:
                print(f"the receiver has {received.total()}, {len(received)} of them different")


if __name__ == "__main__":
    asyncio.run(main())
