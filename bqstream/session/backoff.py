"""How long to wait before the next dial."""

from __future__ import annotations

import random
from collections.abc import Callable

import tenacity

from ..config import Backoff
from ..protocol.verdicts import Verdict

# A link that ends so soon, in seconds, was not healthy though it brought data: shorter lives, one after another,
# would make more dials than the smallest plan's 30 a minute (docs: plans/rate-limits).
AT_ONCE = 5.0


class Schedule:
    """Counts failures in a row and says how long to wait after each; one per supervisor.

    Exponential with jitter (``Backoff``), never below what the refusal demands, and ``Retry-After`` wins over all.
    It starts anew only once a link has proved healthy, not when it was merely acknowledged, since a server that
    acknowledges and then closes would be redialled for ever at the first delay (protocol.md, item 35).
    """

    def __init__(
        self, backoff: Backoff, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._backoff = backoff
        self._exponential = tenacity.wait_exponential(multiplier=backoff.initial, max=backoff.maximum)
        self._uniform = uniform
        self.failures = 0

    def failed(self, verdict: Verdict) -> float | None:
        """Count one failure. Gives the seconds to wait, or ``None`` when the allowed attempts are used up."""
        self.failures += 1
        if self._backoff.attempts is not None and self.failures >= self._backoff.attempts:
            return None
        if verdict.retry_after:  # "0" asks for nothing, and must not have us hammer
            return max(verdict.retry_after, self._backoff.initial)
        state = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # only the count is read
        state.attempt_number = self.failures
        wait = float(self._exponential(state))
        if verdict.floor:
            # A rate limit: doubled from its floor, and jittered upwards only (docs: plans/rate-limits).
            wait = min(
                max(wait, verdict.floor * 2.0 ** min(self.failures - 1, 100)),
                max(self._backoff.maximum, verdict.floor),
            )
            return wait + self._uniform(0.0, wait * 0.1)
        return self._uniform(wait * (1.0 - self._backoff.jitter), wait)

    def proved(self, *, lived: float, messages: int, slow: bool) -> bool:
        """A link ended that had lived ``lived`` seconds: one that was healthy starts the schedule anew.

        Data is health unless the link ended at once after it, as where a server greets and then closes. A link that
        was shed for slowness (1013) had data by definition; only time clears it, so that repeated shedding
        lengthens the wait.
        """
        healthy = lived >= self._backoff.healthy or (messages > 0 and lived >= AT_ONCE and not slow)
        if healthy:
            self.failures = 0
        return healthy
