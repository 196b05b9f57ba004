"""Checkpoints of one stream: how far each cube had come when a message was delivered, and what is known beyond."""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice

from ..checkpoint import Checkpoint, Mark
from ..clock import Clock
from ..errors import UsageError
from .backfill import Window, surely
from .closing import Start
from .counting import Known
from .cursor import Cursor
from .enlarge import Reader
from .extent import missing_above, whole_of
from .history import SPAN, History
from .keyed import Keyed
from .tagged import tags_of, told_by
from .union import Union

_TAG = 9
_NOWHERE = -1  # below every block: rows that do not say where they stand are kept


class _Beyond:
    """One cube's rows by their block, as a checkpoint has them: text is made anew for blocks that have changed."""

    def __init__(self) -> None:
        self.low = _NOWHERE  # what lies below was let go
        self._tags: dict[int, bytearray] = {}
        self._texts: dict[int, str] = {}

    def add(self, block: int | None, tags: bytes) -> None:
        place = _NOWHERE if block is None else block
        known = self._tags.get(place)
        if known is None:
            known = self._tags[place] = bytearray()
        known += tags
        self._texts.pop(place, None)

    def above(self, low: int) -> dict[str, str]:
        """The rows of ``low`` and above; what is below is let go."""
        if low > self.low:
            for place in [place for place in self._tags if _NOWHERE < place < low]:
                del self._tags[place]
                self._texts.pop(place, None)
            self.low = low
        for place, tags in self._tags.items():
            if place not in self._texts:
                self._texts[place] = base64.b64encode(tags).decode()
        return {"" if place == _NOWHERE else str(place): text for place, text in self._texts.items()}


class Marks:
    """Makes checkpoints. Each payload is read once, in order, when a checkpoint after it is asked for; one before the
    last that was asked for is worked out anew. ``start`` is what was missing, and what known, before the first payload.
    """

    def __init__(
        self,
        fingerprint: str,
        history: History,
        union: Union | None,
        clock: Clock,
        start: Start | None = None,
    ) -> None:
        self._fingerprint = fingerprint
        self._history = history
        self._union = union
        self._clock = clock
        self._start = start
        self._forget(1)

    def _forget(self, first: int) -> None:
        """Begin anew with payload ``first``."""
        self._next = first
        self._cut = first > 1  # what came before is not kept
        self._at: float | None = None  # when the last payload that was read came in
        self._edge: float | None = None  # and the last one of which the blocks are whole
        self._recent: deque[tuple[float, dict[str, Cursor]]] = (
            deque()
        )  # the highest place of each cube, by payload …
        self._whole: deque[tuple[float, dict[str, Cursor]]] = deque()  # … and of those up to the edge
        self._beyond: dict[str, _Beyond] = {}
        self._readers = dict(self._union.counting.readers) if self._union is not None else {}
        self._keyed: Keyed | None = None
        for key, known in (self._start.known if self._start is not None else {}).items():
            for block, tag, count in known:
                self._rows(key).add(block, tag * count)

    def _rows(self, key: str) -> _Beyond:
        found = self._beyond.get(key)
        if found is None:
            found = self._beyond[key] = _Beyond()
        return found

    def at(self, number: int) -> Checkpoint:
        """The checkpoint after payload ``number``; 0: before the first one. Raises UsageError: it is too old."""
        history = self._history
        if number and number < history.first:
            raise UsageError(
                "this message is too old for a checkpoint: take it while you have the message in hand"
            )
        if number + 1 < self._next:
            return Marks(self._fingerprint, history, self._union, self._clock, self._start).at(number)
        if self._next < history.first or (self._union and self._union.counting.readers != self._readers):
            self._forget(
                history.first
            )  # what came between is gone, or rows are told apart by other fields now
        cubes = {} if self._union is None else self._marks(self._union, number)
        now = self._clock.monotonic()
        at = now if self._at is None else self._at
        return Checkpoint(
            self._fingerprint, datetime.fromtimestamp(self._clock.wall() + at - now, UTC), cubes
        )

    def _read(self, union: Union, until: int) -> None:
        closable = {key: one for key, one in self._readers.items() if key not in union.unclosable}
        if self._keyed is None:
            self._keyed = Keyed(closable)
        for entry in self._history.entries(until, since=self._next):
            highest = dict[str, Cursor]()
            for key, found in tags_of(entry.raw, closable, self._keyed).items():
                for cursor, tags in found.items():
                    self._rows(key).add(None if cursor is None else cursor.value, tags)
                    if cursor is not None and (key not in highest or highest[key] < cursor):
                        highest[key] = cursor
            self._recent.append((entry.at, highest))
            self._at = entry.at
        self._next = max(self._next, until + 1)
        reach = SPAN + union.lag
        while self._recent and self._recent[0][0] <= self._recent[-1][0] - reach:
            self._whole.append(self._recent.popleft())
            self._edge = self._whole[-1][0]
        while self._whole and self._whole[0][0] < self._whole[-1][0] - SPAN:
            self._whole.popleft()

    def _marks(self, union: Union, number: int) -> dict[str, Mark]:
        self._read(union, number)
        lows = self._lows(union, number)
        marks: dict[str, Mark] = {}
        for key, reader in union.counting.readers.items():
            if key in union.unclosable:
                continue
            low, since, rows = lows[key].low, lows[key].since, self._rows(key)
            place = _NOWHERE if low is None else low.value
            if place < rows.low and reader.kind is not None:
                # What was whole once is whole for good, and its rows were let go.
                place, low, since = rows.low, Cursor(reader.kind, rows.low), None
            beyond = rows.above(place)
            marks[key] = Mark(None if low is None else low.as_json(), since, beyond, told_by(reader))
        return marks

    def _lows(self, union: Union, number: int) -> Mapping[str, Window]:
        """From where on rows may be missing after payload ``number``: those of blocks that came lately may follow."""
        floor = union.repair.floor_at(number)
        missing = dict(floor.windows or {}) if floor is not None else {}
        readers = union.counting.readers
        if union.beginning.began is None:  # nothing was asked for yet
            now = dict.fromkeys(readers, Window(since=math.floor(self._clock.wall())))
            return now if self._start is None else {**now, **self._start.windows}
        edge, whole = self._edge, self._whole
        if edge is None and self._cut:
            count = whole_of([at for at, _ in self._recent], SPAN + union.lag, cut=True)
            whole = deque(islice(self._recent, count))
            edge = whole[-1][0] if whole else None
        highest: dict[str, Cursor] = {}
        for _, found in whole:
            for key, cursor in found.items():
                if key not in highest or highest[key] < cursor:
                    highest[key] = cursor
        lows = missing_above(edge, highest, readers, union.beginning)
        for key, known in missing.items():
            exact = floor is not None and floor.exact
            lows[key] = known if exact else lows[key].joined(known)
        return lows


