"""A load that keeps a pace, each message stamped with the time when it was written.

The monotonic clock is the same in every process of a machine (``CLOCK_MONOTONIC``), so that the reader need only take
the difference.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .load import VALUES, complete, next_frame, payload_of, subscribed

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

WIDTH = len(str(VALUES["Transfer.Amount"]))  # the stamp stands in place of the amount: a row keeps its size
# A sleep comes back this much late and no more, in nanoseconds; what is left of a wait is spent looking at the clock.
OVERSLEPT = 80_000
LEAST = 0.95  # of the pace that was asked for


class Pace(NamedTuple):
    """How many were written a second, whether that was too few, and for how many seconds the reader took none."""

    rate: float
    late: bool
    waited: float


def age(data: Any) -> int:
    """How long ago the message in hand was written, in nanoseconds."""
    return time.monotonic_ns() - int(data["EVM"]["Transfers"][0]["Transfer"]["Amount"])


@dataclass(frozen=True)
class Paced:
    """So many messages of one row, ``rate`` a second: evenly spaced, or in evenly spaced bursts of ``burst`` at once.

    Tells the `Pace` at which they were written.
    """

    messages: int
    rate: int
    burst: int = 1

    async def serve(self, socket: ServerConnection, tell: Callable[[Any], None]) -> None:
        asked = await subscribed(socket, 1)
        frame = next_frame(asked[0], payload_of(asked[0]["payload"]["query"], 1))
        before, after = frame.split(str(VALUES["Transfer.Amount"]).encode())
        descriptor = socket.transport.get_extra_info("socket").fileno()
        # Past the library and the loop, whose timers know milliseconds only; in a thread, so that a ping is answered.
        tell(await asyncio.to_thread(self._write, descriptor, before, after))
        await complete(socket, asked)

    def _write(self, descriptor: int, before: bytes, after: bytes) -> Pace:
        gap = self.burst * 1e9 / self.rate
        turns = self.messages // self.burst
        waited = 0.0
        start = time.monotonic_ns()
        for turn in range(turns):
            due = start + int(turn * gap)
            while (wait := due - time.monotonic_ns()) > 0:
                if wait > OVERSLEPT:
                    time.sleep((wait - OVERSLEPT) / 1e9)
            stamp = b"%0*d" % (WIDTH, time.monotonic_ns())
            waited += write(descriptor, (before + stamp + after) * self.burst)
        took = (time.monotonic_ns() - start + gap) / 1e9
        return Pace(turns * self.burst / took, LEAST * took >= turns * self.burst / self.rate, waited)


def write(descriptor: int, data: bytes) -> float:
    """Write all of it; gives the seconds that were waited, the reader's side being full."""
    view, waited = memoryview(data), 0.0
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            began = time.monotonic()
            select.select((), (descriptor,), ())
            waited += time.monotonic() - began
    return waited
