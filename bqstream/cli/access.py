"""Which credentials there are, in words, and one token of theirs; no secret is in the words."""

from __future__ import annotations

import os
from dataclasses import dataclass

import aiohttp

from ..credentials import (
    ClientCredentials,
    Credentials,
    EnvironmentCredentials,
    ShortTermToken,
    StaticToken,
    Token,
)
from ..credentials.exchange import PassingError, Service
from ..endpoints import TOKEN_URL, Endpoint
from ..errors import ConnectionGivenUp

STATIC, PAIR = "static token", "client credentials"


@dataclass(frozen=True, slots=True)
class Access:
    """What credentials are.

    ``source``     the variables that they come from, or "the code".
    ``token_url``  where their tokens are had; None where that is nowhere.
    ``scope``      what is asked for; None where nothing is.
    """

    kind: str
    source: str
    token_url: str | None = None
    scope: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}, from {self.source}"


def access_of(credentials: Credentials) -> Access:
    """Say what these credentials are."""
    match credentials:
        case EnvironmentCredentials():
            source = ", ".join(credentials.sources)
            if len(credentials.sources) == 1:
                return Access(STATIC, source)
            return Access(PAIR, source, os.environ.get("BITQUERY_TOKEN_URL") or TOKEN_URL, "api")
        case StaticToken():
            return Access(STATIC, "the code")
        case ClientCredentials(token_url=url, scope=scope):
            url = url or os.environ.get("BITQUERY_TOKEN_URL") or TOKEN_URL
            return Access(PAIR, "the code", url, scope or None)
        case ShortTermToken(parent=parent):
            inner = access_of(parent)
            return Access(f"short-term token by {inner.kind}", inner.source, inner.token_url, inner.scope)
    return Access("a callable", "the code")


async def fetch(
    credentials: Credentials, endpoint: Endpoint, http: aiohttp.ClientSession, *, timeout: float = 30.0
) -> Token:
    """Get one token, by one try.

    Raises CredentialsRefused, TokenRefused, PlanError, UsageError; ConnectionGivenUp where there is no answer, or none
    that means anything.
    """
    try:
        return await credentials.fetch(Service(http=http, endpoint=endpoint, timeout=timeout))
    except PassingError as error:
        why = str(error)
    raise ConnectionGivenUp(why)
