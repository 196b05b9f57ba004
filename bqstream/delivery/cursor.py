"""Where a row stands on its chain: a block by its number, slot or height, or a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

CursorKind = Literal["number", "slot", "height", "time", "timestamp"]
Path = tuple[str, ...]

_KINDS = frozenset(get_args(CursorKind))
_TIMES = frozenset(("time", "timestamp"))
# A timestamp in whole seconds stays below this until the year 5138; finer units are above it.
_FINER = 10**11


@dataclass(frozen=True, slots=True)
class Cursor:
    """One place; cursors of a kind compare as integers, however wide, those of two kinds do not compare.

    Attributes:
        kind: what is counted. "time" and "timestamp" differ in how a row shows them, not in what they mean.
        value: the block's number, slot or height; of a time, whole seconds since the epoch (UTC). Blocks have no
            finer time (graphql/datetime), so a time's block is its whole second: a range that begins or ends at
            it includes it.
    """

    kind: CursorKind
    value: int

    @classmethod
    def parse(cls, kind: CursorKind, raw: Any) -> Self | None:
        """What a row shows: integers as a number or a string (cubes/EVM), times in RFC 3339 (graphql/datetime),
        timestamps in any unit down to nanoseconds (the Trading cubes'). None where it is none of these."""
        value = _seconds(raw) if kind == "time" else _whole(raw)
        if value is None or (kind != "time" and value < 0):
            return None
        if kind == "timestamp":
            while value >= _FINER:
                value //= 1000
        return cls(kind, value)

    @property
    def is_time(self) -> bool:
        """Whether it is a time, and not a block."""
        return self.kind in _TIMES

    def literal(self) -> str:
        """As GraphQL in a filter: quoted, since a block's number is an argument of type BigInt, and a slot is written
        alike (graphql/filters, blockchain/Solana/solana-blocks-api); a time is a DateTime (graphql/datetime)."""
        return f'"{self.text()}"'

    def text(self) -> str:
        """As a filter that is JSON has it: what `literal` says, without its quotes."""
        if not self.is_time:
            return str(self.value)
        return datetime.fromtimestamp(self.value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def __str__(self) -> str:
        return self.text() if self.is_time else f"{self.kind} {self.value}"

    def __lt__(self, other: Self) -> bool:
        return self.value < other.value if self._comparable(other) else NotImplemented

    def __le__(self, other: Self) -> bool:
        return self.value <= other.value if self._comparable(other) else NotImplemented

    def _comparable(self, other: object) -> bool:
        return isinstance(other, Cursor) and other.kind == self.kind

    def as_json(self) -> tuple[str, str]:
        """For a checkpoint: strings alone, since JSON's numbers may be read as doubles elsewhere."""
        return self.kind, self.text()

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """What `as_json` gave; None where it is anything else."""
        match value:
            case [str(kind), str(text)] if kind in _KINDS:
                if kind == "timestamp":
                    seconds = _seconds(text)
                    return None if seconds is None else cls("timestamp", seconds)
                return cls.parse(kind, text)  # type: ignore[arg-type]
        return None


@dataclass(frozen=True, slots=True)
class CursorField:
    """Where a cube has its cursor.

    Attributes:
        kind: what it counts.
        field: the field's path below the cube, as a filter names it.
        at: the path of response keys at which a row has it; None where the document does not select it.
    """

    kind: CursorKind
    field: Path
    at: Path | None

    @property
    def name(self) -> str:
        """As an order names it (graphql/sorting)."""
        return "_".join(self.field)

    def between(self, low: Cursor | None, high: Cursor | None) -> dict[Path, Cursor]:
        """The conditions for rows from ``low`` to ``high``, both included, by their paths in a filter down to the
        operator; None is no bound (graphql/filters, subscriptions/backfilling-subscription)."""
        since, till = ("since", "till") if self.kind in _TIMES else ("ge", "le")
        bounds = ((*self.field, since), low), ((*self.field, till), high)
        return {path: bound for path, bound in bounds if bound is not None}


def _whole(raw: Any) -> int | None:
    if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < 100:
        return int(raw)
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None


def _seconds(raw: Any) -> int | None:
    if not isinstance(raw, str):
        return None
    try:
        at = datetime.fromisoformat(raw)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() // 1)
    except (ValueError, OverflowError):
        return None
