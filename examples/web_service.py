"""How do I feed a web service's visitors from one subscription, by server-sent events?

    python examples/web_service.py          # serves, reads five events as a visitor would, and ends
    python examples/web_service.py --serve  # serves on port 8080 until stopped; open /trades in a browser

One subscription, however many visitors: it costs the plan one stream. Each visitor has a bounded queue; one
who is too slow loses the oldest trades, and nobody else does.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response
from service import DOCUMENTS, service

from bqstream import Client

VISITORS: web.AppKey[set[asyncio.Queue[Any]]] = web.AppKey("visitors", set)


async def feed(app: web.Application) -> AsyncIterator[None]:
    """Hold the client and its subscription for as long as the application runs."""

    async def publish(client: Client) -> None:
        async with client.subscribe(DOCUMENTS / "trades.graphql", {"network": "eth"}) as stream:
            async for row in stream.rows():
                for queue in app[VISITORS]:
                    if queue.full():
                        queue.get_nowait()
                    queue.put_nowait(row)

    async with Client() as client:
        task = asyncio.create_task(publish(client))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def trades(request: web.Request) -> EventSourceResponse:
    """An event for each trade, until the visitor leaves."""
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1000)
    request.app[VISITORS].add(queue)
    try:
        async with sse_response(request) as response:
            with contextlib.suppress(ConnectionResetError):  # the visitor left
                while True:
                    await response.send(json.dumps(await queue.get()), event="trade")
        return response
    finally:
        request.app[VISITORS].discard(queue)


def application() -> web.Application:
    app = web.Application()
    app[VISITORS] = set()
    app.router.add_get("/trades", trades)
    app.cleanup_ctx.append(feed)
    return app


async def visit(url: str, events: int) -> None:
    """What a browser's EventSource does."""
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                row = json.loads(line.removeprefix(b"data: "))
                print(f"event: block {row['Block']['Number']}, {row['Trade']['Dex']['ProtocolName']}")
                events -= 1
                if not events:
                    return


async def main() -> None:
    serve = "--serve" in sys.argv
    async with service():
        runner = web.AppRunner(application(), shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 8080 if serve else 0).start()
            host, port = runner.addresses[0][:2]
            print(f"serving on http://{host}:{port}/trades" if serve else "serving")
            if serve:
                await asyncio.Event().wait()
            await visit(f"http://{host}:{port}/trades", events=5)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
