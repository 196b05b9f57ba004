"""Another program, run beside the simulator and told where it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .running import tell

if TYPE_CHECKING:
    from ..simulator import Simulator

_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
# What shells answer for a program that they cannot start (POSIX, Shell Command Language 2.8.2).
CANNOT_RUN, NOT_FOUND = 126, 127
# Credentials of another account would win over the simulator's.
_NOT_HANDED_DOWN = (
    "BITQUERY_TOKEN",
    "BITQUERY_TOKEN_FILE",
    "BITQUERY_CLIENT_ID_FILE",
    "BITQUERY_CLIENT_SECRET_FILE",
)


def environment(simulator: Simulator, outer: Mapping[str, str]) -> dict[str, str]:
    """The outer environment, with the simulator as the service in it and no other credentials."""
    kept = {name: value for name, value in outer.items() if name not in _NOT_HANDED_DOWN}
    return kept | {
        "BITQUERY_ENDPOINT": simulator.endpoint,
        "BITQUERY_TOKEN_URL": simulator.token_url,
        "BITQUERY_CLIENT_ID": simulator.client_id,
        "BITQUERY_CLIENT_SECRET": simulator.client_secret,
        "BQSTREAM_SIMULATOR_CONTROL_URL": simulator.control_url,
        "BQSTREAM_SIMULATOR_LEDGER_URL": simulator.ledger_url,
    }


async def run_beside(command: Sequence[str], simulator: Simulator) -> int:
    """Run ``command`` to its end, pass signals on, and give its exit code; 128 and the number where a signal ended it.

    Cancelling kills it.
    """
    with contextlib.ExitStack() as handlers:
        # Before the program is there, so that none comes too early to be passed on.
        early: list[int] = []
        process: asyncio.subprocess.Process | None = None

        def pass_on(number: int) -> None:
            if process is None:
                early.append(number)
            elif process.returncode is None and not (number == signal.SIGINT and _from_the_keyboard()):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

        loop = asyncio.get_running_loop()
        for name in _PASSED_ON:
            if (number := getattr(signal, name, None)) is not None:
                with contextlib.suppress(NotImplementedError):
                    loop.add_signal_handler(number, pass_on, number)
                    handlers.callback(loop.remove_signal_handler, number)
        try:
            process = await asyncio.create_subprocess_exec(*command, env=environment(simulator, os.environ))
        except OSError as error:
            tell(f"bqstream: {command[0]} cannot be run: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        for number in early:
            pass_on(number)
        try:
            code = await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return code if code >= 0 else 128 - code


def _from_the_keyboard() -> bool:
    """Whether Ctrl-C on this terminal has reached the program too, which shares our process group: a second one would
    interrupt its cleaning up."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False
