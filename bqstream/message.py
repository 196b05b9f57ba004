"""What a user is handed: messages, and the gaps between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .errors import OperationFailed

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
    """

    __slots__ = ("_payload", "link", "raw", "received", "replayed")

    def __init__(self, raw: bytes, *, received: float, link: int, replayed: bool = False) -> None:
        self.raw = raw
        self.received = received
        self.link = link
        self.replayed = replayed
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

        With one cube in the message each row is that cube's element; with several each is ``{cube: element}``, so
        that it says which. ``cube`` (a response key) picks one. Data that has no cubes is one row.
        """
        cubes = list(cubes_of(self.data))
        if cube is not None:
            return (row for key, rows in cubes if key == cube for row in rows)
        if len(cubes) == 1:
            return iter(cubes[0][1])
        return ({key: row} for key, rows in cubes for row in rows)


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
