"""A receiver of webhooks that dies: ``python -m tests.integration.webhook_receiver PORT DATABASE POSTS WHEN``.

It keeps each alert under its idempotency key, as receivers do, and kills itself at the post of that number: "before" it
has kept the alert, or "after" that, and before it says so.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys

from aiohttp import web


def main() -> None:
    port, path, posts, when = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE IF NOT EXISTS alerts (key TEXT PRIMARY KEY, text TEXT)")
    database.execute("CREATE TABLE IF NOT EXISTS posts (key TEXT)")
    database.commit()
    left = posts

    async def receive(request: web.Request) -> web.Response:
        nonlocal left
        alert, key = await request.json(), request.headers["Idempotency-Key"]
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        with database:
            database.execute("INSERT INTO posts VALUES (?)", (key,))
            database.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?)", (key, alert["text"]))
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return web.Response(status=503 if left == posts // 2 else 200)

    app = web.Application()
    app.router.add_post("/", receive)
    web.run_app(app, host="127.0.0.1", port=port, print=lambda _: print("serving", flush=True))


if __name__ == "__main__":
    main()
