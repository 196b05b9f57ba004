"""What the demo shows: a live view on a terminal, plain lines elsewhere, nothing with ``--json``."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..events import Event
from ..wording import Tone, counted, shown, timed, tone

if TYPE_CHECKING:
    from .. import Status

_LINES_EVERY = 2.0
_STYLES: dict[Tone, str] = {"good": "green", "trouble": "yellow", "plain": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The demo at one moment: ``rows`` and ``rates`` (rows a second) by document."""

    seconds: float
    total: float
    token_ttl: float
    rows: Mapping[str, int]
    rates: Mapping[str, float]
    status: Status

    @property
    def token_left(self) -> float:
        expires = self.status.token_expires_at
        return max(0.0, (expires - datetime.now(UTC)).total_seconds()) if expires else 0.0


class View(Protocol):
    """Entered for as long as the demo runs."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exc: object) -> None: ...

    def event(self, event: Event) -> None: ...

    def show(self, moment: Moment) -> None: ...


class NoView:
    """Shows nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None

    def event(self, event: Event) -> None:
        return None

    def show(self, moment: Moment) -> None:
        return None


@dataclass(slots=True)
class PlainView(NoView):
    """A line every two seconds and one for each event."""

    _next: float = 0.0

    def event(self, event: Event) -> None:
        print(timed(event), flush=True)

    def show(self, moment: Moment) -> None:
        if moment.seconds < min(self._next, moment.total):
            return
        self._next = moment.seconds + _LINES_EVERY
        print(
            f"{moment.seconds:5.1f} s  {counted(sum(moment.rows.values()), 'row')}, "
            f"{sum(moment.rates.values()):,.0f} a second; token good for {moment.token_left:.1f} s; "
            f"links: {links(moment.status)}; {counted(moment.status.rotations, 'hand-over')}",
            flush=True,
        )


@dataclass(slots=True)
class LiveView:
    """The terminal view."""

    _events: deque[Event] = field(default_factory=lambda: deque(maxlen=8))
    _live: Live = field(default_factory=lambda: Live(refresh_per_second=10, transient=False))

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def event(self, event: Event) -> None:
        self._events.append(event)

    def show(self, moment: Moment) -> None:
        self._live.update(
            Group(
                self._documents(moment),
                session(moment.status, moment.token_left, moment.token_ttl),
                *(happened(timed(event), tone(event)) for event in self._events),
            )
        )

    def _documents(self, moment: Moment) -> Table:
        table = Table(
            title=f"bqstream demo, {min(moment.seconds, moment.total):.0f} of {moment.total:.0f} s",
            title_justify="left",
        )
        table.add_column("subscription", min_width=24)
        table.add_column("rows", justify="right", min_width=10)
        table.add_column("rows a second", justify="right")
        for name, rows in moment.rows.items():
            table.add_row(name, f"{rows:,}", f"{moment.rates[name]:,.0f}")
        return table


def links(status: Status) -> str:
    """The open links and how they are."""
    return ", ".join(f"{link.number} {link.state}" for link in status.links) or "none"


def session(status: Status, left: float, life: float) -> Table:
    """A client's token, of whose ``life`` so many seconds are ``left``, and its links."""
    grid = Table.grid(padding=(0, 2))
    if status.token_expires_at is None:
        grid.add_row("token", "no expiry" if status.state != "closed" else "–")
    else:
        grid.add_row("token", f"good for {span(left)}", ProgressBar(total=life, completed=left, width=24))
    grid.add_row("links", links(status))
    grid.add_row("hand-overs", str(status.rotations))
    grid.add_row("reconnects", str(status.reconnects))
    return grid


def happened(text: str, tone: Tone) -> Text:
    """One event, in one line."""
    return Text(shown(text), style=_STYLES[tone], no_wrap=True, overflow="ellipsis")


def span(seconds: float) -> str:
    """A length of time as people say it: ``4.2 s``, ``45 s``, ``12 min``, ``7 h``, ``3 days``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
