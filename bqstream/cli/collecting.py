"""Collectors while they run: shown, stopped by signals and by time, and what each came to in the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..collect import Collected, Collector
from ..collect.monitor import TICK, Monitor
from ..collect.web import serve
from ..errors import BqstreamError
from ..wording import counted
from .collect_view import CollectView, view_of
from .json_view import JSONCollect
from .running import SIGNALS, SINK, exit_code, tell
from .settings import Process, secret

# For what is cancelled to end, in seconds; a sink's library may hang.
_LEAVE = 1.0


@contextlib.asynccontextmanager
async def seen(process: Process, monitor: Monitor) -> AsyncIterator[Callable[[str], None]]:
    """Show what happens while the block runs: on standard error, and over HTTP where that was asked for. Gives what
    tells a line there."""
    async with contextlib.AsyncExitStack() as stack:
        view: CollectView = (
            JSONCollect() if process.log == "json" else view_of(sys.stderr, process.log == "plain")
        )
        say = view.say if isinstance(view, JSONCollect) else tell
        if process.http is not None:
            token = secret("BQSTREAM_COLLECT_HTTP_TOKEN")
            say(f"http: {await stack.enter_async_context(serve(monitor, *process.http, token))}")
        stack.enter_context(view)
        tasks = [asyncio.create_task(monitor.run()), asyncio.create_task(_look(monitor, view))]
        try:
            yield say
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            view.show(monitor.picture())


async def _look(monitor: Monitor, view: CollectView) -> None:
    while True:
        view.show(monitor.picture())
        await asyncio.sleep(TICK)


@dataclass(frozen=True, slots=True)
class Ended:
    """How the collectors ended: each with its task.

    ``late``  those that were left in the middle of what they did, and ``why``.
    ``code``  the exit code where none failed.
    """

    tasks: Mapping[asyncio.Task[Collected], Collector]
    late: Sequence[Collector]
    why: str
    code: int


async def run_all(
    collectors: Sequence[Collector], seconds: float | None, stop_within: float, say: Callable[[str], None]
) -> Ended:
    """Run them all. One that ends badly stops the others, which commit what they have; so does a signal. A Ctrl-C after
    the first signal stops that too."""
    loop = asyncio.get_running_loop()
    stopped, hurried = asyncio.Event(), asyncio.Event()
    caught: list[int] = []

    def stop(number: int = 0) -> None:
        if number and not caught:
            say("stopping: what has been read is committed; Ctrl-C ends at once")
        elif number == signal.SIGINT:
            hurried.set()
        caught.extend([number] if number else [])
        stopped.set()

    for number in SIGNALS:
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop, number)
    timer = loop.call_later(seconds, stop) if seconds is not None else None
    tasks = {asyncio.create_task(one.run(), name=f"bqstream collector {one.name}"): one for one in collectors}
    stopping, hurrying = (asyncio.create_task(event.wait()) for event in (stopped, hurried))
    try:
        await _first(tasks, stopping)
        for one in collectors:
            one.stop()
        if pending := [task for task in tasks if not task.done()]:
            ends: list[asyncio.Future[Any]] = [asyncio.gather(*pending, return_exceptions=True), hurrying]
            await asyncio.wait(ends, timeout=stop_within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if timer is not None:
            timer.cancel()
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
        late = [one for task, one in tasks.items() if not task.done()]
        for task in (*tasks, stopping, hurrying):
            task.cancel()
        await asyncio.wait({*tasks, stopping, hurrying}, timeout=_LEAVE)
    if late and not hurried.is_set():
        return Ended(tasks, late, f"the last commit did not end within {stop_within:g} s", SINK)
    return Ended(tasks, late, "ended at once", 128 + signal.SIGINT if signal.SIGINT in caught else 0)


async def _first(tasks: Iterable[asyncio.Task[Any]], stopping: asyncio.Task[Any]) -> None:
    """Wait until all have ended, one has ended badly, or it is to stop."""
    pending = set(tasks)
    while pending and not stopping.done():
        done, _ = await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        pending -= done
        if any(task.cancelled() or task.exception() for task in done if task is not stopping):
            return


def told(ended: Ended, say: Callable[[str], None]) -> int:
    """Say how each ended. Gives the exit code: that of the first that failed, else that of the whole."""
    codes = []
    for task, collector in ended.tasks.items():
        if collector in ended.late:
            say(f"{collector.name}: {ended.why}; what is not committed comes again")
        elif task.cancelled():
            codes.append(SINK)
        elif (error := task.exception()) is None:
            say(f"{collector.name}: {_summary(task.result())}")
        elif isinstance(error, BqstreamError):
            say(f"bqstream: {collector.name}: {error}")
            codes.append(exit_code(error))
        else:
            raise error
    return codes[0] if codes else ended.code


def _summary(done: Collected) -> str:
    parts = [counted(done.rows, "row"), counted(done.commits, "commit"), counted(done.gaps, "gap")]
    if done.holes:
        parts.append(f"{counted(done.holes, 'gap')} that cannot be closed")
    if done.misfits:
        parts.append(f"{counted(done.misfits, 'row')} that did not fit")
    return ", ".join(parts)
