"""Interleaved rounds: each reader reads the same load in turn, and only ratios within a round mean anything.

They are given twice: by the clock, and by the processor time of the reader's process, which the rest of a busy machine
disturbs less. A ratio above 1 is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple

Read = Callable[[str], Awaitable[int]]


class Took(NamedTuple):
    """Seconds a message."""

    clock: float
    processor: float


Rounds = dict[str, list[Took]]


async def measure(url: str, readers: Mapping[str, Read], messages: int, rows: int, rounds: int) -> Rounds:
    """What each reader took, round by round; every other round the other way round."""
    took: Rounds = {name: [] for name in readers}
    await next(iter(readers.values()))(url)  # no round pays for what is imported and compiled once
    for number in range(rounds):
        for name in list(readers)[:: -1 if number % 2 else 1]:
            clock, processor = time.perf_counter(), time.process_time()
            count = await readers[name](url)
            took[name].append(
                Took((time.perf_counter() - clock) / messages, (time.process_time() - processor) / messages)
            )
            assert count == messages * rows, f"{name} read {count} rows of {messages * rows}"
    return took


def ratio(took: Rounds, name: str, other: str, by: Literal["clock", "processor"]) -> float:
    """How many times as fast as ``other``: the median of the ratios within a round."""
    place = Took._fields.index(by)
    return statistics.median(b[place] / a[place] for a, b in zip(took[name], took[other], strict=True))


def show(title: str, took: Rounds, others: Sequence[str]) -> None:
    """Print a table, with the ratios to each of ``others``: by the clock, and by processor time."""
    print(f"\n{title}; median of {len(took[others[0]])} interleaved rounds")
    heads = "".join(f"{f'x {other}':>32}" for other in others)
    print(f"  {'':32}{'messages/s':>12}{'processor us':>14}{heads}")
    for name, rounds in took.items():
        speed = 1 / statistics.median(one.clock for one in rounds)
        processor = statistics.median(one.processor for one in rounds) * 1e6
        ratios = "".join(
            f"{ratio(took, name, other, 'clock'):>22.2f} / {ratio(took, name, other, 'processor'):<7.2f}"
            for other in others
        )
        print(f"  {name:32}{speed:>12,.0f}{processor:>14.1f}{ratios}")
