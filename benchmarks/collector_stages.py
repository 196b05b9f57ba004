"""Scenario ``collector-stages``: where a row's time goes, from the socket to a table of SQLite's.

A collector runs as it is; what its parts take is the processor time of the thread in which each works, and what is left
is the client's and the event loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from unittest import mock

from .load import serving
from .rounds import Figures
from .sinks import MESSAGE_ROWS, sent
from .trades import DOCUMENT, Trades, texts

RUNS = 3


def _parts() -> dict[str, tuple[Any, str]]:
    from bqstream.collect import writing
    from bqstream.collect.sinks.sqlite import SQLiteSink
    from bqstream.delivery.marks import Marks
    from bqstream.message import Message

    return {
        "message.checkpoint": (Marks, "at"),
        "message.data": (Message, "_decoded"),
        "rows put into columns": (writing, "flatten"),
        "all that makes a commit of a batch": (writing.Writing, "prepare"),
        "the sink's commit": (SQLiteSink, "_commit"),
    }


@contextlib.contextmanager
def _watched(took: dict[str, float]) -> Iterator[None]:
    """Add to ``took`` the seconds that each part takes."""

    def watch(name: str, work: Any) -> Any:
        @functools.wraps(work)
        def watched(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return work(*args, **options)
            finally:
                took[name] += time.thread_time() - began

        return watched

    with contextlib.ExitStack() as patches:
        for name, (owner, method) in _parts().items():
            patches.enter_context(mock.patch.object(owner, method, watch(name, getattr(owner, method))))
        yield


def stages(messages: int) -> dict[str, float]:
    """Microseconds a row."""
    from bqstream import Client
    from bqstream.collect import Collector

    async def collect(url: str, address: str) -> None:
        async with Client("token-of-the-benchmark", endpoint=url) as client:
            await Collector(client, DOCUMENT, address).run()

    took: dict[str, float] = defaultdict(float)
    with (
        serving(Trades(messages, MESSAGE_ROWS)) as server,
        tempfile.TemporaryDirectory() as folder,
        _watched(took),
    ):
        began = time.process_time()
        asyncio.run(collect(server.url, f"sqlite:{folder}/rows.db"))
        spent = time.process_time() - began
    making = took.pop("all that makes a commit of a batch")
    took["the rest of making a commit"] = making - took["message.data"] - took["rows put into columns"]
    took["socket, client and loop"] = spent - sum(took.values())
    took["all"] = spent
    return {name: seconds * 1e6 / (messages * MESSAGE_ROWS) for name, seconds in took.items()}


def run(*, quick: bool) -> Figures:
    texts(sent(), MESSAGE_ROWS)  # here, so that no server has to make them
    stages(50)  # what is imported once
    runs = [stages(300 if quick else 2_000) for _ in range(1 if quick else RUNS)]
    found = {name: min(one[name] for one in runs) for name in runs[0]}
    print(
        f"\ncollector stages: {MESSAGE_ROWS} rows a message, into SQLite; processor time, microseconds a row"
    )
    for name, microseconds in found.items():
        print(f"  {name:42}{microseconds:10.2f}")
    return [{"rows": MESSAGE_ROWS, "microseconds": found}]
