"""What waits to be sent on one socket: bounded, in order, and late where it is told to be."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import WSMsgType, web

_TURN = 128


class Outbox:
    """Two queues: urgent frames (acks, keep-alives, errors) at once, data after its lag.

    ``on_full``  is called once, when more waits than the bounds allow.
    ``on_data``  is called for each data frame that was written.

    ``lag`` may be changed at any time. ``run`` belongs to the socket, which cancels it; only ``flushed`` waits, the
    rest returns at once.
    """

    def __init__(
        self,
        ws: web.WebSocketResponse,
        *,
        messages: int,
        size: int,
        lag: float,
        on_full: Callable[[], None],
        on_data: Callable[[], None],
    ) -> None:
        self._ws = ws
        self._bounds = messages, size
        self.lag = lag
        self._on_full = on_full
        self._on_data = on_data
        self._urgent: deque[tuple[WSMsgType, bytes]] = deque()
        self._data: deque[tuple[float, bytes, bool]] = deque()
        self._size = 0
        self._padding = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._open = True
        self._data_open = True

    def urgent(self, frame: bytes, opcode: WSMsgType = WSMsgType.TEXT) -> None:
        """Send before any data that waits."""
        if self._open:
            self._urgent.append((opcode, frame))
            self._put(frame)

    def data(self, frame: bytes) -> None:
        """Send after this socket's lag."""
        if self._padding:
            frame, self._padding = frame + b" " * self._padding, 0
        self._late(frame, True)

    def last(self, frame: bytes) -> None:
        """Send the frame that ends an operation: after the data that waits, since none may follow it."""
        if self._data_open:
            self._late(frame, False)
        else:
            self.urgent(frame)

    def _late(self, frame: bytes, is_data: bool) -> None:
        if self._open and self._data_open:
            due = asyncio.get_running_loop().time() + self.lag if self.lag else 0.0
            self._data.append((due, frame, is_data))
            self._put(frame)

    def _put(self, frame: bytes) -> None:
        self._size += len(frame)
        self._empty.clear()
        self._wake.set()
        messages, size = self._bounds
        if len(self._data) + len(self._urgent) > messages or self._size > size:
            self.stop()
            self._on_full()

    def pad(self, size: int) -> None:
        """Make the next data frame longer by so many spaces, which JSON allows (RFC 8259 section 2)."""
        self._padding = size

    def stop_data(self) -> None:
        """Send no data any more; what waited is let go."""
        self._data_open = False
        self._size -= sum(len(frame) for _, frame, _ in self._data)
        self._data.clear()
        self._wake.set()

    def stop(self) -> None:
        """Send nothing any more; what waited is let go."""
        self._open = False
        self._urgent.clear()
        self._data.clear()
        self._size = 0
        self._wake.set()

    async def flushed(self) -> None:
        """Wait until nothing waits, or nothing will be sent."""
        await self._empty.wait()

    async def run(self) -> None:
        """Send until cancelled, or until the connection is gone."""
        sent = 0
        try:
            while True:
                if self._urgent:
                    opcode, frame = self._urgent.popleft()
                    await self._ws.send_frame(frame, opcode)
                elif self._data and self._due():
                    _, frame, is_data = self._data.popleft()
                    await self._ws.send_frame(frame, WSMsgType.TEXT)
                    if is_data:
                        self._on_data()
                else:
                    await self._pause()
                    continue
                self._size = max(0, self._size - len(frame))
                sent += 1
                if sent % _TURN == 0:
                    await asyncio.sleep(0)
        except ConnectionError:
            pass  # the reader sees the end of the connection too, and it is the reader who says why
        finally:
            self.stop()
            self._empty.set()

    def _due(self) -> bool:
        due = self._data[0][0]
        return due == 0.0 or due <= asyncio.get_running_loop().time()

    async def _pause(self) -> None:
        if not self._data:
            self._empty.set()
        self._wake.clear()
        try:
            async with asyncio.timeout_at(self._data[0][0] if self._data else None):
                await self._wake.wait()
        except TimeoutError:
            pass
