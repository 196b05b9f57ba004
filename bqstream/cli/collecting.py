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
    """How the collectors ended: each with its task; which had to be cut short, and by which signals."""

    tasks: Mapping[asyncio.Task[Collected], Collector]
    late: Sequence[Collector]
    signals: Sequence[int]


async def run_all(collectors: Sequence[Collector], seconds: float | None, stop_within: float) -> Ended:
    """Run them all. One that ends badly stops the others, which commit what they have; so does a signal. A second
    signal waits for nothing."""
    loop = asyncio.get_running_loop()
    stopped, hurry = asyncio.Event(), asyncio.Event()
    caught: list[int] = []

    def stop(number: int = 0) -> None:
        if number:
            caught.append(number)
        if len(caught) > 1:
            hurry.set()
        stopped.set()

    for number in SIGNALS:
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop, number)
    timer = loop.call_later(seconds, stop) if seconds is not None else None
    tasks = {asyncio.create_task(one.run(), name=f"bqstream collector {one.name}"): one for one in collectors}
    stopping, hurrying = asyncio.create_task(stopped.wait()), asyncio.create_task(hurry.wait())
    try:
        await _first(tasks, stopping)
        for one in collectors:
            one.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(stop_within):
                pending: set[asyncio.Task[Any]] = {task for task in tasks if not task.done()}
                while pending and not hurry.is_set():
                    await asyncio.wait({*pending, hurrying}, return_when=asyncio.FIRST_COMPLETED)
                    pending = {task for task in pending if not task.done()}
    finally:
        if timer is not None:
            timer.cancel()
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
        late = [one for task, one in tasks.items() if not task.done()]
        for task in (*tasks, stopping, hurrying):
            task.cancel()
        await asyncio.wait({*tasks, stopping, hurrying})
    return Ended(tasks, late, caught)


async def _first(tasks: Iterable[asyncio.Task[Any]], stopping: asyncio.Task[Any]) -> None:
    """Wait until all have ended, one has ended badly, or it is to stop."""
    pending = set(tasks)
    while pending and not stopping.done():
        done, _ = await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        pending -= done
        if any(task.cancelled() or task.exception() for task in done if task is not stopping):
            return


def told(ended: Ended, say: Callable[[str], None], within: float) -> int:
    """Say how each ended. Gives the exit code: that of the first that ended badly."""
    codes = []
    for task, collector in ended.tasks.items():
        if collector in ended.late or task.cancelled():
            after = f"within {within:g} s" if len(ended.signals) < 2 else "before it was told again to stop"
            say(f"{collector.name}: the last commit did not end {after}; its rows come again next time")
            codes.append(SINK)
        elif (error := task.exception()) is None:
            say(f"{collector.name}: {_summary(task.result())}")
        elif isinstance(error, BqstreamError):
            say(f"bqstream: {collector.name}: {error}")
            codes.append(exit_code(error))
        else:
            raise error
    if signal.SIGINT in ended.signals:
        return 128 + signal.SIGINT
    return codes[0] if codes else 0


def _summary(done: Collected) -> str:
    parts = [counted(done.rows, "row"), counted(done.commits, "commit"), counted(done.gaps, "gap")]
    if done.holes:
        parts.append(f"{counted(done.holes, 'gap')} that cannot be closed")
    if done.misfits:
        parts.append(f"{counted(done.misfits, 'row')} that did not fit")
    return ", ".join(parts)
