"""What the session needs of whoever takes an operation's payloads; delivery has it, and the client joins the two.

Every method is plain and quick: the session calls them from inside a socket's reading. ``source`` is the number of
a link, ``now`` the monotonic clock's time. The session never sees a row, and the receiver never sees a link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Crossed:
    """How an operation crossed: ``proven`` that nothing fell between the links; rows that came on both."""

    proven: bool
    merged: int


class Receiver(Protocol):
    """One operation's end of the stream."""

    def joined(self, source: int, now: float, *, grace: float) -> None:
        """The operation was started on ``source``. While an earlier source feeds it, ``source`` is held until it is
        known where its rows stand; ``grace`` (seconds) is how far one source's data may lag behind another's."""

    def payload(self, source: int, raw: bytes, now: float) -> bool:
        """Take one payload; False says that the buffer is full and reading had better stop for a while."""

    def crossed(self, source: int, now: float, *, beaten: float | None) -> bool:
        """Whether every source older than ``source`` may go without a row being lost.

        ``beaten`` is when both links had answered a ping sent after the start on ``source``; ``None``: not yet.
        """

    def cross(self, source: int, now: float) -> Crossed:
        """The older sources go now, proven or not; what cannot be shown is named as a gap."""

    def lost(self, source: int, now: float, why: str) -> None:
        """``source`` brings no more. A source that was only joining is forgotten with what it brought; where no
        source is left, or what is left had not crossed, a gap is named."""

    def park(self, now: float) -> None:
        """The reader was slow for too long: let messages go, and name them in a gap, until there is room."""

    def completed(self, now: float) -> None:
        """The service ended the operation: what waits is still delivered, then the stream ends."""

    def failed(self, error: Exception, now: float) -> None:
        """The operation is over: what waits is still delivered, then ``error`` is raised."""
