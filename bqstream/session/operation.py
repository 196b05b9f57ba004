"""What the session needs of whoever takes an operation's payloads; delivery has it, and the client joins the two.

Every method is plain and quick: the session calls them from inside a socket's reading. ``source`` is the number of
a link, ``now`` the monotonic clock's time. The session never sees a row, and the receiver never sees a link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..message import Crossed, GapCause


class Receiver(Protocol):
    """One operation's end of the stream."""

    def joined(self, source: int, now: float, *, grace: float, served: float) -> None:
        """The operation was started on ``source``; ``grace`` (seconds) is how far one source's data may lag behind
        another's, ``served`` the service's time in seconds since the epoch."""

    def payloads(self, source: int, raws: Sequence[bytes], now: float) -> bool:
        """Take payloads that came at once, in order; False says that the buffer is full and reading had better stop
        for a while."""

    def crossed(self, source: int, now: float, *, beaten: float | None) -> bool:
        """Whether every source older than ``source`` may go without a row being lost.

        ``beaten`` is when both links had answered a ping sent after the start on ``source``; ``None``: not yet.
        """

    def cross(self, source: int, now: float) -> Crossed:
        """The older sources go now, proven or not; what cannot be shown is named as a gap."""

    def lost(self, source: int, now: float, why: str, *, cause: GapCause = "lost") -> None:
        """``source`` brings no more. One that was only joining is forgotten with what it brought; where no source
        is left, or what is left had not crossed, a gap is named, with ``cause``."""

    def park(self, now: float) -> None:
        """The reader was slow for too long: let messages go, and name them in a gap, until there is room."""

    def completed(self, now: float) -> None:
        """The service ended the operation: what waits is still delivered, then the stream ends."""

    def failed(self, error: Exception, now: float) -> None:
        """The operation is over: what waits is still delivered, then ``error`` is raised."""


@dataclass(slots=True, eq=False)
class Operation:
    """One ``subscribe``d document, for as long as its subscription lives: it moves from link to link.

    ``request`` is the JSON text of the ``subscribe`` payload. ``served``: a payload came in on some link.
    ``refusals`` counts starts in a row that were answered by an error. ``fallback`` gives the request to send in place
    of one that the service refuses, None where rows have come in already; it is asked once.
    """

    key: int
    request: bytes
    receiver: Receiver
    served: bool = False
    refusals: int = 0
    settled: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    error: Exception | None = None
    fallback: Callable[[], bytes | None] | None = None

    def fall_back(self) -> bool:
        """Send the other request from now on; False where there is none, or this one has been served."""
        fallback, self.fallback = self.fallback, None
        if fallback is None or self.served:
            return False
        request = fallback()
        if request is None:
            return False
        self.request, self.refusals = request, 0
        return True

    def settle(self, error: Exception | None = None) -> None:
        """It was started on a link for the first time, or failed before."""
        if not self.settled.done():
            self.error = error
            self.settled.set_result(None)
