"""Checkpoints of one stream: how far each cube had come when a message was delivered, and what is known beyond."""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from ..checkpoint import Checkpoint, Mark
from ..clock import Clock
from ..errors import UsageError
from .backfill import Window
from .counting import Known
from .cursor import Cursor
from .extent import missing_after
from .history import SPAN, History
from .rows import Payload
from .tagged import Tag, place_of
from .union import Union

_TAG = 9


class _Read(NamedTuple):
    """One payload's rows: of each cube, where they stand and what they are compared by."""

    at: float
    rows: dict[str, list[tuple[Cursor | None, Tag]]]


class Marks:
    """Makes checkpoints; each payload is read once, when the first checkpoint at or after it is asked for."""

    def __init__(self, fingerprint: str, history: History, union: Union | None, clock: Clock) -> None:
        self._fingerprint = fingerprint
        self._history = history
        self._union = union
        self._clock = clock
        self._read: deque[_Read] = deque()
        self._first = 1  # the number of the oldest payload in it

    def at(self, number: int) -> Checkpoint:
        """The checkpoint after payload ``number``; 0: before the first one. Raises UsageError: it is too old."""
        history = self._history
        if number and number < history.first:
            raise UsageError(
                "this message is too old for a checkpoint: take it while you have the message in hand"
            )
        now = self._clock.monotonic()
        self._catch_up(number)
        read = [one for place, one in enumerate(self._read, self._first) if place <= number]
        at = read[-1].at if read else now
        cubes = {} if self._union is None else self._marks(self._union, number, read)
        return Checkpoint(
            self._fingerprint, datetime.fromtimestamp(self._clock.wall() + at - now, UTC), cubes
        )

    def _catch_up(self, number: int) -> None:
        history, union = self._history, self._union
        readers = {} if union is None else union.counting.readers
        while self._read and self._first < history.first:
            self._read.popleft()
            self._first += 1
        if not self._read:
            self._first = history.first
        known = self._first + len(self._read)
        for place, entry in enumerate(history.entries(number), history.first):
            if place >= known:
                cubes = Payload(entry.raw).cubes
                found = {
                    key: [place_of(row, reader) for row in rows]
                    for key, reader in readers.items()
                    if (rows := cubes.get(key))
                }
                self._read.append(_Read(entry.at, found))

    def _marks(self, union: Union, number: int, read: list[_Read]) -> dict[str, Mark]:
        lows = self._lows(union, number, read)
        marks: dict[str, Mark] = {}
        for key in union.counting.readers:
            if key in union.unclosable:
                continue
            low, beyond = lows[key].low, dict[str, bytearray]()
            for one in read:
                for cursor, tag in one.rows.get(key, ()):
                    if low is None or cursor is None or not cursor < low:
                        place = "" if cursor is None else str(cursor.value)
                        beyond.setdefault(place, bytearray()).extend(tag)
            for block, tag, count in union.counting.known.get(key, ()):
                if low is None or block is None or block >= low.value:
                    place = "" if block is None else str(block)
                    beyond.setdefault(place, bytearray()).extend(tag * count)
            text = {place: base64.b64encode(tags).decode() for place, tags in beyond.items()}
            marks[key] = Mark(None if low is None else low.as_json(), lows[key].since, text)
        return marks

    def _lows(self, union: Union, number: int, read: list[_Read]) -> Mapping[str, Window]:
        """From where on rows may be missing after payload ``number``: those of blocks that came lately may follow."""
        floor = union.repair.floor_at(number)
        missing = dict(floor.windows or {}) if floor is not None else {}
        if union.beginning.began is None:
            return dict.fromkeys(union.counting.readers, Window(since=math.floor(self._clock.wall())))
        stood = [
            (one.at, {key: [at for at, _ in found if at is not None] for key, found in one.rows.items()})
            for one in read
        ]
        lows = missing_after(stood, union.counting.readers, union.beginning, SPAN + union.lag)
        for key, known in missing.items():
            exact = floor is not None and floor.exact
            lows[key] = known if exact else _earlier(lows[key], known)
        return lows


def _earlier(one: Window, other: Window) -> Window:
    if one.low is not None and other.low is not None and one.low.kind == other.low.kind:
        return min(one, other, key=lambda window: window.low.value if window.low is not None else 0)
    return one if one.low is None else other


def windows_of(checkpoint: Checkpoint) -> dict[str, Window]:
    """From where on rows are missing after a checkpoint, by cube. Raises UsageError: it holds no such thing."""
    windows = {}
    for key, mark in checkpoint.cubes.items():
        low = None
        if mark.low is not None:
            low = Cursor.from_json(list(mark.low))
            if low is None:
                raise UsageError(f"the checkpoint's place of {key} cannot be read: {' '.join(mark.low)}")
        windows[key] = Window(low=low, since=None if low is not None else mark.since or 0)
    return windows


def known_of(checkpoint: Checkpoint) -> dict[str, list[Known]]:
    """The rows beyond, by cube. Raises UsageError: they cannot be read."""
    known: dict[str, list[Known]] = {}
    try:
        for key, mark in checkpoint.cubes.items():
            for place, text in mark.beyond.items():
                tags = base64.b64decode(text, validate=True)
                block = int(place) if place else None
                parts = [tags[start : start + _TAG] for start in range(0, len(tags), _TAG)]
                known.setdefault(key, []).extend((block, tag, 1) for tag in parts)
    except ValueError as error:
        raise UsageError(f"the checkpoint's rows cannot be read: {error}") from None
    return known
