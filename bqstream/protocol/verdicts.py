"""What each refusal means: one table of close codes and HTTP statuses, one of words, and who asks them.

Sources: RFC 6455 section 7.4, RFC 9110 section 15, ``CloseCode`` of enisdenjo/graphql-ws (``src/common.ts``),
and the service's pages start/errors, plans/rate-limits, authorization/websocket and
subscriptions/silent-disconnect-reconnect.
"""

from __future__ import annotations

import enum
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from .redaction import READ, shown


class Action(enum.Enum):
    """What helps."""

    REFRESH = "refresh"  # a new token, then redial without delay
    RETRY = "retry"  # back off and redial
    END_OPERATION = "end operation"  # this operation alone
    END_CLIENT = "end client"  # nothing helps


class Kind(enum.Enum):
    """Which leaf of the error tree a user gets where the verdict ends something."""

    TOKEN = "token"  # noqa: S105
    PLAN = "plan"
    DOCUMENT = "document"
    OPERATION = "operation"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and why, in words that hold no token.

    ``code``         the close code or HTTP status, where there is one.
    ``floor``        the least wait before a retry, in seconds (5 for rate limits, docs: plans/rate-limits).
    ``retry_after``  what the server asked for, in seconds, an hour at most; it wins over any back-off.
    ``once``         the action helps once in a row; a second such refusal ends the client, or, where a new token was
                     but a guess (kind CONNECTION), is waited out like any lost connection.
    ``few``          the action helps a few times in a row; after that the other side is at fault.
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
    few: bool = False
    slow: bool = False
    cap: bool = False
    switch: bool = False


RATE_FLOOR = 5.0  # seconds (docs: plans/rate-limits)
LONGEST_RETRY_AFTER = 3600.0  # seconds: what a server asks for is obeyed up to here
LOOKED_AT = 100  # errors of one list


_refresh = partial(Verdict, action=Action.REFRESH, kind=Kind.TOKEN)
_retry = partial(Verdict, action=Action.RETRY, kind=Kind.CONNECTION)
_end = partial(Verdict, action=Action.END_CLIENT, kind=Kind.CONNECTION)
_document = Verdict(action=Action.END_OPERATION, kind=Kind.DOCUMENT, why="the service refuses the document")
_operation = Verdict(action=Action.END_OPERATION, kind=Kind.OPERATION, why="the service ended the operation")

# HTTP statuses have three digits and close codes four, so that one table holds both.
REFUSALS: dict[int, Verdict] = {
    400: _end(why="the server refuses the request"),
    401: _refresh(why="the token is missing, expired or revoked"),
    402: _end(kind=Kind.PLAN, why="no active billing period"),
    403: _refresh(why="the gateway refuses the token, or the host is the wrong one", once=True),
    404: _end(why="nothing answers at this address"),
    408: _retry(why="the server waited too long"),
    424: _retry(why="a service behind the server failed", floor=RATE_FLOOR),
    425: _retry(why="the server will not take the request yet"),
    429: _retry(why="rate limit", floor=RATE_FLOOR),
    1000: _retry(why="the service closed the connection normally, unasked"),
    1001: _retry(why="the service is going away"),
    1002: _retry(
        why="protocol error; Apollo's word for a subprotocol that it does not speak", switch=True, once=True
    ),
    1003: _end(why="the service refuses this kind of data"),
    1005: _retry(why="the service closed the connection without a code"),
    1006: _retry(why="the connection broke"),
    1007: _end(why="the service says that we sent text that is not UTF-8"),
    1008: _refresh(why="policy violation, which may mean the token", once=True),
    1009: _end(
        why="a message is larger than allowed: raise max_message_bytes, or ask for fewer rows a message"
    ),
    1010: _end(why="the service wants a WebSocket extension that is not offered"),
    1011: _retry(why="the service failed"),
    1012: _retry(why="the service restarts"),
    1013: _retry(why="messages are not read fast enough, or the service is overloaded", slow=True),
    1014: _retry(why="a gateway had a bad answer"),
    1015: _end(why="TLS failed"),
    3000: _refresh(why="unauthorized"),
    3003: _refresh(why="forbidden"),
    4004: _retry(why="bad response, a client's code", few=True),
    4005: _retry(why="internal client error, a client's code", few=True),
    4400: _end(why="the service calls a message of ours invalid"),
    4401: _refresh(why="unauthorized"),
    4403: _refresh(why="forbidden"),
    4406: _retry(why="the service does not speak this subprotocol", switch=True, once=True),
    4408: _retry(why="the service waited too long for connection_init"),
    4409: _end(why="an operation's id was used twice; please report this bug"),
    4429: _retry(why="too many requests", floor=RATE_FLOOR),
    4499: _retry(why="terminated"),
    4500: _retry(why="internal server error", few=True),
    4504: _retry(why="connection_ack did not come in time"),
}

