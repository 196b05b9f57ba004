"""One operation's stream: what links bring goes in at one end, messages and named gaps come out at the other."""

from __future__ import annotations

from collections.abc import Callable

from .. import config
from ..clock import Clock
from ..errors import BufferOverflow
from ..message import Crossed, Gap, GapCause, Message
from .buffer import Buffer
from .gaps import Gaps
from .history import History
from .merge import Merge


class Stream:
    """The ``Receiver`` of one operation, and what its subscription reads from; no waiting, no asyncio.

    Args:
        buffer: how much may wait for the reader, and what happens then.
        clock: where the time is read that ``Message`` and ``Gap`` have.
        on_gap: gets every gap when it is named, and once more when its end is known.
        on_parked: the reader was too slow and messages are let go (False), or are taken in again (True).
        on_ready: a message can be taken, or the stream has ended.
        on_room: the buffer had been full and is half empty: reading may go on.
        cubes: the response keys of the document's cubes, which the merge and each message are told.
        history_seconds: for how long what was delivered is kept to compare with, in as many bytes as may wait.
        lag: how far one source's data may lag behind another's, in seconds, however short a hand-over's grace.
        pause: how long a full buffer may stop a source, in seconds.

    Every callable is called from inside the method that caused it, must be quick and must not raise.
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
        cubes: tuple[str, ...] = (),
        history_seconds: float = 60.0,
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
        history = History(seconds=history_seconds, size=buffer.bytes)
        self._last_in = clock.monotonic()
        self._merge = Merge(
            self._deliver, self._gaps, history, started=self._last_in, lag=lag, pause=pause, cubes=cubes
        )
        self._slow: int | None = None  # the gap that the reader's slowness has opened
        self._over = False
        self._error: Exception | None = None
        self.messages = 0
        self.dropped = 0

    # ------------------------------------------------------------------ what the subscription reads

    def take(self) -> Message | None:
        """The next message; None when none waits. What waited when the stream ended is still given."""
        message = self._buffer.take()
        if message is not None:
            self.messages += 1
        return message

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
    def parked(self) -> bool:
        """Whether messages are let go since the reader is too slow."""
        return self._buffer.parked

    @property
    def unproven(self) -> bool:
        """Whether an earlier link has gone and it is not known yet where, or if, its successor's rows join on."""
        return self._merge.unproven

    @property
    def waiting_messages(self) -> int:
        """How many messages wait for the reader."""
        return len(self._buffer)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for the reader."""
        return self._buffer.bytes

    # ------------------------------------------------------------------ what the session tells (Receiver)

    def joined(self, source: int, now: float, *, grace: float) -> None:
        """The operation was started on ``source``; an earlier source goes on until ``cross`` or ``lost``."""
        if not self._over:
            self._merge.joined(source, now, grace)

    def payload(self, source: int, raw: bytes, now: float) -> bool:
        """Take one payload; False says that the buffer is full and reading had better stop for a while."""
        if self._over:
            return True
        self._merge.payload(source, raw, now)
        return self._has_room()

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

    def completed(self, now: float) -> None:
        """The service ended the operation: what waits is still given, then the stream ends."""
        self._end(None)

    def failed(self, error: Exception, now: float) -> None:
        """The operation is over: what waits is still given, then ``error`` is there to raise."""
        self._end(error)

    # ------------------------------------------------------------------ inside

    def _deliver(self, source: int, raw: bytes, at: float) -> None:
        if self._over:
            return
        received = self._clock.wall() + at - self._clock.monotonic()
        message = Message(raw, received=received, link=source, cubes=self.cubes)
        if not self._buffer.put(message):
            self._gaps.open("dropped", at, (), "the reader was too slow, and asked to be told so by an error")
            self._end(
                BufferOverflow(f"{len(self._buffer)} messages ({self._buffer.bytes} bytes) wait to be read")
            )
            return
        if not self._buffer.parked:
            self._last_in = at
            self._on_ready()

    def _has_room(self) -> bool:
        return self._policy != "block" or self._buffer.parked or not self._buffer.full

    def _dropped(self, message: Message) -> None:
        self.dropped += 1
        if self._slow is None:
            at = message.received - self._clock.wall() + self._clock.monotonic()
            self._name_slowness(at, "the reader was too slow: the oldest messages were let go")

    def _name_slowness(self, start: float, detail: str) -> None:
        if self._slow is None:
            cause: GapCause = "parked" if self._policy == "block" else "dropped"
            self._slow = self._gaps.open(cause, start, (), detail)

    def _parked(self, resumed: bool) -> None:
        if not resumed:
            self._name_slowness(
                self._last_in, "the reader was too slow: messages were let go until it caught up"
            )
        self._on_parked(resumed)

    def _room(self) -> None:
        if self._slow is not None:
            self._gaps.close(self._slow, self._clock.monotonic())
            self._slow = None
        self._on_room()

    def _end(self, error: Exception | None) -> None:
        if not self._over:
            self._over, self._error = True, error
            self._on_ready()
