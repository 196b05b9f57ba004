"""Scenario ``latency``: how long after it was written a message is in the caller's hands, decoded, at a steady pace."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import readers
from .load import CouldNotKeepPace, Serving, serving
from .pace import Pace, Paced, age
from .rounds import Figures, Read, turns
from .speed import bare

LOADS = ((1_000, 1), (5_000, 1), (20_000, 1), (20_000, 100))  # messages a second, and how many at once
MINE, GQL, LOOP, FLOOR = "bqstream", "gql, websockets", "bare websockets + orjson", "bare picows + orjson"
TRIES = 3
# What is compared with whose, and how a table's head says so.
MULTIPLES = {
    "p50/ws": ("p50", LOOP),
    "p50/picows": ("p50", FLOOR),
    "p99/gql": ("p99", GQL),
    "proc./gql": ("processor", GQL),
}


class Took(NamedTuple):
    """Of one reading: microseconds, and those of the processor a message; the pace it was written at, and for how many
    seconds the server had to wait for the reader."""

    p50: float
    p99: float
    most: float
    processor: float
    rate: float
    waited: float


def clients() -> dict[str, Callable[[readers.Take], Read]]:
    found: dict[str, Callable[[readers.Take], Read]] = {
        MINE: lambda take: readers.bqstream(take=take),
        GQL: lambda take: readers.gql(take=take),
        "gql, aiohttp": lambda take: readers.gql(take=take, transport="aiohttp"),
    }
    if bare():
        found[LOOP] = lambda take: readers.bare_websockets(take=take)
        found[FLOOR] = lambda take: readers.bare_picows(take=take)
    return found


async def measured(
    url: str, client: Callable[[readers.Take], Read], messages: int
) -> tuple[list[int], float]:
    """How old each message was, in order of age, and the processor's seconds from the first to the last."""
    ages: list[int] = []
    processor: list[float] = []

    def take(data: Any) -> int:
        ages.append(age(data))
        if len(ages) in (1, messages):
            processor.append(time.process_time())
        return len(data["EVM"]["Transfers"])

    count = await client(take)(url)
    assert count == messages, f"{count} rows came, of {messages}"
    return sorted(ages), processor[1] - processor[0]


def paced(
    server: Serving, client: Callable[[readers.Take], Read], load: Paced
) -> tuple[list[int], float, Pace]:
    """What was `measured`, at the pace that was asked for: else it is tried again, unless it is for the reader."""
    for _ in range(TRIES):
        ages, processor = asyncio.run(measured(server.url, client, load.messages))
        pace: Pace = server.told.recv()
        if not pace.late or pace.waited:
            return ages, processor, pace
    raise CouldNotKeepPace(
        f"{pace.rate:,.0f} messages a second were written, and {load.rate:,} were to be: the machine is too busy"
    )


def measure(load: Paced, rounds: int) -> dict[str, list[Took]]:
    found = clients()
    took: dict[str, list[Took]] = {name: [] for name in found}
    with serving(load) as server:
        for name in turns(list(found), rounds):
            ages, processor, pace = paced(server, found[name], load)
            p50, p99, most = (ages[int(share * (len(ages) - 1))] / 1e3 for share in (0.5, 0.99, 1))
            took[name].append(Took(p50, p99, most, processor / load.messages * 1e6, pace.rate, pace.waited))
    return took


def of(took: dict[str, list[Took]], name: str, other: str, figure: str) -> float:
    """``name``'s figure as a multiple of ``other``'s: the median of the ratios within a round."""
    pairs = zip(took[name], took[other], strict=True)
    place = Took._fields.index(figure)
    return statistics.median(a[place] / b[place] for a, b in pairs)


def show(title: str, took: dict[str, list[Took]]) -> Figures:
    """Print a table; a multiple below 1 is better."""
    compared = {head: pair for head, pair in MULTIPLES.items() if pair[1] in took}
    print(f"\n{title}; median of {len(took[MINE])} interleaved rounds; microseconds, and multiples")
    print(f"  {'':26}{'p50':>8}{'p99':>9}{'max':>9}{'processor':>11}{'written/s':>11}", end="")
    print("".join(f"{head:>12}" for head in compared))
    figures: Figures = []
    for name, rounds in took.items():
        middle = Took(*(statistics.median(column) for column in zip(*rounds, strict=True)))
        multiples = {head: of(took, name, other, figure) for head, (figure, other) in compared.items()}
        ages = f"{middle.p50:>8,.0f}{middle.p99:>9,.0f}{middle.most:>9,.0f}"
        print(f"  {name:26}{ages}{middle.processor:>11.1f}{middle.rate:>11,.0f}", end="")
        print("".join(f"{multiple:>12.2f}" for multiple in multiples.values()), end="")
        print("  too slow: the server had to wait for it" if middle.waited else "")
        figures.append(
            {
                "load": title,
                "reader": name,
                "p50_us": middle.p50,
                "p99_us": middle.p99,
                "max_us": middle.most,
                "processor_us": middle.processor,
                "written_per_second": middle.rate,
                "server_waited_seconds": middle.waited,
                "multiples": multiples,
            }
        )
    return figures


def run(*, quick: bool) -> Figures:
    print(
        "\nlatency: from when a message was written until it is in hand, decoded; multiples of the bare loops over"
    )
    print("websockets and picows, and of gql over websockets, within a round: less is better")
    figures: Figures = []
    for rate, burst in LOADS:
        load = Paced(rate * (1 if quick else 4) // 2, rate, burst)
        spaced = f"in bursts of {burst}" if burst > 1 else "evenly spaced"
        title = f"latency: {rate:,} messages a second, {spaced}, for {load.messages / rate:g} s"
        found = show(title, measure(load, 2 if quick else 5))
        figures += [{**one, "rate": rate, "burst": burst} for one in found]
    return figures