# What a text of the service means wherever it stands; the first that is found counts. The plan comes before
# the token, since a new token does not pay a bill.
WORDS: tuple[tuple[re.Pattern[str], Verdict], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), verdict)
    for pattern, verdict in (
        (
            r"\bbilling\b|payment required"
            r"|\bpoints?\W+(?:\w+\W+){0,3}?(?:limit|quota|balance|exceeded|used|exhausted)\b"
            r"|\b(?:exceed\w*|out of|not enough|insufficient|no more|used)\W+(?:\w+\W+){0,4}?points\b",
            _end(kind=Kind.PLAN, why="the plan does not allow it"),
        ),
        (
            r"too many concurrent subscriptions",
            _retry(kind=Kind.PLAN, why="the plan's cap on subscriptions", floor=RATE_FLOOR, cap=True),
        ),
        (
            r"too many (?:sessions|requests)\b|\brate.?limit|temporarily blocked|long-running queries",
            _retry(why="rate limit", floor=RATE_FLOOR),
        ),
        (
            r"\bunauthori[sz]ed|\bunauthenticated"
            r"|\b(?:token|jwt)\W*(?:is |has |was |been )*(?:expired|revoked|invalid)\b"
            r"|\b(?:expired|revoked|invalid)\W+(?:access\W+|bearer\W+)?(?:token|jwt)\b",
            _refresh(why="the service refuses the token"),
        ),
    )
)

# How GraphQL servers word a refused document: graphql-js and its many ports, graphql-ruby, Hasura.
_DOCUMENT = re.compile(
    r"\b(?:syntax|parse) error\b|\b(?:parse|validation)[ -]failed\b|\bcannot (?:query field|represent)\b"
    r"|\bmust (?:provide (?:query|operation|document)|(?:not )?have a selection|select only one)\b"
    r"|\bunknown (?:argument|type|fragment|directive|operation|field)\b|\bexpected (?:value of )?type\b"
    r"|\bdoesn't (?:exist on|accept argument)\b|\bnot found in type\b|\bis not defined (?:by|on)\b"
    r"|^(?:variable|argument|field|fragment|enum|value) [\"'$`]",
    re.IGNORECASE,
)
_INITIALISATION = re.compile("initiali[sz]ation", re.IGNORECASE)
_CODE_INSIDE = re.compile(r"(?<![\w.:])(4\d{3}):")


def classify_close(
    code: int,
    reason: str,
    *,
    acked: bool,
    connection_error: bool = False,
    subscribed_before_ack: bool = False,
    unanswered: bool = False,
) -> Verdict:
    """What a close by the other side means. ``code`` is 1005 for a frame without one and 1006 for no frame.

    ``acked``                  ``connection_ack`` had come.
    ``connection_error``       a ``connection_error`` had come instead.
    ``subscribed_before_ack``  an operation was started too early: a bug of ours, not the token's fault.
    ``unanswered``             an operation has brought nothing yet: a syntax error in the reason is its own,
                               since servers close the whole socket for one: graphql-ws with 4500,
                               Strawberry with 4400.
    """
    inside = _CODE_INSIDE.search(reason) if code < 3000 else None
    meant = int(inside[1]) if inside else code  # Hasura closes with 1000 and puts its code into the reason
    if meant in (4400, 4500) and unanswered and _DOCUMENT.search(_plain(reason)):
        verdict = _document
    elif meant == 4401 and subscribed_before_ack:
        verdict = _end(why="an operation was started before connection_ack; please report this bug")
    elif meant == 4429 and _INITIALISATION.search(reason):
        verdict = _end(why="connection_init was sent twice; please report this bug")
    else:
        verdict = _with_words(_closed(code, meant, acked, connection_error), reason)
    return _said(verdict, f"close {code}", reason, code=meant)


