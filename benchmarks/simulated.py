"""The project's own simulator in a process of its own, asked over a pipe."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from .children import Child, child


def serve(port: Connection, options: dict[str, Any]) -> None:
    """Run a simulator, paused, and do what is asked over ``port``."""
    from bqstream.simulator import Simulator

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Simulator(**options) as simulator:
            simulator.pause()
            port.send((simulator.endpoint, simulator.token()))
            while True:
                what, *arguments = await loop.run_in_executor(None, port.recv)
                port.send(await answer(simulator, what, *arguments))

    asyncio.run(main())


async def answer(simulator: Any, what: str, *arguments: Any) -> Any:
    match what:
        case "resume":
            return simulator.resume()
        case "drain":
            simulator.pause()
            return await simulator.drained()
        case "rows":  # all that were emitted since the document went live, in order
            return [row for _, _, row in simulator.ledger.rows(*arguments)]
        case "count":
            return simulator.counters[arguments[0]]
    raise LookupError(what)


@contextlib.contextmanager
def simulated(**options: Any) -> Iterator[tuple[Child, str, str]]:
    """A simulator whose chain stands still: what it is asked over, its endpoint and a token."""
    with child(serve, options) as running:
        endpoint, token = running.port.recv()
        yield running, endpoint, token
