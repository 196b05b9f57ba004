"""What ``bqstream collect`` shows on standard error: a live view on a terminal, plain lines elsewhere.

with view_of(sys.stderr) as view:
    while True:
        view.show(monitor.picture())
        await asyncio.sleep(TICK)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..collect.monitor import Picture, Watched
from ..timeline import Happened, Sample
from ..wording import counted, shown
from .view import happened, links, session, span

_log = logging.getLogger("bqstream.collect")
_LINES_EVERY = 10.0
_EVENTS = 8
_BARS = "▁▂▃▄▅▆▇█"
# Characters: of a subscription's name at most, of a number at least, and between two columns.
_NAME, _LEAST, _BETWEEN = 18, 7, 2


class CollectView(Protocol):
    """Entered for as long as the collector runs; ``show`` is called twice a second or so."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def show(self, picture: Picture) -> None: ...


def view_of(file: TextIO, plain: bool = False) -> CollectView:
    """The view that suits ``file``, or the ``plain`` one. Colours are rich's, which leaves them out with NO_COLOR."""
    console = Console(file=file, highlight=False)
    return (
        LiveCollect(console)
        if console.is_terminal and not console.is_dumb_terminal and not plain
        else PlainCollect(file)
    )


@dataclass(slots=True)
class PlainCollect:
    """A line for each subscription every ten seconds and at the end, and one for each event."""

    file: TextIO
    _next: float = 0.0
    _told: int = 0
    _last: Picture | None = None
    _handler: logging.Handler = field(init=False)

    def __post_init__(self) -> None:
        self._handler = logging.StreamHandler(self.file)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def __enter__(self) -> Self:
        _log.addHandler(self._handler)
        return self

    def __exit__(self, *exc: object) -> None:
        _log.removeHandler(self._handler)
        if self._last is not None:
            self._tell_all(self._last)

    def show(self, picture: Picture) -> None:
        new = min(picture.happened - self._told, len(picture.events))
        for event in picture.events[len(picture.events) - new :]:
            self._tell(_line(event))
        self._told, self._last = picture.happened, picture
        if picture.at.timestamp() >= self._next:
            self._next = picture.at.timestamp() + _LINES_EVERY
            self._tell_all(picture)

    def _tell_all(self, picture: Picture) -> None:
        for one in picture.collectors:
            status = one.status
            parts = [
                f"{status.name}: {counted(status.rows, 'row')}",
                f"{_rate(one.rate)} a second",
                f"{_lag(one)} behind the chain",
                counted(status.gaps, "gap") + (f" ({counted(status.holes, 'hole')})" if status.holes else ""),
                *([counted(status.misfits, "misfit")] if status.misfits else []),
                f"{_state(one)}: {status.trouble}" if status.trouble else _state(one),
            ]
            self._tell(f"{_clock(picture.at)} {', '.join(parts)}")
        if picture.client is not None:
            left, _ = _token(picture)
            token = f"token good for {span(left)}; " if left else ""
            self._tell(
                f"{_clock(picture.at)} {token}links: {links(picture.client)}; "
                f"{counted(picture.client.rotations, 'hand-over')}, "
                f"{counted(picture.client.reconnects, 'reconnect')}"
            )

    def _tell(self, text: str) -> None:
        print(shown(text), file=self.file, flush=True)


