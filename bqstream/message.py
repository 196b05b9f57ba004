"""What a user is handed: messages, the gaps between them, and what forks take back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Generic, Literal, Protocol

import msgspec

from . import html
from .checkpoint import Checkpoint
from .errors import OperationFailed, UsageError

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

GapCause = Literal[
    "lost", "handover", "replaced", "quiet", "paused", "parked", "dropped", "truncated", "resumed", "since"
]
T = TypeVar("T", default=Any)
# All that decoding can raise.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A range in which rows may not have been delivered.

    It is *closed* once queries have brought what was missing, or have shown that nothing was; it is a *hole* where
    ``reason`` says why that cannot be; else it is being closed.

    ``start``  when the last row before the range came in, or the subscription or the hand-over started; UTC. It is
               the time of arrival: the service published the row earlier, by as much as its data lagged.
    ``end``    when the first row after it came in, or when it was closed; ``None`` while the range is open.
    ``cause``  "lost" (the link went), "handover" (a hand-over that could not be proven), "replaced" (the old link
               was closed first), "quiet" (nothing came on either link, which proves nothing), "paused" (by
               ``pause()``), "parked" and "dropped" (the reader was slow), "truncated" (a message as long as the
               service's limit of rows), "resumed" and "since" (what came before this subscription and was asked for).
    ``cubes``  response keys the range belongs to; empty where it is all of them.
    ``low``, ``high``  the range on the chain, as far as it is known: a block's number, slot or height, or its time.
    ``detail`` what happened, for a person.
    ``how``    how it was closed.
    ``number`` counts the gaps of one subscription.
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
    number: int = 0

    @property
    def is_hole(self) -> bool:
        """Whether its rows will not come."""
        return self.reason is not None

    def __str__(self) -> str:
        end = self.end.isoformat() if self.end else "now"
        where = f" of {', '.join(self.cubes)}" if self.cubes else ""
        said = self.detail if self._state in self.detail else f"{self.detail}; {self._state}"
        return f"{self.cause}{where}, {self.start.isoformat()} to {end}: {said}"

    @property
    def _state(self) -> str:
        return f"closed: {self.how}" if self.closed else self.reason or "being closed"

    def _repr_html_(self) -> str:
        state = "Closed gap" if self.closed else "Hole" if self.is_hole else "Gap"
        pairs = (
            ("cubes", ", ".join(self.cubes) or "all"),
            ("from", self.start),
            ("to", self.end or "now"),
            ("on the chain", " to ".join(one for one in (self.low, self.high) if one)),
            ("cause", f"{self.cause}: {self.detail}" if self.detail else self.cause),
            ("state", self._state),
        )
        return html.facts(f"{state} {self.number}", [(name, value) for name, value in pairs if value])


class Gaps(tuple[Gap, ...]):
    """A subscription's gaps, oldest first: a tuple, which a notebook shows as a table, the newest on top."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        newest = [
            (gap.number, gap.cause, ", ".join(gap.cubes), gap.start, gap.end, gap._state)
            for gap in self[::-1]
        ]
        return html.grid(("gap", "cause", "cubes", "from", "to", "state"), newest) or html.text("no gaps")


@dataclass(frozen=True, slots=True)
class Crossed:
    """How an operation crossed: ``proven`` that nothing fell between the links; ``merged`` rows came on both."""

    proven: bool
    merged: int


