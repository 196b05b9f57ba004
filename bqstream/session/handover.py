"""Handover, make before break, as a pure machine: inputs in, decisions out, no link and no clock of its own.

It lives from the dial of the new link to the close of the old one. Whoever drives it says what happened
(``tell``) and what it sees (``observe``), and does what the decision says.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

# The plan's cap shows as a subscription that is acknowledged and stays silent (docs: plans/rate-limits). So many
# messages on the old link, and none on the new, are taken for it.
CAP_MESSAGES: Final = 3

# How long two links may serve at once, in seconds: an operation that is nearly quiet may never prove its crossing,
# and every second of overlap is billed twice.
OVERLAP_MAXIMUM: Final = 60.0


class Phase(enum.Enum):
    """Where a handover stands."""

    DIALING = "dialing"  # the old link serves, the new one is not acknowledged
    OVERLAP = "overlap"  # both serve
    ALONE = "alone"  # the old link is gone, the new one is not acknowledged
    OVER = "over"


class Input(enum.Enum):
    """What may happen to a handover."""

    NEW_ACKED = "the new link is acknowledged"
    NEW_ENDED = "the new link ended"
    OLD_ENDED = "the old link ended"
    CAPPED = "the plan's cap keeps the new link silent"
    ALL_CROSSED = "every operation has crossed"
    TIME_UP = "the old link's token is about to expire"


class Decision(enum.Enum):
    """What the driver has to do."""

    NOTHING = "nothing"
    START = "start every operation on the new link; the old one goes on"
    CROSS = "close the old link; the new one serves"
    PROMOTE = "the old link is gone; the new one serves"
    RETRY = "drop the new link; the old one serves; try again later"
    REPLACE = "drop the new link; close the old one first, then open another"
    RECONNECT = "both are gone; begin anew"


_TABLE: Final[dict[tuple[Phase, Input], tuple[Phase, Decision]]] = {
    (Phase.DIALING, Input.NEW_ACKED): (Phase.OVERLAP, Decision.START),
    (Phase.DIALING, Input.NEW_ENDED): (Phase.OVER, Decision.RETRY),
    (Phase.DIALING, Input.OLD_ENDED): (Phase.ALONE, Decision.NOTHING),
    # The old link's token may expire while no successor is live: it is read on (design: handover, step 3).
    (Phase.DIALING, Input.TIME_UP): (Phase.DIALING, Decision.NOTHING),
    (Phase.ALONE, Input.NEW_ACKED): (Phase.OVER, Decision.PROMOTE),
    (Phase.ALONE, Input.NEW_ENDED): (Phase.OVER, Decision.RECONNECT),
    (Phase.ALONE, Input.TIME_UP): (Phase.ALONE, Decision.NOTHING),
    (Phase.OVERLAP, Input.NEW_ENDED): (Phase.OVER, Decision.RETRY),
    (Phase.OVERLAP, Input.OLD_ENDED): (Phase.OVER, Decision.PROMOTE),
    (Phase.OVERLAP, Input.CAPPED): (Phase.OVER, Decision.REPLACE),
    (Phase.OVERLAP, Input.ALL_CROSSED): (Phase.OVER, Decision.CROSS),
    (Phase.OVERLAP, Input.TIME_UP): (Phase.OVER, Decision.CROSS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the driver sees of one operation during the overlap.

    ``old_late``      what the old link brought for it later than grace after its start on the new one; counted once
                      the new one has had another grace to bring it too.
    ``new_messages``  what the new link brought for it; ``None`` where it does not run there.
    """

    crossed: bool
    old_late: int = 0
    new_messages: int | None = None


class Handover:
    """One move of all operations from an old link to a new one.

    Args:
        now: the monotonic clock.
        expires_at: when the old link's token expires, on that clock; infinite if never.
        margin: how long before that the old link must be closed.
        grace: how far one link's data may lag behind the other's, in seconds.
        successor: how long the new link's token still lives, in seconds.
    """

    def __init__(
        self, *, now: float, expires_at: float, margin: float, grace: float, successor: float = math.inf
    ) -> None:
        self.phase = Phase.DIALING
        self._grace = grace
        self._last_moment = expires_at - margin
        self._successor = successor
        self.deadline = math.inf  # of the overlap; known when it begins
        self.grace = grace

    def tell(self, now: float, what: Input) -> Decision:
        """Something happened; what is not in the table changes nothing (a link may end twice over)."""
        self.phase, decision = _TABLE.get((self.phase, what), (self.phase, Decision.NOTHING))
        if decision is Decision.START:
            # Too late for the token already: the successor's proof matters more than the moment. But one that took
            # much of the new token's life would make the next handover late as well, and so all that follow.
            late = self._last_moment - now < min(self._grace, 0.2)
            longest = now + max(OVERLAP_MAXIMUM, 2 * self._grace)
            soon = now + min(self._grace, 0.1 * max(self._successor, 0.0))
            self.deadline = soon if late else min(self._last_moment, longest)
            self.grace = min(self._grace, self.deadline - now)
        return decision

    def observe(self, now: float, sights: list[Sight]) -> Decision:
        """Look at every operation; called at each tick of the overlap."""
        if self.phase is not Phase.OVERLAP:
            return Decision.NOTHING
        if any(s.old_late >= CAP_MESSAGES and s.new_messages == 0 for s in sights):
            return self.tell(now, Input.CAPPED)
        if all(s.crossed for s in sights):
            return self.tell(now, Input.ALL_CROSSED)
        if now < self.deadline:
            return Decision.NOTHING
        return self.tell(now, Input.TIME_UP)
