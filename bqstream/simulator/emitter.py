"""One task mines blocks and hands their portions to whoever is live."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from .answers import Prepared
from .carriage import Portion
from .chain import Block, Chain
from .clock import Clock
from .ledger import Ledger
from .settings import Settings

_TURN = 16  # feeds served before others have their turn in the loop


class Listener(Protocol):
    """One live operation."""

    prepared: Prepared

    def deliver(self, portion: Portion) -> None: ...

    def block_ended(self, block: Block) -> None: ...


class Emitter:
    """Emits a block every ``block_interval`` seconds, its portions spread over that time, in the chain's order.

    A block's time is the clock's when its first portion goes out, also after a pause, a fork, or whatever else has
    made the emitter late. So no row tells of a time after the ``Date`` at which it goes out, and the last portion of a
    block goes out less than ``block_interval`` after the first. Only what a fork mines again has an older time: that
    of the height it replaces.

    A document's live operations are one feed, so that a portion is computed and encoded once for all of them.
    ``run`` belongs to the server. Everything here is called from the loop's thread.
    """

    def __init__(self, chain: Chain, clock: Clock, ledger: Ledger, settings: Settings) -> None:
        self._chain = chain
        self._clock = clock
        self._ledger = ledger
        self._settings = settings
        self._feeds: dict[str, dict[Listener, None]] = {}
        self._running = asyncio.Event()
        self._running.set()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._progress = asyncio.Condition()
        self._emitted = 0
        self._forks: deque[int] = deque()
        self._went_out: dict[int, tuple[Block, list[float]]] = {}  # by number: when each portion did

    def add(self, listener: Listener) -> None:
        """Begin to deliver to this operation: it gets each portion emitted from now on."""
        self._feeds.setdefault(listener.prepared.fingerprint, {})[listener] = None
        self._ledger.went_live(listener.prepared)

    def remove(self, listener: Listener) -> None:
        """Deliver nothing more to this operation."""
        feed = self._feeds.get(listener.prepared.fingerprint, {})
        feed.pop(listener, None)
        if not feed:
            self._feeds.pop(listener.prepared.fingerprint, None)

    @property
    def live(self) -> int:
        """How many operations are live."""
        return sum(len(feed) for feed in self._feeds.values())

    def pause(self) -> None:
        """Emit the rest of the current block at once, then no more."""
        self._running.clear()
        self._hurry.set()

    def resume(self) -> None:
        self._hurry.clear()
        self._running.set()

    def fork(self, depth: int) -> None:
        """Mine the last ``depth`` heights again on another branch, when the current block is out.

        Raises:
            ValueError: the chain is not that long.
        """
        below = self._chain.head.number - depth if self._chain.head and depth > 0 else 0
        if not any(True for _ in self._chain.blocks(below, below)):
            raise ValueError(f"the chain is too short to fork {depth} deep")
        self._forks.append(depth)
        self._hurry.set()

    async def idle(self) -> None:
        """Wait until no block is half emitted. Without a ``pause`` this can be a short moment."""
        await self._idle.wait()

    async def blocks(self, count: int) -> None:
        """Wait until so many more blocks were emitted whole."""
        goal = self._emitted + count
        async with self._progress:
            await self._progress.wait_for(lambda: self._emitted >= goal)

    def seen(self, lag: float) -> tuple[int, int]:
        """What a query side sees that is ``lag`` seconds behind the stream: the highest block that was whole by then
        (less than any number there is: none), and how many portions of the block above it were out.
        """
        latest = asyncio.get_running_loop().time() - lag
        numbers = self._chain.numbers

        def out(number: int) -> int:
            block, times = self._went_out.get(number, (None, []))
            # What a fork has replaced is gone, and what it has mined is not out yet.
            return bisect_right(times, latest) if block is self._chain.block(number) else 0

        whole = bisect_left(numbers, True, key=lambda n: out(n) < self._chain.block(n).portions)
        return numbers.start + whole - 1, out(numbers[whole]) if whole < len(numbers) else 0

    async def run(self) -> None:
        """Mine and emit until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._idle.set()
            await self._running.wait()
            self._idle.clear()
            if self._forks:
                for block in self._chain.fork(self._forks.popleft()):
                    await self._emit(block, loop.time(), 0.0)
                if not self._forks and self._running.is_set():
                    self._hurry.clear()
                continue
            await self._emit(self._chain.mine(self._clock.now()), loop.time(), self._settings.block_interval)

    async def _emit(self, block: Block, start: float, interval: float) -> None:
        for index in range(block.portions):
            await self._emit_portion(block, index)
            if index + 1 == block.portions:
                await self._end(block)
            await self._wait_until(start + interval * (index + 1) / block.portions)

    async def _emit_portion(self, block: Block, index: int) -> None:
        loop = asyncio.get_running_loop()
        self._ledger.emitted(block, index, loop.time())
        for turn, listeners in enumerate(self._live(), 1):
            data = listeners[0].prepared.portion(block, index)
            if data is not None:
                portion = Portion(block, data, listeners[0].prepared.limited)
                for listener in listeners:
                    listener.deliver(portion)
            if turn % _TURN == 0:
                await asyncio.sleep(0)
        if index == 0:
            self._went_out[block.number] = block, []
            self._went_out.pop(self._chain.numbers.start - 1, None)
        self._went_out[block.number][1].append(loop.time())

    async def _end(self, block: Block) -> None:
        for listeners in self._live():
            for listener in listeners:
                listener.block_ended(block)
        async with self._progress:
            self._emitted += 1
            self._progress.notify_all()

    def _live(self) -> Iterator[list[Listener]]:
        """Each feed as it stands at its turn; feeds that begin meanwhile begin with the next portion."""
        for fingerprint in list(self._feeds):
            if fingerprint in self._feeds:
                yield list(self._feeds[fingerprint])

    async def _wait_until(self, time: float) -> None:
        try:
            async with asyncio.timeout_at(time):
                await self._hurry.wait()
        except TimeoutError:
            pass
