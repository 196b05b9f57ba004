"""Cancelling the session at any step of a busy life leaves no task, no socket and no timer that does anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.virtual_time import VirtualTimeLoop

from .service import World, mute, recorder, settle


class SteppingLoop(VirtualTimeLoop):
    """Cancels ``victim`` at step ``at``; a step is one callback that is put on the loop."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.steps = 0
        self.victim: asyncio.Task[Any] | None = None

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = super().call_soon(callback, *args, context=context)
        if self.victim is not None:
            self.steps += 1
            if self.steps == self.at:
                super().call_soon(self.victim.cancel)
        return handle


async def hand_over(w: World) -> None:
    """Dial, overlap, add and remove, cross, and close the last link."""
    one, two = w.add(), w.add()
    await settle()
    w.service.publish()
    await asyncio.sleep(1)
    w.keeper.renew()
    await asyncio.sleep(0.2)
    w.service.publish()
    w.remove(two)
    recorder(one).has_crossed = True
    await asyncio.sleep(0.2)
    w.remove(one)
    await asyncio.sleep(0.1)


async def replace(w: World) -> None:
    """The plan's cap shows, and the old link is replaced."""
    w.add()
    await settle()
    w.keeper.renew()
    await settle()
    if len(w.service.sockets) == 2 and w.service.newest.live:
        w.service.newest.error(
            next(iter(w.supervisor.operations.values())), "too many concurrent subscriptions"
        )
    await asyncio.sleep(1)


async def trouble(w: World) -> None:
    """A link without an ack, one that is lost, a refused start, a slow reader, a keeper without a token."""
    w.service.scripts.append(mute)
    operation = w.add()
    await asyncio.sleep(14)
    if w.service.open and w.service.newest.live:
        w.service.newest.data(operation)
        await settle()
        recorder(operation).room = False
        w.service.publish()
        await asyncio.sleep(2.1)
    w.keeper.held = None
    for socket in w.service.open:
        socket.shut(1006)
    await asyncio.sleep(2)
    w.keeper.renew()
    await settle()
    await w.session.aclose()


Story = Callable[[World], Awaitable[None]]


def cancelled_at(step: int, story: Story) -> int:
    """Run ``story``, the session being cancelled at ``step``; gives the steps that the whole takes."""
    loop = SteppingLoop(step)

    async def main() -> None:
        w = World()
        running = asyncio.create_task(w.session.run())
        telling = asyncio.ensure_future(story(w))
        loop.victim = running
        await asyncio.wait({running, telling}, return_when=asyncio.FIRST_COMPLETED)
        loop.victim = None
        for task in (running, telling):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert w.service.open == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
        told, dialled = len(w.events), len(w.service.targets)
        await asyncio.sleep(1000)
        assert (len(w.events), len(w.service.targets)) == (told, dialled), "something went on"

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    return loop.steps


@pytest.mark.parametrize("story", [hand_over, replace, trouble])
def test_cancelling_at_any_step_leaves_nothing(story: Story) -> None:
    whole = cancelled_at(0, story)
    assert whole > 50, "the story is too short to be worth it"
    for step in range(1, whole + 1):
        cancelled_at(step, story)
