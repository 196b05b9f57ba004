"""Cancel a scenario at its first suspension, its second, its third … until it completes uncancelled.

A suspension is any moment at which a task of the scenario gives way to the loop: the scenario's own task, or one
that was started on its behalf, however deep inside the client. Tasks are told apart by a context variable, which
children inherit; what a server in the same loop does is not counted.
"""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal

Whom = Literal["the user", "everybody"]
When = Literal["waiting", "waking"]
# anyio makes a coroutine before the task that is to run it. A task that is cancelled before its first step, which only
# happens where all tasks are cancelled at once, leaves that coroutine behind.
_UNSTARTED = re.compile(r"warned: coroutine '[\w.<>]+' was never awaited")
_run: ContextVar[Run | None] = ContextVar("run", default=None)


class Run:
    """One go of a scenario, cancelled at its suspension number ``at`` (from 1).

    ``whom``  "the user": the scenario's own task, whoever suspended; "everybody": all its tasks at once, as
              ``asyncio.run`` does on Ctrl-C.
    ``when``  "waiting": while what it waits for is not there; "waking": when it is, before the task has it.
    """

    def __init__(self, at: int, whom: Whom, when: When) -> None:
        self.at = at
        self.whom = whom
        self.when = when
        self.suspensions = 0
        self.cancelled = False
        self.tasks: list[asyncio.Task[Any]] = []

    def suspended(self, waiting_for: asyncio.Future[Any] | None) -> None:
        self.suspensions += 1
        if self.suspensions != self.at:
            return
        if self.when == "waking" and waiting_for is not None:
            waiting_for.add_done_callback(self._cancel)
        else:
            asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self, _: object = None) -> None:
        for task in self.tasks[:1] if self.whom == "the user" else self.tasks:
            self.cancelled = task.cancel() or self.cancelled


class _Counted(Coroutine[Any, Any, Any]):
    """``coroutine``, telling ``run`` of every suspension."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], run: Run) -> None:
        self._coroutine = coroutine
        self._run = run

    def send(self, value: Any) -> Any:
        return self._told(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # cr_frame and the like

    def _told(self, waiting_for: Any) -> Any:
        self._run.suspended(waiting_for)
        return waiting_for


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    run = _run.get()
    if run is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    task = asyncio.Task(_Counted(coroutine, run), loop=loop, **options)
    run.tasks.append(task)
    return task


@asynccontextmanager
async def _complaints() -> AsyncIterator[list[str]]:
    """What is warned of and what nobody caught; all there is to collect is collected when the block is left."""
    loop = asyncio.get_running_loop()
    found: list[str] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: found.append(f"uncaught: {context}"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            yield found
            gc.collect()
        finally:
            loop.set_exception_handler(before)
    found += [f"warned: {warning.message}" for warning in warned]


async def cancelled_everywhere(
    scenario: Callable[[], Awaitable[object]],
    afterwards: Callable[[], Awaitable[object]],
    *,
    whom: Whom,
    when: When,
    first: int = 1,
    step: int = 1,
) -> int:
    """Run ``scenario`` again and again, cancelled ever later, and ``afterwards`` each time; gives how many
    suspensions it has. ``step``: leave out others but every so many; start anywhere up to there.

    Fails where the scenario, cancelled, ends in another way than CancelledError, where a task of it is left, a
    socket that was not open before, a warning, or an exception that nobody caught.
    """
    loop = asyncio.get_running_loop()
    sockets: Any = loop._selector.get_map()  # type: ignore[attr-defined]
    loop.set_task_factory(_task)
    gc.collect()
    gc.freeze()  # what is old is not looked at by every collection
    at = first
    try:
        while True:
            open_before = len(sockets)
            async with _complaints() as complaints:
                run = Run(at, whom, when)
                token = _run.set(run)
                task = asyncio.ensure_future(scenario())
                _run.reset(token)
                await asyncio.wait({task})
                where = f"cancelled {whom} {when} at suspension {at}"
                left = [one for one in run.tasks if not one.done()]
                assert not left, f"{where}: tasks are left: {left}"
                assert not (run.cancelled and not task.cancelled() and task.exception()), f"{where}: {task}"
                if not run.cancelled:
                    task.result()
                for _ in range(1000):
                    if len(sockets) <= open_before:
                        break
                    await asyncio.sleep(0.001)
                assert len(sockets) <= open_before, f"{where}: {len(sockets) - open_before} sockets are left"
                await afterwards()
                suspensions = run.suspensions
                del task, run, left
            if whom == "everybody":
                complaints = [one for one in complaints if not _UNSTARTED.fullmatch(one)]
            assert not complaints, f"{where}: {complaints}"
            if suspensions < at:
                return suspensions
            at += step
    finally:
        gc.unfreeze()
        loop.set_task_factory(None)
