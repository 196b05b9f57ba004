"""What happened to a client lately, for those who draw it: its links, tokens and gaps from start to end, and events in
words."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

from . import events
from .message import Gap
from .status import Status
from .wording import Tone, line, tone

# What is kept of each, by number; samples are a second apart, so that they reach back a quarter of an hour.
LINKS, TOKENS, GAPS, EVENTS, SAMPLES = 200, 100, 200, 100, 900

Ending = Literal["handed over", "lost", "stalled", "shed", "closed"]
"""How a link ended: "shed" with close code 1013, since it was not read fast enough; "closed" by this side."""


class Sample(NamedTuple):
    """One subscription in one second.

    ``at``    seconds since the epoch.
    ``rate``  rows a second: those that a collector committed, those that came in where a stream is watched.
    ``lag``   seconds that the newest of them is behind; None before the first.
    """

    at: float
    rate: float
    lag: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpan:
    """One link from its acknowledgement to its end; ``to`` is the link that took over."""

    link: int
    start: datetime
    end: datetime | None = None
    how: Ending | None = None
    to: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpan:
    """A token was fetched; it expires at ``expires``, or never."""

    start: datetime
    expires: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A gap as far as it is known now, and the subscription that it belongs to."""

    subscription: str
    gap: Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One event in words, without its time."""

    at: datetime
    tone: Tone
    text: str


class Timeline:
    """Takes note of a client's events; everything that it keeps is bounded, and oldest first.

    ``happened``  how many events there were, of which ``events`` has the newest.
    ``shed``      links that the service closed with 1013.
    """

    def __init__(self) -> None:
        self._links: dict[int, LinkSpan] = {}
        self._tokens: deque[TokenSpan] = deque(maxlen=TOKENS)
        self._gaps: dict[tuple[int, int], tuple[int, Gap]] = {}
        self._events: deque[events.Event] = deque(maxlen=EVENTS)
        self.happened = self.shed = 0

    def event(self, event: events.Event) -> None:
        """It happened: ``Client(on_event=timeline.event)``."""
        self._events.append(event)
        self.happened += 1
        match event:
            case events.Connected():
                self._links[event.link] = LinkSpan(link=event.link, start=event.at)
                _bound(self._links, LINKS)
            case events.HandedOver():
                self._ended(event.old, event.at, "handed over", event.new)
            case events.Stalled():
                self._ended(event.link, event.at, "stalled")
            case events.SlowConsumer():
                self.shed += 1
                self._ended(event.link, event.at, "shed")
            case events.Lost():
                self._ended(event.link, event.at, "lost")
            case events.TokenRefreshed():
                self._tokens.append(TokenSpan(start=event.at, expires=event.expires_at))
            case events.GapNamed():
                gap = event.gap
                self._gaps[event.operation, gap.number] = (event.operation, gap)
                _bound(self._gaps, GAPS)

    def alive(self, links: Set[int], now: datetime) -> None:
        """These are the links that there are; others that were open are closed, of which no event tells."""
        for span in [span for span in self._links.values() if span.end is None]:
            if span.link not in links:
                self._ended(span.link, now, "closed")

    def _ended(self, link: int, at: datetime, how: Ending, to: int | None = None) -> None:
        """The first to tell of an end says when it was, and how unless it only saw that the link was gone."""
        span = self._links.get(link)
        if span is not None and span.how in (None, "closed"):
            self._links[link] = replace(span, end=span.end or at, how=how, to=to)

    @property
    def links(self) -> tuple[LinkSpan, ...]:
        return tuple(self._links.values())

    @property
    def tokens(self) -> tuple[TokenSpan, ...]:
        return tuple(self._tokens)

    def gaps(self, names: Mapping[int | None, str]) -> tuple[Named, ...]:
        """Each gap as it was told of last; ``names`` are those of operations."""
        return tuple(
            Named(subscription=names.get(operation, f"operation {operation}"), gap=gap)
            for operation, gap in self._gaps.values()
        )

    def events(self, names: Mapping[int | None, str]) -> tuple[Happened, ...]:
        return tuple(Happened(at=one.at, tone=tone(one), text=line(one, names)) for one in self._events)


def known(status: Status, before: Status | None) -> Status | None:
    """The status to show: once a client is closed, with what it had counted ``before``, which went with its session.
    None before it was open."""
    if status.state != "closed":
        return status
    return before and replace(before, state="closed", links=(), token_expires_at=None)


def _bound(kept: dict[Any, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