class Origin(Protocol):
    """What a message asks of the stream that it came from."""

    cubes: tuple[str, ...]
    hides: bool
    into: Any
    decode: Callable[[bytes], Content[Any]]

    def ahead(self) -> float: ...
    def shown(self, raw: bytes) -> bytes: ...
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


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A payload as it came in: its bytes, when (monotonic seconds), on which link, and whether a query brought it."""

    raw: bytes
    at: float
    link: int
    replayed: bool = False


class Content(msgspec.Struct, Generic[T]):
    """A payload, decoded."""

    data: T | None = None
    errors: Any = None
    extensions: Any = None


class Message(Generic[T]):
    """One ``next`` payload, decoded when it is first looked at, into dicts and lists or the type that was asked for.

    ``data``, ``errors``, ``extensions`` and ``rows()`` raise OperationFailed where it cannot be, as with a number
    that no double holds; the messages that follow are none the worse.

    Attributes:
        undo: with ``undo=True``, the rows that are taken back before this message's are taken; else None.
    """

    __slots__ = ("_arrival", "_content", "_number", "_origin", "undo")

    def __init__(self, arrival: Arrival, origin: Origin, number: int) -> None:
        self._arrival = arrival
        self._origin = origin
        self._number = number
        self._content: Content[T] | None = None
        self.undo: Undo | None = None

    def __repr__(self) -> str:
        return f"<Message of {self.size} bytes, link {self.link}, {self.received_at.isoformat()}>"

    def _repr_html_(self) -> str:
        came = "by a query" if self.replayed else f"on link {self.link}"
        pairs: list[tuple[str, object]] = [("came", f"{self.received_at:%H:%M:%S.%f %Z}, {came}")]
        pairs.append(("bytes", self.size))
        try:
            rows = [_flat(row) for row in islice(self.rows(), html.ROWS)]
            count = sum(len(found) for _, found in self.by_cube())
            pairs.append(("rows", count))
            if self.errors:
                pairs.append(("errors", len(self.errors)))
        except OperationFailed as error:
            return html.facts("Message", [*pairs, ("unreadable", error)])
        heads = tuple(dict.fromkeys(head for row in rows for head in row))
        cells = [[row.get(head) for head in heads] for row in rows]
        return html.facts("Message", pairs) + html.grid(heads, cells, of=count)

    @property
    def raw(self) -> bytes:
        """The payload as it came (JSON, UTF-8), or encoded anew where rows or fields were taken out."""
        raw = self._arrival.raw
        return self._origin.shown(raw) if self._origin.hides else raw

    @property
    def size(self) -> int:
        """How many bytes came."""
        return len(self._arrival.raw)

    @property
    def link(self) -> int:
        """The number of the link that brought it; 0 where a query did."""
        return self._arrival.link

    @property
    def replayed(self) -> bool:
        """Whether a query brought it, not the stream."""
        return self._arrival.replayed

    @property
    def cubes(self) -> tuple[str, ...]:
        """The response keys of the document's cubes; empty where they are not known."""
        return self._origin.cubes

    @property
    def at(self) -> float:
        """When it came in, in seconds of the monotonic clock."""
        return self._arrival.at

    @property
    def received(self) -> float:
        """When it came in, in seconds since the epoch."""
        return self._arrival.at + self._origin.ahead()

    @property
    def received_at(self) -> datetime:
        """When it came in; UTC."""
        return datetime.fromtimestamp(self.received, UTC)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where a new process goes on if all rows up to and including this message are safe.

        It can be had for as long as the message is among those of the last minute. Raises UsageError after that.
        """
        return self._origin.checkpoint(self._number)

    @property
    def forks(self) -> tuple[Fork, ...]:
        """Blocks of this message that take the place of others, of the same height, that were delivered before.

        Known of the last minute's messages, as far as a cube's rows show their block's hash; where this is asked of
        one message, every one since the last that was asked is decoded.
        """
        return self._origin.forks(self._number)

    def _decoded(self) -> Content[T]:
        content = self._content
        if content is None:
            try:
                content = self._content = self._origin.decode(self._arrival.raw)
            except UNREADABLE as error:
                into = self._origin.into
                what = f"does not fit type={getattr(into, '__name__', into)}" if into else "cannot be decoded"
                said = (
                    f"a payload {what}, its bytes are in message.raw, and the next one can be read: {error}"
                )
                beside = _errors_in(self._arrival.raw)
                if beside:  # where there are errors a null may stand in any place
                    said += f"; the service says: {beside[0].get('message', beside[0])}"
                raise OperationFailed(said, beside) from None
        return content

    @property
    def data(self) -> T:
        """The ``data`` of the payload; ``None`` where there is none."""
        return self._decoded().data  # type: ignore[return-value]  # null is rare, and comes beside errors

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The ``errors`` beside partial data (GraphQL specification, section 7.1); empty where there are none."""
        return self._decoded().errors or []

    @property
    def extensions(self) -> dict[str, Any]:
        """The ``extensions`` of the payload; empty where there are none."""
        return self._decoded().extensions or {}

    def by_cube(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Each cube's response key and its rows; data that has no cubes is one row under the empty key.

        A message that brings errors and only nulls has none.
        """
        if self.errors and _only_nulls(self.data):
            return iter(())
        return cubes_of(self.data)

    def rows(self, cube: str | None = None) -> Iterator[Any]:
        """The rows as the service nests them, each decoded as the type says, where there is one.

        Of a document with one cube each row is that cube's element; of one with several each is ``{cube: element}``,
        so that it says which, whatever this message holds. ``cube`` (a response key) picks one. Data that has no
        cubes is one row; a message that brings errors and only nulls has none.

        Raises UsageError where the document has no such cube.
        """
        require_cube(cube, self.cubes)
        found = list(self.by_cube())
        if not found:
            return iter(())
        shapeless = bool(found) and found[0][0] == ""
        if cube is not None:
            if not isinstance(self.data, dict) and cube not in dict(found):
                raise UsageError(f"type={type(self.data).__name__} has no list of rows for the cube {cube!r}")
            if shapeless:
                raise UsageError(f"there is no cube {cube!r}, since the data has none: it is one row")
            return chain.from_iterable(rows for key, rows in found if key == cube)
        if shapeless or len(self.cubes or found) == 1:
            return chain.from_iterable(rows for _, rows in found)
        return ({key: row} for key, rows in found for row in rows)


class _Beside(msgspec.Struct):
    """Of a payload the errors alone."""

    errors: list[dict[str, Any]] = []


def _errors_in(raw: bytes) -> Sequence[dict[str, Any]]:
    try:
        return _beside(raw).errors
    except UNREADABLE:
        return ()


_beside = msgspec.json.Decoder(_Beside).decode


def require_cube(cube: str | None, cubes: tuple[str, ...]) -> None:
    """Raise UsageError where ``cubes`` are known and ``cube`` is none of them: its rows would never come."""
    if cube is not None and cubes and cube not in cubes:
        raise UsageError(f"the document has no cube {cube!r}; it has {', '.join(cubes)}")


def _only_nulls(data: Any) -> bool:
    """Whether the root, or everything under it, is null."""
    roots = _fields(data)
    root = data if roots is None else next(iter(roots.values()), None)
    below = _fields(root)
    return root is None or (below is not None and all(field is None for field in below.values()))


def cubes_of(data: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    """Pair each cube's response key with its rows: ``{root: {cube: [row, …]}}`` (subscriptions/subscription).

    A cube that is null, because it failed beside others that did not, has no rows. Anything else, such as a scalar
    root, is one row under the empty key, so that any GraphQL subscription streams.
    """
    if data is None:
        return
    roots = _fields(data) or {}
    cubes = (_fields(next(iter(roots.values()))) if len(roots) == 1 else None) or {}
    cubes = {key: rows for key, rows in cubes.items() if key != "__typename"}
    lists = [isinstance(rows, list | tuple) for rows in cubes.values() if rows is not None]
    if lists and all(lists):
        yield from ((key, rows or []) for key, rows in cubes.items())
    else:
        yield "", [data]


def _flat(value: Any, path: str = "", depth: int = 8) -> dict[str, Any]:
    """A row's values by their paths, such as ``Block.Number``; what lies too deep for a table is left whole."""
    fields = _fields(value) if depth else None
    if not fields:
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in fields.items():
        found |= _flat(inner, f"{path}.{name}" if path else name, depth - 1)
    return found


def _fields(value: Any) -> Mapping[str, Any] | None:
    """An object's fields by their response keys, whatever type it was decoded into; None where it is none."""
    if isinstance(value, dict):
        return value
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return {key: getattr(value, name) for key, name in names}
    if hasattr(value, "__pydantic_validator__"):  # a model, or a dataclass of its
        models = getattr(type(value), "__pydantic_fields__", None) or type(value).model_fields
        return {_alias(name, field): getattr(value, name) for name, field in models.items()}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _alias(name: str, field: Any) -> str:
    """The key by which pydantic looks for a field."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else name
