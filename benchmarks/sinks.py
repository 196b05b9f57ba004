"""Scenario ``sinks``: rows a second into each sink, beside its library's own way for many rows at once.

First ``commit`` alone, of rows that are in memory as the sink takes them, in batches of 10,000 and of as many as the
collector's own batch has bytes for. Then all of it: a service on this machine, client, collector and sink. Beside it
the same rows, from memory, by the library's own way in batches as large; and these once more, where only the payloads
are in memory and have to be decoded and put into columns first, with nothing that would make it exactly once.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from bqstream.collect import Batching, Commit, Rows, Table, open_sink
from bqstream.delivery.document import Document
from bqstream.delivery.plan import Plan
from bqstream.tables.columns import drafts
from bqstream.tables.flatten import flatten

from .bulk import PLACES, Memory, NotThere, Place
from .load import serving
from .rounds import Figures, Read, Took, measure, show, turns, warm
from .trades import DOCUMENT, Trades, payloads, texts

MESSAGE_ROWS = 100
COMMIT_ROWS = 10_000
OWN, DECODED = "its library's own way", "the same, decoded first"


def sent() -> str:
    """The document as the client sends it, with hidden fields."""
    return Plan.make(Document.parse(DOCUMENT)).text


def batch_messages() -> int:
    """How many messages the collector's own batch has bytes for."""
    return -(-Batching().bytes // len(texts(sent(), MESSAGE_ROWS)[0]))


def nested_of(raws: Sequence[bytes]) -> list[object]:
    decode = msgspec.json.Decoder().decode
    return [row for raw in raws for row in decode(raw)["data"]["EVM"]["DEXTrades"]]


def memory_of(table: Table, raws: Sequence[bytes]) -> Memory:
    nested = nested_of(raws)
    return Memory(nested, flatten(table, nested)[0].columns)


def settled(raws: Sequence[bytes]) -> Table:
    (draft,) = drafts(Document.parse(DOCUMENT))
    return draft.settle(nested_of(raws))


# ---------------------------------------------------------------------- a commit alone


async def commits(place: Place, table: Table, memory: Memory, count: int) -> Took:
    """What a row took, by the median of ``count`` commits; the first one, which makes the table, is not counted."""
    sink, rows = open_sink(place.address()), len(memory.nested)
    given = Rows(table, rows, memory.columns) if sink.flat else Rows(table, rows, nested=memory.nested)
    await sink.open("bench")
    try:
        found = []
        for number in range(1, count + 2):
            state = "x" * 12 * rows  # as long as what a checkpoint says of so many rows
            commit = Commit(subscription="bench", number=number, state=state, tables=(table,), steps=(given,))
            found.append(await _took(sink.commit(commit)))
    finally:
        await sink.aclose()
    return _median(found[1:], rows)


async def bulks(place: Place, memory: Memory, count: int) -> Took:
    async with place.bulk() as write:
        found = [await _took(write(memory)) for _ in range(count + 1)]
    return _median(found[1:], len(memory.nested))


async def _took(work: Awaitable[None]) -> Took:
    clock, processor = time.perf_counter(), time.process_time()
    await work
    return Took(time.perf_counter() - clock, time.process_time() - processor)


def _median(found: Sequence[Took], rows: int) -> Took:
    return Took(*(statistics.median(one) / rows for one in zip(*found, strict=True)))


def alone(name: str, place: Place, table: Table, memory: Memory, rounds: int, count: int) -> Figures:
    took: dict[str, list[Took]] = {name: [], OWN: []}
    for turn in turns(list(took), rounds):
        work = commits(place, table, memory, count) if turn == name else bulks(place, memory, count)
        took[turn].append(asyncio.run(work))
    return show(f"{name}: commits alone, of {len(memory.nested):,} rows", took, [OWN], unit="rows")


# ---------------------------------------------------------------------- all of it


def readers(name: str, place: Place, table: Table, parts: Sequence[Sequence[bytes]]) -> dict[str, Read]:
    """Each has as many rows as there are in ``parts``, the payloads of each batch."""
    memories = [memory_of(table, part) for part in parts]

    async def collected(url: str) -> int:
        from bqstream import Client
        from bqstream.collect import Collector

        async with Client("token-of-the-benchmark", endpoint=url) as client:
            return (await Collector(client, DOCUMENT, place.address()).run()).rows

    async def written(made: Callable[[int], Memory]) -> int:
        count = 0
        async with place.bulk() as write:
            for number in range(len(parts)):
                memory = made(number)
                await write(memory)
                count += len(memory.nested)
        return count

    return {
        name: collected,
        DECODED: lambda url: written(lambda number: memory_of(table, parts[number])),
        OWN: lambda url: written(lambda number: memories[number]),
    }


def whole(name: str, place: Place, table: Table, messages: int, rounds: int) -> Figures:
    raws, most = list(islice(payloads(DOCUMENT, MESSAGE_ROWS), messages)), batch_messages()
    found = readers(name, place, table, [raws[at : at + most] for at in range(0, messages, most)])
    with serving(Trades(1, MESSAGE_ROWS)) as small:
        asyncio.run(warm(small.url, {name: found[name]}))
    with serving(Trades(messages, MESSAGE_ROWS)) as server:
        took = asyncio.run(measure(server.url, found, messages * MESSAGE_ROWS, 1, rounds))
    title = f"{name}: from the service to the sink, {MESSAGE_ROWS} rows a message"
    return show(title, took, [OWN, DECODED], unit="rows")


def run(*, quick: bool) -> Figures:
    texts(sent(), MESSAGE_ROWS)  # here, so that no server has to make them
    raws = list(islice(payloads(DOCUMENT, MESSAGE_ROWS), COMMIT_ROWS // MESSAGE_ROWS))
    table = settled(raws)
    memories = [memory_of(table, raws[:most]) for most in (COMMIT_ROWS // MESSAGE_ROWS, batch_messages())]
    figures: Figures = []
    for name, at in PLACES.items():
        try:
            with tempfile.TemporaryDirectory() as folder, at(Path(folder), table) as place:
                for memory in memories[: 1 if quick else 2]:
                    figures += alone(name, place, table, memory, 2 if quick else 5, 3 if quick else 10)
                figures += whole(name, place, table, 200 if quick else 1_000, 2 if quick else 5)
        except NotThere as error:
            print(f"\n{name}: left out, since {error}")
    return figures
