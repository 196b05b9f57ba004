"""The reading side of a collector: batches of messages, with the checkpoint after each, for the writing side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BqstreamError, OperationFailed, UsageError
from ..message import Gap, Message
from ..options import is_positive, whole
from ..subscription import Subscription

MEBIBYTE = 1024 * 1024
# When it is to stop, what was read already is taken without waiting for more; seconds.
_AT_ONCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """When what was read is committed: what comes first.

    ``seconds``   since its first message came in; None: what suits the sink, 5 for most.
    ``messages``  in it.
    ``bytes``     of their payloads. Decoded, they take some ten times as much memory.
    """

    seconds: float | None = None
    messages: int = 10_000
    bytes: int = 4 * MEBIBYTE

    def __post_init__(self) -> None:
        if self.seconds is not None and not is_positive(self.seconds):
            raise UsageError(f"Batching(seconds={self.seconds!r}): give a positive, finite number")
        whole("messages", self.messages)
        whole("bytes", self.bytes)


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages, the checkpoint after them (None: it has not moved), and the gaps that were named until then."""

    messages: Sequence[Message[Any]]
    checkpoint: str | None
    gaps: Mapping[int, Gap]


@dataclass(frozen=True, slots=True)
class End:
    """There is nothing more to be read; ``error`` is why, where the subscription did not end well."""

    error: Exception | None = None


class Reading:
    """Reads one subscription until it ends, ``stop`` is called, or ``limit`` rows were read.

    One batch waits for the writing side at most, beside the one that is being put together; what comes meanwhile waits
    in the subscription's buffer.
    """

    def __init__(
        self, stream: Subscription[Any], batching: Batching, seconds: float, limit: int | None
    ) -> None:
        self.batches: asyncio.Queue[Batch | End] = asyncio.Queue(maxsize=1)
        self._stream = stream
        self._batching = batching
        self._seconds = seconds
        self._left = limit
        self._gaps: Mapping[int, Gap] = {}
        self._time = asyncio.get_running_loop().time
        self._stopped_at: float | None = None
        self._wait: asyncio.Timeout | None = None

    def stop(self) -> None:
        """What came in until now is still handed over. Idempotent."""
        if self._stopped_at is None:
            self._stopped_at = self._time()
            if self._wait is not None and not self._wait.expired():
                self._wait.reschedule(self._stopped_at)

    async def run(self) -> None:
        """Hand over one batch after the other, then an `End`."""
        error: Exception | None = None
        try:
            await self._read()
        except StopAsyncIteration:
            pass
        except Exception as ended:  # also a bug: the writing side waits for an end  # noqa: BLE001
            error = ended
        if self._changed():
            await self.batches.put(self._batch(()))
        await self.batches.put(End(error))

    async def _read(self) -> None:
        batching, seconds = self._batching, self._seconds
        batches = self._stream.message_batches(batching.messages, seconds, batching.bytes)
        at_once = self._stream.message_batches(batching.messages, _AT_ONCE, batching.bytes)
        while self._stopped_at is None:
            # A batch that was begun when the wait ended is not to wait as long again.
            if self._left is None:
                messages = await self._next(batches, 2 * seconds) or await self._next(at_once, 2 * _AT_ONCE)
            else:
                messages = await self._until_the_limit()
            if messages or self._changed():
                await self._hand_over(messages)
        while self._left != 0 and (messages := await self._next(at_once, 5 * _AT_ONCE)):
            await self._hand_over(messages)
            if messages[-1].at > self._stopped_at:
                break

    async def _until_the_limit(self) -> Sequence[Message[Any]]:
        """A batch that is over with the rows that are left too, which are not to wait for others."""
        batching, seconds, left = self._batching, self._seconds, self._left or 0
        found: list[Message[Any]] = []
        size, until = 0, self._time() + 2 * seconds
        while left > 0 and len(found) < batching.messages and size < batching.bytes:
            try:
                one = await self._next(self._stream.message_batches(1), max(0.0, until - self._time()))
            except (StopAsyncIteration, BqstreamError):  # is there again when the next batch is asked for
                if not found:
                    raise
                break
            if not one:
                break
            if not found:
                until = self._time() + seconds
            found += one
            size += one[0].size
            left -= _count(one[0])
        return found

    async def _next(self, batches: Any, seconds: float) -> Sequence[Message[Any]]:
        """The next batch; nothing after so many seconds without, so that gaps are told also while nothing comes."""
        try:
            async with asyncio.timeout(seconds) as wait:
                self._wait = wait if self._stopped_at is None else None
                batch: Sequence[Message[Any]] = await anext(batches)
                return batch
        except TimeoutError:
            return ()
        finally:
            self._wait = None

    async def _hand_over(self, messages: Sequence[Message[Any]]) -> None:
        await self.batches.put(self._batch(messages if self._left is None else self._limited(messages)))

    def _batch(self, messages: Sequence[Message[Any]]) -> Batch:
        checkpoint = messages[-1].checkpoint.dumps() if messages else None
        self._gaps = self._named()
        return Batch(messages, checkpoint, self._gaps)

    def _named(self) -> dict[int, Gap]:
        return {gap.number: gap for gap in self._stream.gaps}

    def _changed(self) -> bool:
        return self._named() != self._gaps

    def _limited(self, messages: Sequence[Message[Any]]) -> Sequence[Message[Any]]:
        """As many messages as bring the rows that are left; the last one whole."""
        assert self._left is not None
        for number, message in enumerate(messages, 1):
            self._left = max(0, self._left - _count(message))
            if self._left == 0:
                self._stopped_at = self._time()
                return messages[:number]
        return messages


def _count(message: Message[Any]) -> int:
    try:
        return sum(len(rows) for _, rows in message.by_cube())
    except OperationFailed:  # it goes to the dead letters
        return 1
