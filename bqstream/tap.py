"""Looking at a subscription while others read it, or while nobody does."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .delivery.rows import Payload
from .events import Event
from .message import Arrival, Message
from .status import Status, SubscriptionStatus

if TYPE_CHECKING:
    from .subscription import Subscription

_log = logging.getLogger("bqstream")

# A message that waits for so long (seconds), where nobody has ever read, was meant for those who look on.
LINGER = 5.0


class Tap:
    """Sees every message of ``subscription`` as it begins to wait for the reader, and takes none from it.

    Until somebody has read, what has waited for ``LINGER`` seconds is let go. Later it waits for whoever may come back,
    and while nobody reads only the oldest is let go of what makes the buffer more than half full, so that one who looks
    on never stops the stream. It counts as read for ``Subscription.checkpoint``.

    Somebody reads as long as an ``async for`` over the subscription, its rows or batches goes on, as the task that has
    read last has not ended, and for ``LINGER`` seconds after a read. A reader is between two reads for as long as its
    work takes, and loses nothing to those who look on.

    A subscription has one tap: another takes its place, and closing calls ``on_closed`` first. Where one of the
    callables raises it is logged and the tap is closed: the stream goes on.

    Args:
        on_messages: gets the messages that came at once, those first that wait already; not their checkpoints. It must
            be quick.
        on_event: gets the client's newest events, then every one to come; likewise.

    Attributes:
        viewed: rows that nobody has read.
    """

    def __init__(
        self,
        subscription: Subscription[Any],
        *,
        on_messages: Callable[[Sequence[Message[Any]]], None],
        on_event: Callable[[Event], None],
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        if subscription._tap is not None:
            subscription._tap.close()
        subscription._tap, subscription._watched = self, True
        self.operation = subscription.operation
        self.viewed = 0
        # One that nobody holds any more is to close itself: this must not hold it.
        self._subscription = weakref.ref(subscription)
        self._course = subscription._course
        self._stream = subscription._stream
        self._loop = subscription._loop
        self._time = self._loop.time
        self._on_messages = on_messages
        self._on_event = on_event
        self._on_closed = on_closed
        self._taken = 0  # by this tap
        self._read = self._stream.messages  # by others, when that was looked at last …
        self._read_at = -math.inf  # … and when it was seen to have changed
        self._closed = self._failed = False
        self._stream.tap = self._came
        self._unlisten = subscription._course.listen(self._happened)
        if waiting := self._stream.waiting():
            self._came(waiting)

    def close(self) -> None:
        """Look no longer; nothing more can be asked of it. Idempotent."""
        if not self._closed:
            self._closed = True
            try:
                self._on_closed()
            finally:
                self._unlisten()
                self._stream.tap = None
                subscription = self._subscription()
                if subscription is not None and subscription._tap is self:
                    subscription._tap, subscription._watched = None, False
                del self._stream, self._course  # which would keep the client

    @property
    def is_read(self) -> bool:
        """Whether somebody reads the subscription."""
        subscription, now = self._subscription(), self._time()
        if (read := self._stream.messages - self._taken) != self._read:
            self._read, self._read_at = read, now
        return subscription is not None and (subscription.is_read or now - self._read_at < LINGER)

    def let_go(self) -> None:
        """Let go what has waited too long for a reader that there is not; to be called now and then."""
        subscription = self._subscription()
        if subscription is None:  # nobody can read it any more
            while self._stream.waiting_messages:
                self._take()
        elif not self.is_read:
            since = -math.inf if subscription.was_read else self._time() - LINGER
            while self._stream.over_half or self._stream.waits_since <= since:
                self._take()

    def _came(self, arrivals: Sequence[Arrival]) -> None:
        self._tell(self._on_messages, [Message(arrival, self._stream, 0) for arrival in arrivals])
        if self._stream.over_half and not self.is_read:
            while self._stream.over_half:
                self._take()

    def _happened(self, event: Event) -> None:
        self._tell(self._on_event, event)

    def _tell(self, told: Callable[[Any], None], what: Any) -> None:
        """This is called from inside the reading of a link, which is not to end by what others do here."""
        if not self._failed:
            try:
                told(what)
            except Exception:  # noqa: BLE001
                self._failed = True
                _log.exception("what looks on at a stream failed by a bug of its own; please report it")
                self._loop.call_soon(self.close)

    def _take(self) -> None:
        self._taken += 1
        message = self._stream.take()
        assert message is not None, "something waits"
        self.viewed += rows_in(message)

    # ------------------------------------------------------------------ what is asked of it

    @property
    def over(self) -> bool:
        """Whether nothing more comes in; ``error`` says why, unless it was closed or completed."""
        return self._stream.over

    @property
    def waits(self) -> int:
        """How many messages wait for a reader."""
        return self._stream.waiting_messages

    @property
    def error(self) -> Exception | None:
        return self._stream.error

    @property
    def paused(self) -> bool:
        return self._stream.paused

    def pause(self) -> None:
        self._course.pause()

    def resume(self) -> None:
        self._course.resume()

    def status(self) -> Status:
        """The client's."""
        return self._course.status()

    def of(self, status: Status) -> SubscriptionStatus | None:
        """The subscription's part of it; None once it has ended."""
        return next((one for one in status.subscriptions if one.operation == self.operation), None)


def rows_in(message: Message[Any]) -> int:
    """How many rows a message has, at a fraction of what decoding them costs."""
    payload = Payload(message._arrival.raw)
    if payload.shapeless:
        return 1
    return sum(len(rows) for rows in payload.cubes.values() if rows is not None)
