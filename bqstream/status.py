"""A picture of a client at one moment, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from . import events, html
from .clock import Clock
from .credentials.token import HeldToken
from .delivery.stream import Stream
from .session.session import Session
from .session.supervisor import State


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """One open link; ``state`` is "connecting" until it is acknowledged, then "live"."""

    number: int
    state: str
    operations: int
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatus:
    """One subscription's counters.

    ``gaps``      that were named so far, whether they were closed or not.
    ``merged``    rows that came on two links and were delivered once.
    ``dropped``   messages that were let go because the reader was slow; each stands in a gap.
    ``unproven``  whether its newest crossing still lacks the proof that nothing fell between two links.
    ``paused``    whether it is unsubscribed until ``resume()``.
    ``closing``   whether a gap is being closed.
    ``queries``   queries that were answered to close gaps, each about 5 points a cube (ide/points).
    ``backfilled``  rows that they brought.
    ``truncated`` messages as long as the service's own limit of rows, whose blocks were asked for again.
    """

    operation: int
    messages: int
    merged: int
    dropped: int
    waiting_messages: int
    waiting_bytes: int
    gaps: int
    parked: bool
    paused: bool
    unproven: bool
    closing: bool
    queries: int
    backfilled: int
    truncated: int

    @property
    def state(self) -> str:
        """ "paused", "parked", "closing a gap" or "live": what its reader may wait for."""
        return (
            "paused"
            if self.paused
            else "parked"
            if self.parked
            else "closing a gap"
            if self.closing
            else "live"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A client at one moment.

    ``state``  "closed", "idle", "connecting", "waiting" (backing off), "rotating" (handing over) or "live".
    """

    state: str
    token_expires_at: datetime | None
    rotations: int
    reconnects: int
    unproven: int
    links: tuple[LinkStatus, ...]
    subscriptions: tuple[SubscriptionStatus, ...]

    def _repr_html_(self) -> str:
        pairs = (
            ("state", self.state),
            ("token expires", self.token_expires_at or "never, or there is none"),
            ("hand-overs", self.rotations),
            ("reconnects", self.reconnects),
        )
        links = [(link.number, link.state, link.operations, link.messages) for link in self.links]
        subscriptions = [
            (one.operation, one.state, one.messages, one.waiting_messages, one.gaps)
            for one in self.subscriptions
        ]
        return (
            html.facts("Client", pairs)
            + html.grid(("link", "state", "subscriptions", "messages"), links)
            + html.grid(("subscription", "state", "messages read", "waiting", "gaps"), subscriptions)
        )

    @classmethod
    def of(
        cls, session: Session | None, token: HeldToken | None, clock: Clock, streams: Mapping[int, Stream]
    ) -> Status:
        supervisors = session.supervisors if session is not None else ()
        subscriptions = tuple(_subscription(key, stream) for key, stream in streams.items())
        remaining = token.remaining(clock) if token is not None else float("inf")
        return cls(
            state=_state({supervisor.state for supervisor in supervisors}),
            token_expires_at=None if remaining == float("inf") else events.moment(clock.wall() + remaining),
            rotations=sum(supervisor.rotations for supervisor in supervisors),
            reconnects=sum(supervisor.reconnects for supervisor in supervisors),
            unproven=sum(subscription.unproven for subscription in subscriptions),
            links=tuple(
                LinkStatus(
                    number=link.number,
                    state="live" if link.acked else "connecting",
                    operations=len(link.running),
                    messages=link.messages,
                )
                for supervisor in supervisors
                for link in supervisor.links
            ),
            subscriptions=subscriptions,
        )


def _state(states: set[State]) -> str:
    """The state that wants attention most, of several supervisors'."""
    for state in (State.WAITING, State.CONNECTING, State.ROTATING, State.LIVE, State.IDLE):
        if state in states:
            return str(state.value)
    return State.CLOSED.value


def _subscription(key: int, stream: Stream) -> SubscriptionStatus:
    return SubscriptionStatus(
        operation=key,
        messages=stream.messages,
        merged=stream.merged,
        dropped=stream.dropped,
        waiting_messages=stream.waiting_messages,
        waiting_bytes=stream.waiting_bytes,
        gaps=len(stream.gaps) + stream.gaps_forgotten,
        parked=stream.parked,
        paused=stream.paused,
        unproven=stream.unproven,
        closing=stream.closing,
        queries=stream.queries,
        backfilled=stream.backfilled,
        truncated=stream.truncated,
    )
