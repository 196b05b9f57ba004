"""The reading side of a collector: batches of messages, with the checkpoint after each, for the writing side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BqstreamError, UsageError
from ..message import Gap, Message
from ..options import is_positive
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
        for name in ("seconds", "messages", "bytes"):
            value = getattr(self, name)
            if not is_positive(value) and (name, value) != ("seconds", None):
                raise UsageError(f"Batching({name}={value!r}): give a positive, finite number")


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages, the checkpoint after them (None: it has not moved), and the gaps that were named until then."""

    messages: Sequence[Message[Any]]
    checkpoint: str | None
    gaps: Mapping[int, Gap]


@dataclass(frozen=True, slots=True)
class End:
    """There is nothing more to be read; ``error`` is why, where the subscription did not end well."""

    error: BqstreamError | None = None


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
        self._stopping = False
        self._wait: asyncio.Timeout | None = None

    def stop(self) -> None:
        """What was read is still handed over. Idempotent."""
        self._stopping = True
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Hand over one batch after the other, then an `End`."""
        error = None
        batches = self._stream.message_batches(self._batching.messages, self._seconds, self._batching.bytes)
        try:
            while not self._stopping:
                messages = await self._next(batches, self._seconds)
                if messages or self._changed():
                    await self._hand_over(messages)
            if self._left != 0 and (messages := await self._next(self._at_once(), 5 * _AT_ONCE)):
                await self._hand_over(messages)
        except StopAsyncIteration:
            pass
        except BqstreamError as ended:
            error = ended
        if self._changed():
            await self._hand_over(())
        await self.batches.put(End(error))

    def _at_once(self) -> Any:
        return self._stream.message_batches(self._batching.messages, _AT_ONCE, self._batching.bytes)

    async def _next(self, batches: Any, seconds: float) -> Sequence[Message[Any]]:
        """The next batch; nothing after so many seconds without, so that gaps are told also while nothing comes."""
        try:
            async with asyncio.timeout(2 * seconds) as wait:
                self._wait = None if self._stopping else wait
                batch: Sequence[Message[Any]] = await anext(batches)
                return batch
        except TimeoutError:
            return ()
        finally:
            self._wait = None

    async def _hand_over(self, messages: Sequence[Message[Any]]) -> None:
        if self._left is not None:
            messages = self._limited(messages)
        checkpoint = messages[-1].checkpoint.dumps() if messages else None
        self._gaps = {gap.number: gap for gap in self._stream.gaps}
        await self.batches.put(Batch(messages, checkpoint, self._gaps))

    def _changed(self) -> bool:
        return {gap.number: gap for gap in self._stream.gaps} != self._gaps

    def _limited(self, messages: Sequence[Message[Any]]) -> Sequence[Message[Any]]:
        """As many messages as bring the rows that are left; the last one whole."""
        assert self._left is not None
        for number, message in enumerate(messages, 1):
            if self._left <= 0:
                return messages[: number - 1]
            self._left = max(0, self._left - sum(len(rows) for _, rows in message.by_cube()))
            if self._left == 0:
                self._stopping = True
                return messages[:number]
        return messages
