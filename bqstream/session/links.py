"""The links that a supervisor has open: opening, running, judging and closing them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import anyio
import anyio.abc

from .. import events
from ..clock import Clock
from ..config import Backoff, Timeouts
from ..credentials.token import HeldToken
from ..errors import BqstreamError
from ..protocol.verdicts import Action, Verdict
from .dialer import Dialer, DialRefused
from .link import Link, Owner


class TokenKeeper(Protocol):
    """What the session needs of a keeper."""

    async def current(self) -> HeldToken: ...
    async def newer(self, than: HeldToken) -> HeldToken: ...
    def refused(self, held: HeldToken, why: str, *, sure: bool = True) -> None: ...
    def worked(self, held: HeldToken) -> None: ...


@dataclass(slots=True, kw_only=True)
class Shared:
    """What all supervisors of a session share. ``turn``: links rotate one at a time."""

    dialer: Dialer
    keeper: TokenKeeper
    timeouts: Timeouts
    backoff: Backoff
    clock: Clock
    on_event: Callable[[events.Event], None]
    mode: Literal["overlap", "replace"] = "overlap"
    dialled: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def emit(self, event: type[events.Event], **values: Any) -> None:
        self.on_event(event(at=events.moment(self.clock.wall()), **values))


class Links:
    """Opens links and runs each in a task of ``tasks``; whoever waits for any change of theirs waits here."""

    def __init__(self, shared: Shared, owner: Owner, on_token_fatal: Callable[[BqstreamError], None]) -> None:
        self._shared = shared
        self._owner = owner
        self._on_token_fatal = on_token_fatal
        self._wake = asyncio.Event()
        self.open: list[Link] = []
        self.tasks: anyio.abc.TaskGroup

    def changed(self) -> None:
        """Something happened that the waiter may be waiting for."""
        self._wake.set()

    async def until(self, condition: Callable[[], bool], *, timeout: float | None = None) -> None:
        """Wait until ``condition`` holds, looked at after every change; ``timeout`` seconds at most."""
        with anyio.move_on_after(timeout):
            while not condition():
                self._wake.clear()
                await self._wake.wait()

    async def dial(self, held: HeldToken) -> Link:
        """Open a link and wait for its ack. Raises DialRefused; cancelling leaves no socket."""
        shared = self._shared
        connection, machine, init = await shared.dialer.dial(held)
        shared.dialled += 1
        link = Link(
            shared.dialled,
            held,
            connection,
            machine,
            self._owner,
            timeouts=shared.timeouts,
            clock=shared.clock,
        )
        self.open.append(link)
        self.tasks.start_soon(self._run, link, init)
        try:
            await self.until(lambda: link.acked or link.ended)
        except BaseException:
            link.abort()
            raise
        if link.ended:
            raise DialRefused(self.judge(link))
        shared.emit(events.Connected, link=link.number, subprotocol=machine.subprotocol)
        return link

    async def _run(self, link: Link, init: Mapping[str, Any] | None) -> None:
        try:
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._watch_token, link)
                await link.run(init)
                watch.cancel_scope.cancel()
        finally:
            self.open.remove(link)
            self.changed()

    async def _watch_token(self, link: Link) -> None:
        """A newer token makes a rotation due. Where none can ever be had, what is served is served on."""
        try:
            await self._shared.keeper.newer(link.held)
        except BqstreamError as error:
            self._on_token_fatal(error)
        else:
            link.want_rotation()

    def judge(self, link: Link) -> Verdict:
        """Say in events how ``link`` ended, and give what helps."""
        shared, ending = self._shared, link.ending
        assert ending is not None, "only a link that ended has a verdict"
        if ending.stalled is not None:
            shared.emit(events.Stalled, link=link.number, seconds=ending.stalled)
        if ending.verdict.slow:
            shared.emit(events.SlowConsumer, link=link.number)
        shared.emit(events.Lost, link=link.number, why=ending.verdict.why)
        return self._switched(link, ending.verdict)

    def _switched(self, link: Link, verdict: Verdict) -> Verdict:
        """A subprotocol that the server does not speak is given up for the other one, before the ack only."""
        if not verdict.switch:
            return verdict
        if link.acked:
            return replace(verdict, switch=False, once=False, few=True)
        if self._shared.dialer.switch(link.machine.subprotocol):
            return verdict
        return replace(verdict, action=Action.END_CLIENT, switch=False)

    def drop(self, link: Link) -> Verdict:
        """``link`` ended by itself: judge it, and tell the receivers of all that ran on it."""
        verdict = self.judge(link)
        if verdict.action is Action.END_OPERATION:
            verdict = self._owner.blame(link, verdict)
        for entry in link.clear():
            entry.operation.receiver.lost(link.number, self._shared.clock.monotonic(), verdict.why)
        return verdict

    def close_soon(self, link: Link) -> None:
        """Close ``link`` in a task of its own; nobody waits for the handshake."""
        self.tasks.start_soon(link.close)

    async def close_all(self) -> None:
        """Close every link and wait until they are gone."""
        for link in self.open:
            self.close_soon(link)
        await self.until(lambda: not self.open)
