"""The merge of one operation: each cube's rows by the machine that fits it, row by row or by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..config import MEBIBYTE
from ..message import Crossed, GapCause
from .closing import Start
from .gaps import Gaps
from .history import History
from .plan import Plan
from .position import Position
from .rows import Payload
from .union import Union

Deliver = Callable[[int, bytes, float, bool], bool]

PAUSED = "it was paused"


class Merge:
    """Takes every source's payloads; gives each row once, to ``deliver(source, raw, at, replayed)``.

    ``at`` is when it came in (monotonic seconds). In steady state, with one source that owes nothing, a payload is
    neither decoded nor copied. See `Union` and `Position` for the arguments; either is None where no cube needs it.
    Where both are there, a payload is split while one of them has rows to compare.
    """

    def __init__(
        self,
        deliver: Deliver,
        gaps: Gaps,
        history: History,
        plan: Plan | None,
        *,
        started: float,
        room: Callable[[], bool],
        want_queries: Callable[[], None],
        releasing: Callable[[Sequence[bytes]], None],
        lag: float = 0.0,
        pause: float = 0.0,
        hold: int = 32 * MEBIBYTE,
        waiting: Callable[[], int] = int,
        cubes: tuple[str, ...] = (),
    ) -> None:
        merged = plan.merged if plan is not None else ()
        self.others = tuple(key for key in cubes if key not in merged)
        self.union: Union | None = None
        self.position: Position | None = None
        if plan is not None and merged:
            self.union = Union(
                deliver,
                gaps,
                history,
                plan,
                started=started,
                room=room,
                want_queries=want_queries,
                releasing=releasing,
                lag=lag,
                pause=pause,
                hold=hold,
                waiting=waiting,
            )
        if self.others or not merged:
            self.position = Position(
                lambda source, raw, at: deliver(source, raw, at, False),
                gaps,
                history,
                started=started,
                lag=lag,
                pause=pause,
                hold=hold,
                cubes=self.others,
                scope=self.others if merged else (),
                reason=plan.other if plan is not None else None,
            )

        # ``source`` brought ``raw``; a source that has gone, or was never started, is not listened to.
        self.payload: Callable[[int, bytes, float], None]
        if self.union is None:
            assert self.position is not None
            self.payload = self.position.payload
        else:
            self.payload = self.union.payload if self.position is None else self._both

    def passes(self, source: int, raws: Sequence[bytes], now: float) -> bool:
        """Whether these are to be delivered as they came, and ``payload`` need not be asked."""
        return self.position is None and self.union is not None and self.union.passes(source, raws, now)

    @property
    def merged(self) -> int:
        """How many rows came on two links and were delivered once."""
        return sum(part.merged for part in (self.union, self.position) if part is not None)

    @property
    def unproven(self) -> bool:
        """Whether it is not known yet that nothing is missing."""
        open_ = self.union is not None and self.union.repair.open
        return open_ or (self.position is not None and self.position.unproven)

    def lacks(self, number: int) -> bool:
        """Whether rows may be missing from before payload ``number``, so that all that came since is to be known."""
        if self.union is None or not self.union.repair.floors:
            return False
        newest = self.union.repair.floors[-1]
        floor = newest if newest.number <= number else self.union.repair.floor_at(number)
        return floor is not None and floor.windows is not None

    # ------------------------------------------------------------------ what the session tells

    def begin(self, start: Start) -> None:
        """Before the first source: rows are missing from before it."""
        if self.union is not None:
            self.union.begin(start)
        if self.position is not None:
            self.position.begin(start.cause, start.detail, start.at)

    def joined(self, source: int, now: float, grace: float, served: float) -> None:
        """The operation was started on ``source``, whose data lags at most ``grace`` seconds behind another's;
        ``served`` is the service's time."""
        if self.union is not None:
            self.union.joined(source, now, grace, served)
        if self.position is not None:
            self.position.joined(source, now, grace)

    def _both(self, source: int, raw: bytes, now: float) -> None:
        union, position = self.union, self.position
        assert union is not None
        assert position is not None
        if union.idle and position.idle:
            position.heard(source, now)
            union.payload(source, raw, now)
        else:
            self._split(union, position, source, raw, now)

    def _split(self, union: Union, position: Position, source: int, raw: bytes, now: float) -> None:
        payload = Payload(raw)
        others = sum(len(rows) for key, rows in payload.cubes.items() if rows and key in self.others)
        if payload.shapeless or others == payload.count:
            position.payload(source, raw, now)
            union.heard(source, now)
        elif not others:
            union.payload(source, raw, now)
            position.heard(source, now)
        else:
            union.payload(source, payload.without(self.others), now)
            position.payload(source, payload.without(union.counting.readers), now)

    def crossed(self, source: int, now: float, beaten: float | None) -> bool:
        """Whether every source older than ``source`` may go without a row being lost."""
        union, position = self.union, self.position
        by_row = union is None or union.crossed(source, now, beaten)
        return (position is None or position.crossed(source, now, beaten)) and by_row

    def cross(self, source: int, now: float) -> Crossed:
        """The older source goes now, proven or not."""
        parts = [part.cross(source, now) for part in (self.union, self.position) if part is not None]
        return Crossed(all(part.proven for part in parts), sum(part.merged for part in parts))

    def lost(self, source: int, now: float, why: str, cause: GapCause = "lost") -> None:
        """``source`` brings no more."""
        for part in (self.union, self.position):
            if part is not None:
                part.lost(source, now, why, cause)

    def pause(self, now: float) -> None:
        """No source brings any more. One that was only joining goes first, so that there is one gap."""
        for part in (self.union, self.position):
            for source in reversed(part.sources if part is not None else ()):
                self.lost(source, now, PAUSED, "paused")
