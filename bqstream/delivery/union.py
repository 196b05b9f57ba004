"""Cubes whose rows say where they stand: whatever links and queries bring, each row is delivered once.

While one link feeds the operation and nothing is missing, payloads pass untouched. From the start on a second link, or
when rows may be missing, until everything has caught up, rows are counted (`Counting`), and what is missing is asked
for (`Repair`). Pure: time is passed in, what comes out goes to callables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from ..config import MEBIBYTE
from ..message import Arrival, Crossed, GapCause
from .backfill import Ask, Sleep, Window, describe
from .closing import Closing, Held, Start
from .counting import Counting, Places, Tagged
from .cursor import Cursor
from .extent import Beginning, like_others, missing_after
from .gaps import Gaps
from .history import History
from .plan import MOST_ROWS, Plan
from .repair import Repair
from .rows import Payload
from .tagged import cursors_of

# How far before the last row that came in a gap begins, in seconds: late portions of earlier blocks may be missing too.
REACH = 60.0

UNPROVEN = "it could not be shown that nothing fell between the two links"
SILENT = "nothing came on either link while both were open, which proves nothing"
TRUNCATED = (
    f"a message held as many rows as the service sends at most ({MOST_ROWS}), so that some may be left out"
)
SLOW = "the reader was too slow: messages were let go until it caught up"
UNKEPT = (
    "more was delivered in a moment than is kept, so that its blocks cannot be compared with a query's answer"
)
LET_GO = "more came than may be held back while a gap was closed"
OTHERS = "another row came under a key that was taken for a row's own"


@dataclass(slots=True)
class _Source:
    """One link. ``first`` and ``heard`` are when its first and last payload came, ``begins`` where its first one
    stood and ``reached`` the highest place it brought, by the cursor's kind."""

    number: int
    joined: float
    first: float | None = None
    heard: float | None = None
    begins: Places = field(default_factory=dict)
    reached: Places = field(default_factory=dict)


