"""Events in words, one line each, for standard error, the demo, and those who watch a collector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from . import events

Tone = Literal["good", "trouble", "plain"]
_TROUBLE = (
    events.Lost,
    events.Refused,
    events.Stalled,
    events.Waiting,
    events.GapNamed,
    events.SlowConsumer,
)


def _mode(event: events.HandedOver) -> str:
    proof = "every row accounted for" if not event.unproven else f"{event.unproven} unproven"
    return (
        f"handed over by {event.mode}: link {event.old} to {event.new}, "
        f"{counted(event.operations, 'operation')}, {counted(event.merged, 'row')} merged, {proof}"
    )


def _token(event: events.TokenRefreshed) -> str:
    until = f"good until {event.expires_at:%H:%M:%S}" if event.expires_at else "never expires"
    return f"token refreshed: {until}"


def _parked(event: events.Parked) -> str:
    return f"operation {event.operation} {'goes on' if event.resumed else 'parked: its reader is slow'}"


_WORDS: dict[type[events.Event], Callable[..., str]] = {
    events.Connected: lambda e: f"connected: link {e.link}, {e.subprotocol}",
    events.Lost: lambda e: f"lost: link {e.link}: {e.why}",
    events.TokenRefreshed: _token,
    events.HandedOver: _mode,
    events.Refused: lambda e: f"refused: {e.what}: {e.why}",
    events.Stalled: lambda e: f"stalled: link {e.link} gave no sign of life for {e.seconds:.1f} s",
    events.Parked: _parked,
    events.Waiting: lambda e: f"waiting until {e.until:%H:%M:%S} (failure {e.attempt}): {e.why}",
    events.GapNamed: lambda e: f"gap in operation {e.operation}: {e.gap}",
    events.SlowConsumer: lambda e: f"slow consumer: link {e.link} was closed with 1013",
}


def counted(number: int, noun: str) -> str:
    """``1 row``, ``1,234 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def line(event: events.Event) -> str:
    """One event as a line without its time; a kind that is not known here goes by its own name."""
    words = _WORDS.get(type(event))
    return words(event) if words else type(event).__name__


def tone(event: events.Event) -> Tone:
    """How an event is to look: trouble, what mends it, or neither."""
    if isinstance(event, events.GapNamed) and event.gap.closed:
        return "good"
    if isinstance(event, _TROUBLE) or (isinstance(event, events.Parked) and not event.resumed):
        return "trouble"
    return "good" if isinstance(event, events.HandedOver) else "plain"


def timed(event: events.Event) -> str:
    """One event as a line that starts with its time, local to the reader."""
    return f"{event.at.astimezone():%H:%M:%S} {line(event)}"
