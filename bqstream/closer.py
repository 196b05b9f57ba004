"""Sends the queries that close gaps: a task for each stream that has a gap, few queries at once."""

from __future__ import annotations

import asyncio

import anyio.abc

from .clock import Clock
from .delivery.backfill import Ask, Sleep
from .delivery.stream import Stream
from .errors import BqstreamError, ConnectionGivenUp
from .query import Queries

# The smallest plan allows three requests at once (ide/paid).
AT_ONCE = 3


class Closer:
    """Does what `Stream.step` says, for as long as it says something. ``tasks`` owns what runs."""

    def __init__(self, queries: Queries, tasks: anyio.abc.TaskGroup, clock: Clock) -> None:
        self._queries = queries
        self._tasks = tasks
        self._now = clock.monotonic
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._running: set[Stream] = set()

    def close(self, stream: Stream) -> None:
        """A query can be sent for ``stream``. Idempotent; returns at once."""
        if stream not in self._running:
            self._running.add(stream)
            self._tasks.start_soon(self._run, stream)

    async def _run(self, stream: Stream) -> None:
        try:
            while (step := stream.step(self._now())) is not None:
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                else:
                    await self._ask(stream, step)
        finally:
            self._running.discard(stream)

    async def _ask(self, stream: Stream, ask: Ask) -> None:
        try:
            request = stream.request(ask)
            async with self._limit:
                data = await self._queries.fetch(request)
        except ConnectionGivenUp as error:
            # It passes, so that it is tried until nothing has moved for too long; but a dataset that does not have a
            # cube answers like a server that fails, for ever (graphql/data-coverage-retention).
            if ask.older:
                stream.query_failed(str(error), self._now())
        except (BqstreamError, ValueError) as error:
            stream.query_failed(str(error), self._now())
        else:
            stream.answered(ask, data, self._now())
