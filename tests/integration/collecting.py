"""A process that collects one subscription from a simulator, and is watched: what there is to be seen of one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bqstream import Client
from bqstream.collect import Batching, Collector
from bqstream.collect.monitor import Monitor
from bqstream.simulator import Simulator

from .harness import TRANSFERS, client_for, until


@dataclass
class Watched:
    simulator: Simulator
    client: Client
    monitor: Monitor
    collector: Collector


@contextlib.asynccontextmanager
async def watching(
    folder: Path, client: Mapping[str, Any] | None = None, **service: Any
) -> AsyncIterator[Watched]:
    """Rows are being committed to SQLite, twice a second, when this is entered."""
    monitor = Monitor()
    async with (
        Simulator(**{"block_interval": 0.2, "transactions": 3, **service}) as simulator,
        client_for(simulator, on_event=monitor.event, **(client or {})) as opened,
    ):
        sink = f"sqlite:{folder / 'transfers.db'}"
        collector = Collector(opened, TRANSFERS, sink, batching=Batching(seconds=0.5))
        monitor.watch(opened, [collector])
        tasks = [asyncio.create_task(work) for work in (collector.run(), monitor.run())]
        try:
            await until(lambda: collector.status().rows or tasks[0].done())
            yield Watched(simulator, opened, monitor, collector)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
