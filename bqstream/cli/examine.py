"""The examination: one check after another, from the credentials to the first row, until a fault bars the way."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .. import Backoff, Client, Timeouts, events
from ..credentials import as_credentials
from ..delivery.document import Document
from ..endpoints import Endpoint, check_token_url
from ..errors import (
    BqstreamError,
    ConnectionGivenUp,
    CredentialsRefused,
    DocumentRefused,
    MissingCredentials,
    OperationFailed,
    PlanError,
    TokenRefused,
    UsageError,
)
from .access import Access, access_of, fetch
from .findings import Cause, Check, Finding
from .reach import Reached, Unreached, reach
from .silence import Inquiry, why_silent
from .wording import counted

LARGEST_SKEW = 60.0  # seconds
# Blocks of Ethereum, twelve seconds apart.
USUAL = "subscription { EVM(network: eth) { Blocks { Block { Number Time } } } }"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is examined. Times are in seconds.

    ``document``       text; ``variables`` and ``operation_name`` as ``Client.subscribe`` takes them.
    ``within``         how long the first row may take; never less than half as long again as ``idle``.
    ``patience``       for each answer to a request or a dial, and for the query side to see what was streamed.
    ``stalled_after``  how old the newest row of all may be.
    ``options``        of the client.
    """

    credentials: Any = None
    endpoint: str = "eu"
    document: str = USUAL
    variables: Mapping[str, Any] = field(default_factory=dict)
    operation_name: str | None = None
    within: float = 30.0
    idle: float = 10.0
    patience: float = 10.0
    stalled_after: float = 120.0
    tls: ssl.SSLContext | None = None
    wall: Callable[[], float] = time.time
    options: Mapping[str, Any] = field(default_factory=dict)


class _Fault(Exception):
    """A fault that bars the way to the checks behind it."""

    def __init__(self, check: Check, cause: Cause, says: object) -> None:
        super().__init__(str(says))
        self.finding = Finding(check=check, cause=cause, says=str(says))


async def examine(setup: Setup, tell: Callable[[Finding], object] = lambda _: None) -> list[Finding]:
    """Make every check that can be made; ``tell`` gets each finding at once. Cancelling closes what was opened."""
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        tell(finding)

    try:
        await _Examination(setup, note).run()
    except _Fault as fault:
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
        await _Live(setup, document, credentials, self._note, lambda: setup.wall() + self._ahead).run()

    def _document(self) -> Document:
        try:
            document = Document.parse(self._setup.document, self._setup.operation_name)
            document.require("subscription")
        except BqstreamError as error:
            raise _Fault("document", "document", error) from None
        self._good("document", f"a subscription of {document.root}: {', '.join(document.cubes) or 'a value'}")
        return document

    def _credentials(self) -> tuple[Any, Access]:
        try:
            credentials = as_credentials(self._setup.credentials)
            access = access_of(credentials)
        except MissingCredentials as error:
            raise _Fault("credentials", "no-credentials", error) from None
        except UsageError as error:
            raise _Fault("credentials", "bad-credentials", error) from None
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
                raise _Fault("address", cause, error) from None
        endpoint = Endpoint.parse(self._setup.endpoint)
        self._good("address", endpoint.ws)
        return endpoint

    async def _reach(self, check: Check, url: str, http: aiohttp.ClientSession) -> Reached:
        try:
            return await reach(url, http, timeout=self._setup.patience, wall=self._setup.wall)
        except Unreached as error:
            raise _Fault(check, error.cause, error) from None

    async def _exchange(
        self, credentials: Any, access: Access, endpoint: Endpoint, http: aiohttp.ClientSession
    ) -> None:
        if access.token_url is not None:
            await self._reach("exchange", access.token_url, http)
        try:
            token = await fetch(credentials, endpoint, http, timeout=self._setup.patience)
        except CredentialsRefused as error:
            raise _Fault("exchange", "credentials-refused", error) from None
        except TokenRefused as error:
            raise _Fault("exchange", "token-refused", error) from None
        except PlanError as error:
            raise _Fault("exchange", "plan", error) from None
        except UsageError as error:
            raise _Fault("exchange", "bad-credentials", error) from None
        except Exception as error:  # of a callable of the user's, say; its words may hold a secret  # noqa: BLE001
            says = (
                error if isinstance(error, BqstreamError) else f"the credentials raise {type(error).__name__}"
            )
            raise _Fault("exchange", "token-endpoint", says) from None
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


