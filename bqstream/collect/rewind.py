"""Going back: a state from which a collector brings again what it has brought before."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from ..checkpoint import Checkpoint, Mark
from ..delivery.cursor import Cursor, CursorKind
from ..delivery.marks import windows_of
from ..errors import UsageError
from .commit import Commit, Stored
from .state import State

Place = int | datetime
"""A block's number, slot or height; or the time of a block."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one cube has come.

    Attributes:
        whole: all rows below are in the sink; a time where no place is known yet.
        beyond: how many rows are there at that place and above.
        reached: the highest place of these, in what the cube counts; None where they do not say.
    """

    whole: Cursor
    beyond: int
    reached: int | None

    def __str__(self) -> str:
        if not self.beyond:
            return f"whole below {self.whole}"
        reached = "" if self.reached is None else f" up to {self.reached}"
        return f"whole below {self.whole}, and {self.beyond:,} of the rows beyond{reached}"


def standings(checkpoint: Checkpoint) -> dict[str, Standing]:
    """How far each cube has come."""
    found = {}
    for key, window in windows_of(checkpoint).items():
        beyond = checkpoint.cubes[key].beyond
        found[key] = Standing(
            whole=window.low or Cursor("time", window.since or 0),
            beyond=sum(len(text) // 12 for text in beyond.values()),
            reached=max((int(place) for place in beyond if place), default=None),
        )
    return found


@dataclass(frozen=True, slots=True)
class Rewind:
    """A way back.

    Attributes:
        stored: what the sink holds.
        state: what it is to hold.
        moved: the cubes that go back, with how far they had come; ``stay``: the others.
    """

    stored: Stored
    state: State
    moved: Mapping[str, Standing]
    stay: Mapping[str, Standing]

    @classmethod
    def of(cls, stored: Stored, to: Place, kinds: Mapping[str, CursorKind | None]) -> Rewind:
        """The way back to ``to``, from where on every row comes again; ``kinds`` says what each cube counts.

        Raises UsageError: no cube goes by such a place, or one has not come as far.
        """
        state = State.loads(stored.state)
        checkpoint = Checkpoint.loads(state.checkpoint)
        there = standings(checkpoint)
        if not there:
            raise UsageError(
                "nothing of this subscription can be asked for again, so that there is no way back"
            )
        marks = {}
        for key, standing in there.items():
            kind = standing.whole.kind if checkpoint.cubes[key].low else kinds.get(key) or "time"
            back = _back(key, checkpoint.cubes[key], standing, Cursor(kind, 0).is_time, to)
            if back is not None:
                marks[key] = back
        if not marks:
            what = (
                "block's number or slot" if isinstance(to, datetime) else "time, such as 2026-01-31T12:00:00Z"
            )
            raise UsageError(f"{', '.join(there)}: the way back is to a {what}: {shown(to)} is none")
        at = min(checkpoint.at, to) if isinstance(to, datetime) else checkpoint.at
        gone = replace(checkpoint, at=at, cubes={**checkpoint.cubes, **marks})
        return cls(
            stored,
            msgspec.structs.replace(state, run=secrets.token_hex(4), checkpoint=gone.dumps()),
            moved={key: one for key, one in there.items() if key in marks},
            stay={key: one for key, one in there.items() if key not in marks},
        )

    def commit(self, subscription: str) -> Commit:
        """The commit that goes it; it has no rows."""
        return Commit(
            subscription=subscription,
            number=self.stored.number + 1,
            state=self.state.dumps(),
            tables=self.state.tables,
        )


def _back(key: str, mark: Mark, standing: Standing, timed: bool, to: Place) -> Mark | None:
    """The mark for going on from ``to``; None where the cube does not go by such a place.

    What rows are told apart by stays in it: a key that was none is none later either.
    """
    value = int(to.timestamp()) if isinstance(to, datetime) else to
    whole = standing.whole
    by_time = isinstance(to, datetime)
    if timed != by_time and (not by_time or mark.low is not None):
        return None
    if whole.is_time == by_time and value <= whole.value:
        if mark.low is None:
            return replace(mark, since=value, beyond={})
        return replace(mark, low=replace(whole, value=value).as_json(), since=None, beyond={})
    if timed != by_time or standing.reached is None or value > standing.reached:
        raise UsageError(f"{key} is {standing}: to go on from {shown(to)} would leave out what comes before")
    # It was not whole so far up: what is missing below is asked for as ever, and only what is above comes again.
    return replace(
        mark, beyond={place: rows for place, rows in mark.beyond.items() if not place or int(place) < value}
    )


def shown(place: Place) -> str:
    """A place as ``--to`` reads it."""
    return str(place) if isinstance(place, int) else f"{place.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
