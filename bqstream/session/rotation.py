"""Drives one handover: looks at two links and their operations, and does what the pure machine decides."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import anyio

from .. import events
from ..credentials.token import HeldToken
from ..protocol.verdicts import Verdict
from .dialer import DialRefused
from .handover import CAP_MESSAGES, Decision, Handover, Input, Sight
from .link import Entry, Link
from .links import Links, Shared
from .operation import Operation

# How often a handover looks whether its operations have crossed, in seconds.
TICK = 0.05
# After the plan's cap has shown, overlap is tried again this much later, in seconds (design: handover, step 4).
OVERLAP_AGAIN = 3600.0


class HandoverFailed(Exception):
    """The new link came to nothing; the old one serves on, unless it has ended too."""

    def __init__(self, verdict: Verdict, held: HeldToken) -> None:
        super().__init__(verdict.why)
        self.verdict = verdict
        self.held = held


def closing_margin(held: HeldToken) -> float:
    """How long before its token's expiry a link is closed, in seconds."""
    lifetime = held.token.expires_in
    return 0.0 if lifetime is None else min(1.0, 0.1 * lifetime)


class Rotation:
    """Moves a supervisor's operations from link to link; remembers whether the plan's cap forbids overlap.

    ``start_all(link, grace)`` starts every operation on ``link`` that does not run there, and makes it the one on
    which later operations are started.
    """

    def __init__(
        self,
        shared: Shared,
        links: Links,
        operations: Mapping[int, Operation],
        start_all: Callable[[Link, float], None],
    ) -> None:
        self._shared = shared
        self._links = links
        self._operations = operations
        self._start_all = start_all
        self._now = shared.clock.monotonic
        self._overlap_from = 0.0 if shared.mode == "overlap" else float("inf")

    async def run(self, old: Link) -> Link:
        """Hand over from ``old`` to a new link with the current token; gives the new one.

        Raises HandoverFailed, and what the keeper raises where no token can be had.
        """
        async with self._turn(old):
            held = await self._shared.keeper.current()
            if self._now() < self._overlap_from:
                return await self._replace(old, held)
            return await self._overlap(old, held)

    @contextlib.asynccontextmanager
    async def _turn(self, old: Link) -> AsyncIterator[None]:
        """Links rotate one at a time, as long as waiting leaves enough time to prove the crossing."""
        turn, shared = self._shared.turn, self._shared
        least = 3 * shared.timeouts.grace
        while turn.locked() and not old.ended and old.held.remaining(shared.clock) > least:
            await self._links.until(lambda: old.ended, timeout=TICK)
        mine = not turn.locked()
        if mine:
            await turn.acquire()
        try:
            yield
        finally:
            if mine:
                turn.release()

    # ------------------------------------------------------------------ overlap

    async def _overlap(self, old: Link, held: HeldToken) -> Link:
        clock = self._shared.clock
        handover = Handover(
            now=self._now(),
            expires_at=self._now() + old.held.remaining(clock),
            margin=closing_margin(old.held),
            grace=self._shared.timeouts.grace,
            successor=held.remaining(clock),
        )
        try:
            new = await self._links.dial(held)
        except DialRefused as refused:
            raise HandoverFailed(refused.verdict, held) from None
        if old.ended:
            handover.tell(self._now(), Input.OLD_ENDED)
        decision = handover.tell(self._now(), Input.NEW_ACKED)
        sight = _Sight(self._operations, old, new, handover.grace, self._now)
        if decision is Decision.START:
            self._start_all(new, handover.grace)
            async with anyio.create_task_group() as beating:
                beating.start_soon(sight.beat)
                while decision in (Decision.START, Decision.NOTHING):
                    await self._links.until(lambda: old.ended or new.ended or new.capped, timeout=TICK)
                    decision = self._decide(handover, old, new, sight)
                beating.cancel_scope.cancel()
        match decision:
            case Decision.CROSS:
                silent = sight.silent()
                self._cross(old, new)
                self._start_all(new, self._shared.timeouts.grace)  # what an error kept from starting
                if silent:
                    self._links.tasks.start_soon(self._doubt_silence, new, silent)
            case Decision.PROMOTE:
                self._promote(old, new)
            case Decision.REPLACE:
                return await self._give_up(old, new, held)
            case _:
                raise HandoverFailed(self._links.drop(new), held)
        return new

    def _decide(self, handover: Handover, old: Link, new: Link, sight: _Sight) -> Decision:
        now = self._now()
        if new.ended:
            return handover.tell(now, Input.NEW_ENDED)
        if old.ended:
            return handover.tell(now, Input.OLD_ENDED)
        if new.capped:
            return handover.tell(now, Input.CAPPED)
        return handover.observe(now, sight.look(now))

    def _promote(self, old: Link, new: Link) -> None:
        self._links.drop(old)
        self._start_all(new, self._shared.timeouts.grace)

    def _cross(self, old: Link, new: Link) -> None:
        """``old`` goes: its operations go on on ``new``, proven or not."""
        now = self._now()
        unproven = merged = 0
        for entry in old.clear():
            if entry.operation.key in new.running:
                crossed = entry.operation.receiver.cross(new.number, now)
                unproven += not crossed.proven
                merged += crossed.merged
            else:
                unproven += 1
                entry.operation.receiver.lost(
                    old.number, now, "it could not be started on the new link in time"
                )
        self._links.close_soon(old)
        self._handed_over(old, new, "overlap", unproven, merged)

    async def _doubt_silence(self, link: Link, silent: list[Entry]) -> None:
        """There was no time to tell a lagging link from one that the plan's cap keeps silent: look once more.

        With tokens of seconds ``link`` may have been handed over by then: it was silent all its life.
        """
        await anyio.sleep(self._shared.timeouts.grace)
        known = self._now() < self._overlap_from
        lost = link.ending is not None and not link.ending.expected
        if not (known or lost) and any(
            entry.messages == 0 and link.running.get(entry.operation.key, entry) is entry
            for entry in silent
            if entry.operation.key in self._operations
        ):
            self._cap_shown()
            link.want_rotation()

    def _cap_shown(self) -> None:
        self._overlap_from = self._now() + OVERLAP_AGAIN
        why = (
            "the plan's cap on concurrent subscriptions keeps a second link silent: handing over by replacing"
        )
        self._shared.emit(events.Refused, what="overlap", why=why)

    async def _give_up(self, old: Link, new: Link, held: HeldToken) -> Link:
        """The plan's cap: ``new`` goes, and what it holds with it."""
        self._cap_shown()
        for entry in new.clear():
            entry.operation.receiver.lost(new.number, self._now(), "the plan's cap kept this link silent")
        self._start_all(old, self._shared.timeouts.grace)
        await new.close()
        return await self._replace(old, held)

    # ------------------------------------------------------------------ replace

    async def _replace(self, old: Link, held: HeldToken) -> Link:
        """Close, then open. The new link is acknowledged before the old one goes, and started after: the hole is
        as small as it can be where the plan allows no two subscriptions."""
        try:
            new = await self._links.dial(held)
        except DialRefused as refused:
            raise HandoverFailed(refused.verdict, held) from None
        if old.ended:
            self._promote(old, new)
            return new
        for entry in old.clear():
            entry.operation.receiver.lost(
                old.number, self._now(), "handed over by closing the old link first", cause="replaced"
            )
        await old.close()
        self._start_all(new, self._shared.timeouts.grace)
        self._handed_over(old, new, "replace", len(new.running), 0)
        return new

    def _handed_over(self, old: Link, new: Link, mode: str, unproven: int, merged: int) -> None:
        self._shared.emit(
            events.HandedOver,
            old=old.number,
            new=new.number,
            mode=mode,
            operations=len(new.running),
            unproven=unproven,
            merged=merged,
        )


