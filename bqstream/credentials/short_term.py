"""Short-term tokens, exchanged for a longer-lived one: what travels is worth little when it is stolen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from ..endpoints import check_token_url, secret_forms
from ..errors import CredentialsRefused, TokenRefused, UsageError
from .exchange import RefusedError, Service, is_lifetime, post, read_token
from .providers import GENERATE, Credentials, as_credentials
from .token import HeldToken, Token


@dataclass(slots=True)
class _Parent:
    """The parent's token as a ``ShortTermToken`` keeps it, and the lock that makes it one fetch for all."""

    held: HeldToken | None = None
    lock: asyncio.Lock | None = None
    loop: asyncio.AbstractEventLoop | None = None

    def single_flight(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self.lock is None or self.loop is not loop:
            self.lock, self.loop = asyncio.Lock(), loop
        return self.lock


@dataclass(frozen=True, slots=True)
class ShortTermToken:
    """Tokens that live for ``expires_in`` seconds, exchanged for a longer-lived one (the OAuth guide).

    ``parent``  the credentials that the exchange itself needs. Their token is kept until it expires; a
                refused exchange fetches it anew, once.
    ``url``     where to exchange; default: the client's endpoint.
    """

    parent: Credentials
    expires_in: float = field(default=3600, kw_only=True)
    url: str | None = field(default=None, kw_only=True)
    _parent: _Parent = field(default_factory=_Parent, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parent", as_credentials(self.parent))
        if not is_lifetime(self.expires_in):
            raise UsageError(
                f"ShortTermToken(expires_in={self.expires_in!r}): give a positive number of seconds"
            )
        if self.url is not None:
            check_token_url(self.url, allow_plaintext=True)

    @property
    def renewable(self) -> bool:
        return True

    async def fetch(self, service: Service) -> Token:
        parent = await self._parent_token(service, refused=None)
        try:
            return await self._exchange(service, parent.token)
        except RefusedError:
            pass
        anew = await self._parent_token(service, refused=parent)
        if anew.token.value == parent.token.value:
            raise TokenRefused(f"the token that short-term tokens are exchanged for is refused: {GENERATE}")
        try:
            return await self._exchange(service, anew.token)
        except RefusedError as error:
            refused = str(error)
        raise CredentialsRefused(f"a fresh access token may not be exchanged for a short-term one: {refused}")

    async def _exchange(self, service: Service, parent: Token) -> Token:
        url = check_token_url(self.url or service.endpoint.http, allow_plaintext=service.allow_plaintext)
        bearer = f"Bearer {parent.value}"
        answer = await post(
            service,
            url,
            headers={"Authorization": bearer, "Content-Type": "application/json"},
            data=msgspec.json.encode({"expires_in": self.expires_in}),
            secrets=secret_forms(parent.value, bearer),
        )
        return read_token(answer, "token", default_lifetime=self.expires_in)

    async def _parent_token(self, service: Service, *, refused: HeldToken | None) -> HeldToken:
        async with self._parent.single_flight():
            held = self._parent.held
            if held is not None and held is not refused and held.remaining(service.clock) > 0:
                return held
            # An answer's lifetime counts from before the question: early is safe, late is not.
            monotonic, wall = service.clock.monotonic(), service.clock.wall()
            token = await self.parent.fetch(service)
            generation = held.generation + 1 if held else 1
            self._parent.held = fetched = HeldToken(token, generation, monotonic, wall)
            return fetched
