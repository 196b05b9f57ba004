"""An event loop whose time jumps: hours of waiting pass in no time, and always the same way.

    @virtual_time
    async def test_an_hour_passes():
        clock = virtual_clock()     # a bqstream Clock; both clocks run on the loop's virtual time
        await asyncio.sleep(3600)   # returns at once; an hour has passed on both clocks
        suspend(600)                # the machine slept: only the wall clock moved on

When nothing is ready, the loop's time jumps to the next timer. When there is no timer either, nothing can
ever happen again, and the test fails with ``StuckError``. Not for sockets to other processes and not for
threads, whose time is real; a socket within the process works, since what one end has sent is at once ready
at the other. What is given to an executor (names that are looked up, files that are read) is done on the spot.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

from bqstream.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
SPINNING = 1000  # turns of the loop in which time stands still, before it creeps on by microseconds
WALL_AT_START = 1_700_000_000.0


class StuckError(Exception):
    """Every task waits, and no timer is left that could wake one."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: with nothing ready, the loop's time moves by what the loop was going to wait."""

    loop: VirtualTimeLoop
    still = 0  # turns of the loop since its time moved

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self.still += 1
        if ready or timeout == 0:
            if self.still > SPINNING:
                # Code that waits for "what is left", a rounding error, would otherwise spin for ever.
                self.loop.now += 1e-6
            return ready
        self.still = 0
        if timeout is None:
            # The kernel may need a moment to carry bytes between two sockets of this process.
            ready = super().select(0.25)
            if not ready:
                raise StuckError("every task waits and no timer is left")
            return ready
        self.loop.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``time()`` starts at 0. ``wall_ahead`` is how far the wall clock has run ahead of it by ``suspend``."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.now = 0.0
        self.wall_ahead = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future


def _running() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "mark the test with @virtual_time"
    return loop


def virtual_clock() -> Clock:
    """Both clocks on the running loop's virtual time; the wall clock starts at ``WALL_AT_START``."""
    loop = _running()
    return Clock(monotonic=loop.time, wall=lambda: WALL_AT_START + loop.now + loop.wall_ahead)


def suspend(seconds: float) -> None:
    """Let the wall clock alone move on, as when a machine slept (negative: somebody set it back)."""
    _running().wall_ahead += seconds


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a ``VirtualTimeLoop`` of its own. Needs no pytest-asyncio mark; fixtures work."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"the test leaves tasks behind: {left}"

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    return run
