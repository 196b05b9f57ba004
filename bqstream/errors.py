"""The one tree of errors.

    BqstreamError
    ├── UsageError                 the call is wrong; nothing was sent
    │   └── MissingCredentials     no credentials were given, nor found in the environment
    ├── CredentialsRefused         the token endpoint will not give these credentials a token
    ├── TokenRefused               the service will not take the token, and no better one can be had
    ├── PlanError                  billing, points or the plan's cap: retrying does not help
    ├── DocumentRefused            the document is wrong: syntax, two roots, or the service's validation
    ├── OperationFailed            the service ended one operation with errors
    ├── ConnectionGivenUp          the attempts that ``Backoff`` allows are used up, or the server is not one
    ├── BufferOverflow             the reader was too slow and asked for an error (``overflow="error"``)
    ├── GapFound                   rows may be missing and the reader asked to stop (``on_gap="raise"``)
    ├── SinkFailed                 a collector's sink does not take rows, and trying again does not help
    │   └── SinkUnavailable        … trying again may help: it is down, or its disk is full
    └── SinkLocked                 another collector writes there

Each leaf is something that a user handles differently. No message, argument or cause ever holds a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .message import Gap


class BqstreamError(Exception):
    """The root of every error that bqstream raises on purpose."""


class UsageError(BqstreamError):
    """A call that cannot mean anything; the text says what to do instead."""


class MissingCredentials(UsageError):
    """No credentials were given and the environment holds none."""


class CredentialsRefused(BqstreamError):
    """The token endpoint refused the credentials themselves (``invalid_client``, RFC 6749 section 5.2)."""


class TokenRefused(BqstreamError):
    """The service refused the token and a new one cannot be had, or is refused as well."""


class PlanError(BqstreamError):
    """The plan does not allow it: no active billing period, points used up, or a cap reached."""


class DocumentRefused(BqstreamError):
    """The document is wrong. ``errors`` holds what the service said, where it was the service that said so."""

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class OperationFailed(BqstreamError):
    """The service ended one operation, or answered a query with errors.

    ``errors`` is its list of GraphQL errors, as it sent them; ``data`` is what a query gave beside them.
    """

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = (), data: Any = None) -> None:
        super().__init__(message)
        self.errors = tuple(errors)
        self.data = data


class ConnectionGivenUp(BqstreamError):
    """No link could be had: the allowed attempts are used up, or retrying cannot help."""


class BufferOverflow(BqstreamError):
    """More messages waited than the buffer holds, and its policy is ``overflow="error"``."""


class GapFound(BqstreamError):
    """Rows may be missing, and the subscription was made with ``on_gap="raise"``."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(f"rows may be missing: {gap}")
        self.gap = gap


class SinkFailed(BqstreamError):
    """A sink does not take rows and will not: no permission, read-only, a table that does not fit.

    Nothing is lost: what was not committed comes again when a collector goes on from the last commit.
    """


class SinkUnavailable(SinkFailed):
    """A sink does not take rows for now: it is down, locked by a reader, or its disk is full. It is tried again."""


class SinkLocked(BqstreamError):
    """Another collector writes the same subscription to the same sink."""
