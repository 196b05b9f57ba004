"""Going back: a state from which a collector brings again what it has brought before."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from ..checkpoint import Checkpoint, Mark
from ..delivery.cursor import Cursor
from ..delivery.marks import windows_of
from ..errors import UsageError
from .state import State
from .table import Commit, Stored

Place = int | datetime
"""A block's number, slot or height; or the time of a block."""


def places_of(checkpoint: Checkpoint) -> dict[str, Cursor]:
    """Where each cube stands: all rows below are in the sink. It is a time where no row of the cube has come yet."""
    return {
        key: window.low or Cursor("time", window.since or 0) for key, window in windows_of(checkpoint).items()
    }


@dataclass(frozen=True, slots=True)
class Rewind:
    """A way back.

    Attributes:
        stored: what the sink holds.
        state: what it is to hold.
        moved: the cubes that go back, with where they stood. The others stay.
    """

    stored: Stored
    state: State
    moved: Mapping[str, Cursor]

    @classmethod
    def of(cls, stored: Stored, to: Place) -> Rewind:
        """The way back to ``to``, from where on every row comes again.

        Raises UsageError: no cube stands by such a place, or one has not come as far.
        """
        state = State.loads(stored.state)
        checkpoint = Checkpoint.loads(state.checkpoint)
        places = places_of(checkpoint)
        if not places:
            raise UsageError(
                "nothing of this subscription can be asked for again, so that there is no way back"
            )
        timed = isinstance(to, datetime)
        moved = {key: place for key, place in places.items() if place.is_time == timed}
        if not moved:
            said = ", ".join(f"{key} at {place}" for key, place in places.items())
            give = (
                "block's number or slot, and no time"
                if timed
                else "time, such as 2026-01-31T12:00:00Z, and no block"
            )
            raise UsageError(f"--to takes a {give}: the sink stands with {said}")
        value = int(to.timestamp()) if isinstance(to, datetime) else to
        for key, place in moved.items():
            if value > place.value:
                raise UsageError(
                    f"{key} stands at {place}: to go on from later than that would leave out the rows in between"
                )
        marks = {key: _back(checkpoint.cubes[key], place, value) for key, place in moved.items()}
        at = min(checkpoint.at, to) if isinstance(to, datetime) else checkpoint.at
        back = replace(checkpoint, at=at, cubes={**checkpoint.cubes, **marks})
        state = msgspec.structs.replace(state, run=secrets.token_hex(4), checkpoint=back.dumps())
        return cls(stored, state, moved)

    def commit(self, subscription: str) -> Commit:
        """The commit that goes it; it has no rows."""
        return Commit(
            subscription=subscription,
            number=self.stored.number + 1,
            state=self.state.dumps(),
            tables=self.state.tables,
        )


def _back(mark: Mark, place: Cursor, value: int) -> Mark:
    """Nothing is known beyond. What rows are told apart by stays, since a key that was none is none later either."""
    if mark.low is None:
        return replace(mark, since=value, beyond={})
    return replace(mark, low=replace(place, value=value).as_json(), since=None, beyond={})


def shown(place: Place) -> str:
    """A place as people write it, and as ``--to`` reads it."""
    return str(place) if isinstance(place, int) else f"{place.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
