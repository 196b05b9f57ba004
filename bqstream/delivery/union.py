"""Cubes whose rows say where they stand: whatever links and queries bring, each row is delivered once.

While one link feeds the operation and nothing is missing, payloads pass untouched. From the start on a second link, or
when rows may be missing, until everything has caught up, rows are counted (`Tally`), and what is missing is asked for
(`Closing`, `Backfill`). Pure: time is passed in, what comes out goes to callables.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from ..config import MEBIBYTE
from ..message import Crossed, GapCause
from .backfill import Ask, Sleep, Window, describe
from .closing import Brought, Closing, Floors, Held, lowest
from .cursor import Cursor, CursorKind
from .enlarge import Reader
from .gaps import Gaps
from .history import SPAN, Entry, History
from .plan import Plan
from .rows import Payload
from .tagged import Row, Tag, tagged_rows
from .tally import QUERY, Tally

# How far before the last row that came in a gap begins, in seconds: late portions of earlier blocks may be missing too.
REACH = 60.0
# Rows that are kept for comparison, of one cube.
MOST_ROWS = 250_000
# Rows in one message that a query brought: as many as the service itself sends (subscriptions/subscription).
MESSAGE_ROWS = 800
# A link that brought a row and has gone: its copies are not a query's.
_GONE = -1

UNPROVEN = "it could not be shown that nothing fell between the two links"
SILENT = "nothing came on either link while both were open, which proves nothing"
TRUNCATED = (
    f"a message held as many rows as the service sends at most ({MESSAGE_ROWS}), so that some may be left out"
)
SLOW = "the reader was too slow: messages were let go until it caught up"
UNKEPT = (
    "more was delivered in a moment than is kept, so that its blocks cannot be compared with a query's answer"
)
LET_GO = "more came than may be held back while a gap was closed"
OTHERS = "another row came under a key that was taken for a row's own"


Known = tuple[int | None, Tag, int]
"""Rows of which only this is known: their block, what they are compared by, and how many they are."""


class Floor(NamedTuple):
    """From payload ``number`` on: from where on rows may be missing, by cube (None: nowhere), and whether nothing but
    that may be (``exact``), since live payloads were held back."""

    number: int
    windows: Floors | None
    exact: bool


@dataclass(slots=True)
class _Source:
    """One link. ``first`` and ``heard`` are when its first and last payload came, ``begins`` where its first one
    stood and ``reached`` the highest place it brought, by the cursor's kind."""

    number: int
    joined: float
    served: float
    first: float | None = None
    heard: float | None = None
    begins: dict[CursorKind, int] = field(default_factory=dict)
    reached: dict[CursorKind, int] = field(default_factory=dict)


