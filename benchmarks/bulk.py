"""Each sink's place, and beside it the way in which its own library takes many rows at once, from memory.

A library's way has no state, no gaps and no rows that do not fit; what it writes is as safe as with the sink where the
library leaves a choice (one transaction a batch, the file synced). In a bucket only the tests' simulated one could be
measured, so that is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bqstream.collect import Table


class Memory(NamedTuple):
    """One batch's rows: as the service nests them, and by column."""

    nested: Sequence[Any]
    columns: Sequence[list[Any]]


class NotThere(Exception):
    """What the sink needs is not installed here."""


Write = Callable[[Memory], Awaitable[None]]


@dataclass(frozen=True)
class Place:
    """``address``: gives the sink's, each time one where nothing is yet. ``bulk``: the library's own way, anew."""

    address: Callable[[], str]
    bulk: Callable[[], contextlib.AbstractAsyncContextManager[Write]]


@contextlib.contextmanager
def jsonl(folder: Path, table: Table, *, options: str = "") -> Iterator[Place]:
    """Lines by msgspec."""
    import zstandard

    number = count()

    @contextlib.asynccontextmanager
    async def bulk() -> AsyncIterator[Write]:
        encode, compressor = msgspec.json.Encoder().encode_lines, zstandard.ZstdCompressor(3)
        with (folder / f"bulk{next(number)}").open("ab") as file:

            async def write(rows: Memory) -> None:
                text = encode(rows.nested)
                file.write(compressor.compress(text) if options else text)
                file.flush()
                os.fsync(file.fileno())

            yield write

    yield Place(lambda: f"jsonl:{folder}/rows{next(number)}{options}", bulk)


def zstd(folder: Path, table: Table) -> contextlib.AbstractContextManager[Place]:
    """The same, each batch a frame."""
    return jsonl(folder, table, options="?compress=zstd")


@contextlib.contextmanager
def parquet(folder: Path, table: Table) -> Iterator[Place]:
    """``Table.from_pydict`` and ``write_table``: a file a batch, not synced."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = count()

    @contextlib.asynccontextmanager
    async def bulk() -> AsyncIterator[Write]:
        async def write(rows: Memory) -> None:
            made = pa.Table.from_pydict(dict(zip(table.names, rows.columns, strict=True)))
            pq.write_table(made, folder / f"bulk{next(number)}.parquet", compression="zstd")

        yield write

    yield Place(lambda: f"parquet:{folder}/rows{next(number)}", bulk)


@contextlib.contextmanager
def duckdb(folder: Path, table: Table) -> Iterator[Place]:
    """INSERT … SELECT from an Arrow table; the file is opened once, so that nobody else reads."""
    import duckdb as library
    import pyarrow as pa

    from bqstream.collect.sinks.duckdb import _TYPES as TYPES

    number = count()

    @contextlib.asynccontextmanager
    async def bulk() -> AsyncIterator[Write]:
        with library.connect(folder / f"bulk{next(number)}") as database:
            database.execute(f"CREATE TABLE bulk ({_columns(table, TYPES)})")

            async def write(rows: Memory) -> None:
                made = pa.Table.from_pydict(dict(zip(table.names, rows.columns, strict=True)))
                database.register("made", made)
                database.execute("INSERT INTO bulk SELECT * FROM made")

            yield write

    yield Place(lambda: f"duckdb:{folder}/rows{next(number)}", bulk)


@contextlib.contextmanager
def sqlite(folder: Path, table: Table) -> Iterator[Place]:
    """``executemany`` in one transaction, with the sink's pragmas."""
    from bqstream.collect.sinks.sqlite import _TYPES as TYPES

    number = count()
    times = [place for place, column in enumerate(table.columns) if column.kind == "timestamp"]
    insert = f"INSERT INTO bulk VALUES ({', '.join('?' * len(table.columns))})"

    @contextlib.asynccontextmanager
    async def bulk() -> AsyncIterator[Write]:
        opened = sqlite3.connect(folder / f"bulk{next(number)}", isolation_level=None)
        with contextlib.closing(opened) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"CREATE TABLE bulk ({_columns(table, TYPES)})")

            async def write(rows: Memory) -> None:
                columns = list(rows.columns)
                for place in times:  # who writes to SQLite has them as text
                    columns[place] = [value.isoformat() for value in columns[place]]
                database.execute("BEGIN")
                database.executemany(insert, zip(*columns, strict=True))
                database.execute("COMMIT")

            yield write

    yield Place(lambda: f"sqlite:{folder}/rows{next(number)}", bulk)


@contextlib.contextmanager
def postgresql(folder: Path, table: Table) -> Iterator[Place]:
    """COPY by ``write_row`` in one transaction. The server is that of the tests, which does not sync."""
    import psycopg

    from bqstream.collect.sinks.postgresql import _TYPES as TYPES
    from tests import postgresql_server

    programs = postgresql_server._programs()
    if programs is None:
        raise NotThere("PostgreSQL's server is not installed")
    server, number = postgresql_server.PostgreSQLServer(programs), count()
    try:
        database = server.database()

        @contextlib.asynccontextmanager
        async def bulk() -> AsyncIterator[Write]:
            name = f"bulk{next(number)}"
            with psycopg.connect(server.address(database)) as connection:
                connection.execute(f"CREATE TABLE {name} ({_columns(table, TYPES)})".encode())
                connection.commit()

                async def write(rows: Memory) -> None:
                    with connection.cursor().copy(f"COPY {name} FROM STDIN".encode()) as copy:
                        for row in zip(*rows.columns, strict=True):
                            copy.write_row(row)
                    connection.commit()

                yield write

        yield Place(lambda: server.address(database, schema=f"rows{next(number)}"), bulk)
    finally:
        server.remove()


@contextlib.contextmanager
def nats(folder: Path, table: Table) -> Iterator[Place]:
    """Messages of half a megabyte of lines, all of a batch's under way at once."""
    from tests.nats_server import NatsServer

    encode, number = msgspec.json.Encoder().encode_lines, count()
    try:
        server = NatsServer(folder / "nats")
        server.start()
    except OSError as error:
        raise NotThere(f"nats-server is not installed ({error})") from None
    try:

        @contextlib.asynccontextmanager
        async def bulk() -> AsyncIterator[Write]:
            import nats as library

            name = f"bulk{next(number)}"
            client = await library.connect(server.url)
            stream = client.jetstream()
            await stream.add_stream(name=name, subjects=[name])

            async def write(rows: Memory) -> None:
                several = max(1, len(rows.nested) * 2**19 // len(encode(rows.nested)))
                parts = [rows.nested[at : at + several] for at in range(0, len(rows.nested), several)]
                await asyncio.gather(*(stream.publish(name, encode(part)) for part in parts))

            yield write
            await client.close()

        yield Place(lambda: f"{server.url}/ROWS{(this := next(number))}/rows{this}", bulk)
    finally:
        server.kill()


def _columns(table: Table, types: Any) -> str:
    return ", ".join(f'"{column.name}" {types[column.kind]}' for column in table.columns)


PLACES: dict[str, Callable[[Path, Table], contextlib.AbstractContextManager[Place]]] = {
    "jsonl": jsonl,
    "jsonl, zstd": zstd,
    "parquet": parquet,
    "duckdb": duckdb,
    "sqlite": sqlite,
    "postgresql": postgresql,
    "nats": nats,
}
