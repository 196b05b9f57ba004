"""The queries that close a gap, as a pure machine: which to send next, what its answer is worth, when all is in.

Pages go by cursor, the lowest first. A service cuts an answer short without saying so (graphql/limits), at a cap that
is not known: so the last block of a page that may be full is asked for again, and a block that fills a page is paged
inside it. The query side lags the stream: a page counts once the cube's newest row stands above it and two answers in
a row agree on it (design: closing a gap).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from .ask import Answer, Range
from .cursor import Cursor
from .enlarge import Reader
from .history import SPAN
from .tagged import Row, tagged

# No service is known to cut an answer shorter than this; the documented caps are 10,000 and 25,000 rows.
LEAST_CAP = 500
# Between two looks at a query side that lags, in seconds: doubled from the first to the last.
FIRST_LOOK, LAST_LOOK = 0.25, 4.0
# What the query side has shown for this long, in seconds, does not change any more.
SETTLED = 60.0
# How long nothing may move before a gap is given up, in seconds.
STUCK = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which of a cube's rows are missing: those that are within every bound; all are included, None is no bound.

    ``low`` and ``high`` are places of the cube's own cursor; ``since`` and ``till`` times of blocks, in seconds since
    the epoch. ``about`` bounds nothing: with ``low`` it is a time before that of all the window's blocks, and without
    it the time from which on rows are surely missing, where ``since`` reaches further back to be safe.
    """

    low: Cursor | None = None
    high: Cursor | None = None
    since: int | None = None
    till: int | None = None
    about: int | None = None

    def joined(self, other: Window) -> Window:
        """A window that holds both. Where only one begins at a place, it begins at a time."""
        high = max(self.high, other.high) if self.high and other.high else None
        till = max((till for till in (self.till, other.till) if till is not None), default=None)
        if self.low is not None and other.low is not None:
            since = _least(self.since, other.since)
            about = _least(self.about, other.about)
            return Window(low=min(self.low, other.low), since=since, high=high, till=till, about=about)
        times = [one.about if one.since is None else one.since for one in (self, other)]
        if None in times:  # that one begins at a place of which no time is known: further back than anything
            return replace(self if times[0] is None else other, high=high, till=till)
        sure = [one.about if one.low is None else surely(one.about or 0) for one in (self, other)]
        return Window(since=_least(*times), high=high, till=till, about=_least(*sure))

    def within(self, bounds: Window) -> Window:
        """What of it lies above the lower ends of ``bounds``."""
        low, since = self.low, self.since
        if bounds.low is not None and (low is None or (low.kind == bounds.low.kind and low < bounds.low)):
            low = bounds.low
        if bounds.since is not None and low is None:
            since = bounds.since if since is None else max(since, bounds.since)
        return replace(self, low=low, since=since)


def surely(since: int) -> int:
    """From when on rows are really missing where a window reaches back to ``since`` to be safe."""
    return since + math.ceil(2 * SPAN)


def _least(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one, other)


@dataclass(slots=True)
class Walk:
    """One cube's way through its window.

    ``by_time``: the head's time says nothing of the interval that is running, so two answers that agree must do.
    """

    window: Window
    reader: Reader
    by_time: bool = False
    over: bool = False
    before: list[Row] | None = None  # what the last answer held that does not count yet …
    before_head: Cursor | None = None  # … where the cube's newest row stood …
    before_past: bool = False  # … and whether it was past the window's end
    block: Cursor | None = None  # the block that is paged inside …
    inside: list[Row] = field(default_factory=list)  # … and what it has brought
    head: Cursor | None = None
    longest: int = LEAST_CAP  # the longest page that was seen: a shorter one was not cut

    def page(self) -> Range:
        """What to ask next."""
        window = self.window
        return Range(
            low=window.low,
            high=window.high,
            since=window.since,
            till=window.till if window.high is None else None,
            block=self.block,
            offset=len(self.inside),
        )

    def answered(
        self, answer: Answer, *, past: bool, settled: Cursor | None
    ) -> tuple[list[Row] | None, bool]:
        """Take an answer to ``page()``. Gives the rows of whole blocks that count (None: it is of no use yet), and
        whether more can be asked at once.

        ``past``: the query side is known to be past the window's upper end; ``settled`` is where its head stood long
        ago.
        """
        self.head = answer.head or self.head
        rows = [tagged(raw, self.reader) for raw in answer.rows]
        if self.block is not None:
            if rows:
                self.inside += rows
                return None, True
            rows, self.inside = self.inside, []
            whole, self.block = self.block, None
            return self._counted(rows, whole, past, settled)
        if len(rows) < self.longest:
            return self._counted(rows, None, past, settled)
        self.longest = len(rows)
        last = rows[-1].cursor
        complete = [row for row in rows if row.cursor != last]
        if last is not None and not complete:
            self.block, self.inside = last, []  # begun anew, since the order inside a block is another
            return None, True
        # Where rows do not say where they stand they cannot be paged: what there is must do.
        return self._counted(complete or rows, complete[-1].cursor if complete else None, past, settled)

    def _counted(
        self, rows: list[Row], whole: Cursor | None, past: bool, settled: Cursor | None
    ) -> tuple[list[Row] | None, bool]:
        """``rows`` are all that there is up to ``whole`` (None: to the window's end). Those count on which this answer
        and the last one agree, of blocks below where the head stood at both."""
        before, self.before = self.before, rows
        head, self.before_head = self.before_head, self.head
        was_past, self.before_past = self.before_past, past
        if whole is None and past and before is not None:
            if self.by_time and was_past and _holds(rows, before):
                self.over = True  # what came since is of an interval that still runs, and comes on the link
                return before, False
            if _same(rows, before, None):
                self.over = True
                return rows, False
        limits = [found.value for found in (head, self.head) if found is not None]
        limit = min(limits) if before is not None and len(limits) == 2 else None
        if limit is None or not _same(rows, before or [], limit):
            limit = settled.value if settled is not None else None
        if limit is not None and whole is not None:
            limit = min(limit, whole.value + 1)
        low = self.window.low
        if limit is None or self.head is None or (low is not None and limit <= low.value):
            return None, False
        self.before = [row for row in rows if not _below(row, limit)]
        self.window = replace(self.window, low=Cursor(self.head.kind, limit), since=None, about=None)
        all_of_it = whole is not None and limit > whole.value
        if all_of_it:
            self.before = self.before_head = None
        return [row for row in rows if _below(row, limit)], all_of_it


