"""What both subprotocols share: the states of a connection, its operations, and what frames do to them.

A subprotocol adds its table of frames (which handler takes which type, in which state) and its words.
Whatever stands in no table is ignored and counts as life.
"""

from __future__ import annotations

import enum
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import envelope
from .envelope import Envelope
from .machine import Acked, Alive, Broken, Completed, Errored, Event, Next
from .redaction import READ, shown
from .verdicts import Action, Kind, Verdict, classify_close, classify_errors

_log = logging.getLogger("bqstream.protocol")


class State(enum.Enum):
    NEW = "new"  # open, nothing sent
    WAITING = "waiting"  # connection_init is out
    READY = "ready"  # acknowledged
    OVER = "over"  # refused, broken or closed


# (state, what happens) -> state. Names with brackets are our caller's calls: one that is not here is our bug.
TRANSITIONS: dict[tuple[State, str], State] = {
    (State.NEW, "init()"): State.WAITING,
    (State.NEW, "broken"): State.OVER,
    (State.NEW, "closed()"): State.OVER,
    (State.WAITING, "connection_ack"): State.READY,
    (State.WAITING, "connection_error"): State.OVER,
    (State.WAITING, "broken"): State.OVER,
    (State.WAITING, "closed()"): State.OVER,
    (State.READY, "subscribe()"): State.READY,
    (State.READY, "broken"): State.OVER,
    (State.READY, "closed()"): State.OVER,
    (State.OVER, "subscribe()"): State.OVER,  # may cross with the end on its way; the frame goes nowhere
    (State.OVER, "closed()"): State.OVER,
}

Handler = Callable[["Core", Envelope], Event]
Frames = Mapping[str, Handler]  # type -> handler

_ALIVE = Alive()
_BEAT = Alive(keepalive=True)
_HAS_DATA = (b'{"data":{', b'{"data": {')  # begins so: no request error. The usual case, not examined.
_BRACE, _BACKSLASH = b"}\\"
_KEY = b'"payload":'
_RESULT = _KEY + _HAS_DATA[0]
_HEAD_LIMIT = 128  # bytes within which it stands, or the frame is taken the long way


