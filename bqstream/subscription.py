"""What a user iterates; it outlives links."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Protocol, Self

from . import html
from .checkpoint import Checkpoint
from .delivery.stream import Stream
from .errors import UsageError
from .events import Event
from .frames import Frames
from .message import Gaps, T
from .reader import Reader
from .status import Status
from .tap import Tap

_OPENING = "stream = await client.subscribe(…), or async with client.subscribe(…) as stream"


class Course(Protocol):
    """What a subscription asks of whoever serves it; plain, at once, and idempotent."""

    def closed(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def status(self) -> Status:
        """The client's."""
        ...

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """``listener`` gets the newest events, then every one to come, until what is returned is called. It must be
        quick and must not raise."""
        ...


class Subscription(Reader[T], Frames):
    """An endless sequence of messages, read with ``async for`` by one reader at a time.

    It is made by ``Client.subscribe`` and closed by leaving its ``async with`` or by ``aclose()``. ``break`` and a
    cancelled read only stop reading: a later ``async for`` goes on with the next message. It ends by itself when
    the service completes the operation, and raises the error that ended it, every time it is asked, if one did.
    """

    def __init__(self, stream: Stream, course: Course, operation: int) -> None:
        super().__init__(stream)
        self._course = course
        self._tap: Tap | None = None
        self.operation = operation  # its number in `Client.status` and in events

    def __repr__(self) -> str:
        return f"<Subscription {self.operation}, {self._state()}, {self._stream.waiting_messages} waiting>"

    def _repr_html_(self) -> str:
        stream, gaps = self._stream, self.gaps
        pairs = (
            ("state", self._state()),
            ("cubes", ", ".join(stream.cubes)),
            ("messages read", stream.messages),
            ("messages waiting", stream.waiting_messages),
            ("rows from queries", stream.backfilled),
            ("holes", sum(gap.is_hole for gap in gaps)),
        )
        return html.facts(f"Subscription {self.operation}", pairs) + (gaps._repr_html_() if gaps else "")

    def _state(self) -> str:
        if self._closed:
            return "closed"
        return "ended" if self._stream.over else "paused" if self.paused else "open"

    @property
    def cubes(self) -> tuple[str, ...]:
        """The response keys of the document's cubes; empty where they are not known."""
        return self._stream.cubes

    @property
    def gaps(self) -> Gaps:
        """Every range in which rows may not have been delivered, oldest first; the newest may still be open."""
        return Gaps(self._stream.gaps)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where a new process goes on if every message before the one in hand is safe.

        The message in hand counts once the reader asks for the next; what waits in the buffer does not. Cubes that
        cannot be asked again (``Gap.reason`` says why) are not in it.
        """
        kept = [self._kept.first] if self._kept is not None else []
        kept += [message._number for message in self._batch[:1]]
        return self._stream.safe(before=min(kept, default=None))

    @property
    def closing(self) -> bool:
        """Whether a gap is being closed at this moment: live messages may be held back until it is."""
        return self._stream.closing

    # ------------------------------------------------------------------ pausing and closing

    @property
    def paused(self) -> bool:
        """Whether ``pause`` was called, and neither ``resume`` nor an end has come since."""
        return self._stream.paused

    async def pause(self) -> None:
        """Unsubscribe until ``resume``: the service sends nothing more, and bills nothing more.

        What waits can still be read; then a reader waits. A query that is under way to close a gap may still bring
        rows, and no other is sent. A gap with the cause "paused" begins, which resuming closes; where it cannot be
        (``Gap.reason`` says why) it is a hole at once, and with ``on_gap="raise"`` the end. A client all of whose
        subscriptions are paused has no link.

        Any task may call it, at any time; a subscription that is paused, has ended or is closed stays as it is. It
        never waits for the service.
        """
        self._course.pause()

    async def resume(self) -> None:
        """Subscribe again, on the link that is live or the next one, and have what was missed asked for.

        That comes first, then what is live, as after a drop. An error that keeps the subscription from being live ends
        it, and its reader gets it. Any task may call it, at any time; one that is not paused stays as it is. It never
        waits for the service.
        """
        self._course.resume()

    async def aclose(self) -> None:
        """Unsubscribe; a reader that waits ends quietly. Idempotent, and never waits for the service."""
        if not self._closed:
            self._closed = True
            self._course.closed()
            self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._closed and not self._stream.over:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the client with it
                self._loop.call_soon_threadsafe(self._course.closed)
            warnings.warn(
                f"{self!r} was never closed: use 'async with' or aclose()", ResourceWarning, stacklevel=2
            )


class Subscribing(Awaitable[Subscription[T]]):
    """What ``Client.subscribe`` gives: await it, or enter it with ``async with``."""

    def __init__(self, open: Callable[[], Awaitable[Subscription[T]]]) -> None:
        self._open = open
        self._subscription: Subscription[T] | None = None

    def __repr__(self) -> str:
        return f"<Subscription that is not open: {_OPENING}>"

    def __aiter__(self) -> AsyncIterator[Any]:
        raise UsageError(f"a subscription is opened before it is read: {_OPENING}")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a subscription is opened before its {name} is used: {_OPENING}")

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
