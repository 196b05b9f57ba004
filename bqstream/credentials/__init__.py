"""Where tokens come from, and the keeper that holds the current one."""

from __future__ import annotations

from .exchange import Service
from .keeper import Keeper
from .providers import (
    CallableCredentials,
    ClientCredentials,
    Credentials,
    EnvironmentCredentials,
    StaticToken,
    as_credentials,
    from_environment,
)
from .short_term import ShortTermToken
from .token import HeldToken, Token

__all__ = [
    "CallableCredentials",
    "ClientCredentials",
    "Credentials",
    "EnvironmentCredentials",
    "HeldToken",
    "Keeper",
    "Service",
    "ShortTermToken",
    "StaticToken",
    "Token",
    "as_credentials",
    "from_environment",
]