class Core(ABC):
    """One connection, from its first frame to its close."""

    subprotocol: str
    starts: str  # the word that starts an operation
    frames: Mapping[State, Frames]

    def __init__(self) -> None:
        self.stray = 0
        self._state = State.NEW
        self._handlers = self.frames[State.NEW]
        self._issued = 0
        self._live: dict[str, bool] = {}  # id -> whether a payload has come; oldest first
        self._heads: dict[bytes, str] = {}  # what stands before an operation's payloads -> its id …
        self._known: dict[str, bytes] = {}  # … and the other way round
        self._ended_by: Verdict | None = None

    def init(self, payload: Mapping[str, Any] | None) -> bytes:
        self._move("init()")
        return envelope.frame("connection_init", payload=envelope.json_object(payload))

    def subscribe(self, request: bytes) -> tuple[str, bytes]:
        self._move("subscribe()")
        # Never an id twice: on graphql-ws the old operation's late complete would end the new one.
        self._issued += 1
        name = str(self._issued)
        self._live[name] = False
        return name, envelope.frame(self.starts, name, request)

    def unsubscribe(self, name: str) -> tuple[bytes, ...]:
        if self._over(name) is None or self._state is State.OVER:
            return ()
        return self.stop(name)

    @abstractmethod
    def stop(self, name: str) -> tuple[bytes, ...]:
        """The frames that ask the service to end this operation."""

    @property
    def newest_unanswered(self) -> str | None:
        return next((name for name, answered in reversed(self._live.items()) if not answered), None)

    def receive(self, frame: bytes, *, binary: bool = False) -> Event:
        if binary:
            return self._break(1003, "a binary frame, which neither subprotocol has")
        opened = envelope.opened(frame)
        if opened is None:
            return self._break(4400, "a frame that is no JSON object")
        handler = self._handlers.get(opened.type)
        return _ALIVE if handler is None else handler(self, opened)

    def read(self, frames: Sequence[bytes]) -> list[Event]:
        events: list[Event] = []
        brought: dict[str, list[bytes]] = {}  # what the last events hold, as long as they are all payloads
        heads = self._heads
        for frame in frames:
            start = frame.find(_RESULT, 0, _HEAD_LIMIT)
            name = heads.get(frame[:start]) if start > 0 else None
            if name is not None and frame[-2] == _BRACE == frame[-1] and _BACKSLASH not in frame:
                payload = frame[start + len(_KEY) : -1]
            else:
                event = self.receive(frame)
                if type(event) is not Next:
                    events.append(event)
                    brought = {}
                    continue
                name, (payload,) = event.id, event.payloads
                if start > 0 and frame[start + len(_KEY) : -1] == payload:
                    self._learn(name, frame[:start])
            known = brought.get(name)
            if known is None:
                brought[name] = known = []
                events.append(Next(name, known))
            known.append(payload)
        return events

    def closed(self, code: int, reason: str) -> Verdict:
        acked = self._state is State.READY
        self._move("closed()")
        if self._ended_by is None:
            self._ended_by = classify_close(
                code, reason, acked=acked, unanswered=self.newest_unanswered is not None
            )
        return self._ended_by

    # Handlers, named by the tables of the subprotocols.

    def on_ack(self, opened: Envelope) -> Event:
        self._move("connection_ack")
        return Acked(envelope.decoded_object(opened.payload))

    def on_refusal(self, opened: Envelope) -> Event:
        self._move("connection_error")
        errors = envelope.error_list(opened.payload)
        self._ended_by = classify_errors(errors, connection_error=True)
        return Broken(1000, self._ended_by)

    def on_ping(self, opened: Envelope) -> Event:
        return Alive(envelope.frame("pong", payload=bytes(opened.payload)), keepalive=True)

    def on_beat(self, opened: Envelope) -> Event:
        return _BEAT

    def on_next(self, opened: Envelope) -> Event:
        name = opened.id
        answered = self._live.get(name) if name is not None else None
        if name is None or answered is None:
            self.stray += self._was_ours(name)
            return _ALIVE
        payload = bytes(opened.payload)
        if not answered:
            self._live[name] = True
        return Next(name, [payload]) if payload.startswith(_HAS_DATA) else self._examine(name, payload)

    def on_error(self, opened: Envelope) -> Event:
        if not opened.id:
            return self.on_stray_error(opened)
        if self._over(opened.id) is None:
            return _ALIVE
        return Errored(opened.id, envelope.error_list(opened.payload))

    def on_complete(self, opened: Envelope) -> Event:
        if opened.id is None or self._over(opened.id) is None:
            return _ALIVE
        return Completed(opened.id)

    def on_stray_error(self, opened: Envelope) -> Event:
        """An error that names no operation: the connection stays open, and somebody may want to know."""
        payload = bytes(opened.payload)[:READ].decode(errors="replace")
        _log.warning("%s without an operation: %s", opened.type, shown(payload))
        return _ALIVE

    # Behind them.

    def _examine(self, name: str, payload: bytes) -> Event:
        """A result with errors and no ``data`` answers the request itself (GraphQL specification, 7.1).

        ``data: null`` is a result like others, and the stream goes on; unless the errors can only mean the
        request, since some servers put a null there for those as well.
        """
        result = envelope.split_result(payload)
        if result is None:
            self._over(name)
            return Errored(name, ({"message": "the service sent a payload that is no JSON object"},))
        data, errors = (bytes(part) for part in result)
        if errors in (b"", b"null") or data not in (b"", b"null"):
            return Next(name, [payload])
        listed = envelope.error_list(errors)
        if data and classify_errors(listed).kind is Kind.OPERATION:
            return Next(name, [payload])
        self._over(name)
        return Errored(name, listed)

    def _learn(self, name: str, head: bytes) -> None:
        """A payload of this operation stood between ``head`` and the last brace: so the next ones can be cut out.

        To scan each frame for the end of its payload costs a quarter of all that is done with it. A service writes them
        all alike; that the payload is JSON is then seen where it is decoded.
        """
        if name not in self._known:
            self._known[name] = head
            self._heads[head] = name

    def _over(self, name: str) -> bool | None:
        """The operation is over: whether a payload had come, None where it was over already."""
        head = self._known.pop(name, None)
        if head is not None:
            del self._heads[head]
        return self._live.pop(name, None)

    def _was_ours(self, name: str | None) -> bool:
        """Whether an operation of this connection bore this id; others cannot have been stopped in vain."""
        longest = len(str(self._issued))
        return name is not None and len(name) <= longest and name.isdecimal() and int(name) <= self._issued

    def _break(self, code: int, what: str) -> Event:
        if self._state is State.OVER:
            return _ALIVE
        self._move("broken")
        self._ended_by = Verdict(
            action=Action.RETRY, kind=Kind.CONNECTION, why=f"the service sent {what}", code=code, few=True
        )
        return Broken(code, self._ended_by)

    def _move(self, cause: str) -> None:
        state = TRANSITIONS.get((self._state, cause))
        if state is None:
            raise RuntimeError(f"{cause} while the connection is {self._state.value}")
        self._state = state
        if state is State.OVER:
            self._heads.clear()
            self._known.clear()
        self._handlers = self.frames[state]
