"""Scenario ``idle``: what very many quiet subscriptions cost on four links: memory, and a hand-over of all of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
import tracemalloc
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from .children import Child, child, has_proc
from .load import CouldNotKeepPace, serving
from .rounds import Figures
from .simulated import simulated

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from bqstream import Subscription
    from bqstream.events import Event

LINKS = 4
DOCUMENT = """subscription { EVM { Transfers { Block { Number Hash } Transaction { Hash } Call { Index } Log { Index }
    Transfer { Index Type Amount Sender Receiver } } } }"""


@dataclass(frozen=True)
class Silent:
    """Takes every subscription, and sends nothing but answers to pings."""

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        async for frame in socket:
            if json.loads(frame)["type"] == "ping":
                await socket.send('{"type":"pong"}')


# ---------------------------------------------------------------------- memory


def hold(port: Connection, url: str, count: int, trace: bool) -> None:
    """Tell the traced size, and wait, with a subscription on each link; and again with ``count`` more in all."""

    async def main() -> None:
        from bqstream import Client

        async with Client("token-of-the-benchmark", endpoint=url, connections=LINKS) as client:
            kept: list[Subscription] = []
            for more in (LINKS, count):
                began = time.monotonic()
                for _ in range(more):
                    kept.append(await client.subscribe(DOCUMENT))
                took = time.monotonic() - began
                gc.collect()
                port.send((tracemalloc.get_traced_memory()[0] if trace else 0, took))
                await asyncio.to_thread(port.recv)  # keep-alives go on meanwhile
            for one in kept:
                await one.aclose()

    if trace:
        tracemalloc.start()
    asyncio.run(main())


def memory(count: int) -> dict[str, Any]:
    found: dict[str, Any] = {"subscriptions": count}
    for trace in (False, True):
        with serving(Silent()) as server, child(hold, server.url, count, trace) as running:
            sizes = []
            for _ in range(2):
                traced, took = running.port.recv()
                sizes.append((running.memory() * 1e6, traced))
                running.port.send("go on")
        (resident, traced), (resident_then, traced_then) = sizes
        if trace:
            found["traced_bytes_each"] = (traced_then - traced) / count
        else:
            found["resident_bytes_each"] = (resident_then - resident) / count
            found["subscribing_seconds"] = took
    return found


# ---------------------------------------------------------------------- a hand-over


class Happened:
    """When the hand-overs began and ended, by the clock and by processor time, and what else was told."""

    def __init__(self) -> None:
        self.moments: dict[str, tuple[float, float]] = {}
        self.unproven = self.merged = self.handed_over = 0
        self.told: Counter[str] = Counter()

    def mark(self, name: str) -> None:
        self.moments[name] = time.monotonic(), time.process_time()

    def hear(self, event: Event) -> None:
        from bqstream import events

        self.told[type(event).__name__] += 1
        if isinstance(event, events.TokenRefreshed):
            self.mark("token")  # the first is marked over
        elif isinstance(event, events.HandedOver):
            self.handed_over += 1
            self.unproven += event.unproven
            self.merged += event.merged
            self.mark("over")

    def between(self, one: str, other: str) -> tuple[float, float]:
        (a, b), (c, d) = self.moments[one], self.moments[other]
        return c - a, d - b


def key_of(row: Any) -> int:
    return hash(json.dumps(row, sort_keys=True))


async def read(stream: Subscription, came: array[int]) -> None:
    async for row in stream.rows():
        came.append(key_of(row))


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for what nobody tells, and that anything else would only be told of by polling too."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def handed_over(
    simulator: Child, endpoint: str, value: str, *, count: int, grace: float, lifetime: float, block: float
) -> dict[str, Any]:
    from bqstream import Client, Timeouts, Token

    tokens = iter((Token(value, expires_in=lifetime),))
    happened = Happened()

    async def credentials() -> Token:
        return next(tokens, Token(value))  # the second one stays

    async def ask(*what: Any) -> Any:
        return await asyncio.to_thread(simulator.ask, what)

    options: dict[str, Any] = {
        "connections": LINKS,
        "timeouts": Timeouts(grace=grace),
        "on_event": happened.hear,
    }
    async with Client(credentials, endpoint=endpoint, **options) as client, AsyncExitStack() as stack:
        came = [array("q") for _ in range(count)]
        for one in came:
            stream = await stack.enter_async_context(client.subscribe(DOCUMENT))
            stack.push_async_callback(_cancelled, asyncio.create_task(read(stream, one)))
        await until(lambda: simulator.ask(("count", "subscribes")) >= count, 30)
        await ask("resume")  # from here on every subscription is owed every row
        await until(lambda: all(came), lifetime)
        happened.mark("steady")
        if happened.told["TokenRefreshed"] > 1:
            raise CouldNotKeepPace("the first token was renewed before every subscription had a row")
        await until(lambda: happened.told["TokenRefreshed"] == 2, lifetime)
        await until(lambda: happened.handed_over == LINKS, LINKS * 60)
        await asyncio.sleep(2 * block)
        await ask("drain")
        owed = Counter(map(key_of, await ask("rows", DOCUMENT)))
        with contextlib.suppress(TimeoutError):  # the count tells
            await until(lambda: all(len(one) >= owed.total() for one in came), 30)
        await asyncio.sleep(1)  # what is repeated may still come
        gaps = sum(one.gaps for one in client.status().subscriptions)
    wall, processor = happened.between("token", "over")
    steady_wall, steady_processor = happened.between("steady", "token")
    return {
        "subscriptions": count,
        "grace_seconds": grace,
        "rows_owed_each": owed.total(),
        "rows_lost": sum((owed - Counter(one)).total() for one in came),
        "rows_repeated_or_foreign": sum((Counter(one) - owed).total() for one in came),
        "wall_seconds": wall,
        "processor_seconds": processor,
        "processor_seconds_of_steady_state": steady_processor / steady_wall * wall,
        "merged": happened.merged,
        "unproven": happened.unproven,
        "gaps_named": gaps,
        "events": dict(happened.told),
    }


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def run(*, quick: bool) -> Figures:
    figures: Figures = []
    if has_proc():
        print("\nidle: memory of one subscription that nothing comes on, of so many on four links; bytes")
        print(f"  {'':>10}{'resident':>12}{'traced':>12}{'subscribed in s':>18}")
        for count in (1_000,) if quick else (1_000, 10_000):
            found = memory(count)
            resident, traced = found["resident_bytes_each"], found["traced_bytes_each"]
            print(f"  {count:>10,}{resident:>12,.0f}{traced:>12,.0f}{found['subscribing_seconds']:>18.1f}")
            figures.append({"load": "memory", **found})
    count, grace, lifetime, block = (1_000, 0.5, 14.0, 0.5) if quick else (10_000, 5.0, 90.0, 2.0)
    with simulated(block_interval=block, portions=1, transactions=1) as (simulator, endpoint, token):
        found = asyncio.run(
            handed_over(simulator, endpoint, token, count=count, grace=grace, lifetime=lifetime, block=block)
        )
    print(
        f"\nidle: a hand-over of {count:,} subscriptions on four links, a block each {block:g} s, grace {grace:g} s"
    )
    for name, value in found.items():
        print(f"  {name.replace('_', ' '):36}{value if not isinstance(value, float) else f'{value:.1f}'}")
    figures.append({"load": "hand-over", **found})
    assert not found["rows_lost"], f"{found['rows_lost']} rows were lost"
    assert not found["rows_repeated_or_foreign"], f"{found['rows_repeated_or_foreign']} rows came twice"
    return figures
