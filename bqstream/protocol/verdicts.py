"""What each refusal means. (Written next.)"""
from __future__ import annotations

import enum
from dataclasses import dataclass


class Action(enum.Enum):
    """What helps."""

    REFRESH = "refresh"  # a new token, then redial without delay
    RETRY = "retry"  # back off and redial
    END_OPERATION = "end operation"  # this operation alone
    END_CLIENT = "end client"  # nothing helps


class Kind(enum.Enum):
    """Which leaf of the error tree a user gets where the verdict ends something."""

    TOKEN = "token"
    PLAN = "plan"
    DOCUMENT = "document"
    OPERATION = "operation"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and why, in words that hold no token.

    ``code``         the close code or HTTP status, where there is one.
    ``floor``        the least wait before a retry, in seconds (5 for rate limits, docs: plans/rate-limits).
    ``retry_after``  what the server asked for, in seconds; it wins over any back-off.
    ``once``         the action helps once in a row; a second such refusal ends the client.
    ``slow``         shed as a slow consumer (1013).
    ``cap``          the plan's cap on concurrent subscriptions.
    ``switch``       try the other subprotocol, once.
    """

    action: Action
    kind: Kind
    why: str
    code: int | None = None
    floor: float = 0.0
    retry_after: float | None = None
    once: bool = False
    slow: bool = False
    cap: bool = False
    switch: bool = False
