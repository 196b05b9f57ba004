"""What happened, counted: in total, and the latest with their times."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class SocketRecord:
    """The life of one socket; times are the loop's seconds. ``token`` is a token's number, never its value."""

    number: int
    token: int | None
    subprotocol: str
    opened: float
    closed: float | None = None
    close_code: int | None = None
    operations: int = 0
    messages: int = 0
    last_data: float | None = None
    served_past_expiry: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, at a time of the loop."""

    kind: str
    time: float
    detail: dict[str, Any]


class Counters:
    """Totals by kind, and the latest happenings.

    Kinds: ``dials`` (upgrades asked for), ``token_requests``, ``exchanges``, ``queries``, ``subscribes``,
    ``refusals`` (each with what was refused), ``shed`` (1013), ``expired`` (sockets).
    """

    def __init__(self, keep: int = 10_000) -> None:
        self._totals: Counter[str] = Counter()
        self._recent: deque[Happening] = deque(maxlen=keep)
        self.sockets: deque[SocketRecord] = deque(maxlen=keep)

    def record(self, kind: str, **detail: Any) -> None:
        """Count one happening now."""
        self._totals[kind] += 1
        self._recent.append(Happening(kind, asyncio.get_running_loop().time(), detail))

    def __getitem__(self, kind: str) -> int:
        """How often it happened since the start."""
        return self._totals[kind]

    def recent(self, kind: str) -> list[Happening]:
        """The latest of one kind, oldest first."""
        return [happening for happening in self._recent if happening.kind == kind]

    @property
    def open_sockets(self) -> int:
        return sum(1 for record in self.sockets if record.closed is None)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for the control endpoint."""
        return {
            "totals": dict(self._totals),
            "open_sockets": self.open_sockets,
            "sockets": [asdict(record) for record in self.sockets],
            "recent": [asdict(happening) for happening in self._recent],
        }
