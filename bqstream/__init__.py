"""Bitquery subscriptions that outlive their tokens: an asyncio client that loses no row and repeats none."""

from . import events
from ._version import __version__
from .client import Client, connect
from .config import Backoff, Buffer, Timeouts
from .credentials import ClientCredentials, ShortTermToken, StaticToken
from .credentials.token import Token
from .errors import (
    BqstreamError,
    BufferOverflow,
    ConnectionGivenUp,
    CredentialsRefused,
    DocumentRefused,
    GapFound,
    MissingCredentials,
    OperationFailed,
    PlanError,
    TokenRefused,
    UsageError,
)
from .message import Gap, Message
from .status import Status
from .subscription import Subscription

__all__ = [
    "Backoff",
    "BqstreamError",
    "Buffer",
    "BufferOverflow",
    "Client",
    "ClientCredentials",
    "ConnectionGivenUp",
    "CredentialsRefused",
    "DocumentRefused",
    "Gap",
    "GapFound",
    "Message",
    "MissingCredentials",
    "OperationFailed",
    "PlanError",
    "ShortTermToken",
    "StaticToken",
    "Status",
    "Subscription",
    "Timeouts",
    "Token",
    "TokenRefused",
    "UsageError",
    "__version__",
    "connect",
    "events",
]
