"""What a user is handed: messages, the gaps between them, and what forks take back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec

from .checkpoint import Checkpoint
from .errors import OperationFailed, UsageError

GapCause = Literal[
    "lost", "handover", "replaced", "quiet", "parked", "dropped", "truncated", "resumed", "since"
]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A range in which rows may not have been delivered.

    It is *closed* once queries have brought what was missing, or have shown that nothing was; it is a *hole* where
    ``reason`` says why that cannot be; else it is being closed.

    ``start``  when the last row before the range came in, or the subscription or the hand-over started; UTC. It is
               the time of arrival: the service published the row earlier, by as much as its data lagged.
    ``end``    when the first row after it came in, or when it was closed; ``None`` while the range is open.
    ``cause``  "lost" (the link went), "handover" (a hand-over that could not be proven), "replaced" (the old link
               was closed first), "quiet" (nothing came on either link, which proves nothing), "parked" and
               "dropped" (the reader was slow), "truncated" (a message as long as the service's limit of rows),
               "resumed" and "since" (what came before this subscription and was asked for).
    ``cubes``  response keys the range belongs to; empty where it is all of them.
    ``low``, ``high``  the range on the chain, as far as it is known: a block's number, slot or height, or its time.
    ``detail`` what happened, for a person.
    ``how``    how it was closed.
    """

    start: datetime
    end: datetime | None
    cause: GapCause
    cubes: tuple[str, ...] = ()
    detail: str = ""
    low: str | None = None
    high: str | None = None
    closed: bool = False
    how: str = ""
    reason: str | None = None

    @property
    def is_hole(self) -> bool:
        """Whether its rows will not come."""
        return self.reason is not None

    def __str__(self) -> str:
        end = self.end.isoformat() if self.end else "now"
        where = f" of {', '.join(self.cubes)}" if self.cubes else ""
        state = f"closed: {self.how}" if self.closed else self.reason or "being closed"
        said = self.detail if state in self.detail else f"{self.detail}; {state}"
        return f"{self.cause}{where}, {self.start.isoformat()} to {end}: {said}"


@dataclass(frozen=True, slots=True)
class Crossed:
    """How an operation crossed: ``proven`` that nothing fell between the links; ``merged`` rows came on both."""

    proven: bool
    merged: int


class Origin(Protocol):
    """What a message asks of the stream that it came from."""

    hides: bool

    def ahead(self) -> float: ...
    def shown(self, raw: bytes) -> bytes: ...
    def strip(self, data: Any) -> None: ...
    def checkpoint(self, number: int) -> Checkpoint: ...
    def forks(self, number: int) -> tuple[Fork, ...]: ...


@dataclass(frozen=True, slots=True)
class Fork:
    """A block that took another one's place: ``height`` was delivered with the hash ``replaced`` before."""

    cube: str
    height: int
    hash: str
    replaced: str


@dataclass(frozen=True, slots=True)
class Undo:
    """Rows that were delivered and are taken back, since the chain went on from another branch.

    ``forks``  the blocks that took the others' places.
    ``rows``   the rows of those others, and of all that followed on them, by the cube's response key, newest first.
    """

    forks: tuple[Fork, ...]
    rows: Mapping[str, tuple[Any, ...]]


