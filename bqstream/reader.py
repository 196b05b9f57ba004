"""Reading a subscription: by message, by row and by batch, so that a cancelled read loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from itertools import chain
from typing import Any, Generic, NoReturn, Self

from . import options
from .delivery.stream import Stream
from .errors import BqstreamError, UsageError
from .message import Message, T, require_cube

# A reader that always finds a message ready lets other tasks run after this many.
FAIRNESS = 256


class Reader(Generic[T]):
    """What a `Subscription` does of reading; one task at a time."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._closed = False
        self._reading = False
        self._waiter: asyncio.Future[None] | None = None
        self._unfair = 0
        self._batch: list[Message[T]] = []  # what a cancelled read had taken
        self._rows: Iterator[Any] = iter(())  # what is left of the message that ``rows`` has in hand …
        self._rows_of: str | None = None  # … and of which cube
        self._loops: weakref.WeakSet[Loop] = weakref.WeakSet()  # that somebody is in
        # Who has read, or waited, last; None: nobody yet.
        self._by: weakref.ref[asyncio.Task[Any]] | None = None
        self._watched = False  # somebody looks on, and is to know exactly
        self._loop = asyncio.get_running_loop()

    @property
    def is_read(self) -> bool:
        """Whether somebody reads, or is between two reads: a read waits, an ``async for`` goes on (one that was left by
        ``break`` or an error does not), or the task that has read last has not ended."""
        task = self._by() if self._by is not None else None
        return self._reading or bool(self._loops) or (task is not None and not task.done())

    @property
    def was_read(self) -> bool:
        """Whether anybody has ever read."""
        return self._by is not None

    def __aiter__(self) -> AsyncIterator[Message[T]]:
        return _Messages(self)

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
        if self._watched or self._by is None:
            self._note()

    def _note(self) -> None:
        """This task reads."""
        task = asyncio.current_task()
        assert task is not None, "a read is awaited"
        self._by = weakref.ref(task)

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
        self._note()
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

        After a ``break`` another call goes on with the next row of the same message, also where messages or batches are
        read in between, whose checkpoints count it at once. One for another cube goes on with the next message: what
        was left of this one is passed over. Errors that came beside the rows are in ``Message.errors`` alone. With
        ``undo=True`` an `Undo` comes before the rows that take the others' places.

        Raises UsageError where the document has no such cube.
        """
        require_cube(cube, self._stream.cubes)
        return _Rows(self, cube)

    async def _next_row(self, cube: str | None) -> Any:
        if self._rows_of != cube:
            self._rows, self._rows_of = iter(()), cube
        while True:
            for row in self._rows:
                return row
            message = await self.__anext__()
            rows = message.rows(cube)
            self._rows = rows if message.undo is None else chain((message.undo,), rows)

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

    async def _next_batch(self, messages: int, seconds: float | None, limit: int) -> list[Message[T]]:
        self._alone()
        batch = self._batch
        if batch:
            self._stream.handed(batch[0]._number)
        else:
            batch.append(await self.__anext__())
        until = None if seconds is None else self._loop.time() + seconds
        # An error that ended the reader is there again when the next batch is asked for.
        with contextlib.suppress(TimeoutError, StopAsyncIteration, BqstreamError):
            async with asyncio.timeout_at(until):
                await self._fill(batch, messages, limit)
        self._batch = batch[messages:]
        return batch[:messages]

    def _wake(self) -> None:
        """Something became readable, or the stream ended."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Loop:
    """What an ``async for`` holds for as long as it goes on, and nobody else: that tells whether somebody reads.

    What it awaits is the reader's own, so that an error's traceback, which a notebook keeps, does not hold it.
    """

    __slots__ = ("__weakref__", "_reader")

    def __init__(self, reader: Reader[Any]) -> None:
        self._reader = reader
        reader._loops.add(self)

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> NoReturn:
        self._reader._loops.discard(self)  # the traceback, which a notebook keeps, holds this one
        raise UsageError("what a stream brings comes with time: async for, not for")


class _Messages(Loop, Generic[T]):
    """Message after message."""

    __slots__ = ()

    def __anext__(self) -> Coroutine[Any, Any, Message[T]]:
        return self._reader.__anext__()


class _Rows(Loop):
    """Rows of one message after another; what is left of a message stays with the reader."""

    __slots__ = ("_cube",)

    def __init__(self, reader: Reader[Any], cube: str | None) -> None:
        super().__init__(reader)
        self._cube = cube

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._reader._next_row(self._cube)


class _Batches(Loop, Generic[T]):
    """Batch after batch; one that is not whole yet stays with the reader."""

    __slots__ = ("_limit", "_messages", "_seconds")

    def __init__(self, reader: Reader[T], messages: int, seconds: float | None, limit: int) -> None:
        super().__init__(reader)
        self._messages = messages
        self._seconds = seconds
        self._limit = limit

    def __anext__(self) -> Coroutine[Any, Any, list[Message[T]]]:
        return self._reader._next_batch(self._messages, self._seconds, self._limit)
