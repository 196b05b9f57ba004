"""The checks of an examination that take a link: from the handshake to the first row, or to why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .. import Backoff, Client, Timeouts, events
from ..delivery.document import Document
from ..errors import BqstreamError
from ..wording import counted
from .findings import Cause, Check, Finding
from .refusals import Fault, fault_of
from .setup import Setup
from .silence import Inquiry, why_silent


class Live:
    """The checks that take a link: a client of the usual kind, told to give up at once."""

    def __init__(
        self,
        setup: Setup,
        document: Document,
        credentials: Any,
        note: Callable[[Finding], None],
        served: Callable[[], float],
    ) -> None:
        """``served`` tells the service's time."""
        self._setup = setup
        self._document = document
        self._credentials = credentials
        self._note = note
        self._served = served
        self._subscribed: float | None = None  # when, by the service's clock
        self._trouble: asyncio.Future[Fault] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Make the checks. Raises Fault."""
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
            raise fault_of(error, acked=False) from None
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
                    raise Fault("first row", cause, f"the link is alive, and brings nothing: {says}")
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
                        raise Fault("first row", "operation", message.errors[0].get("message", "an error"))
                    if rows := len(list(message.rows())):
                        return f"{counted(rows, 'row')} after {loop.time() - started:.1f} s, on link {message.link}"
                raise Fault("first row", "ended", "the service completed the subscription without a row")
        except BqstreamError as error:
            raise fault_of(error, acked=self._subscribed is not None) from None

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
            self._trouble.set_result(Fault(check, cause, says))
