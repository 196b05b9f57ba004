"""Heights that were delivered twice, on two branches of the chain, told by their blocks' hashes.

The service sends no retraction (subscriptions/trigger): a row of another branch comes under another hash, and that is
all that shows it. Which branch stays nobody says: the one that came last is taken for it. A block without a row of the
subscription's is not seen, so that one which was replaced by such a block stays.

A query tells of a branch before live payloads that were held back for it do, though these came first: what they
themselves show to be given up is not taken for the newer branch then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..message import Fork, Undo
from .enlarge import Reader
from .history import History
from .rows import Payload

_BLOCKS = frozenset(("number", "slot", "height"))
# Heights that are remembered: more than the rows of the last minute can have.
MOST_HEIGHTS = 16_384


class Forks:
    """Reads what was delivered, each payload once and in order, as far as it is asked for."""

    def __init__(self, readers: Mapping[str, Reader], history: History) -> None:
        self._readers = {key: one for key, one in readers.items() if one.branch and one.kind in _BLOCKS}
        self._history = history
        self._next = 1
        self._heights: dict[int, str] = {}
        self._seen: dict[str, int] = {}  # a block's hash: the payload that first brought it
        self._replacing: set[str] = set()
        self._orphans: set[str] = set()
        self._found: dict[int, tuple[tuple[Fork, ...], frozenset[str]]] = {}  # by payload
        self._late: dict[str, list[Any]] = {}
        # A block's hash: that of the one which is to take its branch's place.
        self._given_up: dict[str, str] = {}

    def held(self, payloads: Iterable[bytes]) -> None:
        """These were held back while a gap was closed, and come next, less the rows that queries have brought."""
        ahead = Forks(self._readers, self._history)
        for place, raw in enumerate(payloads):
            ahead._look(place, Payload(raw))
        self._given_up |= ahead._given_up

    def at(self, number: int) -> tuple[Fork, ...]:
        """What payload ``number`` brought in another block's place."""
        self._read(number)
        return self._found.get(number, ((), frozenset()))[0]

    def undo(self, number: int) -> Undo | None:
        """What is taken back before payload ``number`` is taken; ask of each in turn."""
        late, self._late = self._late, {}
        self._read(number)
        forks, orphans = self._found.get(number, ((), frozenset()))
        rows = {key: tuple(reversed(found)) for key, found in self._rows_of(orphans, number).items()}
        for key, found in late.items():
            rows[key] = (*reversed(found), *rows.get(key, ()))
        return Undo(forks, rows) if rows else None

    def _read(self, number: int) -> None:
        if not self._readers:
            return
        history = self._history
        self._next = max(self._next, history.first)
        for place, entry in enumerate(history.entries(number), history.first):
            if place >= self._next:
                self._look(place, Payload(entry.raw))
                self._next = place + 1
        for old in [place for place in self._found if place < history.first]:
            del self._found[old]
        while len(self._heights) > MOST_HEIGHTS:
            lowest = min(self._heights)
            gone = self._heights.pop(lowest)
            self._seen.pop(gone, None)
            self._replacing.discard(gone)
            self._orphans.discard(gone)
        while len(self._given_up) > MOST_HEIGHTS:
            del self._given_up[next(iter(self._given_up))]

    def _look(self, place: int, payload: Payload) -> None:
        forks: dict[str, Fork] = {}
        orphans: set[str] = set()
        for key, rows in payload.cubes.items():
            reader = self._readers.get(key)
            for raw in rows or () if reader is not None else ():
                assert reader is not None
                row = _decoded(raw)
                cursor, branch = reader.cursor(row), reader.hash(row)
                if cursor is None or branch is None:
                    continue
                height, known = cursor.value, self._heights.get(cursor.value)
                if branch in self._orphans or self._given_up.get(branch) in self._seen:
                    self._orphans.add(branch)
                    reader.take_out(row)
                    self._late.setdefault(key, []).append(row)
                elif known != branch:
                    if known is not None:
                        forks[branch] = Fork(key, height, branch, known)
                        self._replacing.add(branch)
                        orphans |= self._abandon(height, place, branch)
                    self._heights[height] = branch
                    self._seen.setdefault(branch, place)
        if forks:
            self._found[place] = tuple(forks.values()), frozenset(orphans)

    def _abandon(self, height: int, place: int, branch: str) -> set[str]:
        """The chain goes on from another block of this height: what stood there and what followed on it is given up.

        Blocks above that came since the first of the new branch belong to that, whatever order they came in.
        """
        since, above = place, height + 1
        while self._heights.get(above) in self._replacing:
            since = min(since, self._seen[self._heights[above]])
            above += 1
        found = {
            known
            for at, known in self._heights.items()
            if at == height or (at > height and self._seen[known] < since and known not in self._replacing)
        }
        found -= self._orphans
        self._orphans |= found
        self._given_up |= dict.fromkeys(found, branch)
        return found

    def _rows_of(self, orphans: frozenset[str], until: int) -> dict[str, list[Any]]:
        """The rows of these blocks that were delivered before payload ``until``, as the user saw them."""
        found: dict[str, list[Any]] = {}
        for entry in self._history.entries(until - 1) if orphans else ():
            for key, rows in Payload(entry.raw).cubes.items():
                reader = self._readers.get(key)
                for raw in rows or () if reader is not None else ():
                    assert reader is not None
                    row = _decoded(raw)
                    if reader.hash(row) in orphans:
                        reader.take_out(row)
                        found.setdefault(key, []).append(row)
        return found


def _decoded(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
