"""How do I get what was before I came, and then what comes, as one stream with no seam?

python examples/backfill_then_follow.py

Blocks are numbered, so that this stream says of itself whether it is whole: no number is missing, none twice.
"""

import asyncio
from collections import Counter
from datetime import timedelta

from service import service

from bqstream import Client, Timeouts

BLOCKS = "subscription { EVM(network: eth) { Blocks { Block { Number Hash Time } } } }"
AGE = timedelta(seconds=3)  # so that it is soon over; an hour, or a day, is a good value
FOLLOW = 15  # blocks, after those from before


async def main() -> None:
    blocks: Counter[tuple[int, str]] = Counter()  # a fork brings a number again, by another hash
    before = 0
    async with (
        service(blocks=20),
        Client(timeouts=Timeouts(grace=0.5)) as client,
        # An age, a datetime, or a block's number; or resume=checkpoint, to go on where another process stopped.
        client.subscribe(BLOCKS, since=AGE) as stream,
    ):
        async for message in stream:
            rows = [row["Block"] for row in message.rows()]
            blocks.update((int(block["Number"]), block["Hash"]) for block in rows)
            if message.replayed:
                before += len(rows)
            if blocks.total() - before >= FOLLOW and not stream.closing:
                break
        for gap in stream.gaps:
            print(f"{gap.cause}: {gap.how or gap.reason}")
    numbers = {number for number, _ in blocks}
    missing = max(numbers) - min(numbers) + 1 - len(numbers)
    twice = sum(count - 1 for count in blocks.values())
    print(f"blocks {min(numbers)} to {max(numbers)}: {before} from before, {blocks.total() - before} live")
    print(f"{missing} missing, {twice} twice")


if __name__ == "__main__":
    asyncio.run(main())
