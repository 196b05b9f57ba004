"""Interleaved rounds: each reader reads the same load in turn, and only ratios within a round mean anything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

Read = Callable[[str], Awaitable[int]]
Speeds = dict[str, list[float]]


async def measure(url: str, readers: Mapping[str, Read], messages: int, rows: int, rounds: int) -> Speeds:
    """Messages a second of each reader, round by round; every other round the other way round."""
    speeds: Speeds = {name: [] for name in readers}
    for number in range(rounds):
        for name in list(readers)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            count = await readers[name](url)
            speeds[name].append(messages / (time.perf_counter() - start))
            assert count == messages * rows, f"{name} read {count} rows of {messages * rows}"
    return speeds


def ratio(speeds: Speeds, name: str, other: str) -> float:
    """The median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True))


def show(title: str, speeds: Speeds, other: str) -> None:
    """Print a table: messages a second, and the ratio to ``other``."""
    rounds = len(speeds[other])
    print(f"\n{title}, median of {rounds} interleaved rounds")
    for name, speed in speeds.items():
        print(
            f"  {name:36} {statistics.median(speed):>10,.0f} messages/s   "
            f"{ratio(speeds, name, other):.2f} x {other}"
        )
