"""One operation's stream: what links bring goes in at one end, messages and named gaps come out at the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .. import config
from ..checkpoint import Checkpoint
from ..clock import Clock
from ..errors import BufferOverflow
from ..message import Arrival, Crossed, Fork, Gap, GapCause, Message
from .backfill import Ask, Sleep
from .buffer import Buffer
from .closing import Start
from .decoding import decoder
from .forks import Forks
from .gaps import Gaps
from .history import History
from .marks import Marks
from .merge import Merge
from .plan import Plan


class Stream:
    """The ``Receiver`` of one operation, and what its subscription reads from; no waiting, no asyncio.

    Args:
        buffer: how much may wait for the reader, and what happens then.
        clock: where the time is read that ``Message`` and ``Gap`` have.
        on_gap: gets every gap when it is named, and whenever more is known of it.
        on_parked: the reader was too slow and messages are let go (False), or are taken in again (True).
        on_ready: a message can be taken and none could be before, or the stream has ended.
        on_room: the buffer had been full and is half empty: reading may go on.
        on_queries: a query can be sent: ``step`` says which, ``answered`` and ``query_failed`` take what came of it.
        plan: what the document means for delivery; without one rows are merged by position alone.
        cubes: the response keys of the document's cubes, which the merge and each message are told.
        fingerprint: what a checkpoint belongs to.
        start: what is missing from before.
        into: the type of a message's data; None: dicts and lists.
        undo: look for forks, and tell with each message what is taken back.
        lag: how far one source's data may lag behind another's, in seconds, however short a hand-over's grace.
        pause: how long a full buffer may stop a source, in seconds.

    What was delivered is kept for a while to compare with, in as many bytes as may wait; what is held back while a gap
    is closed is, together with what waits, as many at most. Every callable is called from inside the method that caused
    it, must be quick and must not raise.
    """

    def __init__(
        self,
        buffer: config.Buffer,
        clock: Clock,
        *,
        on_gap: Callable[[Gap], None],
        on_parked: Callable[[bool], None],
        on_ready: Callable[[], None],
        on_room: Callable[[], None],
        on_queries: Callable[[], None] = lambda: None,
        plan: Plan | None = None,
        cubes: tuple[str, ...] = (),
        fingerprint: str = "",
        start: Start | None = None,
        into: Any = None,
        undo: bool = False,
        lag: float = 0.0,
        pause: float = 0.0,
    ) -> None:
        self.cubes = cubes
        self._clock = clock
        self._on_parked = on_parked
        self._on_ready = on_ready
        self._on_room = on_room
        self._policy = buffer.overflow
        self._buffer = Buffer(buffer, drop=self._dropped, on_parked=self._parked, on_room=self._room)
        self._gaps = Gaps(clock, on_gap)
        self._history = History(size=buffer.bytes)
        self._last_in = clock.monotonic()
        self._fingerprint = fingerprint
        self._undo = undo
        self.into = into
        self._start = start
        self._slow: int | None = None  # the gap that the reader's slowness has opened
        self._over = False
        self.paused = False
        self._done = 0  # the number of the last message that the reader is done with
        self._error: Exception | None = None
        self.messages = 0
        self.dropped = 0
        self.tap: Callable[[Sequence[Arrival]], None] | None = None  # is shown what begins to wait
        self._merging = _Merging(on_queries, lag, pause, self._last_in, buffer.bytes)
        self.replan(plan)

    def replan(self, plan: Plan | None) -> None:
        """Read rows by another plan from now on: before anything has come in."""
        assert not self.messages, "rows that came in were read by another plan"
        self._plan = plan
        self.hides = plan is not None and plan.hides
        self.decode = decoder(plan, self.into)
        merging = self._merging
        self._merge = Merge(
            self._deliver,
            self._gaps,
            self._history,
            plan,
            started=merging.started,
            room=self._has_room_to_fill,
            want_queries=merging.on_queries,
            releasing=self._releasing,
            lag=merging.lag,
            pause=merging.pause,
            hold=merging.hold,
            waiting=self._waiting,
            cubes=self.cubes,
        )
        self._floors = () if self._merge.union is None else self._merge.union.repair.floors
        self._marks: Marks | None = None  # made when they are asked for, like the forks
        self._forks: Forks | None = None
        self._gaps.clear()
        self._begun = False

    # ------------------------------------------------------------------ what the subscription reads

    def take(self, *, more: bool = False) -> Message | None:
        """The next message; None when none waits. What waited when the stream ended is still given. ``more``: the
        reader still has those in hand that it took before."""
        history = self._history
        if not more:
            self._done = history.needed = history.taken
        arrival = self._buffer.take()
        if arrival is None:
            return None
        self.messages += 1
        history.take(arrival, pinned=bool(self._floors) and self._merge.lacks(history.taken))
        message: Message = Message(arrival, self, history.taken)
        if self._undo:
            message.undo = self._found_forks().undo(history.taken)
        return message

    def handed(self, number: int) -> None:
        """The reader has message ``number`` in hand, which was taken before, and is done with those before it."""
        self._done = self._history.needed = number - 1

    def let_go(self) -> None:
        """The reader needs none of the messages that it has in hand: they are kept for no checkpoint of its own."""
        self._history.needed = self._history.taken

    @property
    def taken(self) -> int:
        """The number of the message that was taken last."""
        return self._history.taken

    def safe(self, *, before: int | None = None) -> Checkpoint:
        """The checkpoint before what is in hand, which the reader is done with when it asks for the next; ``before``
        message number so and so, at the latest."""
        return self.checkpoint(self._done if before is None else min(self._done, before - 1))

    def checkpoint(self, number: int) -> Checkpoint:
        """The checkpoint after message ``number``. Raises UsageError where that is too long ago."""
        if self._marks is None:
            self._marks = Marks(self._fingerprint, self._history, self._merge.union, self._clock, self._start)
        return self._marks.at(number)

    def forks(self, number: int) -> tuple[Fork, ...]:
        """Which blocks of message ``number`` took others' places."""
        return self._found_forks().at(number)

    def _releasing(self, held: Sequence[bytes]) -> None:
        """What a query brought may be of a branch on which the live payloads that follow it only end."""
        if self._undo or self._forks is not None:
            self._found_forks().held(held)

    def _found_forks(self) -> Forks:
        if self._forks is None:
            self._forks = Forks(self._plan.readers if self._plan is not None else {}, self._history)
        return self._forks

    def ahead(self) -> float:
        """What the wall clock is ahead of the monotonic one; seconds."""
        return self._clock.wall() - self._clock.monotonic()

    def shown(self, raw: bytes) -> bytes:
        """A payload as the user's own document would have brought it."""
        return raw if self._plan is None else self._plan.shown(raw)

    @property
    def plan(self) -> Plan | None:
        """What the document means."""
        return self._plan

    @property
    def undoes(self) -> bool:
        """Whether messages tell what is taken back."""
        return self._undo

    @property
    def ended(self) -> bool:
        """Whether nothing waits and nothing will come."""
        return self._over and not self._buffer

    @property
    def over(self) -> bool:
        """Whether nothing more is taken in, though messages may still wait."""
        return self._over

    @property
    def error(self) -> Exception | None:
        """What ended the stream, once all that waited before it was taken; None if the service completed it."""
        return self._error if self.ended else None

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The ranges in which rows may not have been delivered, oldest first; the newest may still be open."""
        return self._gaps.all()

    @property
    def gaps_forgotten(self) -> int:
        """How many gaps were let go from ``gaps``, the oldest first, to keep it bounded."""
        return self._gaps.forgotten

    @property
    def merged(self) -> int:
        """How many rows came on two links and were delivered once."""
        return self._merge.merged

    @property
    def closing(self) -> bool:
        """Whether a gap is being closed."""
        return self._merge.union is not None and self._merge.union.repair.closing is not None

    @property
    def queries(self) -> int:
        """How many queries were answered to close gaps."""
        return 0 if self._merge.union is None else self._merge.union.repair.queries

    @property
    def backfilled(self) -> int:
        """How many rows queries brought."""
        return 0 if self._merge.union is None else self._merge.union.repair.backfilled

    @property
    def truncated(self) -> int:
        """How many messages were as long as the service's own limit, so that their blocks were asked for again."""
        return 0 if self._merge.union is None else self._merge.union.truncated

    @property
    def parked(self) -> bool:
        """Whether messages are let go since the reader is too slow."""
        return self._buffer.parked

    @property
    def unproven(self) -> bool:
        """Whether an earlier link has gone and it is not known yet where, or if, its successor's rows join on."""
        return self._merge.unproven

    @property
    def bound(self) -> int:
        """How many bytes may wait for the reader."""
        return self._merging.hold

    @property
    def waiting_messages(self) -> int:
        """How many messages wait for the reader."""
        return len(self._buffer)

    def waiting(self) -> Sequence[Arrival]:
        """What waits for the reader, the oldest first."""
        return tuple(self._buffer.waiting)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for the reader."""
        return self._buffer.bytes

    @property
    def over_half(self) -> bool:
        """Whether more than half of what may wait for the reader does."""
        return self._buffer.over_half

    @property
    def waits_since(self) -> float:
        """When what has waited longest came in; infinity where nothing waits."""
        return self._buffer.waiting[0].at if self._buffer else math.inf

    # ------------------------------------------------------------------ what the session tells (Receiver)

    def joined(self, source: int, now: float, *, grace: float, served: float) -> None:
        """The operation was started on ``source``; an earlier source goes on until ``cross`` or ``lost``. ``served``
        is the service's time, in seconds since the epoch."""
        if self._over:
            return
        if not self._begun:
            self._begun = True
            if self._start is not None:
                self._merge.begin(self._start)
        self._merge.joined(source, now, grace, served)

    def payloads(self, source: int, raws: Sequence[bytes], now: float) -> bool:
        """Take payloads that came at once, in order; False says that the buffer is full and reading had better stop for
        a while."""
        if not self._over and not (
            self._merge.passes(source, raws, now) and self._take_in(source, raws, now)
        ):
            for raw in raws:
                if not self._over:
                    self._merge.payload(source, raw, now)
        return self._over or not self._buffer.full or self._has_room()

    def _take_in(self, source: int, raws: Sequence[bytes], now: float) -> bool:
        """Have payloads that pass untouched wait for the reader; False where not all of them have room."""
        buffer = self._buffer
        arrivals = [Arrival(raw, now, source) for raw in raws]
        if not buffer.put_all(arrivals):
            return False
        self._history.add(*arrivals)
        self._last_in = now
        if len(buffer.waiting) == len(arrivals):  # a reader waits for no other
            self._on_ready()
        if self.tap is not None:
            self.tap(arrivals)
        return True

    def crossed(self, source: int, now: float, *, beaten: float | None) -> bool:
        """Whether every source older than ``source`` may go without a row being lost."""
        return self._over or self._merge.crossed(source, now, beaten)

    def cross(self, source: int, now: float) -> Crossed:
        """The older sources go now; what cannot be shown is named as a gap."""
        return Crossed(True, 0) if self._over else self._merge.cross(source, now)

    def lost(self, source: int, now: float, why: str, *, cause: GapCause = "lost") -> None:
        """``source`` brings no more; where rows may fall into the hole, a gap is named."""
        if not self._over:
            self._merge.lost(source, now, why, cause)

    def park(self, now: float) -> None:
        """The reader was slow for too long: let messages go, and name them in a gap, until there is room."""
        if not self._over:
            self._buffer.park()

    def pause(self, now: float) -> None:
        """The reader wants nothing until ``resume``: no source brings any more, and a gap is named."""
        if not self._over:
            self.paused = True
            self._merge.pause(now)

    def resume(self) -> None:
        """The reader wants more again: the gap is closed once the operation has joined a source."""
        self.paused = False

    def completed(self, now: float) -> None:
        """The service ended the operation: what waits is still given, then the stream ends."""
        self._conclude(now)
        self._end(None)

    def failed(self, error: Exception, now: float) -> None:
        """The operation is over: what waits is still given, then ``error`` is there to raise."""
        self._conclude(now)
        self._end(error)

    # ------------------------------------------------------------------ what the client's queries tell

    def step(self, now: float) -> Ask | Sleep | None:
        """What has to be done to close a gap; None: nothing, until ``on_queries`` tells."""
        union = self._merge.union
        return None if union is None or self._over else union.step(now)

    def request(self, ask: Ask) -> bytes:
        """The query that ``step`` asks for, as the JSON text of a request."""
        assert self._plan is not None, "nobody asks without a plan"
        return self._plan.request(ask)

    def answered(self, ask: Ask, data: bytes | msgspec.Raw, now: float) -> None:
        """The answer's ``data``."""
        if self._merge.union is not None and not self._over:
            self._merge.union.answered(ask, data, now)

    def query_failed(self, reason: str, now: float) -> None:
        """There is no answer to be had: the gap is a hole."""
        if self._merge.union is not None and not self._over:
            self._merge.union.repair.failed(reason, now)

    # ------------------------------------------------------------------ inside

    def _deliver(self, source: int, raw: bytes, at: float, replayed: bool) -> bool:
        """Have a payload wait for the reader; False where it was let go."""
        if self._over:
            return False
        buffer = self._buffer
        arrival = Arrival(raw, at, source, replayed)
        if not buffer.put(arrival):
            self._gaps.open("dropped", at, (), "the reader was too slow, and asked to be told so by an error")
            self._end(BufferOverflow(f"{len(buffer)} messages ({buffer.bytes} bytes) wait to be read"))
            return False
        if buffer.parked:
            return False
        self._history.add(arrival)
        self._last_in = at
        if len(buffer.waiting) == 1:  # a reader waits for no other
            self._on_ready()
        if self.tap is not None:
            self.tap((arrival,))
        return True

    def _has_room(self) -> bool:
        return self._policy != "block" or self._buffer.parked or not self._buffer.full

    def _waiting(self) -> int:
        return self._buffer.bytes

    def _has_room_to_fill(self) -> bool:
        return not (self._over or self._buffer.parked or self._buffer.full)

    def _dropped(self, arrival: Arrival) -> None:
        self.dropped += 1
        if (
            not self._buffer.parked
        ):  # the oldest of those that waited, and by choice: it will not be asked for
            self._history.needed = self._history.taken
            self._history.take(arrival)
        if self._slow is None:
            self._name_slowness(arrival.at, "the reader was too slow: the oldest messages were let go")

    def _name_slowness(self, start: float, detail: str) -> None:
        parked = self._policy == "block"
        if parked and self._merge.position is None:
            return  # the merge names it, and has it closed
        if self._slow is None:
            cubes = self._merge.others if parked and self._merge.union is not None else ()
            self._slow = self._gaps.open("parked" if parked else "dropped", start, cubes, detail)

    def _parked(self, resumed: bool) -> None:
        now = self._clock.monotonic()
        union = self._merge.union
        if not resumed:
            self._name_slowness(
                self._last_in, "the reader was too slow: messages were let go until it caught up"
            )
            if union is not None:
                union.park(now)
        elif union is not None:
            union.resume(now)
        self._on_parked(resumed)

    def _room(self) -> None:
        now = self._clock.monotonic()
        if self._slow is not None:
            self._gaps.close(self._slow, now)
            self._slow = None
        if self._merge.union is not None:
            self._merge.union.repair.pump(now)
        self._on_room()

    def _conclude(self, now: float) -> None:
        if self._merge.union is not None and not self._over:
            self._merge.union.repair.conclude(now)

    def _end(self, error: Exception | None) -> None:
        if not self._over:
            self._over, self._error, self.paused = True, error, False
            self._on_ready()


@dataclass(frozen=True, slots=True)
class _Merging:
    """What a merge is made with, whatever the plan."""

    on_queries: Callable[[], None]
    lag: float
    pause: float
    started: float
    hold: int
