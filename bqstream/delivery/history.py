"""What was delivered lately, kept as references: a payload costs nothing more until a hand-over asks for its rows."""

from __future__ import annotations

from collections import deque

from ..config import MEBIBYTE
from .rows import Fingerprint, Rows


class History:
    """A ring of delivered payloads, bounded by age (``seconds``) and size (``size`` bytes); O(1) for each."""

    def __init__(self, *, seconds: float = 60.0, size: int = 32 * MEBIBYTE) -> None:
        self._seconds = seconds
        self._limit = size
        self._ring: deque[tuple[float, bytes]] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, raw: bytes, now: float) -> None:
        """Keep ``raw``, delivered at ``now`` (monotonic seconds), and let go of what is too old or too much."""
        ring = self._ring
        ring.append((now, raw))
        self.size += len(raw)
        while self.size > self._limit or ring[0][0] < now - self._seconds:
            self.size -= len(ring.popleft()[1])
            if not ring:
                break

    def last(self, key: str, count: int, before: float) -> list[Fingerprint]:
        """At most the last ``count`` rows of a cube that were delivered up to ``before``, oldest first."""
        found: list[list[Fingerprint]] = []
        for at, raw in reversed(self._ring):
            if at <= before:
                rows = Rows(raw).by_key.get(key, [])
                found.append(rows)
                count -= len(rows)
                if count <= 0:
                    break
        return [row for rows in reversed(found) for row in rows][max(0, -count) :]

    def keys(self, payloads: int = 8) -> set[str]:
        """The response keys of the last few payloads."""
        newest = [raw for _, raw in reversed(self._ring)][:payloads]
        return {key for raw in newest for key in Rows(raw).by_key}
