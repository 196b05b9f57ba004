"""What is known of two sources of one operation while one takes over from the other."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Set
from dataclasses import dataclass, field

from ..message import GapCause
from .align import Alignment
from .rows import Fingerprint, Rows


@dataclass(slots=True)
class Owed:
    """Rows of one key that were delivered from another source, and that this one is still to bring.

    ``in_order``: the next one must be the first of them; else they are only counted, each may come any time.
    ``sure``: where the two stand was proven. If not, a row that is not brought within a grace is not waited for.
    What came before its turn stays in ``rows`` until its turn comes, so that each row costs the same however many
    are owed.
    """

    in_order: bool
    sure: bool
    rows: deque[tuple[Fingerprint, float]] = field(default_factory=deque)
    _left: Counter[Fingerprint] = field(default_factory=Counter)
    _early: Counter[Fingerprint] = field(default_factory=Counter)

    def owe(self, row: Fingerprint, at: float) -> None:
        """``row`` was delivered from the other source at ``at``."""
        self.rows.append((row, at))
        self._left[row] += 1

    def forget_first(self) -> None:
        """The first row is not waited for any more."""
        _take(self._left, self.rows.popleft()[0])
        while self.rows and self.rows[0][0] in self._early:
            _take(self._early, self.rows.popleft()[0])

    def forget_before(self, time: float) -> None:
        """Rows that came up to ``time``, a grace ago, are not waited for unless they are sure to come."""
        while not self.sure and self.rows and self.rows[0][1] <= time:
            self.forget_first()

    def settle(self, row: Fingerprint) -> bool | None:
        """Whether ``row`` was owed, and now no longer is; None: another one had to come first."""
        if not self.rows:
            return False
        if self.rows[0][0] == row:
            self.forget_first()
            return True
        if self.in_order:
            return None
        if row not in self._left:
            return False
        _take(self._left, row)
        self._early[row] += 1
        return True


def _take(count: Counter[Fingerprint], row: Fingerprint) -> None:
    count[row] -= 1
    if not count[row]:
        del count[row]


@dataclass(slots=True)
class Source:
    """One source that is being read; ``owed`` by response key, a key that owes nothing is not in it."""

    number: int
    owed: dict[str, Owed] = field(default_factory=dict)
    heard: float | None = None  # when its last payload came

    def keeps_up(self, since: float) -> bool:
        """Whether it has brought all that the other one had brought up to ``since``."""
        return all(owed.rows[0][1] > since for owed in self.owed.values() if owed.rows)


@dataclass(slots=True)
class Seam:
    """From the start on ``new`` until ``old`` has gone and ``new`` has brought all that ``old`` had delivered.

    Times are monotonic seconds. A key is *aligning* until its common frame is known, and ``placed`` from then on.
    ``proven`` are keys of which it was shown that nothing fell between the sources, ``doubted`` those of which it
    cannot be shown any more. ``timed`` is when keys were placed that only time speaks for.
    """

    old: Source | None
    new: Source
    joined: float
    before: float  # when the old source's last message before the start came in
    merged: int  # the merge's count of rows at the start
    gone: float | None = None  # when the old source went
    cause: GapCause = "handover"
    why: str = "it could not be shown that nothing fell between the two links"
    live: float | None = None  # when the first payload came on the new source
    heard: float | None = None  # when the last payload came on the old source
    beaten: float | None = None
    named: bool = False  # what the old source left open when it went has been named
    looked_back: bool = False  # for keys that only history has
    aligning: dict[str, Alignment] = field(default_factory=dict)
    placed: dict[str, float | None] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)
    timed: dict[str, float] = field(default_factory=dict)
    gaps: dict[str | None, int] = field(default_factory=dict)  # None: of all keys
    held: deque[tuple[Rows, float]] = field(default_factory=deque)
    held_size: int = 0

    def alignment(self, key: str) -> Alignment:
        """The alignment of a key that is not placed yet."""
        found = self.aligning.get(key)
        if found is None:
            found = self.aligning[key] = Alignment()
        return found

    def hold(self, rows: Rows, now: float) -> None:
        """Keep what the new source brought until all of its keys are placed."""
        if self.live is None:
            self.live = now
        for key, brought in rows.by_key.items():
            if brought and key not in self.placed:
                alignment = self.alignment(key)
                for row in brought:
                    alignment.add_new(row, now)
        self.held.append((rows, now))
        self.held_size += len(rows.raw)

    def released(self) -> tuple[Rows, float] | None:
        """The next payload that was held and need not be any more, with its time of arrival."""
        if not self.held or any(
            rows and key not in self.placed for key, rows in self.held[0][0].by_key.items()
        ):
            return None
        rows, at = self.held.popleft()
        self.held_size -= len(rows.raw)
        return rows, at

    def place(self, key: str, *, start: int = 0, in_order: bool, sure: bool) -> None:
        """The new source owes what the log holds from ``start`` on; from now on whichever is ahead delivers."""
        alignment = self.aligning.pop(key)
        self.placed[key] = alignment.new_at[0] if alignment.new else None
        if start < len(alignment.log):
            owed = self.new.owed[key] = Owed(in_order, sure)
            for row, at in zip(alignment.log[start:], alignment.log_at[start:], strict=True):
                owed.owe(row, at)

    def was_alive(self, at: float, now: float, lag: float) -> bool:
        """Whether the old source is known to have been alive at ``at``: it was heard of since, or it is still not
        lost when a link that shows no sign of life would be (``timeouts.idle``, taken as twice the lag)."""
        if self.heard is not None and self.heard >= at:
            return True
        return self.cause == "handover" and now >= at + 2 * lag

    def unconfirmed(self, now: float, lag: float) -> list[str]:
        """Keys of which it is not known yet that the old source was alive when time was taken for proof."""
        return [key for key, at in self.timed.items() if not self.was_alive(at, now, lag)]

    def quiet_is_proof(self, now: float, lag: float) -> bool:
        """Whether a key is whole of which nothing came while others of the same operation did.

        What was published before the new source was live comes on the old one within ``lag``, if that is alive to
        bring it; what was published later would have come on both.
        """
        return self.live is not None and self.was_alive(self.live + lag, now, lag)

    def agreed(self, now: float, grace: float, lag: float, keys: Set[str]) -> bool:
        """Whether each of the operation's ``keys`` is known to be whole on the new source alone.

        Half a grace without a word against it is long enough for another order to show, and short enough to leave
        time for the next key. A ``grace`` in a hurry may be shorter than what time needs for proof, the ``lag``: then
        an eighth must do, since what this hand-over takes the next one lacks.
        """
        if self.old is None or self.live is None or self.doubted or self.held:
            return False
        if any(alignment.log or alignment.new for alignment in self.aligning.values()):
            return False
        if self.unconfirmed(now, lag) or not (keys <= self.placed.keys() or self.quiet_is_proof(now, lag)):
            return False
        begun = [self.live, *(first for first in self.placed.values() if first is not None)]
        return max(begun) <= now - grace / (2 if grace >= lag else 8) and all(
            source.keeps_up(now - grace) for source in (self.new, self.old)
        )
