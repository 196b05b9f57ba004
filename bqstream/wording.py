"""Events in words, one line each, for standard error, the demo, and those who watch a collector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from . import events
from .delivery.repair import ENDED

Tone = Literal["good", "trouble", "plain"]
_TROUBLE = (
    events.Lost,
    events.Refused,
    events.Stalled,
    events.Waiting,
    events.GapNamed,
    events.SlowConsumer,
)


def _mode(event: events.HandedOver, who: str) -> str:
    proof = "every row accounted for" if not event.unproven else f"{event.unproven} unproven"
    return (
        f"handed over by {event.mode}: link {event.old} to {event.new}, "
        f"{counted(event.operations, 'operation')}, {counted(event.merged, 'row')} merged, {proof}"
    )


def _token(event: events.TokenRefreshed, who: str) -> str:
    until = f"good until {event.expires_at.astimezone():%H:%M:%S}" if event.expires_at else "never expires"
    return f"token refreshed: {until}"


def _gap(event: events.GapNamed, who: str) -> str:
    gap, today = event.gap, event.at.astimezone().date()
    times = [time.astimezone() for time in (gap.start, gap.end) if time is not None]
    said = [f"{time:%H:%M:%S}" if time.date() == today else f"{time:%d %b %H:%M:%S}" for time in times]
    cubes = ", ".join(gap.cubes)
    of = f" of {cubes}" if cubes and cubes != who else ""
    why = f"{gap.cause}: {gap.detail}" if gap.detail else gap.cause
    if gap.closed:
        state = f"closed: {gap.how}"
    elif gap.reason is None:
        state = f"being closed ({why})"
    elif gap.reason == ENDED:  # a collector, or who resumes from a checkpoint, asks for it again
        state = f"left open: {ENDED} ({why})"
    else:
        state = f"a hole: {gap.reason}" + ("" if gap.reason in gap.detail else f" ({why})")
    return f"gap in {who}{of}, {' to '.join([*said, 'now'][:2])}: {state}"


_WORDS: dict[type[events.Event], Callable[[Any, str], str]] = {
    events.Connected: lambda e, who: f"connected: link {e.link}, {e.subprotocol}",
    events.Lost: lambda e, who: f"lost: link {e.link}: {e.why}",
    events.TokenRefreshed: _token,
    events.HandedOver: _mode,
    events.Refused: lambda e, who: f"refused: {e.what}: {e.why}",
    events.Stalled: lambda e, who: f"stalled: link {e.link} gave no sign of life for {e.seconds:.1f} s",
    events.Parked: lambda e, who: f"{who} {'goes on' if e.resumed else 'parked: its reader is slow'}",
    events.Paused: lambda e, who: f"{who} is paused: unsubscribed until it is resumed",
    events.Resumed: lambda e, who: f"{who} is resumed: subscribed again",
    events.Waiting: lambda e, who: (
        f"waiting until {e.until.astimezone():%H:%M:%S} (failure {e.attempt}): {e.why}"
    ),
    events.GapNamed: _gap,
    events.SlowConsumer: lambda e, who: f"slow consumer: link {e.link} was closed with 1013",
}


# Control characters but the tab and the end of a line, and those that turn the direction of text round.
_HIDDEN = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN = dict.fromkeys(_HIDDEN, "\N{REPLACEMENT CHARACTER}")


def shown(text: str) -> str:
    """``text`` as a terminal may have it: what others wrote, such as a service's words, commands nothing there."""
    return text.translate(_SHOWN)


def counted(number: int, noun: str) -> str:
    """``1 row``, ``1,234 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def line(event: events.Event, names: Mapping[int | None, str] | None = None) -> str:
    """One event as a line without its time; a kind that is not known here goes by its own name. ``names`` are those of
    operations, for people who have given them some."""
    words = _WORDS.get(type(event))
    operation = getattr(event, "operation", None)
    who = (names or {}).get(operation, f"operation {operation}")
    return words(event, who) if words else type(event).__name__


def tone(event: events.Event) -> Tone:
    """How an event is to look: trouble, what mends it, or neither."""
    if isinstance(event, events.GapNamed) and not event.gap.is_hole:
        if event.gap.closed:
            return "good"
        if event.gap.cause == "paused":  # as it was asked for
            return "plain"
    if isinstance(event, _TROUBLE) or (isinstance(event, events.Parked) and not event.resumed):
        return "trouble"
    return "good" if isinstance(event, events.HandedOver) else "plain"


def timed(event: events.Event) -> str:
    """One event as a line that starts with its time, local to the reader."""
    return f"{event.at.astimezone():%H:%M:%S} {line(event)}"
