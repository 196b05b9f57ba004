"""Cubes whose rows do not say where they stand, or are aggregates: sources are merged by position, row by row.

Each response key for itself; there is no identity and no query here. What cannot be shown is named as a hole. Pure:
time is passed in, what comes out goes to callables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ..config import MEBIBYTE
from ..message import Crossed, GapCause
from .align import PROOF, Alignment
from .gaps import Gaps
from .history import History
from .rows import Fingerprint, Rows
from .seam import Owed, Seam, Source

# Rows of one key that are kept for comparison, and rows of history that rarity is judged by.
MOST_ROWS = 250_000
RARITY_ROWS = 1000
# Payloads of a hand-over that are remembered taken apart, in case the other source brings the same bytes.
SAME_BYTES = 64

DISAGREED = "the two links brought different rows"
LAGS = "one link lags behind the other by more rows than can be compared"
FULL = "more came on the new link than may be held until it is known where it stands"
SILENT = "nothing had come on the new link"
JOINED_ON = "the new link's rows join on to the old one's: nothing is missing"


class Position:
    """Takes every source's payloads; gives each row once, to ``deliver(source, raw, at)``.

    ``at`` is when it came in (monotonic seconds). In steady state, with one source that owes nothing, a payload is
    neither decoded nor copied. ``merged`` counts rows that came on two sources and were delivered once. ``started``
    is when the subscription began, ``hold`` how many bytes of a new source may wait until it is known where its
    rows stand. ``lag`` is by how many seconds one source's rows may come later than another's: a hand-over in a
    hurry (``joined``) is told a shorter grace, by which it crosses, but by which time proves nothing. ``pause`` is how
    much later still they come where a slow reader stopped a link: no row is given up before. ``cubes`` are the response
    keys that the document asks for: one of which nothing has come yet can lose its rows like any other.
    """

    def __init__(
        self,
        deliver: Callable[[int, bytes, float], object],
        gaps: Gaps,
        history: History,
        *,
        started: float,
        hold: int = 32 * MEBIBYTE,
        lag: float = 0.0,
        pause: float = 0.0,
        cubes: Iterable[str] = (),
        scope: Iterable[str] = (),
        reason: str | None = None,
    ) -> None:
        self._out = deliver
        self._scope = tuple(scope)
        self._reason = reason
        self._gaps = gaps
        self._history = history
        self._hold = hold
        self._lag = lag
        self._pause = pause
        self._grace = 0.0
        self._last = started
        self._live: dict[int, Source] = {}
        self._seam: Seam | None = None
        self._open: dict[
            str | None, int
        ] = {}  # gaps, by key, that the next delivery closes; None: of all keys
        self._keys = set(cubes)
        self._taken_apart: dict[bytes, Rows] = {}
        self.merged = 0

    @property
    def unproven(self) -> bool:
        """Whether a gap is open whose end is not known yet."""
        return bool(self._open) or (self._seam is not None and bool(self._seam.gaps))

    @property
    def sources(self) -> tuple[int, ...]:
        """The sources that bring payloads, oldest first."""
        return tuple(self._live)

    @property
    def idle(self) -> bool:
        """Whether a payload of the one live source passes untouched."""
        return self._seam is None and not self._open and not any(src.owed for src in self._live.values())

    def heard(self, source: int, now: float) -> None:
        """``source`` brought a payload with no rows of these cubes, or one that passed untouched."""
        if (src := self._live.get(source)) is not None:
            src.heard = now
            self._last = max(self._last, now)

    # ------------------------------------------------------------------ what the session tells

    def begin(self, cause: GapCause, why: str, start: float) -> None:
        """Before the first source: rows are missing from before it."""
        self._open[None] = self._name(cause, start, (), why)

    def joined(self, source: int, now: float, grace: float) -> None:
        """The operation was started on ``source``, whose data lags at most ``grace`` seconds behind another's.

        The service documents no replay (streams/index): nothing that was delivered before this can come on it.
        """
        if source in self._live:
            return
        self._grace = grace
        self._lag = max(self._lag, grace)
        if self._seam is not None:
            if self._seam.old is not None:
                self._forget_new(self._seam, now)
            self._leave_behind()
        new = Source(source)
        if self._live:
            (old,) = self._live.values()
            self._seam = Seam(old, new, now, self._since(old), self.merged)
        self._live[source] = new

    def payload(self, source: int, raw: bytes, now: float) -> None:
        """``source`` brought ``raw``; a source that has gone, or was never started, is not listened to."""
        src, seam = self._live.get(source), self._seam
        if src is None:
            return
        src.heard = now
        if seam is None:
            self._deliver(source, raw, now)
            return
        rows = self._rows(raw)
        self._learn(rows.by_key)
        if src is seam.new:
            seam.hold(rows, now)
        else:
            seam.heard = now
            self._pass(src, rows, now)
        self._advance(now)

    def crossed(self, source: int, now: float, beaten: float | None) -> bool:
        """Whether every source older than ``source`` may go without a row being lost."""
        seam = self._seam
        if seam is None or seam.old is None or seam.new.number != source:
            return source in self._live
        seam.beaten = beaten
        self._advance(now)
        if seam.live is None:
            # Quiet on both is no proof, but all that there is to wait for.
            return seam.heard is None and beaten is not None and now >= beaten + self._grace
        self._look_back(seam)
        return seam.agreed(now, self._grace, self._lag, self._keys)

    def cross(self, source: int, now: float) -> Crossed:
        """The older source goes now, proven or not."""
        seam = self._seam
        if seam is None or seam.old is None or seam.new.number != source:
            return Crossed(True, 0)
        return self._retire_old(seam, seam.old, now)

    def lost(self, source: int, now: float, why: str, cause: GapCause = "lost") -> None:
        """``source`` brings no more. One that was only joining is forgotten with what it brought; what it brought
        beyond the old one will come on that. Where none is left a gap opens, and no row of the next source is
        compared with one that was delivered before."""
        src, seam = self._live.get(source), self._seam
        if src is None:
            return
        if seam is not None and seam.old is src:
            seam.cause, seam.why = cause, why
            self._retire_old(seam, src, now)
        elif seam is not None and seam.old is not None:
            self._forget_new(seam, now)
        else:
            if seam is not None:
                self._finish(seam, now)
            self._live.clear()
            if None not in self._open:
                self._open[None] = self._name(cause, self._since(src), (), why)

    def _name(self, cause: GapCause, start: float, keys: tuple[str, ...], why: str) -> int:
        return self._gaps.open(cause, start, keys or self._scope, why, reason=self._reason)

    # ------------------------------------------------------------------ rows

    def _since(self, src: Source) -> float:
        """From when on rows are missing if ``src`` is dead: another source may have brought messages later."""
        return self._last if src.heard is None else min(self._last, src.heard)

    def _deliver(self, source: int, raw: bytes, at: float) -> None:
        for key in [key for key in self._open if not self._unsure(key, at)]:
            self._gaps.close(self._open.pop(key), at)
        self._last = max(self._last, at)
        self._out(source, raw, at)

    def _rows(self, raw: bytes) -> Rows:
        """``raw`` taken apart; where both sources bring the same bytes, only once."""
        rows = self._taken_apart.get(raw)
        if rows is None:
            rows = self._taken_apart[raw] = Rows(raw)
            if len(self._taken_apart) > SAME_BYTES:
                del self._taken_apart[next(iter(self._taken_apart))]
        return rows

    def _unsure(self, key: str | None, at: float) -> bool:
        """Whether rows may still be taken, without proof, for ones that an earlier source brought."""
        unsure = False
        for src in self._live.values():
            for other, owed in src.owed.items():
                owed.forget_before(at - self._lag - self._pause)
                unsure = unsure or (key in (None, other) and bool(owed.rows) and not owed.sure)
        return unsure

    def _pass(self, src: Source, rows: Rows, at: float) -> None:
        """Deliver what no other source has delivered yet."""
        keep = {
            key: [self._is_new(src, key, row, at) for row in brought] for key, brought in rows.by_key.items()
        }
        count, kept = rows.count, sum(map(sum, keep.values()))
        self.merged += count - kept
        if kept == count:
            # One without any row, such as errors alone, comes on each: the oldest source's is delivered.
            if count or src is next(iter(self._live.values())):
                self._deliver(src.number, rows.raw, at)
        elif kept:
            self._deliver(src.number, rows.only(keep), at)

    def _is_new(self, src: Source, key: str, row: Fingerprint, at: float) -> bool:
        owed = src.owed.get(key)
        if owed is not None:
            owed.forget_before(at - self._lag - self._pause)
            settled = owed.settle(row)
            if settled is None:
                self._disagree(key, DISAGREED, since=owed.rows[0][1])
                settled = owed.settle(row)
            if not owed.rows:
                del src.owed[key]
            if settled:
                if not owed.sure and self._seam is not None and src is self._seam.old:
                    # It may have been another row, which then is missing from what the new source is compared with.
                    self._doubt(self._seam, key)
                return False
        self._note(src, key, row, at)
        return True

    def _note(self, src: Source, key: str, row: Fingerprint, at: float) -> None:
        """``row`` is being delivered from ``src``: the other source is to bring it as well, or has been ahead."""
        seam = self._seam
        if seam is None or seam.old is None:
            return
        if key not in seam.placed:
            alignment = seam.alignment(key)
            alignment.add_old(row, at)
            if len(alignment.log) > MOST_ROWS:
                self._disagree(key, LAGS)
            return
        other = seam.old if src is seam.new else seam.new
        if key not in other.owed:
            other.owed[key] = Owed(in_order=key not in seam.doubted, sure=key not in seam.doubted)
        owed = other.owed[key]
        owed.owe(row, at)
        if len(owed.rows) > MOST_ROWS:
            self._disagree(key, LAGS)
            owed.forget_first()

    # ------------------------------------------------------------------ places

    def _advance(self, now: float) -> None:
        """Place what can be placed, release what need not be held, and see whether the seam is over."""
        seam = self._seam
        if seam is None:
            return
        for key, alignment in list(seam.aligning.items()):
            self._align(seam, key, alignment, now)
        while (released := seam.released()) is not None:
            self._pass(seam.new, *released)
        if seam.old is None and seam.live is not None and not seam.aligning:
            for key, owed in list(seam.new.owed.items()):
                owed.forget_before(now - self._lag - self._pause)
                if not owed.rows:
                    del seam.new.owed[key]
            if not seam.new.owed:
                self._finish(seam, now)

    def _align(self, seam: Seam, key: str, alignment: Alignment, now: float) -> None:
        new_until = now - self._lag
        old_until = (now if seam.gone is None else seam.gone) - self._lag
        if not alignment.new:
            last = alignment.forget_before(new_until)
            if last is not None and seam.live is not None and last > seam.live + self._lag:
                self._disagree(key, "the new link does not bring this cube's rows")
            elif seam.named and not alignment.log:
                seam.place(key, in_order=True, sure=True)
            return
        if seam.named and not alignment.log:
            seam.place(key, in_order=True, sure=True)
            return
        places = alignment.places(old_until, new_until)
        overdue = alignment.overdue(old_until)
        forced = seam.gone is not None or seam.held_size > self._hold
        if places is not None and len(places) == 1:
            weigh = overdue or forced or alignment.worth_weighing(places[0])
            content = weigh and self._evidence(seam, key, alignment, places[0]) >= PROOF
            if content or overdue:
                seam.proven.add(key)
                if not content:
                    seam.timed[key] = now
                seam.place(key, start=places[0], in_order=True, sure=True)
                return
        new_until, old_until = new_until - self._pause, old_until - self._pause
        places = alignment.places(old_until, new_until)
        if places == [] and alignment.overdue(old_until):
            self._disagree(key, DISAGREED)
        elif forced:
            place = alignment.guess(places, *alignment.window(old_until, new_until))
            self._doubt(seam, key, "" if seam.gone is not None else FULL)
            seam.place(key, start=place or 0, in_order=place is not None, sure=False)

    def _look_back(self, seam: Seam) -> None:
        """Learn of keys that nothing was brought of since the start on the new source."""
        if not seam.looked_back:
            seam.looked_back = True
            self._learn(self._history.keys())

    def _learn(self, keys: Collection[str]) -> None:
        """These ``keys`` were brought; where data has no cubes, the document's fields are none."""
        if "" in keys:
            self._keys.clear()
        self._keys.update(key for key in keys if not self._scope or key in self._scope)

    def _evidence(self, seam: Seam, key: str, alignment: Alignment, place: int) -> float:
        return alignment.evidence(place, self._history.last_rows(key, RARITY_ROWS, seam.before))

    def _disagree(self, key: str, why: str, since: float | None = None) -> None:
        """The sources do not bring the same sequence of this key: from now on its rows are only counted."""
        for src in self._live.values():
            if key in src.owed:
                src.owed[key].in_order = src.owed[key].sure = False
        if (seam := self._seam) is None:
            return
        self._doubt(seam, key, why, since)
        if key in seam.aligning:
            seam.place(key, in_order=False, sure=False)

    def _doubt(self, seam: Seam, key: str, why: str = "", since: float | None = None) -> None:
        """It cannot be shown any more that nothing of this key fell between the sources."""
        seam.doubted.add(key)
        seam.proven.discard(key)
        if key not in seam.gaps and None not in seam.gaps:
            start = seam.before if since is None else min(since, seam.before)
            seam.gaps[key] = self._name(seam.cause, start, (key,), why or seam.why)

    # ------------------------------------------------------------------ the end of a source

    def _retire_old(self, seam: Seam, old: Source, now: float) -> Crossed:
        self._advance(now)
        del self._live[old.number]
        seam.old, seam.gone = None, now
        self._doubt_time(seam, seam.new, now)
        silent = seam.live is None
        if silent:
            self._name_silence(seam)
        else:
            self._look_back(seam)
            for key in sorted(self._keys - seam.placed.keys()):
                self._name_unknown(seam, key, now)
        self._advance(now)
        seam.named = True
        return Crossed(not silent and not seam.gaps, self.merged - seam.merged)

    def _doubt_time(self, seam: Seam, left: Source, now: float) -> None:
        """Where time was taken for proof, it is none if the old source may have been dead; ``left`` is read on."""
        for key in seam.unconfirmed(now, self._lag):
            self._doubt(seam, key)
            if key in left.owed:
                left.owed[key].sure = False

    def _name_silence(self, seam: Seam) -> None:
        """Nothing came on the new source: a gap of all keys, unless one is open that began before."""
        if None in self._open:
            return
        cause, start, why = seam.cause, seam.before, seam.why
        if cause == "handover":
            why = SILENT
            if seam.heard is None:
                cause, why = "quiet", "nothing came on either link while both were open, which proves nothing"
                start = seam.before if seam.beaten is None else seam.joined
        seam.gaps[None] = self._name(cause, start, (), why)

    def _name_unknown(self, seam: Seam, key: str, now: float) -> None:
        """A key of which nothing came on the new source, while others of the same operation did."""
        alignment = seam.aligning.get(key) or Alignment()
        if not alignment.new and (alignment.log or not seam.quiet_is_proof(now, self._lag)):
            self._doubt(seam, key, SILENT if seam.cause == "handover" else "")

    def _forget_new(self, seam: Seam, now: float) -> None:
        """The new source goes before the old one, which still owes what the new one was ahead with."""
        del self._live[seam.new.number]
        (old,) = self._live.values()
        self._doubt_time(seam, old, now)
        old_only = Seam(None, old, seam.joined, seam.before, seam.merged, gone=now, live=now, named=True)
        old_only.gaps, old_only.doubted, old_only.placed = seam.gaps, seam.doubted, seam.placed
        self._seam = old_only
        self._advance(now)

    def _leave_behind(self) -> None:
        """Another hand-over begins before the last one's new source has caught up: it may still do so."""
        seam = self._seam
        if seam is None:
            return
        for key in list(seam.aligning):
            self._doubt(seam, key)
            seam.place(key, in_order=False, sure=False)
        for cubes, number in seam.gaps.items():
            if cubes in self._open:
                self._gaps.close(number, self._last)
            else:
                self._open[cubes] = number
        self._seam = None

    def _finish(self, seam: Seam, now: float) -> None:
        for key, number in seam.gaps.items():
            whole = key in seam.proven if key is not None else bool(seam.proven) and seam.proven >= self._keys
            self._gaps.close(number, now, JOINED_ON if whole else "", whole=whole)
        self._seam = None
        self._taken_apart.clear()
