"""Keeps one link alive under a set of operations: dials, starts, hands over, recovers."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from dataclasses import replace
from typing import Any

import anyio

from .. import events
from ..credentials.token import HeldToken
from ..errors import (
    BqstreamError,
    ConnectionGivenUp,
    DocumentRefused,
    OperationFailed,
    PlanError,
    TokenRefused,
)
from ..protocol.verdicts import Action, Kind, Verdict, classify_errors
from .backoff import Schedule
from .dialer import DialRefused
from .link import Entry, Link
from .links import Links, Shared
from .operation import Operation
from .rotation import HandoverFailed, Rotation

_log = logging.getLogger("bqstream.session")
# A start that the service answers with an error is tried so often in a row before the operation fails, where it
# has been served before or the error passes.
START_ATTEMPTS = 6
# What a server that merely fails may do a few times in a row (protocol.md: "RETRY, few").
FEW = 6


class State(enum.Enum):
    """Where a supervisor stands."""

    IDLE = "idle"  # no operation, no link
    CONNECTING = "connecting"
    WAITING = "waiting"  # backing off
    LIVE = "live"
    ROTATING = "rotating"  # handing over
    CLOSED = "closed"


def error_for(verdict: Verdict, errors: tuple[dict[str, Any], ...] = ()) -> BqstreamError:
    """The error that a user gets where a verdict ends something."""
    match verdict.kind:
        case Kind.TOKEN:
            return TokenRefused(verdict.why)
        case Kind.PLAN:
            return PlanError(verdict.why)
        case Kind.DOCUMENT:
            return DocumentRefused(verdict.why, errors)
        case Kind.OPERATION:
            return OperationFailed(verdict.why, errors)
        case Kind.CONNECTION:
            return ConnectionGivenUp(verdict.why)


class Supervisor:
    """One link at a time (two during a handover), and the operations on it.

    ``run()`` owns every task and link that there is; cancelling it drops them all.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._now = shared.clock.monotonic
        self._links = Links(shared, self, self._token_fatal)
        self._schedule = Schedule(shared.backoff)
        self._rotation_schedule = Schedule(shared.backoff)
        self._refused_once = False
        self._few = 0
        self._later: set[int] = set()  # the operations whose next start waits
        self._serving: Link | None = None  # where new operations are started
        self._grace = shared.timeouts.grace
        self._attempt: anyio.CancelScope | None = None
        self.state = State.IDLE
        self.operations: dict[int, Operation] = {}
        self.rotations = 0
        self.reconnects = 0
        self._rotation = Rotation(shared, self._links, self.operations, self._start_all)

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that are open now."""
        return tuple(self._links.open)

    # ------------------------------------------------------------------ operations

    def add(self, operation: Operation) -> None:
        """Serve ``operation`` from now on, on the link that is live or the next one."""
        self.operations[operation.key] = operation
        if self._serving is not None:
            self._start(self._serving, operation)
        self.changed()

    def remove(self, operation: Operation) -> None:
        """Unsubscribe ``operation``; with the last one the link is closed."""
        if self.operations.pop(operation.key, None) is None:
            return
        for link in self._links.open:
            link.stop(operation)
        if not self.operations and self._attempt is not None:
            self._serving = None  # it is about to be closed: what is added now waits for the next
            self._attempt.cancel()
        self.changed()

    def has_room(self, operation: Operation) -> None:
        """``operation``'s buffer is half empty again."""
        for link in self._links.open:
            link.has_room(operation)

    def fail_all(self, error: BqstreamError) -> None:
        """End every operation with ``error``; one that is added later begins anew."""
        for operation in list(self.operations.values()):
            self._fail(operation, error)

    def _start(self, link: Link, operation: Operation) -> None:
        if link.start(operation, grace=self._grace):
            operation.settle()

    def _start_all(self, link: Link, grace: float) -> None:
        self._serving, self._grace = link, grace
        for operation in list(self.operations.values()):
            self._start(link, operation)

    def _fail(self, operation: Operation, error: BqstreamError) -> None:
        operation.settle(error)
        self.remove(operation)
        operation.receiver.failed(error, self._now())

    # ------------------------------------------------------------------ the life of the links

    async def run(self) -> None:
        """Serve until cancelled. What nothing can mend fails the operations; a later one begins anew."""
        try:
            async with anyio.create_task_group() as self._links.tasks:
                while True:
                    self.state = State.IDLE
                    await self._links.until(lambda: bool(self.operations))
                    with anyio.CancelScope() as self._attempt:  # left when the last operation goes
                        await self._serve_operations()
                    self._serving = self._attempt = None
                    for link in self._links.open:
                        self._gone(link)
                    await self._links.close_all()
        finally:
            self.state = State.CLOSED

    async def aclose(self) -> None:
        """Unsubscribe everything and close every link politely, within ``timeouts.close``; then ``run()`` may be
        cancelled."""
        for operation in list(self.operations.values()):
            self.remove(operation)
        await self._links.close_all()

    async def _serve_operations(self) -> None:
        try:
            link: Link | None = None
            while True:
                link = await self._serve(link or await self._connect())
        except BqstreamError as error:
            self.fail_all(error)
            self._schedule.failures, self._refused_once, self._few = 0, False, 0

    async def _connect(self) -> Link:
        """Dial until a link is acknowledged, and start every operation on it."""
        while True:
            self.state = State.CONNECTING
            held = await self._shared.keeper.current()
            try:
                link = await self._links.dial(held)
            except DialRefused as refused:
                await self._recover(refused.verdict, held)
                continue
            self._start_all(link, self._shared.timeouts.grace)
            return link

    async def _serve(self, link: Link) -> Link | None:
        """Let ``link`` serve until another one has taken over (that one) or it is lost (``None``)."""
        self.state = State.LIVE
        rotate_at = 0.0
        while not link.ended:
            if not link.rotation_due:
                await self._links.until(lambda: link.ended or link.rotation_due)
            elif (pause := rotate_at - self._now()) > 0:
                await self._links.until(lambda: link.ended, timeout=pause)
            else:
                self.state = State.ROTATING
                try:
                    successor = await self._rotation.run(link)
                except BqstreamError as error:  # no token can be had: what runs is served on
                    self._token_fatal(error)
                    rotate_at, self.state = math.inf, State.LIVE
                except HandoverFailed as failed:
                    rotate_at = self._now() + self._rotation_failed(failed.verdict, failed.held)
                    self.state = State.LIVE
                    if not link.ended:
                        self._start_all(link, self._shared.timeouts.grace)  # what was added meanwhile
                else:
                    self.rotations += 1
                    self._rotation_schedule.failures = 0
                    self._gone(link)
                    return successor
        self._serving = None
        verdict = self._links.drop(link)
        self._gone(link, slow=verdict.slow)
        self.reconnects += 1
        await self._recover(verdict, link.held)
        return None

    def _gone(self, link: Link, *, slow: bool = False) -> None:
        """``link`` serves no more. If it was healthy its token worked, and waits begin anew; if it brought anything,
        what is fatal in a row is none."""
        healthy = self._schedule.proved(lived=link.lived(), messages=link.messages, slow=slow)
        if healthy:
            self._shared.keeper.worked(link.held)
        if healthy or link.messages:
            self._refused_once, self._few = False, 0

    def _rotation_failed(self, verdict: Verdict, held: HeldToken) -> float:
        """The old link serves on, so nothing is fatal yet. Gives the seconds until the next attempt."""
        if verdict.switch:
            return 0.0
        refresh = verdict.action is Action.REFRESH
        self._shared.emit(events.Refused, what="token" if refresh else "handover", why=verdict.why)
        if refresh:
            self._refused(held, verdict)
        wait = self._rotation_schedule.failed(verdict)
        return self._shared.backoff.maximum if wait is None else wait

    # ------------------------------------------------------------------ recovery

    async def _recover(self, verdict: Verdict, held: HeldToken) -> None:
        """Do what helps against ``verdict``, or raise the error that says that nothing does."""
        if verdict.switch:
            return
        again = verdict.once and self._refused_once
        match verdict.action:
            case Action.REFRESH if again and verdict.kind is Kind.CONNECTION:
                await self._back_off(verdict)
            case Action.REFRESH:
                self._shared.emit(events.Refused, what="token", why=verdict.why)
                if self._schedule.failed(verdict) is None or again:
                    raise error_for(verdict)
                self._refused_once = verdict.once
                self._refused(held, verdict)
            case Action.RETRY:
                await self._back_off(verdict)
            case Action.END_OPERATION:
                return  # the one to blame is gone; the others are started again
            case Action.END_CLIENT:
                self._shared.emit(events.Refused, what="connection", why=verdict.why)
                raise error_for(verdict)

    def _refused(self, held: HeldToken, verdict: Verdict) -> None:
        self._shared.keeper.refused(held, verdict.why, sure=verdict.kind is Kind.TOKEN)

    async def _back_off(self, verdict: Verdict) -> None:
        wait = self._schedule.failed(verdict)
        failures = self._schedule.failures
        self._few = self._few + 1 if verdict.few else 0
        if wait is None or self._few >= FEW:
            raise ConnectionGivenUp(f"gave up after {failures} failures in a row; the last: {verdict.why}")
        self.state = State.WAITING
        until = events.moment(self._shared.clock.wall() + wait)
        self._shared.emit(events.Waiting, until=until, attempt=failures, why=verdict.why)
        if failures > 1:  # one drop is nothing; who asks for no events shall know why nothing comes
            _log.warning("no connection: %s; attempt %d, the next in %.1f s", verdict.why, failures, wait)
        await asyncio.sleep(wait)

    def _token_fatal(self, error: BqstreamError) -> None:
        """No newer token can ever be had: what runs on an open link is served on, the rest is over."""
        self._shared.emit(events.Refused, what="credentials", why=str(error))
        for operation in list(self.operations.values()):
            if not any(operation.key in link.running for link in self._links.open):
                self._fail(operation, error)

    # ------------------------------------------------------------------ what links tell

    def changed(self) -> None:
        self._links.changed()

    def operation_completed(self, link: Link, entry: Entry) -> None:
        """The operation is over, unless an older link still brings it: then only this start came to nothing."""
        operation = entry.operation
        if any(operation.key in other.running for other in self._links.open if other.number < link.number):
            operation.receiver.lost(link.number, self._now(), "the service completed it on the new link")
            return
        operation.settle()
        self.remove(operation)
        operation.receiver.completed(self._now())

    def blame(self, link: Link, verdict: Verdict) -> Verdict:
        """A server may close the whole socket for one document's syntax: the newest unanswered operation is it
        (protocol.md, item 22), and is never started again. One that was served before cannot be."""
        for entry in reversed(link.entries.values()):
            operation = entry.operation
            if not (entry.messages or operation.served or self._runs_elsewhere(operation, link)):
                link.forget(operation)
                if not operation.fall_back():
                    self._fail(operation, DocumentRefused(verdict.why))
                return verdict
        return replace(verdict, action=Action.RETRY, few=True)

    def _runs_elsewhere(self, operation: Operation, link: Link) -> bool:
        return any(operation.key in other.running for other in self._links.open if other is not link)

    def operation_errored(self, link: Link, entry: Entry, errors: tuple[dict[str, Any], ...]) -> None:
        """An error answers a start, or ends an operation that was running: for that operation alone."""
        operation = entry.operation
        verdict = classify_errors(errors)
        what = f"operation {operation.key}"
        self._shared.emit(events.Refused, what=what, why=verdict.why)
        answers_start = entry.messages == 0
        elsewhere = self._runs_elsewhere(operation, link)
        passing = (
            verdict.action in (Action.REFRESH, Action.RETRY)
            or elsewhere
            or (answers_start and operation.served)
        )
        operation.refusals += 1
        if not passing or operation.refusals >= START_ATTEMPTS:
            refused = verdict.kind in (Kind.DOCUMENT, Kind.OPERATION)
            if refused and answers_start and not elsewhere and operation.fall_back():
                if self._serving is not None:
                    self._start(self._serving, operation)
            else:
                self._fail(operation, error_for(verdict, errors))
            return
        operation.receiver.lost(link.number, self._now(), verdict.why)
        link.capped = link.capped or (verdict.cap and elsewhere)
        if verdict.action is Action.REFRESH:
            self._shared.keeper.refused(link.held, verdict.why)  # a newer token starts it on the next link
        elif not link.capped and operation.key not in self._later:
            wait = max(verdict.floor, self._shared.backoff.initial) * 2 ** (operation.refusals - 1)
            self._later.add(operation.key)
            self._links.tasks.start_soon(
                self._start_later, operation, min(wait, self._shared.backoff.maximum)
            )

    async def _start_later(self, operation: Operation, wait: float) -> None:
        await asyncio.sleep(wait)
        self._later.discard(operation.key)
        if operation.key in self.operations and self._serving is not None:
            self._start(self._serving, operation)
