"""The examination: one check after another, from the credentials to the first row, until a fault bars the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp

from ..credentials import as_credentials
from ..delivery.document import Document
from ..endpoints import Endpoint, check_token_url
from ..errors import (
    BqstreamError,
    CredentialsRefused,
    MissingCredentials,
    PlanError,
    TokenRefused,
    UsageError,
)
from .access import Access, access_of, fetch
from .findings import Cause, Check, Finding
from .live import Live
from .reach import Reached, Unreached, reach
from .refusals import Fault
from .setup import Setup

LARGEST_SKEW = 60.0  # seconds


async def examine(setup: Setup, tell: Callable[[Finding], object] = lambda _: None) -> list[Finding]:
    """Make every check that can be made; ``tell`` gets each finding at once. Cancelling closes what was opened."""
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        tell(finding)

    try:
        await _Examination(setup, note).run()
    except Fault as fault:
        note(fault.finding)
    return found


class _Examination:
    def __init__(self, setup: Setup, note: Callable[[Finding], None]) -> None:
        self._setup = setup
        self._note = note
        self._ahead = 0.0  # of the service's clock

    def _good(self, check: Check, says: object) -> None:
        self._note(Finding(check=check, says=str(says)))

    async def run(self) -> None:
        setup = self._setup
        document = self._document()
        credentials, access = self._credentials()
        endpoint = self._addresses(access)
        connector = aiohttp.TCPConnector(ssl=setup.tls or True)
        async with aiohttp.ClientSession(trust_env=True, connector=connector) as http:
            await self._exchange(credentials, access, endpoint, http)
            reached = await self._reach("reachable", endpoint.http, http)
        scheme = endpoint.http.partition(":")[0]
        self._good("reachable", f"{reached.host} answers by {scheme} in {max(reached.took, 0) * 1000:.0f} ms")
        self._clock(reached)
        await Live(setup, document, credentials, self._note, lambda: setup.wall() + self._ahead).run()

    def _document(self) -> Document:
        try:
            document = Document.parse(self._setup.document, self._setup.operation_name)
            document.require("subscription")
        except BqstreamError as error:
            raise Fault("document", "document", error) from None
        self._good("document", f"a subscription of {document.root}: {', '.join(document.cubes) or 'a value'}")
        return document

    def _credentials(self) -> tuple[Any, Access]:
        try:
            credentials = as_credentials(self._setup.credentials)
            access = access_of(credentials)
        except MissingCredentials as error:
            raise Fault("credentials", "no-credentials", error) from None
        except UsageError as error:
            raise Fault("credentials", "bad-credentials", error) from None
        self._good("credentials", access)
        return credentials, access

    def _addresses(self, access: Access) -> Endpoint:
        """Before anything is sent, since plain http would show it."""
        for address, parse in (
            (self._setup.endpoint, Endpoint.parse),
            (access.token_url, check_token_url),
        ):
            if address is None:
                continue
            try:
                parse(address)
            except UsageError as error:
                cause: Cause = "wrong-address"
                with contextlib.suppress(UsageError):
                    parse(address, allow_plaintext=True)
                    cause = "plaintext"
                raise Fault("address", cause, error) from None
        endpoint = Endpoint.parse(self._setup.endpoint)
        self._good("address", endpoint.ws)
        return endpoint

    async def _reach(self, check: Check, url: str, http: aiohttp.ClientSession) -> Reached:
        try:
            return await reach(url, http, timeout=self._setup.patience, wall=self._setup.wall)
        except Unreached as error:
            raise Fault(check, error.cause, error) from None

    async def _exchange(
        self, credentials: Any, access: Access, endpoint: Endpoint, http: aiohttp.ClientSession
    ) -> None:
        if access.token_url is not None:
            await self._reach("exchange", access.token_url, http)
        try:
            token = await fetch(credentials, endpoint, http, timeout=self._setup.patience)
        except CredentialsRefused as error:
            raise Fault("exchange", "credentials-refused", error) from None
        except TokenRefused as error:
            raise Fault("exchange", "token-refused", error) from None
        except PlanError as error:
            raise Fault("exchange", "plan", error) from None
        except UsageError as error:
            raise Fault("exchange", "bad-credentials", error) from None
        except Exception as error:  # of a callable of the user's, say; its words may hold a secret  # noqa: BLE001
            says = (
                error if isinstance(error, BqstreamError) else f"the credentials raise {type(error).__name__}"
            )
            raise Fault("exchange", "token-endpoint", says) from None
        lives = (
            "it does not say how long it lives"
            if token.expires_in is None
            else f"good for {token.expires_in:g} s"
        )
        self._good("exchange", f"a token is in hand, {lives}")

    def _clock(self, reached: Reached) -> None:
        if reached.ahead is None:
            self._good("clock", "the service does not tell the time")
            return
        self._ahead = reached.ahead
        off = f"{abs(reached.ahead):.0f} s {'behind' if reached.ahead > 0 else 'ahead of'} the service's"
        if abs(reached.ahead) > LARGEST_SKEW:
            self._note(Finding(check="clock", cause="clock", says=f"this machine's clock is {off}"))
        else:
            self._good("clock", "as the service's, to a second or two" if abs(reached.ahead) < 2 else off)
