"""One task mines blocks and hands their portions to whoever is live."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from .answers import Prepared
from .carriage import Portion
from .chain import Block, Chain
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

    A document's live operations are one feed, so that a portion is computed and encoded once for all of them.
    ``run`` belongs to the server. Everything here is called from the loop's thread.
    """

    def __init__(self, chain: Chain, ledger: Ledger, settings: Settings) -> None:
        self._chain = chain
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
        self._visible: deque[tuple[float, int]] = deque(maxlen=20_000)

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

    def visible(self, lag: float) -> int:
        """The highest block that the query side sees, ``lag`` seconds behind the stream; 0: none yet."""
        latest = asyncio.get_running_loop().time() - lag
        number = 0
        for time, block in self._visible:
            if time > latest:
                break
            number = block
        return number

    async def run(self) -> None:
        """Mine and emit until cancelled."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            self._idle.set()
            await self._running.wait()
            self._idle.clear()
            start = max(start, loop.time())
            if self._forks:
                for block in self._chain.fork(self._forks.popleft()):
                    await self._emit(block, start, 0.0)
                if not self._forks and self._running.is_set():
                    self._hurry.clear()
                continue
            await self._emit(self._chain.mine(), start, self._settings.block_interval)
            start += self._settings.block_interval

    async def _emit(self, block: Block, start: float, interval: float) -> None:
        for index in range(block.portions):
            await self._emit_portion(block, index)
            if index + 1 == block.portions:
                await self._end(block)
            await self._wait_until(start + interval * (index + 1) / block.portions)

    async def _emit_portion(self, block: Block, index: int) -> None:
        self._ledger.emitted(block, index, asyncio.get_running_loop().time())
        for turn, listeners in enumerate(self._live(), 1):
            data = listeners[0].prepared.portion(block, index)
            if data is not None:
                portion = Portion(block, data)
                for listener in listeners:
                    listener.deliver(portion)
            if turn % _TURN == 0:
                await asyncio.sleep(0)

    async def _end(self, block: Block) -> None:
        for listeners in self._live():
            for listener in listeners:
                listener.block_ended(block)
        self._visible.append((asyncio.get_running_loop().time(), block.number))
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
