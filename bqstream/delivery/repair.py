"""The gaps of one operation's cubes on their way to being closed: named, asked for, delivered in their turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..message import GapCause
from .backfill import Ask, Sleep, Window, describe
from .closing import Brought, Closing, Floors, Held
from .counting import Counting
from .cursor import Cursor
from .gaps import Gaps
from .history import History
from .plan import MOST_ROWS, Plan
from .tagged import Row
from .tally import QUERY

ENDED = "the operation ended before it could be closed"


class Floor(NamedTuple):
    """From payload ``number`` on: from where on rows may be missing, by cube (None: nowhere), and whether nothing but
    that may be (``exact``), since live payloads were held back."""

    number: int
    windows: Floors | None
    exact: bool


class Repair:
    """Holds the one `Closing` there may be, and what came of it.

    Args:
        deliver: gets what queries brought, as (source, bytes, time, replayed).
        release: gets each payload that was held back, when its turn comes; ``releasing`` all of them, before the first.
        room: whether the buffer takes more.
        want_queries: a query can be sent; ``step`` says which.
        finished: a gap is closed, and nothing is held back any more.
    """

    def __init__(
        self,
        plan: Plan,
        gaps: Gaps,
        history: History,
        counting: Counting,
        *,
        deliver: Callable[[int, bytes, float, bool], bool],
        release: Callable[[Held], None],
        releasing: Callable[[Sequence[bytes]], None],
        room: Callable[[], bool],
        want_queries: Callable[[], None],
        finished: Callable[[float], None],
    ) -> None:
        self._plan = plan
        self._gaps = gaps
        self._history = history
        self._counting = counting
        self._deliver = deliver
        self._release = release
        self._releasing = releasing
        self._room = room
        self._want_queries = want_queries
        self._finished = finished
        self._since: tuple[GapCause, float] = ("lost", 0.0)  # what the newest gap was, and when it began
        self.holes: dict[str, int] = {}  # gaps that cannot be closed and end with the next delivery
        self.closing: Closing | None = None
        self.stopped = False  # nothing is asked for or delivered: the reader is parked
        self.floors: list[Floor] = []
        self.backfilled = 0
        self.queries = 0

    @property
    def holding(self) -> bool:
        """Whether live payloads are held back."""
        return self.closing is not None and self.closing.holding

    @property
    def open(self) -> bool:
        """Whether a gap is being closed, or a hole has no end yet."""
        return self.closing is not None or bool(self.holes)

    @property
    def waiting(self) -> list[bytes]:
        """What queries brought and waits for room."""
        return [] if self.closing is None else [brought.raw for brought in self.closing.ready]

    # ------------------------------------------------------------------ what is missing

    def missing(
        self, cause: GapCause, start: float, why: str, windows: Mapping[str, Window], *, holding: bool
    ) -> None:
        """Rows from ``windows`` on may be missing since ``start``: name it, and have it closed where it can be."""
        closing = self.closing or Closing()
        self._since = cause, start
        if holding:
            closing.holding, closing.releasing = True, False
        for key, window in windows.items():
            reason = self._plan.unclosable.get(key)
            low, _ = describe(window)
            if reason is None:
                if key not in closing.gaps:
                    closing.gaps[key] = self._gaps.open(cause, start, (key,), why, closing=True, low=low)
                closing.want({key: window})
            elif key not in self.holes:
                self.holes[key] = self._gaps.open(cause, start, (key,), why, reason=reason, low=low)
        if closing.wanted or closing.walk is not None:
            self.closing = closing
            self._lower(closing)

    def delivered(self, at: float) -> None:
        """A live payload is being delivered: holes end before it."""
        for number in self.holes.values():
            self._gaps.close(number, at)
        self.holes.clear()

    def ask(self, now: float, served: float, lag: float, *, soon: bool) -> None:
        """Ask for what is wanted, up to what was published by now, when it is ``served`` on the service's clock, and
        may come ``lag`` seconds late; ``soon``: not first give the query side time to see it."""
        closing = self.closing
        assert closing is not None, "nothing is missing"
        till = math.ceil(served) + 1 + math.ceil(lag)
        windows = closing.until(till)
        soon = soon or all(window.high is not None for window in windows.values())
        begin = now if soon else now + till - served
        if closing.walk is None:
            closing.walk = self._plan.backfill(windows, now=now, begin=begin, below=self._below)
        else:
            closing.walk.widen(windows, now, begin)
        self._lower(closing)
        self._want_queries()

    def _below(self, key: str, low: Cursor, floor: Cursor) -> None:
        """What lies below ``floor`` is out of what the dataset holds."""
        cause, since = self._since
        why = "rows older than what the dataset holds"
        reason = f"the {self._plan.dataset} dataset begins at {floor}"
        number = self._gaps.open(cause, since, (key,), why, reason=reason, low=str(low))
        self._gaps.close(number, since)

    # ------------------------------------------------------------------ queries

    def step(self, now: float) -> Ask | Sleep | None:
        """The next query; None where there is none to send now: ``want_queries`` tells when there is."""
        closing = self.closing
        # What is wanted waits for a link, what is ready for room.
        if closing is None or closing.walk is None or closing.wanted or closing.ready or self.stopped:
            return None
        if closing.walk.stuck(now):
            self.failed("the query side did not catch up", now)
            return None
        return closing.walk.step(now)

    def answered(self, asked: Ask, data: bytes | msgspec.Raw, now: float, served: float) -> None:
        """The answer to ``asked``, which ``step`` gave."""
        self.queries += 1
        closing = self.closing
        if closing is None or closing.walk is None:
            return
        try:
            answers = self._plan.read(asked, data)
        except ValueError as error:
            self.failed(str(error), now)
            return
        found = closing.walk.answered(asked, answers, now, served)
        self._counting.contradicted(dict(found), self.waiting, queried=True)
        for key, rows in found:
            self._ready(closing, key, self._counting.owed(key, rows))
        if not closing.ready:
            self._floor(closing.floors)
        self.pump(now)

    def _ready(self, closing: Closing, key: str, owed: list[Row]) -> None:
        """Messages of as many rows as the service itself sends at most."""
        for start in range(0, len(owed), MOST_ROWS):
            part = owed[start : start + MOST_ROWS]
            raw = self._plan.payload({key: [row.raw for row in part]})
            closing.ready.append(Brought(raw, len(part)))

    def failed(self, reason: str, now: float) -> None:
        """No query can close the gap: it is a hole, and what was held back goes on."""
        closing = self.closing
        if closing is None or closing.wanted:  # a drop meanwhile: it is tried again with the next link
            return
        closing.walk = None
        gaps, closing.gaps = closing.gaps, {}  # whoever is told may end the stream, and come here again
        for number in gaps.values():
            self._gaps.give_up(number, now, reason)
        self.pump(now)

    # ------------------------------------------------------------------ delivery

    def pump(self, now: float) -> None:
        """Deliver what is ready while there is room: what queries brought, then what was held back."""
        closing = self.closing
        if closing is None or self.stopped:
            return
        was_full = bool(closing.ready)
        if not self._drained(closing, now):
            return
        if closing.queried and not closing.releasing:
            closing.releasing = True
            self._releasing([held.raw for held in closing.held])
        while closing.releasing and closing.held and self._room():
            self._release(closing.release())
        if closing.releasing and not closing.held:
            closing.holding = closing.releasing = False
        if not closing.queried:
            if closing.walk is not None and was_full:
                closing.walk.waited(now)
            self._want_queries()
        elif not closing.holding and closing is self.closing:
            self._finish(closing, now)

    def _drained(self, closing: Closing, now: float) -> bool:
        while closing.ready and self._room():
            brought = closing.ready.popleft()
            self.backfilled += brought.rows
            closing.rows += brought.rows
            self._deliver(QUERY, brought.raw, now, True)
            # One cube's rows of an answer do not say that another's have come. Who looks on may have made room,
            # so that this was called again meanwhile, and has finished.
            if not closing.ready and closing is self.closing:
                self._floor(closing.floors)
        return not closing.ready

    def _finish(self, closing: Closing, now: float) -> None:
        self.closing = None
        self._floor(None)
        queries = closing.walk.queries if closing.walk is not None else 0
        for number in closing.gaps.values():
            self._gaps.closed(number, now, f"{queries} queries brought {closing.rows} rows")
        self._finished(now)

    def conclude(self, now: float) -> None:
        """Nothing will come any more: what was held back is delivered as far as there is room."""
        if self.closing is not None:
            self.closing.wanted.clear()
        self.failed(ENDED, now)
        self.closing = None

    # ------------------------------------------------------------------ checkpoints

    def floor_at(self, number: int) -> Floor | None:
        """What may be missing below the payload of that number."""
        return next((floor for floor in reversed(self.floors) if floor.number <= number), None)

    def _lower(self, closing: Closing) -> None:
        """More is missing. What queries brought and has not been delivered still is."""
        floors = closing.floors
        if closing.ready and self.floors:
            for key, window in (self.floors[-1].windows or {}).items():
                floors[key] = window.joined(floors[key]) if key in floors else window
        self._floor(floors)

    def _floor(self, floors: Floors | None) -> None:
        """From the newest payload on, checkpoints begin where rows may be missing now."""
        floor = Floor(self._history.last, floors, self.holding)
        if self.floors and self.floors[-1].number == floor.number:
            self.floors[-1] = floor
        else:
            self.floors.append(floor)
        while len(self.floors) > 1 and self.floors[1].number < self._history.first:
            self.floors.pop(0)
