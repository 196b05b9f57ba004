"""How do I keep every row in a database, each of them once, however often the program ends?

python examples/collect.py
"""

import asyncio
import contextlib
import sqlite3
import tempfile
from pathlib import Path

from service import service

from bqstream import Client, Timeouts
from bqstream.collect import Batching, Collector

TRANSFERS = """subscription { EVM(network: eth) { Transfers {
    Block { Number Time } Transaction { Hash } Transfer { Amount Index Sender Receiver } Log { Index } Call { Index }
} } }"""


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.db"
        async with service(), Client(timeouts=Timeouts(grace=0.5)) as client:
            for life in (1, 2):
                collector = Collector(
                    client,
                    TRANSFERS,
                    f"sqlite:{path}",  # or jsonl:, parquet:, duckdb:, postgresql://, nats://, or a Sink of your own
                    table="transfers",
                    batching=Batching(seconds=0.5),  # a commit holds rows, gaps and checkpoint
                    limit=60,  # without it: until collector.stop()
                )
                done = await collector.run()
                with contextlib.closing(sqlite3.connect(path)) as database:
                    rows, different = database.execute(
                        "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT * FROM transfers)) FROM transfers"
                    ).fetchone()
                print(f"life {life}: {done.rows} rows by {done.commits} commits, {done.holes} holes")
                print(f"  the table has {rows}, {different} of them different")
                await asyncio.sleep(1)  # nobody collects, and nothing is missed


if __name__ == "__main__":
    asyncio.run(main())
