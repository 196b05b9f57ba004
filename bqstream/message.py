"""What a user is handed: messages, and the gaps between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .errors import OperationFailed, UsageError

GapCause = Literal["lost", "handover", "replaced", "quiet", "parked", "dropped"]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A range in which rows may not have been delivered.

    ``start``  when the last row before the range came in, or the subscription or the hand-over started; UTC. It is
               the time of arrival: the service published the row earlier, by as much as its data lagged.
    ``end``    when the first row after it came in; ``None`` while the range is open.
    ``cause``  "lost" (the link went), "handover" (a hand-over that could not be proven), "replaced" (the old link
               was closed first), "quiet" (nothing came on either link, which proves nothing), "parked" and
               "dropped" (the reader was slow).
    ``cubes``  response keys the range belongs to; empty where it is all of them.
    ``detail`` what happened, for a person.
    """

    start: datetime
    end: datetime | None
    cause: GapCause
    cubes: tuple[str, ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        end = self.end.isoformat() if self.end else "now"
        where = f" of {', '.join(self.cubes)}" if self.cubes else ""
        return f"{self.cause}{where}, {self.start.isoformat()} to {end}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Crossed:
    """How an operation crossed: ``proven`` that nothing fell between the links; ``merged`` rows came on both."""

    proven: bool
    merged: int


class Message:
    """One ``next`` payload, decoded when it is first looked at.

    ``data``, ``errors``, ``extensions`` and ``rows()`` raise OperationFailed where it cannot be, as with a number
    that no double holds; the messages that follow are none the worse.

    Attributes:
        raw: the payload as it came (JSON, UTF-8), or encoded anew where rows were taken out.
        received: when it came in, seconds since the epoch.
        link: the number of the link that brought it.
        replayed: whether a query brought it, not the stream.
        cubes: the response keys of the document's cubes; empty where they are not known.
    """

    __slots__ = ("_payload", "cubes", "link", "raw", "received", "replayed")

    def __init__(
        self,
        raw: bytes,
        *,
        received: float,
        link: int,
        replayed: bool = False,
        cubes: tuple[str, ...] = (),
    ) -> None:
        self.raw = raw
        self.received = received
        self.link = link
        self.replayed = replayed
        self.cubes = cubes
        self._payload: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Message of {len(self.raw)} bytes, link {self.link}, {self.received_at.isoformat()}>"

    @property
    def received_at(self) -> datetime:
        """When it came in; UTC."""
        return datetime.fromtimestamp(self.received, UTC)

    def _decoded(self) -> dict[str, Any]:
        if self._payload is None:
            try:
                self._payload = _decode(self.raw)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise OperationFailed(
                    f"a payload cannot be decoded, its bytes are in message.raw: {error}"
                ) from None
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
