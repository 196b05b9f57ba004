"""A collector in a process of its own, which may die at any time.

    python -m tests.collecting.process SINK

The service comes from the environment. It tells its status by JSON lines, and commits and ends after SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from typing import Any

from bqstream import Backoff, Client, Timeouts
from bqstream.collect import Batching, Collector

from .documents import DOCUMENT

BATCHING = Batching(seconds=0.3)
TELL = 0.1


async def main(sink: str) -> None:
    timeouts = Timeouts(connect=2.0, ack=2.0, idle=2.0, grace=0.3)
    backoff = Backoff(initial=0.1, maximum=0.5)
    async with Client(timeouts=timeouts, backoff=backoff) as client:
        collector = Collector(client, DOCUMENT, sink, name="all", batching=BATCHING, backoff=backoff)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, collector.stop)
        telling = asyncio.create_task(tell(client, collector))
        try:
            done = await collector.run()
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling
        say(rows=done.rows, commits=done.commits, closing=False, misfits=done.misfits, holes=done.holes)


async def tell(client: Client, collector: Collector) -> None:
    while True:
        status, streams = collector.status(), client.status().subscriptions
        say(
            rows=status.rows,
            commits=status.commits,
            closing=any(stream.closing for stream in streams),
            misfits=status.misfits,
            holes=status.holes,
            trouble=status.trouble,
        )
        await asyncio.sleep(TELL)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
