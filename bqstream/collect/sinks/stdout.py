"""``stdout:``: rows as lines of JSON to standard output, for a pipe or an eye; at most once."""

from __future__ import annotations

import asyncio
import sys
from weakref import WeakKeyDictionary

from ...errors import SinkFailed, UsageError
from ...output import Output
from ..commit import Commit, Stored
from ..lines import lines
from ..sink import Address

# Several subscriptions of one process take turns, so that each line is whole.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def sink(address: Address) -> StdoutSink:
    """``stdout:``; it has no place and no options."""
    address.only()
    if address.place:
        raise UsageError(f"stdout: takes no place; for a file give jsonl:{address.place}")
    return StdoutSink()


class StdoutSink:
    """One row a line; of several tables, ``{"Transfers": row}``. ``"_undo": true`` begins the line of a row that is
    taken back. Gaps are not written.

    It keeps no state, so nobody knows what a reader has had: what was on its way when the process ended does not come
    again. Cancelling a commit may leave a part of a line. A reader that is gone is a BrokenPipeError.
    """

    name = "stdout: (at most once)"
    flat = False
    lock = None
    stateless = True

    async def open(self, subscription: str) -> Stored | None:
        return None

    async def commit(self, commit: Commit) -> None:
        output = Output(sys.stdout.fileno())
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            for rows in commit.steps:
                try:
                    await output.write(lines(rows, named=len(commit.tables) > 1))
                except BrokenPipeError:
                    raise
                except OSError as error:  # trying again would write twice what has gone through
                    raise SinkFailed(f"{self.name}: {error.strerror}") from error

    async def aclose(self) -> None:
        return None
