"""The one call that blocks, for scripts and consoles without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .client import Client
from .errors import UsageError
from .frames import check_bounds, library

if TYPE_CHECKING:
    import pyarrow


def sample(
    document: str | Path | Any,
    variables: Mapping[str, Any] | None = None,
    *,
    rows: int | None = None,
    seconds: float | None = None,
    cube: str | None = None,
    columns: Mapping[str, str] | None = None,
    decimals: bool = False,
    credentials: Any = None,
    **client: Any,
) -> pyarrow.Table:
    """Subscribe, read a ``pyarrow.Table``, close all again, and return it (extra ``arrow``).

        polars.from_arrow(bqstream.sample(Path("trades.graphql"), {"network": "eth"}, rows=1000, seconds=60))

    It blocks until there are so many ``rows``, or ``seconds`` have passed since the subscription was live, or the
    service has ended it. Ctrl-C closes all, and gives no table. A service that cannot be reached is tried again for as
    long as ``backoff`` says: without an end, or ``backoff=Backoff(attempts=3)``.

    Args:
        document, variables: as ``Client.subscribe`` takes them.
        rows, seconds, cube, columns, decimals: as ``Subscription.to_arrow`` takes them.
        credentials, client: as `Client` takes them; all of them come from the environment if they are not given.

    Raises:
        UsageError: an event loop is running, as in a notebook, whose work this would hold up; the call is wrong;
            pyarrow is not installed.
        BqstreamError: whatever opening a client, ``subscribe`` and ``to_arrow`` raise.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError(
            "sample() blocks, and an event loop is running here, as in a notebook: client = await bqstream.connect(), "
            "then stream = await client.subscribe(document), then await stream.to_arrow(rows=1000)"
        )
    library("arrow", "pyarrow")
    check_bounds(rows, seconds)

    async def read() -> pyarrow.Table:
        async with Client(credentials, **client) as opened, opened.subscribe(document, variables) as stream:
            return await stream.to_arrow(rows, seconds, cube=cube, columns=columns, decimals=decimals)

    return asyncio.run(read())
