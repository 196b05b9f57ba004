"""Scenario ``memory``: a collector's memory while ten million rows go through it, as fast as its sink takes them.

It runs in a process of its own, whose proportional set size is looked at from outside twice a second, together with how
many rows are committed. Rows come some ten times as fast as from the busiest cube, so that what is kept of the last
minute is more than anywhere else.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

from .children import Child, child, has_proc
from .load import serving
from .rounds import Figures
from .sinks import sent
from .trades import DOCUMENT, Trades, texts

MESSAGE_ROWS = 100
LOOK = 0.5  # seconds
SINKS = ("sqlite:{}/rows.db", "jsonl:{}/rows.jsonl?compress=zstd&rotate=100MB")
PARTS = 5  # of the rows: the memory of each is told by the median of what was seen
DONE = -1


def collect(port: Connection, url: str, address: str) -> None:
    """Collect until the service completes; say when asked how many rows are committed, and at the end `DONE`."""
    from bqstream import Client
    from bqstream.collect import Collector

    async def main() -> None:
        async with Client("token-of-the-benchmark", endpoint=url) as client:
            collector = Collector(client, DOCUMENT, address)
            running = asyncio.create_task(collector.run())
            while not running.done():
                if port.poll():
                    port.recv()
                    port.send(collector.status().rows)
                await asyncio.wait({running}, timeout=LOOK / 10)
            assert (await running).gaps == 0
            port.recv()
            port.send(DONE)
            port.recv()

    asyncio.run(main())


def watch(running: Child, total: int) -> dict[str, Any]:
    began = time.monotonic()
    seen: list[tuple[int, float]] = []
    while (rows := running.ask("how many")) != DONE:
        if rows:
            seen.append((rows, running.memory()))
        time.sleep(LOOK)
    seconds = time.monotonic() - began
    parts: list[list[float]] = [[] for _ in range(PARTS)]
    for rows, memory in seen:
        parts[min(rows * PARTS // total, PARTS - 1)].append(memory)
    return {
        "mb_by_part": [statistics.median(part) if part else None for part in parts],
        "peak_mb": max(memory for _, memory in seen),
        "rows_per_second": total / seconds,
        "rows": total,
    }


def run(*, quick: bool) -> Figures:
    if not has_proc():
        print("\nmemory: left out, since this system does not tell how much memory a process has")
        return []
    total = 300_000 if quick else 10_000_000
    texts(sent(), MESSAGE_ROWS)  # here, so that no server has to make them
    figures: Figures = []
    print(
        f"\nmemory of a collector, in MB, over {total:,} rows: the median of each fifth of them, and the most"
    )
    for sink in SINKS[:1] if quick else SINKS:
        name = sink.partition(":")[0]
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(Trades(total // MESSAGE_ROWS, MESSAGE_ROWS)) as server,
            child(collect, server.url, sink.format(folder)) as running,
        ):
            found = watch(running, total)
        sizes = "".join(f"{size:>8.0f}" if size else "       -" for size in found["mb_by_part"])
        print(f"  {name:10}{sizes}{found['peak_mb']:>10.0f}    {found['rows_per_second']:,.0f} rows/s")
        figures.append({"sink": name, **found})
    return figures
