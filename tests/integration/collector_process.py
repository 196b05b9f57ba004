"""A collector in a process of its own: rows and checkpoint go into one SQLite transaction, so that it may die any time.

    python -m tests.integration.collector_process DATABASE message|stream DOCUMENT

The service's address and credentials come from the environment. What it has read so far it tells by one JSON line a
message on standard output, the first one when it has subscribed; after SIGTERM it commits what it has in hand and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from typing import Any

from bqstream import Backoff, Checkpoint, Client, Message, Timeouts
from bqstream.subscription import Subscription

SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, row TEXT NOT NULL, replayed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoints (
    number INTEGER PRIMARY KEY CHECK (number = 1), checkpoint TEXT NOT NULL, largest INTEGER NOT NULL
);
"""
SAVE = """
INSERT INTO checkpoints VALUES (1, ?1, length(?1)) ON CONFLICT DO UPDATE
SET checkpoint = excluded.checkpoint, largest = max(largest, excluded.largest)
"""
BATCH = 4  # messages in one transaction, at most: 1, 2, 3, 4, 1, 2 …


class Store:
    """The database. A process that is killed leaves it as it was after one of its transactions."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(SCHEMA)

    @property
    def checkpoint(self) -> Checkpoint | None:
        stored = self._database.execute("SELECT checkpoint FROM checkpoints").fetchone()
        return Checkpoint.loads(stored[0]) if stored else None

    @property
    def largest(self) -> int:
        """Of the checkpoints that were stored; bytes."""
        return int(self._database.execute("SELECT coalesce(max(largest), 0) FROM checkpoints").fetchone()[0])

    @property
    def replayed(self) -> int:
        """How many rows queries have brought."""
        return int(self._database.execute("SELECT count(*) FROM rows WHERE replayed").fetchone()[0])

    def rows(self) -> list[Any]:
        return [json.loads(row) for (row,) in self._database.execute("SELECT row FROM rows ORDER BY number")]

    def commit(self, messages: list[Message], checkpoint: Checkpoint) -> None:
        with self._transaction():
            for message in messages:
                for row in message.rows():
                    self._database.execute(
                        "INSERT INTO rows (row, replayed) VALUES (?, ?)", (json.dumps(row), message.replayed)
                    )
            self._database.execute(SAVE, (checkpoint.dumps(),))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()


def told(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def collect(stream: Subscription, store: Store, checkpoint: str) -> None:
    """Commit batches of messages, with the checkpoint of their last one (``checkpoint="message"``), or, once the next
    message is there, with that of the stream (``"stream"``)."""
    batch: list[Message] = []
    rows, commits = 0, 0
    try:
        async for message in stream:
            if checkpoint == "stream" and len(batch) > commits % BATCH:
                store.commit(batch, stream.checkpoint)
                batch, commits = [], commits + 1
            batch.append(message)
            rows += sum(1 for _ in message.rows())
            if checkpoint == "message" and len(batch) > commits % BATCH:
                store.commit(batch, message.checkpoint)
                batch, commits = [], commits + 1
            told(rows=rows, commits=commits, closing=stream.closing)
    finally:
        if batch:  # all that came in before it was asked to end
            store.commit(batch, batch[-1].checkpoint)


async def main(path: str, checkpoint: str, document: str) -> None:
    store = Store(path)
    async with (
        Client(timeouts=Timeouts(grace=0.5), backoff=Backoff(initial=0.1)) as client,
        client.subscribe(document, resume=store.checkpoint) as stream,
    ):
        told(rows=0, commits=0, closing=stream.closing)
        task = asyncio.create_task(collect(stream, store, checkpoint))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        told(holes=[str(gap) for gap in stream.gaps if gap.is_hole], gaps=[str(gap) for gap in stream.gaps])
    store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
