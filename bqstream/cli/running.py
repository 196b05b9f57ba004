"""How a command runs and how it ends: time limits, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any, NoReturn

from ..errors import (
    BqstreamError,
    CredentialsRefused,
    DocumentRefused,
    GapFound,
    MissingCredentials,
    PlanError,
    SinkFailed,
    SinkLocked,
    TokenRefused,
    UsageError,
)
from ..wording import shown

# Every exit code of every command; a signal's is 128 and its number: 130 after Ctrl-C, 143 after SIGTERM.
FAILED = 1
USAGE = 2  # of the command line, of the configuration, or of the document
ACCESS = 3  # credentials, or the plan
GAP = 4  # rows are missing that cannot be brought
SINK = 5  # rows could not be put where they belong
LOCKED = 6  # another process is at it
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def tell(text: str) -> None:
    """A line on standard error, at once."""
    print(shown(text), file=sys.stderr, flush=True)


def exit_code(error: BqstreamError) -> int:
    """2: usage or document, 3: credentials or plan, 4: a gap, 5: the sink, 6: it is taken, 1: anything else."""
    if isinstance(error, MissingCredentials | CredentialsRefused | TokenRefused | PlanError):
        return ACCESS
    if isinstance(error, UsageError | DocumentRefused):
        return USAGE
    if isinstance(error, GapFound):
        return GAP
    if isinstance(error, SinkLocked):
        return LOCKED
    return SINK if isinstance(error, SinkFailed) else FAILED


async def run_until(work: Awaitable[object], seconds: float | None = None) -> int | None:
    """Await ``work``, but no longer than ``seconds`` and not past a signal; it is cancelled then.

    Returns the signal's number where one ended it. Where the platform's loop takes no signal handlers, Ctrl-C
    arrives as ``KeyboardInterrupt`` and ``run`` deals with it.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        task.cancel()

    limit = asyncio.timeout(seconds)
    try:
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop, number)
        async with limit:
            await work
    except TimeoutError:
        if not limit.expired():
            raise
    except asyncio.CancelledError:
        if not caught:
            raise
        for _ in caught:
            task.uncancel()
    finally:
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
    return caught[0] if caught else None


def run(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command to its end and leave with its exit code; a reader that closed the pipe is a good end."""
    # What these warn of is shown as an event already; logging's last resort would say it a second time.
    for name in ("credentials", "session"):
        logging.getLogger(f"bqstream.{name}").addHandler(logging.NullHandler())
    try:
        code = asyncio.run(work)
    except BqstreamError as error:
        tell(f"bqstream: {error}")
        code = exit_code(error)
    except BrokenPipeError:
        # Nothing may be flushed into the closed pipe at exit (Python's library/signal, "Note on SIGPIPE").
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)
