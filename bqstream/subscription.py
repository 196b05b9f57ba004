"""What a user iterates; it outlives links."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from itertools import chain
from types import TracebackType
from typing import Any, Generic, Self

from . import options
from .checkpoint import Checkpoint
from .delivery.stream import Stream
from .errors import BqstreamError, UsageError
from .frames import Frames
from .message import Gap, Message, T, require_cube

# A reader that always finds a message ready lets other tasks run after this many.
FAIRNESS = 256


class Subscription(Frames, Generic[T]):
    """An endless sequence of messages, read with ``async for`` by one reader at a time.

    It is made by ``Client.subscribe`` and closed by leaving its ``async with`` or by ``aclose()``. ``break`` and a
    cancelled read only stop reading: a later ``async for`` goes on with the next message. It ends by itself when
    the service completes the operation, and raises the error that ended it, every time it is asked, if one did.
    """

    def __init__(self, stream: Stream, close: Callable[[], None], operation: int) -> None:
        self._stream = stream
        self._close = close
        self.operation = operation  # its number in `Client.status` and in events
        self._closed = False
        self._reading = False
        self._waiter: asyncio.Future[None] | None = None
        self._unfair = 0
        self._batch: list[Message[T]] = []  # what a cancelled read had taken
        self._rows: Iterator[Any] = iter(())  # what is left of the message that ``rows`` has in hand …
        self._rows_of: str | None = None  # … and of which cube
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._stream.ended else "open"
        return f"<Subscription {self.operation}, {state}, {self._stream.waiting_messages} waiting>"

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Every range in which rows may not have been delivered, oldest first; the newest may still be open."""
        return tuple(self._stream.gaps)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where a new process goes on if every message before the one in hand is safe.

        The message in hand counts once the reader asks for the next; what waits in the buffer does not. Cubes that
        cannot be asked again (``Gap.reason`` says why) are not in it.
        """
        return self._stream.safe() if self._kept is None else self._stream.checkpoint(self._kept.first - 1)

    @property
    def closing(self) -> bool:
        """Whether a gap is being closed at this moment: live messages may be held back until it is."""
        return self._stream.closing

    # ------------------------------------------------------------------ reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[T]:
        """The next message.

        Raises:
            StopAsyncIteration: the service completed the operation, or the subscription was closed.
            BqstreamError: the error that ended the subscription, after what was still waiting.
            UsageError: another reader is waiting.

        Cancelling takes no message.
        """
        self._alone()
        if self._batch:  # what a cancelled read of a batch had taken
            self._stream.handed(self._batch[0]._number)
            return self._batch.pop(0)
        self._unfair += 1
        if self._unfair < FAIRNESS and not self._closed:
            message = self._stream.take()
            if message is not None:
                return message
        return await self._wait()

    def _alone(self) -> None:
        if self._reading:
            raise UsageError(
                "this subscription is being read by another task: give each reader one of its own"
            )

    async def _fill(self, batch: list[Message[T]], messages: int, limit: int) -> None:
        """Take messages until there are so many, or so many bytes."""
        take, size = self._stream.take, sum(message.size for message in batch)
        while len(batch) < messages and size < limit:
            self._unfair += 1
            message = take(more=True) if self._unfair < FAIRNESS and not self._closed else None
            if message is None:
                message = await self._wait(more=True)
            batch.append(message)
            size += message.size

    async def _wait(self, *, more: bool = False) -> Message[T]:
        """The next message, where none was ready or others shall have their turn first."""
        self._reading = True
        try:
            if self._unfair >= FAIRNESS:
                await asyncio.sleep(0)
            elif not (self._closed or self._stream.ended):
                await self._woken()
            while True:
                self._unfair = 0
                if self._closed:
                    raise StopAsyncIteration
                message = self._stream.take(more=more)
                if message is not None:
                    return message
                if self._stream.ended:
                    if self._stream.error is not None:
                        raise self._stream.error.with_traceback(None)  # else it grows with every read
                    raise StopAsyncIteration
                await self._woken()
        finally:
            self._reading = False

    def _yield(self) -> None:
        """Other tasks have their turn before the next message."""
        self._unfair = FAIRNESS

    def _woken(self) -> asyncio.Future[None]:
        """Done when there is something to read; made anew for each wait."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def rows(self, cube: str | None = None) -> AsyncIterator[Any]:
        """Read row by row, as ``Message.rows`` has them; ``cube`` is the response key of the one to read.

        After a ``break`` another call goes on with the next row of the same message. One for another cube, and a read
        by message or batch, go on with the next message: what was left of this one is passed over. Errors that came
        beside the rows are in ``Message.errors`` alone. With ``undo=True`` an `Undo` comes before the rows that take
        the others' places.

        Raises UsageError where the document has no such cube.
        """
        require_cube(cube, self._stream.cubes)
        return _Rows(self, cube)

    def message_batches(
        self, messages: int = 1000, seconds: float | None = 1.0, bytes: int | None = None
    ) -> AsyncIterator[list[Message[T]]]:
        """Read many messages at once, as one who writes them to a file or a database does.

        A batch is a list of one to ``messages`` messages. It is handed over when it has so many, when ``seconds`` have
        passed since its first message (None: never for that), or when it has ``bytes`` bytes or more (as many as may
        wait for the reader, ``Buffer.bytes``, at most). The first message is waited for as long as it takes: put
        ``asyncio.timeout`` around a read that has to come back, since what a cancelled read had taken comes with the
        next. When the subscription ends, the last batch comes before its end or its error.

        All of a batch is in hand until the next is asked for: ``checkpoint`` is before it, ``batch[-1].checkpoint``
        after it.

        Raises UsageError: a number that is not positive.
        """
        options.whole("messages", messages)
        options.seconds(seconds)
        limit = self._stream.bound
        if bytes is not None:
            options.whole("bytes", bytes)
            limit = min(bytes, limit)
        return _Batches(self, messages, seconds, limit)

    def _wake(self) -> None:
        """Something became readable, or the stream ended."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------------ closing

    async def aclose(self) -> None:
        """Unsubscribe; a reader that waits ends quietly. Idempotent, and never waits for the service."""
        if not self._closed:
            self._closed = True
            self._close()
            self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._closed and not self._stream.over:
            warnings.warn(
                f"{self!r} was never closed: use 'async with' or aclose()", ResourceWarning, stacklevel=2
            )
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the client with it
                self._loop.call_soon_threadsafe(self._close)


class _Rows:
    """Rows of one message after another; what is left of a message stays with the subscription."""

    def __init__(self, subscription: Subscription[Any], cube: str | None) -> None:
        self._subscription = subscription
        self._cube = cube

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        subscription = self._subscription
        if subscription._rows_of != self._cube:
            subscription._rows, subscription._rows_of = iter(()), self._cube
        while True:
            for row in subscription._rows:
                return row
            message = await subscription.__anext__()
            rows = message.rows(self._cube)
            subscription._rows = rows if message.undo is None else chain((message.undo,), rows)


class _Batches(Generic[T]):
    """Batch after batch; one that is not whole yet stays with the subscription."""

    def __init__(
        self, subscription: Subscription[T], messages: int, seconds: float | None, limit: int
    ) -> None:
        self._subscription = subscription
        self._messages = messages
        self._seconds = seconds
        self._limit = limit

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message[T]]:
        subscription = self._subscription
        subscription._alone()
        batch = subscription._batch
        if batch:
            subscription._stream.handed(batch[0]._number)
        else:
            batch.append(await subscription.__anext__())
        until = None if self._seconds is None else asyncio.get_running_loop().time() + self._seconds
        # An error that ended the subscription is there again when the next batch is asked for.
        with contextlib.suppress(TimeoutError, StopAsyncIteration, BqstreamError):
            async with asyncio.timeout_at(until):
                await subscription._fill(batch, self._messages, self._limit)
        subscription._batch = batch[self._messages :]
        return batch[: self._messages]


class Subscribing(Awaitable[Subscription[T]]):
    """What ``Client.subscribe`` gives: await it, or enter it with ``async with``."""

    def __init__(self, open: Callable[[], Awaitable[Subscription[T]]]) -> None:
        self._open = open
        self._subscription: Subscription[T] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        raise UsageError(
            "a subscription is opened before it is read: async with client.subscribe(…) as stream, or "
            "stream = await client.subscribe(…)"
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a subscription is opened before its {name} is used: async with client.subscribe(…) as stream, or "
            "stream = await client.subscribe(…)"
        )

    def __await__(self) -> Generator[Any, None, Subscription[T]]:
        return self._open().__await__()

    async def __aenter__(self) -> Subscription[T]:
        self._subscription = await self._open()
        return self._subscription

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._subscription.aclose()
