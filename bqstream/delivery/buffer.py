"""What waits for the reader of one subscription: bounded by count and bytes, and full in one of three ways."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from .. import config
from ..config import MEBIBYTE
from ..message import Arrival

# What may still come in after a link was asked to stop reading: it was already on its way.
OVERRUN_MESSAGES = 256
OVERRUN_BYTES = MEBIBYTE


class Buffer:
    """A queue of messages within ``limits``.

    ``drop(arrival)`` gets each message that is let go. ``on_parked(resumed)`` is called when messages begin to be
    let go at the door, and when they are taken in again; ``on_room()`` when a buffer that was full, or dropped, is
    half empty. A single message larger than the byte bound is taken in when nothing else waits. ``waiting`` holds them,
    the oldest first, for others to look at.
    """

    def __init__(
        self,
        limits: config.Buffer,
        *,
        drop: Callable[[Arrival], None],
        on_parked: Callable[[bool], None],
        on_room: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._drop = drop
        self._on_parked = on_parked
        self._on_room = on_room
        self.waiting: deque[Arrival] = deque()
        self._strained = False  # it was full and is not half empty yet
        self.bytes = 0
        self.full = False  # no further message fits
        self.parked = False

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def over_half(self) -> bool:
        """Whether more than half of what may wait does, by count or by bytes."""
        return 2 * len(self) > self._limits.messages or 2 * self.bytes > self._limits.bytes

    def put_all(self, arrivals: Sequence[Arrival]) -> bool:
        """Take all of them in, the usual case; False, and none is taken, where they might fill it or be let go."""
        limits, waiting = self._limits, self.waiting
        size = self.bytes + sum([len(arrival.raw) for arrival in arrivals])
        if self.parked or size >= limits.bytes or len(waiting) + len(arrivals) >= limits.messages:
            return False
        waiting.extend(arrivals)
        self.bytes = size
        return True

    def put(self, arrival: Arrival) -> bool:
        """Take ``arrival`` in, or let go what the policy says; False where the policy is "error" and it overflows."""
        if self.parked:
            self._drop(arrival)
            return True
        fits = self._fits(arrival)
        if not fits and self._limits.overflow == "error":
            return False
        if not fits and self._limits.overflow == "drop_oldest":
            while self.waiting and not self._fits(arrival):
                oldest = self.waiting.popleft()
                self.bytes -= len(oldest.raw)
                self._drop(oldest)
            self._strained = True
        elif not fits and not self._fits(arrival, OVERRUN_MESSAGES, OVERRUN_BYTES):
            self.park()
            self._drop(arrival)
            return True
        self.waiting.append(arrival)
        self.bytes += len(arrival.raw)
        self._look()
        self._strained = self._strained or self.full
        return True

    def park(self) -> None:
        """Let messages go at the door until the buffer is half empty."""
        if not self.parked and self.waiting:
            self.parked = self._strained = True
            self._on_parked(False)

    def take(self) -> Arrival | None:
        """The message that has waited longest; None when none waits."""
        if not self.waiting:
            return None
        arrival = self.waiting.popleft()
        self.bytes -= len(arrival.raw)
        if self._strained:
            self._relax()
        return arrival

    def _relax(self) -> None:
        self._look()
        if not self.over_half:
            self._strained = False
            if self.parked:
                self.parked = False
                self._on_parked(True)
            self._on_room()

    def _look(self) -> None:
        self.full = len(self.waiting) >= self._limits.messages or self.bytes >= self._limits.bytes

    def _fits(self, arrival: Arrival, more: int = 0, more_bytes: int = 0) -> bool:
        if not self.waiting:
            return True
        limits, size = self._limits, len(arrival.raw)
        return len(self.waiting) < limits.messages + more and self.bytes + size <= limits.bytes + more_bytes