def windows_of(checkpoint: Checkpoint) -> dict[str, Window]:
    """From where on rows are missing after a checkpoint, by cube. Raises UsageError: it holds no such thing."""
    windows = {}
    for key, mark in checkpoint.cubes.items():
        low = None
        if mark.low is not None:
            low = Cursor.from_json(list(mark.low))
            if low is None:
                raise UsageError(f"the checkpoint's place of {key} cannot be read: {' '.join(mark.low)}")
        since = (0 if low is None else None) if mark.since is None else mark.since
        windows[key] = Window(low=low, since=since, about=None if since is None else surely(since))
    return windows


def void_of(checkpoint: Checkpoint, readers: Mapping[str, Reader]) -> tuple[str, ...] | None:
    """The cubes whose key had turned out to be none; None where the checkpoint's rows were compared by other fields
    than ``readers`` read, so that they cannot be told."""
    void = []
    for key, mark in checkpoint.cubes.items():
        reader = readers.get(key)
        if reader is None or mark.told in ("", told_by(reader)):
            continue
        if mark.told != told_by(reader.by_content):
            return None
        void.append(key)
    return tuple(void)


def keyless_of(checkpoint: Checkpoint, readers: Mapping[str, Reader]) -> tuple[str, ...]:
    """The cubes of which rows beyond are known by their content alone: where ``void_of`` says that ``readers`` tell
    rows as the checkpoint does, they tell these so as long as the same fields are selected."""
    return tuple(
        key
        for key, mark in checkpoint.cubes.items()
        if (reader := readers.get(key)) and mark.beyond and mark.told in ("", told_by(reader.by_content))
    )


def known_of(checkpoint: Checkpoint) -> dict[str, list[Known]]:
    """The rows beyond, by cube. Raises UsageError: they cannot be read."""
    known: dict[str, list[Known]] = {}
    try:
        for key, mark in checkpoint.cubes.items():
            for place, text in mark.beyond.items():
                tags = base64.b64decode(text, validate=True)
                if len(tags) % _TAG:
                    raise ValueError(
                        f"{len(tags)} bytes at {place or 'no place'} are no whole number of rows"
                    )
                block = int(place) if place else None
                parts = [tags[start : start + _TAG] for start in range(0, len(tags), _TAG)]
                known.setdefault(key, []).extend((block, tag, 1) for tag in parts)
    except ValueError as error:
        raise UsageError(f"the checkpoint's rows cannot be read: {error}") from None
    return known