class _Live:
    """The checks that take a link: a client of the usual kind, told to give up at once."""

    def __init__(
        self,
        setup: Setup,
        document: Document,
        credentials: Any,
        note: Callable[[Finding], None],
        served: Callable[[], float],
    ) -> None:
        self._setup = setup
        self._document = document
        self._credentials = credentials
        self._note = note
        self._served = served
        self._subscribed: float | None = None  # when, by the service's clock
        self._trouble: asyncio.Future[_Fault] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        setup = self._setup
        timeouts = Timeouts(
            connect=setup.patience, ack=setup.patience, query=setup.patience, idle=setup.idle, close=1.0
        )
        client = Client(
            self._credentials,
            endpoint=setup.endpoint,
            backoff=Backoff(attempts=1),
            backfill="off",
            timeouts=timeouts,
            tls=setup.tls,
            on_event=self._happened,
            **setup.options,
        )
        try:
            async with asyncio.timeout(2 * setup.patience):
                await client.open()
        except (BqstreamError, TimeoutError) as error:
            raise _fault_of(error, acked=False) from None
        try:
            await self._subscribe(client)
        finally:
            await client.aclose()

    async def _subscribe(self, client: Client) -> None:
        setup = self._setup
        loop = asyncio.get_running_loop()
        first, started = asyncio.create_task(self._first_row(client)), loop.time()
        try:
            # A dial and an ack, each with a patience of its own, come before the row.
            await self._either(first, 3 * setup.patience, lambda: self._subscribed is not None)
            await self._either(first, max(setup.within, 1.5 * setup.idle))
            if not first.done():
                cause, says = await self._inquire(client, first)
                if not first.done():
                    self._note(Finding(check="subscribe", says="no error answers it"))
                    raise _Fault("first row", cause, f"the link is alive, and brings nothing: {says}")
            says = first.result()
            self._note(Finding(check="subscribe", says="the service took it"))
            self._note(Finding(check="first row", says=says))
        finally:
            first.cancel()
            await asyncio.wait({first})
        lasted = loop.time() - started
        alive = "the row was a sign of life; what the link does in silence was not waited for"
        if lasted >= setup.idle:
            alive = f"signs of life for {lasted:.0f} s"
        self._note(Finding(check="keep-alive", says=alive))
        self._note(Finding(check="plan", says="its cap leaves room for this subscription"))

    async def _either(
        self, first: asyncio.Task[str], seconds: float, enough: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait for the first row, for a fault, or for ``enough``; no longer than ``seconds``. Raises the fault."""
        ends: tuple[asyncio.Future[Any], ...] = (first, self._trouble)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not (first.done() or self._trouble.done() or enough()) and (left := end - loop.time()) > 0:
            await asyncio.wait(ends, timeout=min(left, 0.05), return_when=asyncio.FIRST_COMPLETED)
        if self._trouble.done():
            raise self._trouble.result()
        if first.done():
            first.result()

    async def _first_row(self, client: Client) -> str:
        setup = self._setup
        loop = asyncio.get_running_loop()
        try:
            async with client.subscribe(
                setup.document, setup.variables, operation_name=setup.operation_name
            ) as stream:
                started = loop.time()
                async for message in stream:
                    if message.errors and message.data is None:
                        raise _Fault("first row", "operation", message.errors[0].get("message", "an error"))
                    if rows := len(list(message.rows())):
                        return f"{counted(rows, 'row')} after {loop.time() - started:.1f} s, on link {message.link}"
                raise _Fault("first row", "ended", "the service completed the subscription without a row")
        except BqstreamError as error:
            raise _fault_of(error, acked=self._subscribed is not None) from None

    async def _inquire(self, client: Client, first: asyncio.Task[str]) -> tuple[Cause, str]:
        """Ask the query side, until it has seen the time in question or patience ends."""
        setup = self._setup
        assert self._subscribed is not None
        inquiry = Inquiry(self._document, setup.variables, subscribed=self._subscribed)
        answers, unknown = None, None
        if inquiry.impossible is None:
            loop = asyncio.get_running_loop()
            end = loop.time() + setup.patience
            while answers is None or not (inquiry.enough(answers) or loop.time() > end or first.done()):
                try:
                    answers = inquiry.read(await client.execute(*inquiry.request()))
                except (BqstreamError, ValueError) as error:
                    unknown = str(error)
                    break
                await asyncio.sleep(min(1.0, setup.patience / 10))
        evidence = inquiry.evidence(self._served(), answers, unknown)
        return why_silent(evidence, stalled_after=setup.stalled_after)

    def _happened(self, event: events.Event) -> None:
        match event:
            case events.Connected(subprotocol=spoken) if self._subscribed is None:
                self._subscribed = self._served()
                self._note(Finding(check="handshake", says="the server took the token and the upgrade"))
                self._note(Finding(check="acknowledged", says=f"it speaks {spoken}"))
            case events.Stalled(seconds=seconds):
                self._end(
                    "keep-alive", "dead-socket", f"no sign of life for {seconds:.1f} s on an open socket"
                )
            case events.SlowConsumer():
                self._end("first row", "needs-filter", "the service closed the link as not read fast enough")
            case events.Refused(why=why) if "the plan's cap" in why:
                self._end("plan", "over-cap", why)

    def _end(self, check: Check, cause: Cause, says: str) -> None:
        if not self._trouble.done():
            self._trouble.set_result(_Fault(check, cause, says))


# How the protocol's table of refusals tells a code: "HTTP 404: …", "close 4406: …".
_CODE = re.compile(r"\b(?:HTTP|close) (\d{3,4})\b")
_CAUSES: dict[int, Cause] = {400: "wrong-address", 404: "wrong-address", 405: "wrong-address", 429: "rate-limit",
                             1015: "tls", 4406: "subprotocol", 4429: "rate-limit", 4504: "no-ack"}  # fmt: skip


def _fault_of(error: BaseException, *, acked: bool) -> _Fault:
    says = str(error)
    match error:
        case DocumentRefused():
            return _Fault("subscribe", "document", says)
        case OperationFailed():
            return _Fault("subscribe", "operation", says)
        case TokenRefused():
            return _Fault("subscribe" if acked else _connection(says, acked=False)[0], "token-refused", says)
        case CredentialsRefused():
            return _Fault("exchange", "credentials-refused", says)
        case PlanError():
            return _Fault("plan", "plan", says)
        case UsageError():
            return _Fault("subscribe", "document", says)
        case ConnectionGivenUp():
            says = says.partition("; the last: ")[2] or says
            return _Fault(*_connection(says, acked=acked), says)
    return _Fault("exchange", "token-endpoint", "no token within the time")


def _connection(says: str, *, acked: bool) -> tuple[Check, Cause]:
    if "no connection_ack" in says:
        return "acknowledged", "no-ack"
    if says.startswith("connection_error"):
        return "acknowledged", "connection"
    found = _CODE.search(says)
    code = int(found[1]) if found else 0
    check: Check = "first row" if acked else "handshake" if code < 1000 else "acknowledged"
    if 500 <= code < 600 or code in (1011, 1012, 4500):
        return check, "server-fails"
    return check, _CAUSES.get(code, "connection")
