"""A collector in a process of its own, into SQLite; SIGTERM stops it.

    python -m tests.integration.collecting_process DATABASE DOCUMENT

The service's address and credentials come from the environment, and so does the failpoint that kills it.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from bqstream import Backoff, Client, Timeouts
from bqstream.collect import Batching, Collector


async def main(path: str, document: str) -> None:
    async with Client(timeouts=Timeouts(grace=0.5), backoff=Backoff(initial=0.1)) as client:
        collector = Collector(
            client,
            document,
            f"sqlite:{path}",
            batching=Batching(seconds=0.2),
            columns={"Block_Number": "text"},
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, collector.stop)
        collected = await collector.run()
        assert not collected.holes, collector.status()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
