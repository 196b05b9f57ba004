"""Which rows were delivered lately, and which links have brought them, for as long as that has to be known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from .cursor import CursorKind
from .enlarge import Reader
from .history import History
from .keyed import Tag
from .rows import Payload
from .tagged import Row, tagged, tagged_rows
from .tally import Tally

# Rows that are kept for comparison, of one cube.
MOST_ROWS = 250_000
_NONE: frozenset[str] = frozenset()
# A link that brought a row and has gone: its copies are not a query's.
_GONE = -1

Known = tuple[int | None, Tag, int]
"""Rows of which only this is known: their block, what they are compared by, and how many they are."""
Places = dict[CursorKind, int]
"""The highest place that was reached, by the cursor's kind."""
Tagged = dict[str, list[Row]]


class Counting:
    """A `Tally` for each cube, made from history when it is needed.

    ``readers`` are the cubes' own; one whose key turns out to be none is changed. ``known`` are rows that a checkpoint
    names.
    """

    def __init__(self, readers: Mapping[str, Reader], history: History) -> None:
        self.readers = readers
        self.void = _NONE  # cubes whose key turned out to be none
        self.known: dict[str, list[Known]] = {}
        self._history = history
        self._tallies: dict[str, Tally] = {}
        self._from = math.inf  # payloads that came in before are not counted
        self._others: Places = {}  # the highest place that anything but the live link brought
        self.on = False

    def start(self, since: float, live: Mapping[int, float]) -> None:
        """Count every payload that came in since as delivered; ``live`` links, by number, with when each joined."""
        if not self.on:
            self.on = True
            self._from = math.inf
            self._tallies = {key: Tally() for key in self.readers}
            for key, known in self.known.items():
                for block, tag, count in known if key in self._tallies else ():
                    self._tallies[key].seed_tag(block, tag, count)
        for entry in self._history.entries():
            if since <= entry.at < self._from:
                brought = [number for number, joined in live.items() if joined <= entry.at]
                self._seed(entry.raw, self.readers, () if entry.replayed else brought or [_GONE])
        self._from = min(self._from, since)

    def _seed(self, raw: bytes, readers: Mapping[str, Reader], brought: Sequence[int]) -> None:
        for key, rows in tagged_rows(Payload(raw).cubes, readers).items():
            for row in rows:
                self._tallies[key].seed(row, brought)
                self._reached(row)

    def read(self, payload: Payload) -> Tagged:
        """The payload's rows, by cube."""
        return tagged_rows(payload.cubes, self.readers)

    def brought(self, source: int, rows: Tagged) -> dict[str, list[bool]]:
        """A link brought these: for each row whether it is to be delivered."""
        keep = {
            key: [self._tallies[key].brought(source, row) for row in found] for key, found in rows.items()
        }
        for tally in self._tallies.values():
            while tally.rows > MOST_ROWS:
                tally.forget_lowest()
        return keep

    def taken_back(self, rows: Tagged, keep: Mapping[str, Sequence[bool]]) -> None:
        """Those that were to be delivered were let go: they are missing."""
        for key, found in rows.items():
            for row, new in zip(found, keep[key], strict=True):
                if new:
                    self._tallies[key].taken_back(row)

    def owed(self, key: str, rows: Sequence[Row]) -> list[Row]:
        """A query brought these, whole blocks of them: those that were not delivered yet."""
        if key in self.void:  # who asked may still tell them apart by it
            rows = [tagged(row.raw, self.readers[key]) for row in rows]
        for row in rows:
            self._reached(row)
        return [row for row, due in zip(rows, self._tallies[key].owed(rows), strict=True) if due]

    def avoid(self, key: str) -> None:
        """The cube's key is none."""
        self.void |= {key}
        self.readers = {**self.readers, key: self.readers[key].by_content}

    def contradicted(self, rows: Tagged, waiting: Iterable[bytes], *, queried: bool = False) -> list[str]:
        """Cubes of which these rows show that their key is none: they are compared by content from now on.

        ``waiting`` are payloads of queries that are not delivered yet. A query's rows (``queried``) are compared with
        each other alone: what it shows of a row may differ from what the stream did.
        """
        keys = [key for key, found in rows.items() if self._contradicts(key, found, queried)]
        for key in keys:
            self.avoid(key)
            self._tallies[key] = Tally()
            reader = {key: self.readers[key]}
            for entry in self._history.entries():
                if entry.at >= self._from:
                    self._seed(entry.raw, reader, () if entry.replayed else [_GONE])
            for raw in waiting:
                self._seed(raw, reader, ())
        return keys

    def _contradicts(self, key: str, rows: Iterable[Row], queried: bool) -> bool:
        seen: dict[Tag, Tag] = {}
        tally = self._tallies[key]
        return any(
            (not queried and tally.contradicts(row)) or seen.setdefault(row.exact, row.content) != row.content
            for row in rows
        )

    def _reached(self, row: Row) -> None:
        if row.cursor is not None:
            self._others[row.cursor.kind] = max(row.cursor.value, self._others.get(row.cursor.kind, 0))

    def forget(self, source: int, reached: Places) -> None:
        """A link has gone, which had come so far."""
        for kind, value in reached.items():
            self._others[kind] = max(value, self._others.get(kind, 0))
        for tally in self._tallies.values():
            tally.forget_source(source)

    def stop(self, reached: Places) -> None:
        """Count no more, if the one live link has gone beyond all that others brought."""
        if all(reached.get(kind, -1) > value for kind, value in self._others.items()):
            self.on = False
            self._tallies = {}
            self._others = {}
