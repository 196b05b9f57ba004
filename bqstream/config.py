"""Frozen settings, validated at birth: a value that exists is a value that makes sense."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from .errors import UsageError
from .options import is_positive

MEBIBYTE = 1024 * 1024


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not is_positive(value):
            raise UsageError(f"{type(owner).__name__}({name}={value!r}): give a positive, finite number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each wait may last, in seconds.

    ``connect``  TCP, TLS and the HTTP upgrade together.
    ``ack``      from ``connection_init`` to ``connection_ack``.
    ``idle``     no data and no sign of life for this long: the socket is dead though nothing closed it. The
                 service advises about 10 s (subscriptions/silent-disconnect-reconnect).
    ``grace``    how far one socket's data may lag behind another's: how long a hand-over waits for proof.
    ``block``    how long a full buffer may stop its link from reading before the subscription is parked; a time in
                 which the whole program stood still counts as an eighth of it at most.
    ``query``    one query over HTTP, and one request to a token endpoint.
    ``close``    the closing handshake; after it the socket is dropped.
    """

    connect: float = 10.0
    ack: float = 10.0
    idle: float = 10.0
    grace: float = 5.0
    block: float = 2.0
    query: float = 30.0
    close: float = 2.0

    def __post_init__(self) -> None:
        _positive(self, *(field.name for field in fields(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How reconnects are spaced: exponential with full jitter, from ``initial`` to ``maximum`` seconds.

    ``jitter``    the share of each wait that is random, 0 to 1 (1 is full jitter).
    ``attempts``  give up after so many failures in a row; ``None`` never gives up. A token endpoint that fails is
                  asked on.
    ``healthy``   a link that lived this many seconds, or brought data for some, starts the schedule anew.
    """

    initial: float = 0.5
    maximum: float = 60.0
    jitter: float = 1.0
    attempts: int | None = None
    healthy: float = 30.0

    def __post_init__(self) -> None:
        _positive(self, "initial", "maximum", "healthy")
        if self.maximum < self.initial:
            raise UsageError(f"Backoff(maximum={self.maximum!r}): must not be below initial={self.initial!r}")
        if (
            isinstance(self.jitter, bool)
            or not isinstance(self.jitter, int | float)
            or not 0 <= self.jitter <= 1
        ):
            raise UsageError(f"Backoff(jitter={self.jitter!r}): give a share between 0 and 1")
        if self.attempts is not None and (
            isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1
        ):
            raise UsageError(
                f"Backoff(attempts={self.attempts!r}): give a whole number from 1, or None for no limit"
            )


Overflow = Literal["block", "drop_oldest", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """What may wait for a slow reader, per subscription, and what happens when it is full.

    As many ``bytes`` again, at most a minute's and a half, are kept of what was delivered, to prove hand-overs and
    close gaps with; what is held back while a gap is closed is, together with what waits, as many at most.

    ``block``        the link stops reading for ``timeouts.block`` at most, then the subscription is parked: its
                     messages are let go, and named in a gap, until the buffer is half empty.
    ``drop_oldest``  the oldest messages go, and are named in a gap.
    ``error``        the subscription ends with ``BufferOverflow``.
    """

    messages: int = 16_384
    bytes: int = 24 * MEBIBYTE
    overflow: Overflow = "block"

    def __post_init__(self) -> None:
        for name in ("messages", "bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"Buffer({name}={value!r}): give a whole number from 1")
        if self.overflow not in ("block", "drop_oldest", "error"):
            raise UsageError(f'Buffer(overflow={self.overflow!r}): give "block", "drop_oldest" or "error"')
