"""Scenario ``frames``: rows of a subscription as tables, beside Polars that reads the same rows from a file.

The rows come from a service on this machine, through a client with its default settings; the file has one a line, as
the service nests them, without the fields that the client adds. Then the memory that a table takes while it grows, in
a process of its own: the most that is resident, less what was before, by the size of the table.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .children import child, has_proc
from .load import serving
from .rounds import Figures, Read, measure, show, warm
from .sinks import nested_of, sent
from .trades import DOCUMENT, Trades, payloads, texts

if TYPE_CHECKING:
    from bqstream import Subscription

MESSAGE_ROWS = 100
FILE = "polars.read_ndjson"
WAYS: dict[str, Callable[[Subscription, int], Awaitable[Any]]] = {
    "to_arrow": lambda stream, rows: stream.to_arrow(rows=rows),
    "to_polars": lambda stream, rows: stream.to_polars(rows=rows),
    "to_pandas": lambda stream, rows: stream.to_pandas(rows=rows),
}


async def table_of(url: str, way: str, rows: int) -> Any:
    from bqstream import Client

    async with (
        Client("token-of-the-benchmark", endpoint=url) as client,
        client.subscribe(DOCUMENT) as stream,
    ):
        return await WAYS[way](stream, rows)


def readers(file: Path, rows: int) -> dict[str, Read]:
    import polars

    def reader(way: str) -> Read:
        async def read(url: str) -> int:
            return len(await table_of(url, way, rows))

        return read

    async def from_file(url: str) -> int:
        return polars.read_ndjson(file).height

    return {FILE: from_file, **{way: reader(way) for way in WAYS}}


def write(file: Path, messages: int) -> None:
    encode = msgspec.json.Encoder().encode_lines
    with file.open("wb") as lines:
        for raw in islice(payloads(DOCUMENT, MESSAGE_ROWS), messages):
            lines.write(encode(nested_of([raw])))


# ---------------------------------------------------------------------- memory


def grow(port: Connection, small: str, url: str, way: str, rows: int) -> None:
    """Make a small table, then the large one; tell its size, and what was resident before and at the most; in bytes."""
    asyncio.run(table_of(small, way, MESSAGE_ROWS))
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    table = asyncio.run(table_of(url, way, rows))
    most = _status("VmHWM")
    size = table.estimated_size() if way == "to_polars" else table.nbytes
    port.send((len(table), size, before, most))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def memory(messages: int) -> Figures:
    figures: Figures = []
    rows = messages * MESSAGE_ROWS
    print(f"\nmemory of a table of {rows:,} rows while it grows, in MB")
    print(f"  {'':32}{'table':>12}{'at most':>14}{'x table':>12}")
    for way in ("to_arrow", "to_polars"):
        with (
            serving(Trades(1, MESSAGE_ROWS)) as small,
            serving(Trades(messages, MESSAGE_ROWS)) as server,
            child(grow, small.url, server.url, way, rows) as running,
        ):
            found, size, before, most = running.port.recv()
        assert found == rows, f"{way} read {found} rows of {rows}"
        print(f"  {way:32}{size / 1e6:>12.0f}{(most - before) / 1e6:>14.0f}{(most - before) / size:>12.2f}")
        figures.append({"reader": way, "table_mb": size / 1e6, "times_the_table": (most - before) / size})
    return figures


def run(*, quick: bool) -> Figures:
    texts(sent(), MESSAGE_ROWS)  # here, so that no server has to make them
    messages, rounds = (500, 2) if quick else (10_000, 3)
    with tempfile.TemporaryDirectory() as folder:
        file, few = Path(folder, "rows.ndjson"), Path(folder, "few.ndjson")
        write(file, messages)
        write(few, 1)
        with serving(Trades(1, MESSAGE_ROWS)) as small:
            asyncio.run(warm(small.url, readers(few, MESSAGE_ROWS)))
        found = readers(file, messages * MESSAGE_ROWS)
        with serving(Trades(messages, MESSAGE_ROWS)) as server:
            took = asyncio.run(measure(server.url, found, messages * MESSAGE_ROWS, 1, rounds))
    title = f"tables of {messages * MESSAGE_ROWS:,} rows, {MESSAGE_ROWS} a message"
    figures = show(title, took, [FILE], unit="rows")
    if has_proc() and not quick:  # a small table is less than what waits in the client's buffers
        figures += memory(messages)
    return figures