def _below(row: Row, limit: int) -> bool:
    return row.cursor is not None and row.cursor.value < limit


def _same(rows: list[Row], others: list[Row], limit: int | None) -> bool:
    """Whether two answers hold the same rows of blocks below ``limit``, as often (None: all rows)."""
    one, other = (
        Counter(row.tag for row in some if limit is None or _below(row, limit)) for some in (rows, others)
    )
    return one == other


def _holds(rows: list[Row], others: list[Row]) -> bool:
    """Whether an answer holds all the rows of another."""
    return Counter(row.tag for row in others) <= Counter(row.tag for row in rows)


@dataclass(slots=True)
class Sleep:
    """Nothing to ask before so many seconds have passed."""

    seconds: float


@dataclass(slots=True)
class Ask:
    """These ranges, in one request to the first or the ``older`` dataset; ``floor``: also where each cube's oldest
    row stands."""

    ranges: Mapping[str, Range]
    floor: bool = False
    older: bool = False


class Backfill:
    """Closes the windows of one operation's cubes.

    ``floor``: a lower end may be out of what the dataset holds, so that is asked first. Rows below it are asked of an
    older dataset once the rest is closed, since the first one's window moves on; where there is none, ``below`` is
    told of the cube, the lower end and the floor. ``by_time``: cubes whose head's time says nothing (see `Walk`).
    """

    def __init__(
        self,
        windows: Mapping[str, Window],
        readers: Mapping[str, Reader],
        *,
        now: float,
        begin: float,
        floor: bool = False,
        older: bool = False,
        by_time: Collection[str] = (),
        below: Callable[[str, Cursor, Cursor], None] = lambda cube, low, floor: None,
    ) -> None:
        self._readers = readers
        self._by_time = by_time
        self._walks = {key: self._walk(key, window) for key, window in windows.items()}
        self._older: dict[str, Walk] = {}
        self._begin = begin
        self._look = FIRST_LOOK
        self._moved = max(now, begin)
        self._heads: dict[str, tuple[float, Cursor]] = {}
        self._settled: dict[str, Cursor] = {}
        self._floor = floor
        self._has_older = older
        self._below = below
        self.queries = 0

    def _walk(self, key: str, window: Window) -> Walk:
        return Walk(window, self._readers[key], key in self._by_time)

    @property
    def over(self) -> bool:
        """Whether every cube's window is closed."""
        return not self._open(self._walks) and not self._open(self._older)

    @property
    def windows(self) -> dict[str, Window]:
        """What is not closed yet, by cube."""
        return {key: walk.window for key, walk in (self._open(self._walks) | self._open(self._older)).items()}

    @property
    def last(self) -> dict[str, Window]:
        """What is not closed yet, and of what is closed the end, by cube."""
        return {key: walk.window for key, walk in (self._walks | self._open(self._older)).items()}

    @staticmethod
    def _open(walks: Mapping[str, Walk]) -> dict[str, Walk]:
        return {key: walk for key, walk in walks.items() if not walk.over}

    def widen(self, windows: Mapping[str, Window], now: float, begin: float) -> None:
        """More is missing: each cube's window holds both from now on."""
        if self.over:
            self._begin = begin
        for key, window in windows.items():
            walk = self._walks.get(key)
            if walk is None or walk.over:
                self._walks[key] = self._walk(key, window)
                self._moved = max(now, begin)
                continue
            joined = walk.window.joined(window)
            if (joined.low, joined.since) != (walk.window.low, walk.window.since):
                self._walks[key] = self._walk(key, joined)
            else:  # what has been seen of it counts on
                walk.window = joined
                continue
            self._moved = max(now, begin)
        self._look = FIRST_LOOK

    def step(self, now: float) -> Ask | Sleep | None:
        """What to do next; None when all is closed."""
        if self.over:
            return None
        if now < self._begin:
            return Sleep(self._begin - now)
        walks = self._open(self._walks)
        if walks:
            return Ask({key: walk.page() for key, walk in walks.items()}, self._floor)
        return Ask({key: walk.page() for key, walk in self._open(self._older).items()}, older=True)

    def waited(self, now: float) -> None:
        """Nothing was asked for until now, since the reader had to make room."""
        self._moved = max(self._moved, now)

    def stuck(self, now: float) -> bool:
        """Whether nothing has moved for so long that the gap had better be named."""
        return now - self._moved > STUCK

    def answered(
        self, asked: Ask, answers: Mapping[str, Answer], now: float, served: float
    ) -> list[tuple[str, list[Row]]]:
        """Take the answers to an `Ask`; gives the rows of each cube that count. ``served`` is the service's time."""
        self.queries += 1
        found: list[tuple[str, list[Row]]] = []
        going = False
        walks = self._open(self._older if asked.older else self._walks)
        for key, walk in walks.items():
            answer = answers.get(key)
            if answer is None or walk.page() != asked.ranges.get(key):
                continue  # it was widened while the query was on its way
            if answer.floor is not None:
                gone = self._raise(key, walk, answer.floor, answer.floor_time)
                if gone:
                    found.append((key, gone))
            moved = answer.head is not None and answer.head != walk.head
            rows, on = walk.answered(answer, past=_past(walk, answer, served), settled=self._settled.get(key))
            if walk.head is not None and not asked.older:
                self._remember(key, walk.head, now)
            if rows is not None:
                found.append((key, rows))
            going = going or on
            if rows is not None or on or moved:
                self._moved = now
        if going:
            self._look = FIRST_LOOK
        else:
            behind = max((_behind(walk, answers.get(key)) for key, walk in walks.items()), default=0.0)
            self._begin = max(self._begin, now + min(max(self._look, behind), LAST_LOOK))
            self._look = min(2 * self._look, LAST_LOOK)
        return found

    def _remember(self, key: str, head: Cursor, now: float) -> None:
        seen, cursor = self._heads.setdefault(key, (now, head))
        if now - seen >= SETTLED:
            self._settled[key] = cursor
            self._heads[key] = (now, head)

    def _raise(self, key: str, walk: Walk, floor: Cursor, time: int | None) -> list[Row]:
        """Nothing below ``floor``, of this ``time``, can be had of the first dataset any more. Gives what an earlier
        answer had of it: no second one can agree."""
        window = walk.window
        low = window.low
        if low is None:
            owed = window.since if window.about is None else window.about
            if owed is None or time is None or owed >= time:
                return []
            low = Cursor("time", owed)
        elif low.kind != floor.kind or not low < floor:
            return []
        if self._has_older:
            self._older[key] = self._walk(key, Window(low=window.low, since=window.since, high=floor))
        else:
            self._below(key, low, floor)
        walk.window = replace(window, low=floor, since=None, about=None)
        gone = [row for row in walk.before or [] if _below(row, floor.value)]
        walk.before = [row for row in walk.before or [] if not _below(row, floor.value)]
        return gone


def _past(walk: Walk, answer: Answer, served: float) -> bool:
    """Whether the unfiltered head is past the window's upper end; its own block may still be incomplete."""
    window = walk.window
    if walk.by_time and window.till is not None:  # the head may be one interval's for an hour
        return served > window.till + LAST_LOOK
    if window.high is not None:
        return answer.head is not None and window.high < answer.head
    if window.till is None:
        return True
    return answer.head_time is not None and answer.head_time > window.till


def _behind(walk: Walk, answer: Answer | None) -> float:
    """How many seconds the query side has to go on at least until it is past the window."""
    window = walk.window
    if walk.over or window.high is not None or window.till is None:
        return 0.0
    if answer is None or answer.head_time is None:
        return 0.0
    return window.till + 1 - answer.head_time


def describe(window: Window) -> tuple[str | None, str | None]:
    """A window's ends as a person reads them."""

    def time(seconds: int | None) -> str | None:
        return None if seconds is None else str(Cursor("time", seconds))

    low = str(window.low) if window.low is not None else time(window.since)
    high = str(window.high) if window.high is not None else time(window.till)
    return low, high
