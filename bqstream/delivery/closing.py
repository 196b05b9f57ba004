"""One gap on its way to being closed: what is missing, what is held back meanwhile, what was brought."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..message import GapCause
from .backfill import Backfill, Window
from .counting import Known

Floors = dict[str, Window]


@dataclass(frozen=True, slots=True)
class Start:
    """What is missing from before the subscription: from ``windows`` on, less the rows that are ``known``; ``at`` is
    where the gap begins on the monotonic clock; ``void`` are cubes whose key has turned out to be none."""

    windows: Mapping[str, Window]
    known: Mapping[str, list[Known]]
    cause: GapCause
    detail: str
    at: float
    void: tuple[str, ...] = ()


class Held(NamedTuple):
    """A live payload that waits until the gap before it is closed."""

    source: int
    raw: bytes
    at: float


class Brought(NamedTuple):
    """A payload of so many rows that queries brought."""

    raw: bytes
    rows: int


@dataclass(slots=True)
class Closing:
    """A gap, from when it is known until what was missing is delivered.

    Attributes:
        gaps: the number of the gap in `Gaps`, by cube.
        wanted: windows whose upper end is not known before a link is there to go on from.
        walk: the queries; None while there is none to send.
        holding: live payloads are held back, since no link was live when the gap began.
        releasing: what was held is being delivered; until all of it is, what comes is held too.
        held, size: those payloads, and how many bytes they are.
        ready: what waits for room in the buffer.
    """

    holding: bool = False
    releasing: bool = False
    gaps: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, Window] = field(default_factory=dict)
    walk: Backfill | None = None
    held: deque[Held] = field(default_factory=deque)
    size: int = 0
    ready: deque[Brought] = field(default_factory=deque)
    rows: int = 0

    def want(self, windows: Mapping[str, Window]) -> None:
        """These windows are missing too."""
        for key, window in windows.items():
            known = self.wanted.get(key)
            self.wanted[key] = window if known is None else known.joined(window)

    def until(self, till: int) -> dict[str, Window]:
        """What is wanted, bounded by this time of a block; it is wanted no more."""
        windows = {
            key: replace(window, till=max(till, window.till or till)) for key, window in self.wanted.items()
        }
        self.wanted = {}
        return windows

    def hold(self, held: Held) -> None:
        """Keep a live payload back."""
        self.held.append(held)
        self.size += len(held.raw)

    def let_go(self) -> None:
        """Keep nothing of what was held."""
        self.held.clear()
        self.size = 0

    def release(self) -> Held:
        """The payload that was held longest."""
        held = self.held.popleft()
        self.size -= len(held.raw)
        return held

    @property
    def queried(self) -> bool:
        """Whether no query is left to send."""
        return not self.wanted and (self.walk is None or self.walk.over)

    @property
    def floors(self) -> Floors:
        """From where on rows may still be missing, by cube."""
        floors = dict(self.walk.windows) if self.walk is not None else {}
        for key, window in self.wanted.items():
            known = floors.get(key)
            floors[key] = window if known is None else known.joined(window)
        return floors