class Union:
    """The merge of an operation's cubes that can be told row by row.

    Args:
        deliver: gets every payload that is to reach the user, as (source, bytes, time of arrival, replayed); False
            says that it was let go.
        room: whether the buffer takes more.
        want_queries: a query can be sent; ``step`` says which.
        releasing: is told of all that was held back, before the first of it is delivered.
        lag: by how many seconds one source's rows may come later than another's; ``pause`` how much later still where
            a slow reader stopped a link.
        hold: how many bytes of live payloads may be held back while a gap is closed, together with the bytes that are
            ``waiting`` for the reader; a quarter of them in any case.
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
        releasing: Callable[[Sequence[bytes]], None],
        lag: float = 0.0,
        pause: float = 0.0,
        hold: int = 32 * MEBIBYTE,
        waiting: Callable[[], int] = int,
    ) -> None:
        self._out = deliver
        self._gaps = gaps
        self._history = history
        self._plan = plan
        self._least_full = plan.least_full
        self.counting = Counting(plan.told, history)
        self.repair = Repair(
            plan,
            gaps,
            history,
            self.counting,
            deliver=deliver,
            release=self._release,
            releasing=releasing,
            room=room,
            want_queries=want_queries,
            finished=self._finished,
        )
        self.lag = lag
        self._grace = lag
        self._pause = pause
        self._hold = hold
        self._waiting = waiting
        self._last = started
        self.beginning = Beginning()
        self._live: dict[int, _Source] = {}
        self._passed: float | None = None  # when the old link first went beyond the new one's first block
        self._changed = started  # when a link went or a gap was closed
        self._merged_before = 0
        self.merged = 0
        self.truncated = 0

    # ------------------------------------------------------------------ what others look at

    @property
    def unclosable(self) -> Mapping[str, str]:
        """Cubes whose gaps cannot be closed, and why."""
        return self._plan.unclosable

    @property
    def sources(self) -> tuple[int, ...]:
        """The links that bring payloads, oldest first."""
        return tuple(self._live)

    @property
    def idle(self) -> bool:
        """Whether a payload of the one live link passes untouched."""
        return not (self.counting.on or self.repair.open or self.repair.stopped)

    # ------------------------------------------------------------------ what the session tells

    def begin(self, start: Start) -> None:
        """Before the first source: rows are missing from before it."""
        self.counting.known = {key: list(rows) for key, rows in start.known.items()}
        for key in start.void:
            self.counting.avoid(key)
        windows = {key: window for key, window in start.windows.items() if key in self.counting.readers}
        self.beginning.starts = windows
        self.repair.missing(start.cause, start.at, start.detail, windows, holding=True)

    def joined(self, source: int, now: float, grace: float, served: float) -> None:
        """The operation was started on ``source``; ``served`` is the service's time, in seconds since the epoch."""
        if source in self._live:
            return
        self._grace = grace
        self.lag = max(self.lag, grace)
        first = self.beginning.began is None
        self.beginning.offset = served - now
        self.beginning.began = served if first else self.beginning.began
        # A third one: the newest of the two that there are has caught up or never will.
        while len(self._live) > 1:
            self._retire(next(iter(self._live.values())), now)
        self._passed, self._merged_before = None, self.merged
        self._live[source] = _Source(source, now)
        if len(self._live) > 1:
            self._count_from(now - self.lag)
        self._ask(now, soon=first)

    def passes(self, source: int, raws: Sequence[bytes], now: float) -> bool:
        """Whether ``source`` brought these in steady state, so that all of them are to be delivered as they came."""
        repair, src = self.repair, self._live.get(source)
        if (
            src is None
            or self.counting.on
            or repair.closing is not None
            or repair.stopped
            or repair.holes
            or max(map(len, raws)) >= self._least_full
        ):
            return False
        src.heard = now
        src.first = src.first or now
        if now > self._last:
            self._last = now
        return True

    def payload(self, source: int, raw: bytes, now: float) -> None:
        """``source`` brought ``raw``; a source that has gone, or was never started, is not listened to."""
        src = self._live.get(source)
        if src is None:
            return
        src.heard = now
        repair = self.repair
        if not self.counting.on and repair.closing is None and not repair.stopped:
            src.first = src.first or now
            self._deliver(source, raw, now)
            if len(raw) >= self._least_full:
                self._guard(raw, now)
            return
        if repair.stopped:  # it is let go, and all of it will be asked for
            src.first = src.first or now
            self._out(source, raw, now, False)
            return
        payload = Payload(raw)
        rows = self.counting.read(payload)
        self._look(src, rows, now)
        closing = repair.closing
        if closing is not None and closing.holding:
            closing.hold(Held(source, raw, now))
            if closing.size > max(self._hold - self._waiting(), self._hold // 4):
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
        if self.repair.stopped:
            return True  # what either brings is let go, and asked for
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
        if len(self._live) == 1:
            since = self._last if src.heard is None else min(self._last, src.heard)
            windows = self._windows()
            self._remove(src, now)
            self.repair.missing(cause, since, why, windows, holding=True)
        elif src is next(iter(self._live.values())):
            self._retire(src, now, cause, why)
        else:
            self._remove(src, now)

    def park(self, now: float) -> None:
        """Payloads are let go from now on."""
        self.repair.stopped = True
        windows = self._windows()
        if self.repair.closing is not None:
            self.repair.closing.let_go()
        self.repair.missing("parked", self._last, SLOW, windows, holding=True)

    def resume(self, now: float) -> None:
        """There is room again: what was let go is asked for."""
        self.repair.stopped = False
        self._ask(now, soon=True)
        self.repair.pump(now)

    # ------------------------------------------------------------------ what the client's queries tell

    def step(self, now: float) -> Ask | Sleep | None:
        """The next query; None where there is none to send now: ``want_queries`` tells when there is."""
        return self.repair.step(now)

    def answered(self, asked: Ask, data: bytes | msgspec.Raw, now: float) -> None:
        """The answer to ``asked``, which ``step`` gave."""
        self.repair.answered(asked, data, now, now + self.beginning.offset)

    # ------------------------------------------------------------------ rows

    def _look(self, src: _Source, rows: Tagged, now: float) -> None:
        """Learn how far ``src`` has come, and whether the old link has passed the new one's first block."""
        at: Places = {}
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

    def _pass(self, source: int, payload: Payload, rows: Tagged, at: float) -> None:
        """Deliver what was not delivered yet."""
        if payload.shapeless:  # it cannot be told, and must not be lost
            self._deliver(source, payload.raw, at)
            return
        while void := self.counting.contradicted(rows, self.repair.waiting):
            windows = self._windows()
            lacking = {key: windows[key] for key in void}
            self.repair.missing("handover", self._last, OTHERS, lacking, holding=False)
            self._ask(at)
            rows = self.counting.read(payload)
        keep = self.counting.brought(source, rows)
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
            self.counting.taken_back(rows, keep)
        if not self.repair.holding:
            self._guard(payload.raw, at)

    def _release(self, held: Held) -> None:
        payload = Payload(held.raw)
        self._pass(held.source, payload, self.counting.read(payload), held.at)

    def _deliver(self, source: int, raw: bytes, at: float) -> bool:
        if self.repair.holes:
            self.repair.delivered(at)
        if at > self._last:
            self._last = at
        return self._out(source, raw, at, False)

    def _guard(self, raw: bytes, now: float) -> None:
        """A message as long as the service's limit may have been cut short: its blocks are asked for again."""
        for key in self._plan.full(raw):
            rows = Payload(raw).cubes.get(key) or ()
            cursors = cursors_of({key: rows}, self.counting.readers)[key] if len(rows) >= MOST_ROWS else []
            if not cursors:
                continue
            self.truncated += 1
            till = math.ceil(now + self.beginning.offset) + 1
            about = self.beginning.about(now)
            window = Window(low=min(cursors), high=max(cursors), till=till, about=about)
            self.repair.missing("truncated", now, TRUNCATED, {key: window}, holding=False)
            self._ask(now, soon=True)

    def _let_go(self, closing: Closing, now: float) -> None:
        """More is held than may be: it is let go, and asked for like the rest."""
        start, lows = closing.held[0].at, dict[str, Window]()
        for held in closing.held:
            for key, cursors in self._cursors(held.raw).items():
                if cursors:
                    window = Window(low=min(cursors), about=self.beginning.about(start))
                    lows[key] = window.joined(lows[key]) if key in lows else window
        closing.let_go()
        self.repair.missing("lost", start, LET_GO, lows, holding=True)
        self._ask(now, soon=True)

    # ------------------------------------------------------------------ the end of a source, and of a gap

    def _count_from(self, since: float) -> None:
        self.counting.start(since, {src.number: src.joined for src in self._live.values()})

    def _settle(self, now: float) -> None:
        """Stop counting once there was time for the one live link to bring all that others brought."""
        counting = self.counting
        if not counting.on or self.repair.closing is not None or len(self._live) != 1:
            return
        if now >= self._changed + self.lag + self._pause:
            (src,) = self._live.values()
            counting.stop(src.reached)

    def _finished(self, now: float) -> None:
        self._changed = now
        self._settle(now)

    def _remove(self, src: _Source, now: float) -> None:
        del self._live[src.number]
        self._changed = now
        self.counting.forget(src.number, src.reached)

    def _retire(self, old: _Source, now: float, cause: GapCause = "handover", why: str = UNPROVEN) -> bool:
        """``old`` goes and a younger one goes on: whether nothing can be missing."""
        new = list(self._live.values())[-1]
        proven = self._proven(old, new, self.lag)
        windows = {} if proven else self._up_to(new, self._windows())
        quiet = new.first is None and (old.heard is None or old.heard < new.joined)
        self._remove(old, now)
        self._passed = None
        if proven:
            return True
        if cause == "handover" and quiet:
            cause, why = "quiet", SILENT
        heard = old.joined if old.heard is None else old.heard  # it may have been silent for long
        self.repair.missing(cause, min(self._last, new.joined, heard), why, windows, holding=False)
        self._ask(now)
        return False

    # ------------------------------------------------------------------ what is missing

    def _ask(self, now: float, *, soon: bool = False) -> None:
        """Have what is wanted asked for, once a link is there to go on from."""
        closing = self.repair.closing
        if closing is None or not closing.wanted or not self._live or self.repair.stopped:
            return
        self._count_from(-math.inf)
        self.repair.ask(now, now + self.beginning.offset, self.lag, soon=soon)

    def _windows(self) -> dict[str, Window]:
        """From where on rows of each cube may be missing, by what was delivered last.

        While live payloads are held back nothing was delivered but what queries brought in order: then it is there that
        they go on.
        """
        closing, readers = self.repair.closing, self.counting.readers
        if closing is not None and closing.holding:
            last = closing.walk.last if closing.walk is not None else {}
            known = {
                key: replace(one, high=None, till=None) for key, one in {**last, **closing.wanted}.items()
            }
            return {
                key: known.get(key) or like_others(one, known) or self.beginning.window(key)
                for key, one in readers.items()
            }
        read = [(entry.at, self._cursors(entry.raw)) for entry in self._history.entries()]
        cut = self._history.evicted_at is not None
        windows = missing_after(read, readers, self.beginning, REACH, cut=cut)
        self._too_little_kept(windows)
        return windows

    def _cursors(self, raw: bytes) -> dict[str, list[Cursor]]:
        return cursors_of(Payload(raw).cubes, self.counting.readers)

    def _up_to(self, new: _Source, windows: Mapping[str, Window]) -> dict[str, Window]:
        """What ``new`` can lack ends with the first block it brought, once it has brought one."""
        found = {}
        for key, window in windows.items():
            kind = self.counting.readers[key].kind
            at = new.begins.get(kind) if kind is not None else None
            high = Cursor(kind, at) if kind is not None and at is not None else None
            if high is not None and window.low is not None and high < window.low:
                high = window.low
            found[key] = window if high is None else replace(window, high=high)
        return found

    def _too_little_kept(self, windows: Mapping[str, Window]) -> None:
        """So much came in lately that not all of it is kept: what is missing of its blocks cannot be told."""
        evicted: float | None = self._history.evicted_at
        last: Arrival | None = self._history.newest
        if evicted is None or last is None or evicted < last.at - REACH:
            return
        for key, window in windows.items():
            if key not in self._plan.unclosable:
                low, _ = describe(window)
                self._gaps.close(self._gaps.open("lost", evicted, (key,), UNKEPT, low=low), last.at)