class _Sight:
    """What the driver sees of every operation while two links serve.

    What it remembers goes by the id of the operation's start on the new link, since one that was refused there is
    started again.
    """

    def __init__(
        self,
        operations: Mapping[int, Operation],
        old: Link,
        new: Link,
        grace: float,
        now: Callable[[], float],
    ) -> None:
        self._now = now
        self._operations = operations
        self._old = old
        self._new = new
        self._grace = grace
        self._at_start: dict[str, int] = {}  # what the old link had brought at the start on the new one …
        self._at_grace: dict[str, int] = {}  # … and a grace later
        self._busy: dict[str, float] = {}  # when enough had come on the old one since to show the cap
        self._crossed: set[str] = set()
        self._asked = float("inf")
        self._beaten: float | None = None

    async def beat(self) -> None:
        """Learn when both links had answered a ping: a quiet operation may not cross before."""
        answers: list[float | None] = []

        async def ask(link: Link) -> None:
            answers.append(await link.round_trip())

        self._asked = self._now()
        async with anyio.create_task_group() as both:
            both.start_soon(ask, self._old)
            both.start_soon(ask, self._new)
        times = [answer for answer in answers if answer is not None]
        self._beaten = max(times) if len(times) == 2 else None

    def silent(self) -> list[Entry]:
        """What brought nothing on the new link, though the old one was busy with it."""
        return [
            entry
            for key, entry in self._new.running.items()
            if not entry.messages
            and (old := self._old.running.get(key)) is not None
            and old.messages - self._at_start.get(entry.id, old.messages) >= CAP_MESSAGES
        ]

    def look(self, now: float) -> list[Sight]:
        # A list of its own, since a receiver that stops at a gap has its operation removed at once.
        return [self._sight(operation, now) for operation in list(self._operations.values())]

    def _sight(self, operation: Operation, now: float) -> Sight:
        old, new = self._old.running.get(operation.key), self._new.running.get(operation.key)
        if new is None:
            return Sight(crossed=False)
        if old is None:
            return Sight(crossed=True, new_messages=new.messages)
        self._at_start.setdefault(new.id, old.messages)
        late = 0
        if now >= new.started + self._grace:
            late = old.messages - self._at_grace.setdefault(new.id, old.messages)
            # A block's messages come all at once, and the new link may lag behind the old one by a grace.
            if late >= CAP_MESSAGES and now < self._busy.setdefault(new.id, now) + self._grace:
                late = 0
        if new.id not in self._crossed:
            beaten = self._beaten if self._asked >= new.started else None
            if operation.receiver.crossed(self._new.number, now, beaten=beaten):
                self._crossed.add(new.id)
        return Sight(crossed=new.id in self._crossed, old_late=late, new_messages=new.messages)
