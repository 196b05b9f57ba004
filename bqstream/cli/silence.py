"""Why a subscription on a live link brings nothing: what the query side sees of it tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..delivery.ask import Answer, Asker, Range
from ..delivery.document import Document
from ..delivery.shape import Shape, shape_of
from .findings import Cause

# Cubes that take a subscription and never send (docs: subscriptions/which-cubes-stream).
QUERY_ONLY = frozenset(("Balances", "Holders", "TokenHolders", "Uncles"))
# The time at the service is known to a second, and blocks have whole seconds: a block that begins so much later than
# the subscription was not there before.
_SURELY_AFTER = 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a silent subscription.

    ``cubes``     the names of its cubes; ``filtered``: one of them has a filter.
    ``heads``     when the newest row of each, whatever is filtered, was mined; in seconds since the epoch.
    ``matching``  rows that a query finds for the same document since the subscription was live.
    ``unknown``   why no query could tell.
    ``now``       the service's time.
    """

    cubes: tuple[str, ...]
    filtered: bool
    now: float
    heads: tuple[int, ...] = ()
    matching: int = 0
    unknown: str | None = None


def why_silent(evidence: Evidence, *, stalled_after: float) -> tuple[Cause, str]:
    """The cause, and what was seen. ``stalled_after``: how old the newest row may be, in seconds."""
    names = ", ".join(dict.fromkeys(evidence.cubes))
    if evidence.cubes and QUERY_ONLY.issuperset(evidence.cubes):
        return "query-only", f"{names} takes a subscription and never sends"
    if evidence.matching:
        found = "a row" if evidence.matching == 1 else f"{evidence.matching} rows"
        return "over-cap", f"a query finds {found} that the subscription should have brought"
    if evidence.unknown is not None or not evidence.heads:
        return "silent", f"why cannot be told by a query: {evidence.unknown or 'it finds nothing at all'}"
    age = evidence.now - max(evidence.heads)
    if age > stalled_after:
        return "chain-stalled", f"the newest row of {names}, whatever is filtered, is {age:.0f} s old"
    if evidence.filtered:
        return "filter", f"new rows of {names} come in, and none passes the filter"
    return "quiet-cube", f"the newest row of {names} is {max(age, 0):.0f} s old"


class Inquiry:
    """The query that gathers evidence: the document's own rows since it was live, and where its cubes' data ends."""

    def __init__(self, document: Document, variables: Mapping[str, Any], *, subscribed: float) -> None:
        """``subscribed``: when, by the service's clock. Raises DocumentRefused."""
        self.shape: Shape = shape_of(document, variables)
        self._since = math.floor(subscribed) + _SURELY_AFTER
        self._asked = [cube.key for cube in self.shape.cubes if cube.reason is None]
        self._asker = Asker(document, document.text, variables, count=100) if self._asked else None

    @property
    def impossible(self) -> str | None:
        """Why nothing can be asked; None where something can."""
        reasons = [cube.reason for cube in self.shape.cubes if cube.reason is not None]
        return None if self._asked else "; ".join(dict.fromkeys(reasons)) or "it has no rows"

    def request(self) -> tuple[str, dict[str, Any]]:
        """A query and its variables."""
        assert self._asker is not None
        payload = self._asker.request(dict.fromkeys(self._asked, Range(since=self._since)))
        request = msgspec.json.decode(payload)
        return request["query"], request.get("variables") or {}

    def enough(self, answers: Mapping[str, Answer]) -> bool:
        """Whether the query side has seen more than a moment of the subscription's time."""
        heads = [answer.head_time for answer in answers.values() if answer.head_time is not None]
        return any(answer.rows for answer in answers.values()) or max(heads, default=0) > self._since

    def read(self, data: Any) -> dict[str, Answer]:
        """Raises ValueError for what is no answer."""
        assert self._asker is not None
        return self._asker.read(msgspec.json.encode(data), self._asked)

    def evidence(
        self, now: float, answers: Mapping[str, Answer] | None = None, unknown: str | None = None
    ) -> Evidence:
        """What was found out by ``now``, by the service's clock."""
        found = tuple((answers or {}).values())
        return Evidence(
            cubes=tuple(cube.name for cube in self.shape.cubes),
            filtered=any(cube.where is not None for cube in self.shape.cubes),
            now=now,
            heads=tuple(one.head_time for one in found if one.head_time is not None),
            matching=sum(len(one.rows) for one in found),
            unknown=unknown or self.impossible,
        )
