"""Two clocks, since neither alone can be trusted with a token's expiry.

The monotonic clock stands still while a laptop sleeps; the wall clock jumps when somebody sets it.
What must not happen late is therefore measured on both, and the earlier wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where every room reads the time; tests put their own functions here.

    ``monotonic`` must be the time base of the running event loop, since that is what sleeps are measured on.
    Both return seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
