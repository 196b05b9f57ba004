"""Tokens: issued, exchanged, expired and revoked, over the service's two endpoints.

Sources: RFC 6749 sections 2.3, 4.4, 5.1 and 5.2; authorization/how-to-generate; the short-term exchange of the
service's OAuth guide.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_plus

from aiohttp import web

from .counters import Counters
from .settings import Settings

LONGEST_EXCHANGE = 30 * 24 * 3600
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(eq=False, slots=True)
class IssuedToken:
    """A token that this server gave out. ``expires_at`` is in the loop's seconds, infinite for a static one."""

    number: int
    value: str = field(repr=False)
    kind: Literal["static", "access", "short"]
    expires_at: float
    parent: IssuedToken | None = field(default=None, repr=False)
    revoked: bool = False

    @property
    def expired(self) -> bool:
        return asyncio.get_running_loop().time() >= self.expires_at

    @property
    def valid(self) -> bool:
        return not (self.revoked or self.expired or (self.parent is not None and self.parent.revoked))


class Tokens:
    """Every token issued, by value and by number."""

    def __init__(self) -> None:
        self._by_value: dict[str, IssuedToken] = {}

    def __iter__(self) -> Iterator[IssuedToken]:
        return iter(list(self._by_value.values()))

    def issue(
        self,
        kind: Literal["static", "access", "short"],
        ttl: float = math.inf,
        parent: IssuedToken | None = None,
    ) -> IssuedToken:
        """Make a token that lives ``ttl`` seconds from now."""
        expires_at = asyncio.get_running_loop().time() + ttl
        token = IssuedToken(
            len(self._by_value) + 1, f"ory_at_{secrets.token_urlsafe(32)}", kind, expires_at, parent
        )
        self._by_value[token.value] = token
        return token

    def find(self, value: str | None) -> IssuedToken | None:
        """The token of this value, valid or not; ``None`` if it was never issued."""
        return self._by_value.get(value) if value else None

    def valid(self, value: str | None) -> IssuedToken | None:
        """The token of this value if the service still takes it."""
        token = self.find(value)
        return token if token is not None and token.valid else None

    def chosen(self, which: int | str | None) -> list[IssuedToken]:
        """By number or value; ``None``: all but the static ones.

        Raises:
            LookupError: there is no such token.
        """
        if which is None:
            return [token for token in self if token.kind != "static"]
        found = [token for token in self if which in (token.number, token.value)]
        if not found:
            raise LookupError("no such token")
        return found


@dataclass(kw_only=True)
class TokenFault:
    """What the token endpoint does instead of answering; ``left`` requests long, ``None`` until it is changed."""

    mode: Literal["ok", "down", "slow", "refuse"] = "ok"
    left: int | None = None
    status: int = 429
    retry_after: float | None = None
    error: str = "temporarily_unavailable"
    seconds: float = 0.0

    def take(self) -> str:
        """The mode for one request."""
        if self.mode == "ok" or self.left == 0:
            return "ok"
        if self.left is not None:
            self.left -= 1
        return self.mode


def bearer(request: web.BaseRequest) -> str | None:
    """The value in ``Authorization: Bearer`` (RFC 6750 section 2.1), if there is one."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


class OAuth:
    """The token endpoint and the exchange."""

    def __init__(self, settings: Settings, tokens: Tokens, counters: Counters) -> None:
        self._settings = settings
        self._tokens = tokens
        self._counters = counters
        self.fault = TokenFault()

    async def token_endpoint(self, request: web.Request) -> web.StreamResponse:
        """``POST /oauth2/token``, grant ``client_credentials``."""
        response = await self._faulty(request) or await self._grant(request)
        self._counters.record("token_requests", status=response.status)
        if response.status >= 400:
            self._counters.record("refusals", of="token_requests", status=response.status)
        return response

    async def exchange(self, request: web.Request, expires_in: Any) -> web.Response:
        """``{"expires_in": seconds}`` with an access token's Bearer: answer a short-term token, without its expiry."""
        parent = self._tokens.valid(bearer(request))
        if parent is None or parent.kind == "short":
            response = web.Response(status=401, text="Unauthorized", headers={"WWW-Authenticate": "Bearer"})
        elif isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or expires_in <= 0:
            response = web.json_response({"error": "expires_in must be a positive number"}, status=400)
        else:
            token = self._tokens.issue("short", min(expires_in, LONGEST_EXCHANGE), parent)
            response = web.json_response({"token": token.value}, headers=_NO_STORE)
        self._counters.record("exchanges", status=response.status)
        if response.status >= 400:
            self._counters.record("refusals", of="exchanges", status=response.status)
        return response

    async def _faulty(self, request: web.Request) -> web.Response | None:
        mode = self.fault.take()
        if mode == "slow":
            await asyncio.sleep(self.fault.seconds)
        elif mode == "refuse":
            after = self.fault.retry_after
            headers = {} if after is None else {"Retry-After": f"{after:g}"}
            return _refusal(self.fault.error, "as asked", status=self.fault.status, headers=headers)
        elif mode == "down":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        await asyncio.sleep(self._settings.slow)
        return None

    async def _grant(self, request: web.Request) -> web.Response:
        if request.content_type != "application/x-www-form-urlencoded":
            return _refusal("invalid_request", "send application/x-www-form-urlencoded")
        form = await request.post()
        if len(set(form)) != len(form):
            return _refusal("invalid_request", "a parameter is repeated")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        basic = request.headers.get("Authorization", "")
        if basic and "client_secret" in fields:
            return _refusal("invalid_request", "use one way of authentication, not two")
        pairs = (
            _basic_pairs(basic) if basic else [(fields.get("client_id", ""), fields.get("client_secret", ""))]
        )
        if not any(self._known(*pair) for pair in pairs):
            headers = {"WWW-Authenticate": 'Basic realm="oauth2"'}
            return _refusal("invalid_client", "client authentication failed", status=401, headers=headers)
        grant = fields.get("grant_type")
        if not grant:
            return _refusal("invalid_request", "grant_type is missing")
        if grant != "client_credentials":
            return _refusal("unsupported_grant_type", "only client_credentials")
        if fields.get("scope", "api").split() != ["api"]:
            return _refusal("invalid_scope", "the scope is api")
        token = self._tokens.issue("access", self._settings.token_ttl)
        ttl = self._settings.token_ttl
        answer = {
            "access_token": token.value,
            "expires_in": int(ttl) if float(ttl).is_integer() else ttl,
            "scope": "api",
            "token_type": "bearer",
        }
        return web.json_response(answer, headers=_NO_STORE)

    def _known(self, client_id: str, secret: str) -> bool:
        right_id = hmac.compare_digest(client_id.encode(), self._settings.client_id.encode())
        return hmac.compare_digest(secret.encode(), self._settings.client_secret.encode()) and right_id


def _basic_pairs(header: str) -> list[tuple[str, str]]:
    """Identifier and secret as sent, and as RFC 6749 section 2.3.1 encodes them: many clients leave that out."""
    scheme, _, value = header.partition(" ")
    try:
        name, colon, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return []
    if scheme.lower() != "basic" or not colon:
        return []
    return [(name, secret), (unquote_plus(name), unquote_plus(secret))]


def _refusal(
    error: str, description: str, *, status: int = 400, headers: dict[str, str] | None = None
) -> web.Response:
    """An error answer (RFC 6749 section 5.2)."""
    body = {"error": error, "error_description": description}
    return web.json_response(body, status=status, headers={**_NO_STORE, **(headers or {})})
