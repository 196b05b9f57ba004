"""Interleaved rounds: each reader reads the same load in turn, and only ratios within a round mean anything.

They are given twice: by the clock, and by the processor time of the reader's process, which the rest of a busy machine
disturbs less. A ratio above 1 is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple


class Elsewhere(NamedTuple):
    """What a reader in a process of its own says of itself: its rows, and seconds of the whole load."""

    rows: int
    clock: float
    processor: float


Read = Callable[[str], Awaitable[int | Elsewhere]]  # how many rows there were
Figures = list[dict[str, Any]]  # what ``--json`` writes


class Took(NamedTuple):
    """Seconds a message."""

    clock: float
    processor: float


Rounds = dict[str, list[Took]]


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Every name in each round, every other round the other way round."""
    for number in range(rounds):
        yield from list(names)[:: -1 if number % 2 else 1]


async def warm(url: str, readers: Mapping[str, Read]) -> None:
    """Have every reader read a small load, so that no round pays for what is imported and compiled once."""
    for read in readers.values():
        await read(url)


async def measure(url: str, readers: Mapping[str, Read], messages: int, rows: int, rounds: int) -> Rounds:
    """What each reader took, round by round."""
    took: Rounds = {name: [] for name in readers}
    for name in turns(list(readers), rounds):
        clock, processor = time.perf_counter(), time.process_time()
        read = await readers[name](url)
        if isinstance(read, int):
            read = Elsewhere(read, time.perf_counter() - clock, time.process_time() - processor)
        took[name].append(Took(read.clock / messages, read.processor / messages))
        assert read.rows == messages * rows, f"{name} read {read.rows} rows of {messages * rows}"
    return took


def ratio(took: Rounds, name: str, other: str, by: Literal["clock", "processor"]) -> float:
    """How many times as fast as ``other``: the median of the ratios within a round."""
    place = Took._fields.index(by)
    return statistics.median(b[place] / a[place] for a, b in zip(took[name], took[other], strict=True))


def show(title: str, took: Rounds, others: Sequence[str], *, unit: str = "messages") -> Figures:
    """Print a table, with the ratios to each of ``others``: by the clock, and by processor time. ``unit``: what was
    counted."""
    print(f"\n{title}; median of {len(took[others[0]])} interleaved rounds")
    heads = "".join(f"{f'x {other}':>32}" for other in others)
    print(f"  {'':32}{f'{unit}/s':>12}{'processor us':>14}{heads}")
    figures: Figures = []
    for name, rounds in took.items():
        speed = 1 / statistics.median(one.clock for one in rounds)
        processor = statistics.median(one.processor for one in rounds) * 1e6
        by_clock = {other: ratio(took, name, other, "clock") for other in others}
        by_processor = {other: ratio(took, name, other, "processor") for other in others}
        ratios = "".join(f"{by_clock[other]:>22.2f} / {by_processor[other]:<7.2f}" for other in others)
        print(f"  {name:32}{speed:>12,.0f}{processor:>14.1f}{ratios}")
        figures.append(
            {
                "load": title,
                "reader": name,
                f"{unit}_per_second": speed,
                "processor_us": processor,
                "times_as_fast_by_clock": by_clock,
                "times_as_fast_by_processor": by_processor,
            }
        )
    return figures
