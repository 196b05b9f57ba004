"""A collector to be looked at: it reads a subscription, and says that what it read is committed. There is no sink."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bqstream import Client
from bqstream.collect.monitor import Monitor
from bqstream.collect.status import CollectorStatus
from bqstream.simulator import Simulator
from bqstream.subscription import Subscription

from .harness import TRANSFERS, client_for


class Counting:
    """Commits all that came in twice a second, to nowhere."""

    def __init__(self, name: str, subscription: Subscription) -> None:
        self._name = name
        self._subscription = subscription
        self._last: deque[tuple[str, Mapping[str, Any]]] = deque(maxlen=20)
        self._rows = self._commits = 0
        self._committed_at: datetime | None = None
        self._newest: datetime | None = None
        self.overdue = False
        self.trouble = ""

    @property
    def last_rows(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        return tuple(self._last)

    def status(self) -> CollectorStatus:
        gaps = self._subscription.gaps
        return CollectorStatus(
            name=self._name,
            operation=self._subscription.operation,
            sink="sqlite:transfers.db",
            state="retrying" if self.trouble else "collecting",
            trouble=self.trouble,
            tables=("transfers",),
            rows=self._rows,
            commits=self._commits,
            committed_at=self._committed_at,
            commit_seconds=0.004,
            committing_seconds=0.004 * self._commits,
            overdue=self.overdue,
            gaps=len(gaps),
            holes=sum(gap.is_hole for gap in gaps),
            newest=self._newest,
        )

    async def run(self) -> None:
        async for batch in self._subscription.message_batches(seconds=0.5):
            rows = [dict(_leaves(row)) for message in batch for row in message.rows()]
            self._rows += len(rows)
            self._commits += 1
            self._committed_at = datetime.now(UTC)
            for row in rows[-20:]:
                self._last.append(("transfers", row))
                if (time := row.get("Block_Time")) is not None:
                    self._newest = datetime.fromisoformat(time)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield "_".join(path), value


@dataclass
class Watched:
    simulator: Simulator
    client: Client
    monitor: Monitor
    collector: Counting


@contextlib.asynccontextmanager
async def watching(client: Mapping[str, Any] | None = None, **service: Any) -> AsyncIterator[Watched]:
    """A process that collects one subscription from a simulator, with a monitor that watches it."""
    monitor = Monitor()
    async with (
        Simulator(**{"block_interval": 0.2, "transactions": 3, **service}) as simulator,
        client_for(simulator, on_event=monitor.event, **(client or {})) as opened,
        opened.subscribe(TRANSFERS) as subscription,
    ):
        collector = Counting("transfers", subscription)
        monitor.watch(opened, [collector])
        tasks = [asyncio.create_task(work) for work in (collector.run(), monitor.run())]
        try:
            yield Watched(simulator, opened, monitor, collector)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
