"""The picture as server-sent events: whole at first, then what has changed, twice a second."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web
from aiohttp_sse import sse_response

from ...picture import changes, text
from ..monitor import TICK, Monitor, Picture

# Changes that may wait for one page, and pages that may be open.
WAITING, READERS = 8, 64
_RETRY = 1000  # milliseconds, after which a browser connects anew
_SERIES = ("samples",)  # of which only what is new is sent


class Feed:
    """Sends what ``monitor`` sees to every page that is open. A page that does not keep up is cut off, and comes again
    by itself."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._readers: dict[asyncio.Queue[str | None], asyncio.Transport | None] = {}
        self._shown: dict[str, Any] = {}

    async def run(self) -> None:
        """Send changes until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            if self._readers:
                before, self._shown = self._shown, shown(self._monitor.picture())
                self._send(encode(changes(before, self._shown, _SERIES)))

    def _send(self, data: str) -> None:
        for queue, transport in list(self._readers.items()):
            if queue.full():
                del self._readers[queue]
                if transport is not None:
                    transport.abort()
            else:
                queue.put_nowait(data)

    def close(self) -> None:
        """Let every page go."""
        for queue, transport in self._readers.items():
            if queue.full() and transport is not None:
                transport.abort()
            else:
                queue.put_nowait(None)
        self._readers.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /events``: the event ``picture`` once, then one ``change`` after the other."""
        if len(self._readers) >= READERS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n", headers={"Retry-After": "10"})
        async with sse_response(request) as response:
            if not self._readers:
                self._shown = shown(self._monitor.picture())
            queue: asyncio.Queue[str | None] = asyncio.Queue(WAITING)
            self._readers[queue] = request.transport
            try:
                await response.send(encode(self._shown), event="picture", retry=_RETRY)
                while (data := await queue.get()) is not None:
                    await response.send(data, event="change")
            except ConnectionError:
                pass  # the browser has left, or was cut off
            finally:
                self._readers.pop(queue, None)
        return response


def shown(picture: Picture) -> dict[str, Any]:
    """The picture in the page's terms, by its parts."""
    return {
        "at": picture.at.timestamp(),
        "started": picture.started,
        "client": picture.client,
        "shed": picture.shed,
        "collectors": picture.collectors,
        "samples": dict(picture.samples),
        "links": picture.links,
        "tokens": picture.tokens,
        "gaps": picture.gaps,
        "events": picture.events,
        "rows": tuple(
            (table, tuple((column, text(value)) for column, value in row.items()))
            for table, row in picture.rows
        ),
    }


def encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()
