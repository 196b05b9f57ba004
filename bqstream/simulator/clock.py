"""The service's one clock: its blocks, its ``Date`` and its dataset windows are read off it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web


class Clock:
    """UTC from ``start`` on, cut to whole seconds, and as fast as the running loop's time, real or virtual.

    So a machine that sleeps, or a wall clock that is set, moves neither the blocks nor the ``Date``.
    """

    def __init__(self, start: datetime) -> None:
        self.start = start.astimezone(UTC).replace(microsecond=0)
        self._zero = asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """The time now, to the microsecond."""
        return self.start + timedelta(seconds=asyncio.get_running_loop().time() - self._zero)

    async def stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put the ``Date`` (RFC 9110 section 6.6.1) on an answer: aiohttp has put the machine's own there."""
        response.headers["Date"] = format_datetime(self.now(), usegmt=True)