class Union:
    """The merge of an operation's cubes that can be told row by row.

    Args:
        deliver: gets every payload that is to reach the user, as (source, bytes, time of arrival, replayed); False
            says that it was let go.
        room: whether the buffer takes more.
        want_queries: a query can be sent; ``step`` says which.
        lag: by how many seconds one source's rows may come later than another's; ``pause`` how much later still where
            a slow reader stopped a link.
        hold: how many bytes of live payloads may be held back while a gap is closed.
    """

    def __init__(
        self,
        deliver: Callable[[int, bytes, float, bool], bool],
        gaps: Gaps,
        history: History,
        plan: Plan,
        *,
        started: float,
        room: Callable[[], bool],
        want_queries: Callable[[], None],
        lag: float = 0.0,
        pause: float = 0.0,
        hold: int = 32 * MEBIBYTE,
    ) -> None:
        self._out = deliver
        self._gaps = gaps
        self._history = history
        self._plan = plan
        self.readers: dict[str, Reader] = {key: plan.readers[key] for key in plan.merged}
        self._room = room
        self._want_queries = want_queries
        self.lag = lag
        self._grace = lag
        self._pause = pause
        self._hold = hold
        self._last = started
        self.offset = 0.0  # the service's clock less the monotonic one
        self.began: float | None = None  # the service's time when the operation was first started
        self._live: dict[int, _Source] = {}
        self._passed: float | None = None  # when the old link first went beyond the new one's first block
        self._tallies: dict[str, Tally] | None = None
        self._seeded = 0.0  # payloads that came in before are not counted yet
        self._others: dict[CursorKind, int] = {}  # the highest place that anything but the live link brought
        self._since_settled = started
        self._closing: Closing | None = None
        self._holes: dict[str, int] = {}  # gaps that cannot be closed and end with the next delivery
        self._parked = False
        self.known: dict[str, list[Known]] = {}  # rows that a checkpoint names
        self.floors: deque[Floor] = deque()
        self._merged_before = 0
        self.merged = 0
        self.backfilled = 0
        self.queries = 0
        self.truncated = 0

    # ------------------------------------------------------------------ what others look at

    @property
    def unclosable(self) -> Mapping[str, str]:
        """Cubes whose gaps cannot be closed, and why."""
        return self._plan.unclosable

    @property
    def idle(self) -> bool:
        """Whether a payload of the one live link passes untouched."""
        return self._tallies is None and self._closing is None and not self._holes and not self._parked

    @property
    def closing(self) -> bool:
        """Whether a gap is being closed."""
        return self._closing is not None

    @property
    def unproven(self) -> bool:
        """Whether it is not known yet that nothing is missing."""
        return self._closing is not None or bool(self._holes)

    @property
    def missing(self) -> Floors | None:
        """From where on rows may be missing at this moment."""
        return None if self._closing is None else self._closing.floors

    # ------------------------------------------------------------------ what the session tells

    def begin(
        self,
        windows: Mapping[str, Window],
        known: Mapping[str, list[Known]],
        cause: GapCause,
        detail: str,
        now: float,
    ) -> None:
        """Before the first source: rows since ``windows`` are missing too, less those that are ``known`` by block, tag
        and count."""
        self.known = {key: list(rows) for key, rows in known.items()}
        closing = self._closing = Closing(holding=True)
        self._name(closing, cause, now, detail, windows)
        if not closing.wanted:
            self._closing = None

    def joined(self, source: int, now: float, grace: float, served: float) -> None:
        """The operation was started on ``source``; ``served`` is the service's time, in seconds since the epoch."""
        if source in self._live:
            return
        self._grace = grace
        self.lag = max(self.lag, grace)
        self.offset = served - now
        if self.began is None:
            self.began = served
        while (
            len(self._live) > 1
        ):  # a third one: the newest of the two that there are has caught up or never will
            self._retire(next(iter(self._live.values())), now)
        self._passed, self._merged_before = None, self.merged
        self._live[source] = _Source(source, now, served)
        if len(self._live) > 1:
            self._count_from(now - self.lag)
        self._query_if_live(now, soon=self.began is served)

    def payload(self, source: int, raw: bytes, now: float) -> None:
        """``source`` brought ``raw``; a source that has gone, or was never started, is not listened to."""
        src = self._live.get(source)
        if src is None:
            return
        src.heard = now
        if self._tallies is None and self._closing is None and not self._parked:
            src.first = src.first or now
            self._deliver(source, raw, now)
            self._guard(raw, now)
            return
        payload = Payload(raw)
        rows = tagged_rows(payload.cubes, self.readers)
        self._look(src, rows, now)
        closing = self._closing
        if self._parked:
            self._out(source, raw, now, False)  # which lets it go
        elif closing is not None and closing.holding:
            closing.hold(Held(source, raw, now))
            if closing.size > self._hold:
                self._let_go(closing, now)
        else:
            self._pass(source, payload, rows, now)
            self._settle(now)

    def heard(self, source: int, now: float) -> None:
        """``source`` brought a payload with no rows of these cubes."""
        if (src := self._live.get(source)) is not None:
            src.heard = now
            src.first = src.first or now

    def crossed(self, source: int, now: float, beaten: float | None) -> bool:
        """Whether every source older than ``source`` may go without a row being lost."""
        new = self._live.get(source)
        old = next(iter(self._live.values()), None)
        if new is None or old is new or old is None:
            return new is not None
        if new.first is None:
            # Quiet on both is no proof, but all that there is to wait for.
            quiet = old.heard is None or old.heard < new.joined
            return quiet and beaten is not None and now >= beaten + self._grace
        return self._proven(old, new, self._grace)

    def cross(self, source: int, now: float) -> Crossed:
        """The older source goes now; what is not proven is asked for."""
        proven = True
        for old in [one for one in self._live.values() if one.number < source]:
            proven = self._retire(old, now) and proven
        return Crossed(proven, self.merged - self._merged_before)

    def lost(self, source: int, now: float, why: str, cause: GapCause) -> None:
        """``source`` brings no more. One that was only joining is forgotten."""
        src = self._live.get(source)
        if src is None:
            return
        if len(self._live) > 1:
            if src is next(iter(self._live.values())):
                self._retire(src, now, cause, why)
            else:
                self._remove(src, now)
            return
        since = self._last if src.heard is None else min(self._last, src.heard)
        windows = self._low_windows()
        self._remove(src, now)
        self._missing(cause, since, why, windows, now, holding=True)

    def park(self, now: float) -> None:
        """Payloads are let go from now on."""
        self._parked = True
        windows = self._low_windows()
        if self._closing is not None:
            self._closing.held.clear()
            self._closing.size = 0
        self._missing("parked", self._last, SLOW, windows, now, holding=True)

    def resume(self, now: float) -> None:
        """There is room again: what was let go is asked for."""
        self._parked = False
        self._query_if_live(now, soon=True)
        self.pump(now)

    # ------------------------------------------------------------------ rows

    def _look(self, src: _Source, rows: Mapping[str, list[Row]], now: float) -> None:
        """Learn how far ``src`` has come, and whether the old link has passed the new one's first block."""
        at: dict[CursorKind, int] = {}
        for row in (row for found in rows.values() for row in found):
            if row.cursor is not None:
                at[row.cursor.kind] = max(row.cursor.value, at.get(row.cursor.kind, 0))
        if src.first is None:
            src.first, src.begins = now, at
        for kind, value in at.items():
            src.reached[kind] = max(value, src.reached.get(kind, 0))
        if len(self._live) < 2 or self._passed is not None:
            return
        old, new = list(self._live.values())[-2:]
        if new.first is not None:
            beyond = [old.reached.get(kind, -1) > value for kind, value in new.begins.items()]
            if any(beyond) or (not beyond and src is old):
                self._passed = now

    def _proven(self, old: _Source, new: _Source, grace: float) -> bool:
        """Whether the old link has passed the new one's first block, and still brought something a grace after that
        had come: what was published before the new link was live has come on it by then."""
        if self._passed is None or new.first is None or old.heard is None:
            return False
        return old.heard >= max(self._passed, new.first + grace)

    def _pass(self, source: int, payload: Payload, rows: dict[str, list[Row]], at: float) -> None:
        """Deliver what was not delivered yet."""
        tallies = self._tallies
        assert tallies is not None
        while void := [key for key, found in rows.items() if _contradicts(tallies[key], found)]:
            for key in void:
                self._void(key, at)
            rows = tagged_rows(payload.cubes, self.readers)
        keep = {key: [tallies[key].brought(source, row) for row in found] for key, found in rows.items()}
        count, kept = payload.count, sum(map(sum, keep.values()))
        self.merged += count - kept
        accepted = True
        if kept == count:
            # One without any row, such as errors alone, comes on each link: the oldest one's is delivered.
            if count or source == next(iter(self._live), source):
                accepted = self._deliver(source, payload.raw, at)
        elif kept:
            accepted = self._deliver(source, payload.only(keep), at)
        if not accepted:
            for key, found in rows.items():
                for row, new in zip(found, keep[key], strict=True):
                    if new:
                        tallies[key].taken_back(row)
        for tally in tallies.values():
            while tally.rows > MOST_ROWS:
                tally.forget_lowest()
        if self._closing is None or not self._closing.holding:
            self._guard(payload.raw, at)

    def _deliver(self, source: int, raw: bytes, at: float) -> bool:
        for number in self._holes.values():
            self._gaps.close(number, at)
        self._holes.clear()
        self._last = max(self._last, at)
        return self._out(source, raw, at, False)

    def _void(self, key: str, now: float) -> None:
        """The cube's key is none: its rows are compared by content from now on, and what was taken for a copy of
        another row is asked for."""
        self.readers[key] = replace(self.readers[key], of=(), within=())
        assert self._tallies is not None
        self._tallies[key] = tally = Tally()
        for entry in self._history.entries():
            if entry.at >= self._seeded:
                for row in tagged_rows(Payload(entry.raw).cubes, {key: self.readers[key]}).get(key, ()):
                    tally.seed(row, () if entry.replayed else (_GONE,))
        windows = {key: self._low_windows()[key]}
        self._missing("handover", self._last, OTHERS, windows, now, holding=False)
        self._query_if_live(now)

    # ------------------------------------------------------------------ counting

    def _count_from(self, since: float) -> None:
        """Count every payload that came in since, as delivered before."""
        if self._tallies is None:
            self._tallies = {key: Tally() for key in self.readers}
            self._seeded = math.inf
            for key, known in self.known.items():
                for block, tag, count in known if key in self._tallies else ():
                    self._tallies[key].seed_tag(block, tag, count)
        for entry in self._history.entries():
            if since <= entry.at < self._seeded:
                self._seed(entry)
        self._seeded = min(self._seeded, since)

    def _seed(self, entry: Entry) -> None:
        assert self._tallies is not None
        brought = [src.number for src in self._live.values() if src.joined <= entry.at] or [_GONE]
        for key, rows in tagged_rows(Payload(entry.raw).cubes, self.readers).items():
            for row in rows:
                self._tallies[key].seed(row, () if entry.replayed else brought)
                self._higher(row)

    def _higher(self, row: Row) -> None:
        if row.cursor is not None:
            kind = row.cursor.kind
            self._others[kind] = max(row.cursor.value, self._others.get(kind, 0))

    def _settle(self, now: float) -> None:
        """Stop counting once the one live link has gone beyond all that others brought, and had time to bring it."""
        if self._closing is not None or len(self._live) != 1 or self._tallies is None:
            return
        (src,) = self._live.values()
        if now < self._since_settled + self.lag + self._pause:
            return
        if all(src.reached.get(kind, -1) > value for kind, value in self._others.items()):
            self._tallies = None
            self._others.clear()

    # ------------------------------------------------------------------ the end of a source

    def _remove(self, src: _Source, now: float) -> None:
        del self._live[src.number]
        self._since_settled = now
        for kind, value in src.reached.items():
            self._others[kind] = max(value, self._others.get(kind, 0))
        for tally in (self._tallies or {}).values():
            tally.forget_source(src.number)

    def _retire(self, old: _Source, now: float, cause: GapCause = "handover", why: str = UNPROVEN) -> bool:
        """``old`` goes and a younger one goes on: whether nothing can be missing."""
        new = list(self._live.values())[-1]
        proven = self._proven(old, new, self.lag)
        windows = {} if proven else self._up_to(new, self._low_windows())
        quiet = new.first is None and (old.heard is None or old.heard < new.joined)
        self._remove(old, now)
        self._passed = None
        if proven:
            return True
        if cause == "handover" and quiet:
            cause, why = "quiet", SILENT
        self._missing(cause, min(self._last, new.joined), why, windows, now, holding=False)
        self._query_if_live(now)
        return False

    # ------------------------------------------------------------------ what is missing

    def _low_windows(self) -> dict[str, Window]:
        """From where on rows of each cube may be missing, by what was delivered last.

        While live payloads are held back nothing was delivered but what queries brought in order: then it is there that
        they go on.
        """
        closing = self._closing
        if closing is not None and closing.holding:
            windows = dict(closing.walk.last) if closing.walk is not None else {}
            closing_for = {**windows, **closing.wanted}
            return {key: closing_for.get(key) or self._elsewhere(key, closing_for) for key in self.readers}
        read = ((entry.at, self._cursors(entry)) for entry in self._history.entries())
        windows = self.below(list(read), REACH)
        self._too_little_kept(windows)
        return windows

    def _cursors(self, entry: Entry) -> dict[str, list[Cursor]]:
        rows = tagged_rows(Payload(entry.raw).cubes, self.readers)
        return {key: [row.cursor for row in found if row.cursor is not None] for key, found in rows.items()}

    def below(
        self, read: Sequence[tuple[float, Mapping[str, list[Cursor]]]], reach: float
    ) -> dict[str, Window]:
        """Where each cube's rows begin that may be missing when payloads, by time and cursors, are all that came.

        Blocks of which something came in ``reach`` before the last payload or earlier are whole, and all rows of those
        above are kept; so they begin above the highest such block. Before there is one, when the subscription did.
        """
        last = read[-1][0] if read else 0.0
        edge = max((at for at, _ in read if at <= last - reach), default=None)
        if edge is None:
            return dict.fromkeys(self.readers, Window(since=math.floor(self.began or 0.0)))
        lows: dict[str, Cursor] = {}
        for at, found in read:
            if edge - SPAN <= at <= edge:
                for key, cursors in found.items():
                    if cursors:
                        lows[key] = max(*cursors, lows.get(key, cursors[0]))
        above = {key: Window(low=Cursor(low.kind, low.value + 1)) for key, low in lows.items()}
        return {key: above.get(key) or self._elsewhere(key, above, edge) for key in self.readers}

    def _up_to(self, new: _Source, windows: Mapping[str, Window]) -> dict[str, Window]:
        """What ``new`` can lack ends with the first block it brought, once it has brought one."""
        found = {}
        for key, window in windows.items():
            kind = self.readers[key].kind
            at = new.begins.get(kind) if kind is not None else None
            high = Cursor(kind, at) if kind is not None and at is not None else None
            if high is not None and window.low is not None and high < window.low:
                high = window.low
            found[key] = window if high is None else replace(window, high=high)
        return found

    def _too_little_kept(self, windows: Mapping[str, Window]) -> None:
        """So much came in lately that not all of it is kept: what is missing of its blocks cannot be told."""
        evicted, last = self._history.evicted_at, self._history.newest
        if evicted is None or last is None or evicted < last.at - REACH:
            return
        for key, window in windows.items():
            if key not in self._plan.unclosable:
                low, _ = describe(window)
                self._gaps.close(self._gaps.open("lost", evicted, (key,), UNKEPT, low=low), last.at)

    def _elsewhere(self, key: str, found: Mapping[str, Window], at: float | None = None) -> Window:
        """Where a cube of which nothing is known may lack rows: by what the others brought, else by time."""
        kind = self.readers[key].kind
        low = lowest(found, kind) if kind is not None else None
        if low is not None:
            return Window(low=low)
        return Window(since=math.floor(self.began or 0.0 if at is None else at + self.offset - SPAN) + 1)

    def _missing(
        self,
        cause: GapCause,
        start: float,
        why: str,
        windows: Mapping[str, Window],
        now: float,
        *,
        holding: bool,
    ) -> None:
        """Rows from ``windows`` on may be missing: name it, and have it closed where it can be."""
        closing = self._closing or Closing()
        if holding:
            closing.holding, closing.releasing = True, False
        self._name(closing, cause, start, why, windows)
        if closing.wanted or closing.walk is not None:
            self._closing = closing
            self._floor(closing.floors)

    def _name(
        self, closing: Closing, cause: GapCause, start: float, why: str, windows: Mapping[str, Window]
    ) -> None:
        for key, window in windows.items():
            reason = self._plan.unclosable.get(key)
            low, _ = describe(window)
            if reason is not None:
                if key not in self._holes:
                    self._holes[key] = self._gaps.open(cause, start, (key,), why, reason=reason, low=low)
                continue
            if key not in closing.gaps:
                closing.gaps[key] = self._gaps.open(cause, start, (key,), why, closing=True, low=low)
            closing.want({key: window})

    def _guard(self, raw: bytes, now: float) -> None:
        """A message as long as the service's limit may have been cut short: its blocks are asked for again."""
        for key in self._plan.full(raw):
            rows = tagged_rows(Payload(raw).cubes, {key: self.readers[key]}).get(key, [])
            cursors = [row.cursor for row in rows if row.cursor is not None]
            if len(rows) < MESSAGE_ROWS or not cursors or key in self._plan.unclosable:
                continue
            self.truncated += 1
            till = math.ceil(now + self.offset) + 1
            window = Window(low=min(cursors), high=max(cursors), till=till)
            self._missing("truncated", now, TRUNCATED, {key: window}, now, holding=False)
            self._query_if_live(now, soon=True)

    def _let_go(self, closing: Closing, now: float) -> None:
        """More is held than may be: it is let go, and asked for like the rest."""
        lows: dict[str, Window] = {}
        for held in closing.held:
            for key, rows in tagged_rows(Payload(held.raw).cubes, self.readers).items():
                cursors = [row.cursor for row in rows if row.cursor is not None]
                if cursors:
                    window = Window(low=min(cursors))
                    lows[key] = window.joined(lows[key]) if key in lows else window
        start = closing.held[0].at
        closing.held.clear()
        closing.size = 0
        self._missing("lost", start, LET_GO, lows, now, holding=True)
        self._query_if_live(now, soon=True)

    # ------------------------------------------------------------------ queries

    def _query_if_live(self, now: float, *, soon: bool = False) -> None:
        """Ask for what is wanted, up to what was published before any live link was; ``soon``: not first give the
        query side time to see it."""
        closing = self._closing
        if closing is None or not closing.wanted or not self._live or self._parked:
            return
        self._count_from(min((entry.at for entry in self._history.entries()), default=now))
        till = math.ceil(now + self.offset) + 1 + math.ceil(self.lag)
        windows = closing.until(till)
        soon = soon or all(window.high is not None for window in windows.values())
        begin = now if soon else now + till - (now + self.offset)
        if closing.walk is None:
            closing.walk = self._plan.backfill(windows, now=now, begin=begin, below=self._below)
        else:
            closing.walk.widen(windows, now, begin)
        self._floor(closing.floors)
        self._want_queries()

    def step(self, now: float) -> Ask | Sleep | None:
        """The next query; None where there is none to send now: ``want_queries`` tells when there is."""
        closing = self._closing
        # What is wanted waits for a link, what is ready for room.
        if closing is None or closing.walk is None or closing.wanted or closing.ready or self._parked:
            return None
        if closing.walk.stuck(now):
            self.failed("the query side did not catch up", now)
            return None
        return closing.walk.step(now)

    def answered(self, asked: Ask, data: bytes | msgspec.Raw, now: float) -> None:
        """The answer to ``asked``, which ``step`` gave."""
        self.queries += 1
        closing = self._closing
        if closing is None or closing.walk is None:
            return
        try:
            answers = self._plan.read(asked, data)
        except ValueError as error:
            self.failed(str(error), now)
            return
        for key, rows in closing.walk.answered(asked, answers, now, now + self.offset):
            self._ready(closing, key, rows)
            closing.ready.append(Brought(None, 0, closing.floors))
        self.pump(now)

    def _ready(self, closing: Closing, key: str, rows: list[Row]) -> None:
        assert self._tallies is not None
        tally = self._tallies[key]
        owed = [row for row, due in zip(rows, tally.owed(rows), strict=True) if due]
        for row in rows:
            self._higher(row)
        for start in range(0, len(owed), MESSAGE_ROWS):
            part = owed[start : start + MESSAGE_ROWS]
            closing.ready.append(
                Brought(self._plan.payload({key: [row.raw for row in part]}), len(part), None)
            )

    def failed(self, reason: str, now: float) -> None:
        """No query can close the gap: it is a hole, and what was held back goes on."""
        closing = self._closing
        if closing is None or closing.wanted:  # a drop meanwhile: it is tried again with the next link
            return
        closing.walk = None
        for number in closing.gaps.values():
            self._gaps.give_up(number, now, reason)
        closing.gaps.clear()
        self.pump(now)

    def _below(self, key: str, low: Cursor, floor: Cursor) -> None:
        """What lies below ``floor`` is out of what the dataset holds."""
        now = self._last
        why = "rows older than what the dataset holds"
        number = self._gaps.open(
            "lost",
            now,
            (key,),
            why,
            reason=f"the {self._plan.dataset} dataset begins at {floor}",
            low=str(low),
        )
        self._gaps.close(number, now)

    def pump(self, now: float) -> None:
        """Deliver what is ready while there is room: what queries brought, then what was held back."""
        closing = self._closing
        if closing is None or self._parked:
            return
        delivered = bool(closing.ready)
        while closing.ready and self._room():
            brought = closing.ready.popleft()
            if brought.raw is not None:
                self.backfilled += brought.rows
                closing.rows += brought.rows
                self._out(QUERY, brought.raw, now, True)
            elif brought.floors is not None:
                self._floor(brought.floors)
        if closing.ready:
            return
        closing.releasing = closing.releasing or closing.queried
        while closing.releasing and closing.held and self._room():
            held = closing.release()
            payload = Payload(held.raw)
            self._pass(held.source, payload, tagged_rows(payload.cubes, self.readers), held.at)
        if closing.releasing and not closing.held:
            closing.holding = closing.releasing = False
        if not closing.queried:
            if closing.walk is not None and delivered:
                closing.walk.waited(now)
            self._want_queries()
        elif not closing.holding and closing is self._closing:
            self._finish(closing, now)

    def _finish(self, closing: Closing, now: float) -> None:
        self._closing = None
        self._since_settled = now
        self._floor(None)
        queries = closing.walk.queries if closing.walk is not None else 0
        for number in closing.gaps.values():
            self._gaps.closed(number, now, f"{queries} queries brought {closing.rows} rows")
        self._settle(now)

    def conclude(self, now: float) -> None:
        """Nothing will come any more: what was held back is delivered as far as there is room."""
        self.failed("the operation ended before it could be closed", now)
        closing, self._closing = self._closing, None
        for number in closing.gaps.values() if closing is not None else ():
            self._gaps.give_up(number, now, "the operation ended before it could be closed")

    def floor_at(self, number: int) -> Floor | None:
        """What may be missing below the payload of that number."""
        return next((floor for floor in reversed(self.floors) if floor.number <= number), None)

    def _floor(self, floors: Floors | None) -> None:
        """From the newest payload on, checkpoints begin where rows may be missing now."""
        exact = self._closing is not None and self._closing.holding
        self.floors.append(Floor(self._history.last, floors, exact))
        while len(self.floors) > 1 and self.floors[1].number < self._history.first:
            self.floors.popleft()


def _contradicts(tally: Tally, rows: Iterable[Row]) -> bool:
    seen: dict[bytes, bytes] = {}
    return any(
        tally.contradicts(row) or seen.setdefault(row.exact, row.content) != row.content for row in rows
    )
