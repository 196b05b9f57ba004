"""What one call of ``subscribe`` asks for, checked, and what it means for delivery."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from .checkpoint import Checkpoint
from .clock import Clock
from .config import Buffer
from .delivery.backfill import Window
from .delivery.closing import Start
from .delivery.cursor import Cursor, CursorKind
from .delivery.document import Document
from .delivery.marks import known_of, void_of, windows_of
from .delivery.plan import Dataset, Identities, Plan
from .errors import UsageError
from .protocol import request

# How far another clock may be ahead of ours, in seconds, for a time to be that of now.
FUTURE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One subscription as it was asked for; see ``Client.subscribe``."""

    document: Document
    variables: Mapping[str, Any] | None
    buffer: Buffer
    on_gap: Literal["continue", "raise"]
    resume: Checkpoint | None
    since: datetime | timedelta | int | None
    identity: Identities
    backfill: bool
    dataset: Dataset
    undo: bool
    into: Any = None

    def plan(self, *, hidden: bool) -> Plan:
        """How its rows are read, merged and asked for again; one plan for all that ask for the same."""
        options = self.backfill, self.dataset, hidden
        if self.identity is not None and self.identity is not False:
            return _plan(self.document, self.variables, self.identity, *options)
        variables = msgspec.json.encode({**self.document.values, **(self.variables or {})})
        return _shared_plan(self.document, variables, self.identity, *options)

    def resumes(self, plan: Plan) -> bool:
        """Whether ``plan`` tells rows apart as the checkpoint does that it goes on from."""
        return self.resume is None or void_of(self.resume, plan.readers) is not None

    def start(self, plan: Plan, fingerprint: str, clock: Clock) -> Start | None:
        """What is missing from before, by ``resume`` or ``since``.

        Raises UsageError: a checkpoint of something else, or a ``since`` that the document cannot be asked for.
        """
        now, wall = clock.monotonic(), clock.wall()
        if self.resume is not None:
            checkpoint = self.resume
            if checkpoint.fingerprint != fingerprint:
                raise UsageError(
                    "the checkpoint belongs to another document, other variables or another endpoint: subscribe what "
                    "it was taken from, or begin anew without it"
                )
            at = now - max(0.0, wall - checkpoint.at.timestamp())
            windows = {**dict.fromkeys(plan.merged, Window(since=math.floor(checkpoint.at.timestamp()))),
                       **windows_of(checkpoint)}  # fmt: skip
            detail = "resumed from a checkpoint"
            void = void_of(checkpoint, plan.readers)
            if void is None:
                raise UsageError(
                    "the checkpoint tells rows apart by other fields: give the identity= that it was taken with, or "
                    "begin anew without it, with since="
                )
            windows = {key: windows[key] for key in plan.merged}
            return Start(windows, known_of(checkpoint), "resumed", detail, at, void)
        if self.since is None:
            return None
        window, age = self._since(wall, plan)
        if not plan.merged or set(plan.merged) <= plan.unclosable.keys():
            reason = plan.other or "; ".join(sorted(set(plan.unclosable.values())))
            raise UsageError(
                f"since={self.since!r}: nothing of the document can be asked for from before: {reason}"
            )
        for key in plan.merged:
            if window.low is not None and plan.readers[key].kind not in (None, window.low.kind):
                raise UsageError(
                    f"since={self.since!r}: {key} is not followed by such a number; give a time or an age"
                )
        return Start(dict.fromkeys(plan.merged, window), {}, "since", "asked for from before", now - age)

    def _since(self, wall: float, plan: Plan) -> tuple[Window, float]:
        """From where on rows are asked for, and how many seconds ago that was as far as is known."""
        match self.since:
            case bool():
                pass
            case int() as block if block >= 0:
                kind: CursorKind = "slot" if plan.shape.root == "Solana" else "number"
                return Window(low=Cursor(kind, block)), 0.0
            case timedelta() as age:
                if age <= timedelta(0):
                    raise UsageError(f"since={age!r}: an age is positive, such as timedelta(hours=1)")
                return Window(since=math.floor(wall - age.total_seconds())), age.total_seconds()
            case datetime() as time:
                if time.tzinfo is None:
                    raise UsageError(
                        f"since={time!r}: give a time with its zone, such as datetime(…, tzinfo=UTC)"
                    )
                seconds = time.astimezone(UTC).timestamp()
                if seconds > wall + FUTURE:
                    raise UsageError(
                        f"since={time.isoformat()}: that is yet to come; it is {_shown(wall)} now"
                    )
                return Window(since=math.floor(seconds)), max(0.0, wall - seconds)
        raise UsageError(f"since={self.since!r}: give a time, an age (timedelta) or a block's number")


def fingerprint_of(document: Document, variables: Mapping[str, Any] | None, endpoint: str) -> str:
    """What a checkpoint belongs to: document, variables and endpoint."""
    values = {**document.values, **(variables or {})}
    asked = [document.text, document.operation_name, values, endpoint]
    return blake2b(msgspec.json.encode(asked, order="sorted"), digest_size=16).hexdigest()


def _plan(
    document: Document,
    variables: Mapping[str, Any] | None,
    identity: Identities,
    backfill: bool,
    dataset: Dataset,
    hidden: bool,
) -> Plan:
    return Plan.make(
        document, variables, backfill=backfill, dataset=dataset, identity=identity, hidden=hidden
    )


@lru_cache(maxsize=256)
def _shared_plan(document: Document, variables: bytes, *options: Any) -> Plan:
    return _plan(document, msgspec.json.decode(variables), *options)


def request_of(document: Document, variables: Mapping[str, Any] | None, text: str | None = None) -> bytes:
    """The JSON text of the request for ``document``, or for ``text`` in its place. Raises UsageError for variables
    that are no mapping of JSON values."""
    if isinstance(variables, Mapping):
        variables = {**document.values, **variables}
    return _one(request(text or document.text, variables or document.values or None, document.operation_name))


@lru_cache(maxsize=256)
def _one(request: bytes) -> bytes:
    """The same object for all that are equal, since thousands may subscribe the same."""
    return request


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def check_variables(document: Document, variables: object) -> None:
    """Raise UsageError for variables that are no mapping of JSON values, that the document does not declare, or that it
    needs and that are not there (spec, 6.1.2)."""
    request_of(document, variables)  # type: ignore[arg-type]
    if isinstance(variables, Mapping):
        for name in variables:
            if not isinstance(name, str):
                raise UsageError(f"variables are given by name, not by {name!r}")
            document.require_variable(name)
    given = {**document.values, **(variables if isinstance(variables, Mapping) else {})}
    if missing := [name for name in document.required if given.get(name) is None]:
        needed = ", ".join(f"${name}: {document.variables[name]}" for name in missing)
        raise UsageError(f"the document needs a value for {needed}")
