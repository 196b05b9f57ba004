"""Where the examples get their service from: yours if the environment names one, else the simulator.

Nothing in here is needed to use bqstream. It lets every example run as it stands, without an account.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from bqstream.simulator import Simulator

DOCUMENTS = Path(__file__).parent / "documents"
_NAMES = ("BITQUERY_TOKEN", "BITQUERY_TOKEN_FILE", "BITQUERY_CLIENT_ID", "BITQUERY_CLIENT_ID_FILE")


@asynccontextmanager
async def service(*, token_ttl: float = 3600, blocks: int = 0) -> AsyncIterator[None]:
    """Put a simulator's address and credentials into the environment, unless there are some.

    Its chain has so many ``blocks`` already.
    """
    if any(os.environ.get(name) for name in _NAMES):
        yield
        return
    async with Simulator(token_ttl=token_ttl, block_interval=0.25, seed=1) as simulator:
        os.environ["BITQUERY_ENDPOINT"] = simulator.endpoint
        os.environ["BITQUERY_TOKEN_URL"] = simulator.token_url
        os.environ["BITQUERY_CLIENT_ID"] = simulator.client_id
        os.environ["BITQUERY_CLIENT_SECRET"] = simulator.client_secret
        await simulator.blocks(blocks)
        yield


@asynccontextmanager
async def webhook() -> AsyncIterator[tuple[str, Counter[str]]]:
    """Where alerts go, and how often each got through: ``WEBHOOK_URL``, else a receiver that fails as they do.

    Every fifth time it is busy, and every seventh it takes the alert and dies before it says so.
    """
    received: Counter[str] = Counter()
    if url := os.environ.get("WEBHOOK_URL"):
        yield url, received
        return
    keys: set[str] = set()
    posts = 0

    async def receive(request: web.Request) -> web.Response:
        nonlocal posts
        posts += 1
        if posts % 5 == 0:
            raise web.HTTPServiceUnavailable
        alert = await request.json()
        if (key := request.headers["Idempotency-Key"]) not in keys:
            keys.add(key)
            received[alert["text"]] += 1
        if posts % 7 == 0 and request.transport is not None:
            request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/alerts", receive)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/alerts", received
    finally:
        await runner.cleanup()