def _closed(code: int, meant: int, acked: bool, connection_error: bool) -> Verdict:
    if code == 1011 and connection_error:
        return REFUSALS[4401]
    if code == 1000 and meant in (1000, 4400) and not acked:
        kind = Kind.CONNECTION if meant == 1000 else Kind.TOKEN
        return _refresh(kind=kind, why="closed before connection_ack, which may mean the token", once=True)
    if (listed := REFUSALS.get(meant)) is not None:
        return listed
    if 1000 <= meant < 2000:
        return _end(why="a close code that nobody should send")
    return _retry(why="a close code of its own")


def classify_upgrade(
    status: int, headers: Mapping[str, str], body: str, *, now: Callable[[], float] = time.time
) -> Verdict:
    """What an HTTP answer other than 101 means. Header names are lower case; ``now`` is the wall clock."""
    body = body[:READ]
    verdict = _with_words(REFUSALS.get(status) or _unlisted_status(status), body)
    if verdict.action is Action.RETRY:
        verdict = replace(verdict, retry_after=_retry_after(headers.get("retry-after", ""), now))
    return _said(verdict, f"HTTP {status}", body, code=status)


def _unlisted_status(status: int) -> Verdict:
    if status >= 500:
        return _retry(why="the server failed", floor=RATE_FLOOR)
    if status >= 300:
        return _end(why="the server refuses the request")
    return _retry(why="the server answered, but not as a WebSocket", few=True)


def _retry_after(value: str, now: Callable[[], float]) -> float | None:
    """Seconds to wait (RFC 9110 section 10.2.3): a number, or a date."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if not math.isnan(seconds) else None


def classify_errors(errors: Sequence[Mapping[str, Any]], *, connection_error: bool = False) -> Verdict:
    """What GraphQL errors mean that answer an operation, or, with ``connection_error``, ``connection_init``.

    Of several errors one counts: the plan, then the cap, a rate limit, the token, the document.
    """
    texts = [_text(error) for error in errors[:LOOKED_AT]]
    refused = [text for text in texts if _DOCUMENT.search(_plain(text))]
    # A refused document may quote words of the user's, such as a field "points".
    verdict = _heard("\n".join(text for text in texts if text not in refused))
    if verdict is None:
        verdict = _document if refused else _operation
    if connection_error and verdict.action is Action.END_OPERATION:
        verdict = _refresh(why="connection_init was refused, which mostly means the token")
    return _said(verdict, "connection_error" if connection_error else "error", "; ".join(texts))


def _text(error: Mapping[str, Any]) -> str:
    extensions = error.get("extensions")
    code = extensions.get("code") if isinstance(extensions, Mapping) else None
    parts = (error.get("message"), code, error.get("errorType"))  # AppSync has the last
    return " ".join(part for part in parts if isinstance(part, str))[:READ]


def _with_words(listed: Verdict, text: str) -> Verdict:
    """Words win over numbers, but a token is not what a rate limit or an unpaid bill asks for, and where both
    mean the token, the number knows how often to try."""
    heard = _heard(text)
    if heard is None:
        return listed
    if heard.kind is Kind.TOKEN and (listed.kind in (Kind.TOKEN, Kind.PLAN) or listed is REFUSALS[429]):
        return listed
    return heard


def _heard(text: str) -> Verdict | None:
    plain = _plain(text)
    return next((verdict for pattern, verdict in WORDS if pattern.search(plain)), None)


def _plain(text: str) -> str:
    """Codes such as POINTS_LIMIT_EXCEEDED read as words."""
    return text.replace("_", " ")


def _said(verdict: Verdict, sign: str, text: str, code: int | None = None) -> Verdict:
    text = shown(text)
    return replace(verdict, code=code, why=f"{sign}: {verdict.why}" + (f" ({text})" if text else ""))
