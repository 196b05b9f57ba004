"""What happens to a client's links, as frozen values; ``Client(on_event=…)`` gets every one.

``operations`` and ``link`` are plain numbers that name an operation of this client and one of its links.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from .message import Gap

LATEST = datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp()


def moment(seconds: float) -> datetime:
    """A time of the wall clock, in seconds since the epoch, as events show it; the year 9999 at most."""
    return datetime.fromtimestamp(min(seconds, LATEST), UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The root of all events. ``at`` is the wall clock's time, UTC."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Event):
    """A link is acknowledged; operations are started on it next."""

    link: int
    subprotocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Event):
    """A link ended that nobody here closed; ``why`` says how."""

    link: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefreshed(Event):
    """The keeper holds a new token; ``expires_at`` is ``None`` for one that never expires."""

    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver(Event):
    """Every operation moved from ``old`` to ``new``.

    ``mode``      "overlap": both links were live at once; "replace": the old one was closed first.
    ``unproven``  operations of which it could not be shown that nothing fell between the links.
    ``merged``    rows that came on both links and were delivered once.
    """

    old: int
    new: int
    mode: Literal["overlap", "replace"]
    operations: int
    unproven: int
    merged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """The service refused a dial, a token or an operation; ``what`` says which."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(Event):
    """A link gave no sign of life for ``timeouts.idle`` seconds and was dropped."""

    link: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked(Event):
    """A reader was slow for longer than ``timeouts.block``: its messages are let go until it catches up."""

    operation: int
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Event):
    """``pause()`` has unsubscribed one operation; the gap that this leaves is named next."""

    operation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """``resume()`` has one operation subscribed again: it is started on the link that is live, or the next one."""

    operation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """Nothing is tried before ``until``; ``why`` is what failed, ``attempt`` counts failures in a row."""

    until: datetime
    attempt: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GapNamed(Event):
    """Rows of one operation may be missing."""

    operation: int
    gap: Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowConsumer(Event):
    """The service shed a link with close code 1013: too much waited to be read (subscriptions/
    silent-disconnect-reconnect). What was missed is asked for, and each shedding in a row lengthens the wait.

    ``advice``  what helps against the cause, for a person.
    """

    link: int
    advice: str = (
        "the link was not read fast enough, which dialling again does not cure: move work out of the reading loop, "
        "select fewer fields, filter more, or spread subscriptions with connections="
    )