class Message:
    """One ``next`` payload, decoded when it is first looked at.

    ``data``, ``errors``, ``extensions`` and ``rows()`` raise OperationFailed where it cannot be, as with a number
    that no double holds; the messages that follow are none the worse.

    Attributes:
        at: when it came in, in seconds of the monotonic clock.
        link: the number of the link that brought it; 0 where a query did.
        size: how many bytes came.
        replayed: whether a query brought it, not the stream.
        cubes: the response keys of the document's cubes; empty where they are not known.
        undo: with ``undo=True``, the rows that are taken back before this message's are taken; else None.
    """

    __slots__ = ("_number", "_origin", "_payload", "_wire", "at", "cubes", "link", "replayed", "size", "undo")

    def __init__(
        self,
        wire: bytes,
        at: float,
        link: int,
        replayed: bool = False,
        cubes: tuple[str, ...] = (),
        origin: Origin | None = None,
        number: int = 0,
    ) -> None:
        self._wire = wire
        self.at = at
        self.size = len(wire)
        self.link = link
        self.replayed = replayed
        self.cubes = cubes
        self.undo: Undo | None = None
        self._origin = origin
        self._number = number
        self._payload: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Message of {self.size} bytes, link {self.link}, {self.received_at.isoformat()}>"

    @property
    def raw(self) -> bytes:
        """The payload as it came (JSON, UTF-8), or encoded anew where rows or fields were taken out."""
        origin = self._origin
        return origin.shown(self._wire) if origin is not None and origin.hides else self._wire

    @property
    def received(self) -> float:
        """When it came in, in seconds since the epoch."""
        return self.at if self._origin is None else self.at + self._origin.ahead()

    @property
    def received_at(self) -> datetime:
        """When it came in; UTC."""
        return datetime.fromtimestamp(self.received, UTC)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where a new process goes on if all rows up to and including this message are safe.

        It can be had for as long as the message is among those of the last minute. Raises UsageError after that, and
        for a message that belongs to no subscription.
        """
        if self._origin is None:
            raise UsageError("this message belongs to no subscription, so that there is no checkpoint")
        return self._origin.checkpoint(self._number)

    @property
    def forks(self) -> tuple[Fork, ...]:
        """Blocks of this message that take the place of others, of the same height, that were delivered before.

        Known of the last minute's messages, as far as a cube's rows show their block's hash; where this is asked of
        one message, every one since the last that was asked is decoded.
        """
        return () if self._origin is None else self._origin.forks(self._number)

    def _decoded(self) -> dict[str, Any]:
        if self._payload is None:
            try:
                payload = _decode(self._wire)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise OperationFailed(
                    f"a payload cannot be decoded, its bytes are in message.raw: {error}"
                ) from None
            if self._origin is not None and self._origin.hides:
                self._origin.strip(payload.get("data"))
            self._payload = payload
        return self._payload

    @property
    def data(self) -> Any:
        """The ``data`` of the payload; ``None`` where there is none."""
        return self._decoded().get("data")

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The ``errors`` beside partial data (GraphQL specification, section 7.1); empty where there are none."""
        return self._decoded().get("errors") or []

    @property
    def extensions(self) -> dict[str, Any]:
        """The ``extensions`` of the payload; empty where there are none."""
        return self._decoded().get("extensions") or {}

    def rows(self, cube: str | None = None) -> Iterator[Any]:
        """The rows as the service nests them.

        Of a document with one cube each row is that cube's element; of one with several each is ``{cube: element}``,
        so that it says which, whatever this message holds. ``cube`` (a response key) picks one. Data that has no
        cubes is one row; a message that brings errors and only nulls has none.

        Raises UsageError where the document has no such cube.
        """
        require_cube(cube, self.cubes)
        if self.errors and _only_nulls(self.data):
            return iter(())
        found = list(cubes_of(self.data))
        shapeless = bool(found) and found[0][0] == ""
        if cube is not None:
            if shapeless:
                raise UsageError(f"there is no cube {cube!r}, since the data has none: it is one row")
            return (row for key, rows in found if key == cube for row in rows)
        if shapeless or len(self.cubes or found) == 1:
            return (row for _, rows in found for row in rows)
        return ({key: row} for key, rows in found for row in rows)


def require_cube(cube: str | None, cubes: tuple[str, ...]) -> None:
    """Raise UsageError where ``cubes`` are known and ``cube`` is none of them: its rows would never come."""
    if cube is not None and cubes and cube not in cubes:
        raise UsageError(f"the document has no cube {cube!r}; it has {', '.join(cubes)}")


def _only_nulls(data: Any) -> bool:
    """Whether the root, or everything under it, is null."""
    root = next(iter(data.values()), None) if isinstance(data, dict) else data
    return root is None or (isinstance(root, dict) and all(field is None for field in root.values()))


def cubes_of(data: Any) -> Iterator[tuple[str, list[Any]]]:
    """Pair each cube's response key with its rows: ``{root: {cube: [row, …]}}`` (subscriptions/subscription).

    A cube that is null, because it failed beside others that did not, has no rows. Anything else, such as a scalar
    root, is one row under the empty key, so that any GraphQL subscription streams.
    """
    if data is None:
        return
    root = next(iter(data.values())) if isinstance(data, dict) and len(data) == 1 else None
    cubes = root if isinstance(root, dict) else {}
    lists = [isinstance(rows, list) for rows in cubes.values() if rows is not None]
    if lists and all(lists):
        yield from ((key, rows or []) for key, rows in cubes.items())
    else:
        yield "", [data]
