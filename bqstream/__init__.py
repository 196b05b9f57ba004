"""Bitquery subscriptions that outlive their tokens: an asyncio client that loses no row and repeats none."""

from . import events
from ._version import __version__
from .checkpoint import Checkpoint
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
    SinkFailed,
    SinkLocked,
    SinkUnavailable,
    TokenRefused,
    UsageError,
)
from .message import Fork, Gap, Message, Undo
from .sampling import sample
from .status import Status
from .subscription import Subscription

__all__ = [
    "Backoff",
    "BqstreamError",
    "Buffer",
    "BufferOverflow",
    "Checkpoint",
    "Client",
    "ClientCredentials",
    "ConnectionGivenUp",
    "CredentialsRefused",
    "DocumentRefused",
    "Fork",
    "Gap",
    "GapFound",
    "Message",
    "MissingCredentials",
    "OperationFailed",
    "PlanError",
    "ShortTermToken",
    "SinkFailed",
    "SinkLocked",
    "SinkUnavailable",
    "StaticToken",
    "Status",
    "Subscription",
    "Timeouts",
    "Token",
    "TokenRefused",
    "Undo",
    "UsageError",
    "__version__",
    "connect",
    "events",
    "sample",
]
