"""Standard output for a program that must not stop: a slow pipe holds up the reader, never the event loop."""

from __future__ import annotations

import asyncio
import os
import select

_CHUNK = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512


class Output:
    """Bytes to a file descriptor, in order, without blocking the loop.

    A descriptor that is said to be writable takes ``PIPE_BUF`` bytes without blocking (pipe(7)): all goes in
    pieces of that size, each after room was seen for it. Regular files always have room.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, data: bytes) -> None:
        """Write all of ``data``; cancelling may leave a part.

        Raises BrokenPipeError when the reader is gone.
        """
        left = memoryview(data)
        while left:
            if not select.select([], [self._descriptor], [], 0)[1]:
                await self._room()
            left = left[os.write(self._descriptor, left[:_CHUNK]) :]

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._descriptor)
