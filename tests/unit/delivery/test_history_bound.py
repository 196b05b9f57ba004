"""Millions of rows through one stream, at every rate: what is kept of them stays within its bound."""

from __future__ import annotations

import time
import tracemalloc
from typing import NamedTuple

import pytest

from bqstream.clock import Clock
from bqstream.config import MEBIBYTE, Buffer
from bqstream.delivery.document import Document
from bqstream.delivery.plan import Plan
from bqstream.delivery.stream import Stream
from bqstream.message import Gap

from .chain_world import EPOCH, KEYED

BLOCK = "@@block@@"
ROW = (
    f'{{"Block":{{"Number":"{BLOCK}","Hash":"0x{"e" * 64}"}},"Transaction":{{"Hash":"0x{"c" * 64}"}},'
    '"Call":{"Index":1},"Log":{"Index":2},"Transfer":{"Index":0,"Type":"token","Amount":"1234.5"}}'
)
# What a payload costs beside its bytes: the object that they are, its entry, and their places in both.
ENTRY = 144
IN_HAND = 4  # copies of a payload, on its way from where it is made to the reader
REST = MEBIBYTE


class Pace(NamedTuple):
    """So many payloads of so many rows each, so many of them a second; a block takes 12 seconds."""

    payloads: int
    rows: int
    rate: float


class World:
    """One link, and a reader that takes each message at once."""

    def __init__(self, bound: int) -> None:
        self.now = 0.0
        self.rows = self.messages = 0
        self.most_bytes = self.most_payloads = 0
        self.told: list[Gap] = []
        document = Document.parse(KEYED)
        self.stream = Stream(
            Buffer(bytes=bound),
            Clock(monotonic=lambda: self.now, wall=lambda: EPOCH + self.now),
            on_gap=self.told.append,
            on_parked=lambda resumed: None,
            on_ready=self.read,
            on_room=lambda: None,
            plan=Plan.make(document),
            cubes=document.cubes,
            lag=5.0,
        )
        self.stream.joined(1, self.now, grace=5.0, served=EPOCH)

    def read(self) -> None:
        while self.stream.take() is not None:
            self.messages += 1

    def go(self, pace: Pace) -> None:
        raw = f'{{"data":{{"EVM":{{"Transfers":[{",".join([ROW] * pace.rows)}]}}}}}}'.encode()
        history = self.stream._history
        for number in range(pace.payloads):
            self.now += 1 / pace.rate
            block = f"{21_000_000 + int(self.now / 12)}".encode()
            assert self.stream.payloads(1, [raw.replace(BLOCK.encode(), block)], self.now)
            self.most_bytes = max(self.most_bytes, history.size)
            self.most_payloads = max(self.most_payloads, len(history))
            if number % 5000 == 0:
                assert history.size == sum(len(entry.raw) for entry in history.entries())
        self.rows += pace.rows * pace.payloads


def pushed(paces: list[Pace], bound: int) -> World:
    """All paces one after another, on one stream, and what they cost."""
    world = World(bound)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for pace in paces:
            world.go(pace)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    seconds = time.perf_counter() - start
    largest = max(pace.rows for pace in paces) * len(ROW)
    allowed = bound + ENTRY * world.most_payloads + IN_HAND * largest + REST
    print(
        f"{world.rows:,} rows in {world.messages:,} messages, {seconds:.0f} s: kept {world.most_bytes / MEBIBYTE:.2f} "
        f"MiB at most, of {bound / MEBIBYTE:g}, and {world.most_payloads:,} payloads; peak of memory "
        f"{(peak - before) / MEBIBYTE:.2f} MiB, of {allowed / MEBIBYTE:.2f}"
    )
    assert world.most_bytes <= bound
    assert peak - before <= allowed
    assert world.stream.waiting_messages == 0
    assert world.told == []
    return world


PACES = [
    Pace(50_000, 100, rate=1_000),  # 30 MiB a second: bytes are what bounds it
    Pace(400_000, 1, rate=5_000),
    Pace(6_000, 500, rate=100),
    Pace(16_000, 100, rate=5),  # the last minute and a half are less than may be kept
]


def test_ten_thousands_of_rows_at_every_rate_leave_no_more_than_may_be_kept() -> None:
    paces = [Pace(pace.payloads // 100, pace.rows, pace.rate) for pace in PACES]
    world = pushed(paces, MEBIBYTE)
    assert world.messages == sum(pace.payloads for pace in paces)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_ten_million_rows_at_every_rate_leave_no_more_than_may_be_kept() -> None:
    world = pushed(PACES, Buffer().bytes)
    assert world.rows == 10_000_000