@dataclass(slots=True)
class LiveCollect:
    """The terminal view."""

    console: Console
    _live: Live = field(init=False)

    def __post_init__(self) -> None:
        self._live = Live(console=self.console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def show(self, picture: Picture) -> None:
        self._live.update(page(picture, self.console.width), refresh=True)


def page(picture: Picture, width: int) -> RenderableType:
    """The whole view of one moment, for a terminal of so many columns."""
    parts: list[RenderableType] = [_numbers(picture, width), Text(), _sinks(picture), Text()]
    if picture.client is not None:
        left, life = _token(picture)
        parts += [session(picture.client, left, life), Text()]
    parts += [happened(_line(event), event.tone) for event in picture.events[-_EVENTS:]]
    return Group(*parts)


def _numbers(picture: Picture, width: int) -> Table:
    running = (picture.at - picture.started).total_seconds()
    table = Table(
        title=Text(f"bqstream collect, for {span(running)}", style="bold"),
        title_justify="left",
        box=None,
        padding=(0, _BETWEEN, 0, 0),
        header_style="dim",
    )
    rows = [
        (
            one.status.name,
            _rate(one.rate),
            f"{one.status.rows:,}",
            _lag(one),
            _bytes(one.waiting_bytes),
            _gaps(one),
        )
        for one in picture.collectors
    ]
    names = ("subscription", "rows/s", "rows", "behind", "buffer", "gaps")
    most = (_NAME, width, width, width, width, width)
    # A column does not become narrower with its numbers, so that the others stay where they are.
    widths = [
        min(limit, max(_LEAST, *(len(row[place]) for row in (names, *rows))))
        for place, limit in enumerate(most)
    ]
    bars = max(0, min(60, width - sum(widths) - _BETWEEN * (len(names) + 1)))
    table.add_column(names[0], no_wrap=True, overflow="ellipsis", width=widths[0])
    table.add_column(names[1], justify="right", no_wrap=True, width=widths[1])
    table.add_column("last minute", no_wrap=True, overflow="crop", width=bars)
    for name, wide in zip(names[2:], widths[2:], strict=True):
        table.add_column(name, justify="right", no_wrap=True, width=wide)
    for one, (name, rate, count, lag, size, gaps) in zip(picture.collectors, rows, strict=True):
        line = sparkline(picture.samples.get(name, ()), bars, picture.at.timestamp())
        style = "bold red" if one.status.holes else "yellow" if one.closing else ""
        table.add_row(
            Text(name, style="bold"),
            rate,
            Text(line, style="cyan"),
            count,
            lag,
            size,
            Text(gaps, style=style),
        )
    return table


def _sinks(picture: Picture) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=_NAME)
    grid.add_column(no_wrap=True)
    grid.add_column()
    for one in picture.collectors:
        status = one.status
        good = one.subscribed and not status.trouble and not status.overdue
        said = [status.sink]
        if status.misfits:
            said.insert(0, counted(status.misfits, "misfit"))
        if status.committed_at is not None:
            said.insert(0, f"committed {span((picture.at - status.committed_at).total_seconds())} ago")
        grid.add_row(
            status.name,
            Text(_state(one), style="green" if good else "yellow"),
            Text(", ".join(said), no_wrap=True, overflow="ellipsis"),
        )
        if status.trouble:
            grid.add_row("", "", Text(shown(status.trouble), style="red"))
    return grid


def sparkline(samples: Sequence[Sample], width: int, now: float) -> str:
    """The rates of the last minute as bars, the newest on the right; the highest is as high as can be."""
    sums, counts = [0.0] * width, [0] * width
    for sample in samples[-61:]:
        place = int((sample.at - now + 60) / 60 * width)
        if 0 <= place < width:
            sums[place] += sample.rate
            counts[place] += 1
    means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    for place in range(1, width):  # where there are more bars than samples
        if means[place] is None:
            means[place] = means[place - 1]
    top = max((mean for mean in means if mean is not None), default=0.0)
    return "".join(
        " " if mean is None else _BARS[round(mean / top * (len(_BARS) - 1)) if top else 0] for mean in means
    )


def _state(one: Watched) -> str:
    state = "commit overdue" if one.status.overdue else one.status.state
    return f"{state}, closing a gap" if one.closing else state


def _gaps(one: Watched) -> str:
    return (
        f"{one.status.gaps:,}, {counted(one.status.holes, 'hole')}"
        if one.status.holes
        else f"{one.status.gaps:,}"
    )


def _token(picture: Picture) -> tuple[float, float]:
    """How many seconds of the token's life are left, and how long it is; 0 of 1 where it does not end."""
    if picture.client is None or picture.client.token_expires_at is None:
        return 0.0, 1.0
    left = max(0.0, (picture.client.token_expires_at - picture.at).total_seconds())
    newest = picture.tokens[-1] if picture.tokens else None
    if newest is None or newest.expires is None:
        return left, max(left, 1.0)
    return left, max(1.0, (newest.expires - newest.start).total_seconds())


def _rate(rate: float) -> str:
    return f"{rate:,.1f}" if rate < 10 else f"{rate:,.0f}"


def _lag(one: Watched) -> str:
    return "–" if one.lag is None else span(one.lag)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _clock(at: datetime) -> str:
    return f"{at.astimezone():%H:%M:%S}"


def _line(event: Happened) -> str:
    return f"{_clock(event.at)} {event.text}"
