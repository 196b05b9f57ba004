"""How do I go on where I stopped, without losing a row or storing one twice?

python examples/resume.py
"""

import asyncio
import contextlib
import sqlite3

from service import service

from bqstream import Checkpoint, Client, Timeouts

TRANSFERS = """subscription { EVM(network: eth) { Transfers {
    Block { Number } Transaction { Hash } Transfer { Amount Index Sender Receiver } Log { Index } Call { Index }
} } }"""


async def collect(database: sqlite3.Connection, messages: int) -> None:
    """Store the rows of so many messages; what was stored before is gone on from."""
    stored = database.execute("SELECT text FROM checkpoint").fetchone()
    resume = Checkpoint.loads(stored[0]) if stored else None
    timeouts = Timeouts(grace=0.5)
    async with Client(timeouts=timeouts) as client, client.subscribe(TRANSFERS, resume=resume) as stream:
        async for message in stream:
            rows = [(str(row),) for row in message.rows()]
            with database:  # rows and checkpoint in one transaction: both are stored, or neither
                database.executemany("INSERT INTO rows VALUES (?)", rows)
                database.execute("DELETE FROM checkpoint")
                database.execute("INSERT INTO checkpoint VALUES (?)", (message.checkpoint.dumps(),))
            messages -= 1
            if messages <= 0 and not stream.closing:
                break
        for gap in stream.gaps:
            print(f"  {gap.cause}: {gap.how or gap.reason}")


async def main() -> None:
    async with service():
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.execute("CREATE TABLE rows (row TEXT)")
            database.execute("CREATE TABLE checkpoint (text TEXT)")
            for life in (1, 2):
                await collect(database, messages=15)
                rows, different = database.execute(
                    "SELECT count(*), count(DISTINCT row) FROM rows"
                ).fetchone()
                print(f"after life {life}: {rows} rows, {different} of them different")
                await asyncio.sleep(1)  # nobody listens


if __name__ == "__main__":
    asyncio.run(main())
