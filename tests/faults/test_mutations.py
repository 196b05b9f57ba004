"""The harness can fail: the merge is broken in six ways, and each is found within a few schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bqstream.delivery import backfill
from bqstream.delivery.closing import Closing, Held
from bqstream.delivery.counting import Counting
from bqstream.delivery.cursor import Cursor
from bqstream.delivery.merge import Merge
from bqstream.delivery.tally import Tally
from bqstream.delivery.union import Union

from .run import play
from .schedule import schedule_of

SEEDS = (1, 19, *range(2, 19), *range(20, 40))  # as those two find what has been tried
Break = Callable[[pytest.MonkeyPatch], None]


def ignore_multiplicity(patch: pytest.MonkeyPatch) -> None:
    """A row that was delivered once is not delivered again, though the service emitted it twice."""
    real = Tally.brought

    def brought(self: Tally, source: int, row: Any) -> bool:
        known = self._frame(row).copies.get(row.exact)
        return (known is None or not known.delivered) and real(self, source, row)

    patch.setattr(Tally, "brought", brought)


def skip_history(patch: pytest.MonkeyPatch) -> None:
    """What was delivered before a gap is not looked at."""
    patch.setattr(Counting, "_seed", lambda self, entry, readers, brought: None)


def off_by_one_block(patch: pytest.MonkeyPatch) -> None:
    """The next page begins a block too late."""
    patch.setattr(backfill, "Cursor", lambda kind, value: Cursor(kind, value + 1))


def drop_held(patch: pytest.MonkeyPatch) -> None:
    """What is to be held back while a gap is closed is let go."""
    patch.setattr(Closing, "hold", lambda self, held: None)


def repeat_held(patch: pytest.MonkeyPatch) -> None:
    """What was held back is delivered whatever queries have brought."""

    def release(self: Union, held: Held) -> None:
        self._deliver(held.source, held.raw, held.at)

    patch.setattr(Union, "_release", release)


def go_on_after_a_pause(patch: pytest.MonkeyPatch) -> None:
    """Nothing is said to be missing where a subscription was paused."""
    patch.setattr(Merge, "pause", lambda self, now: None)


BREAKS: list[tuple[Break, str]] = [
    (ignore_multiplicity, "lost"),
    (skip_history, "repeated"),
    (off_by_one_block, "lost"),
    (drop_held, "lost"),
    (repeat_held, "repeated"),
    (go_on_after_a_pause, "unnamed"),
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("broken", "how"), BREAKS, ids=[one.__name__ for one, _ in BREAKS])
def test_a_merge_that_is_broken_is_found(broken: Break, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    for seed in SEEDS:
        outcome = play(schedule_of(seed))
        if shown := [failure for failure in outcome.failures if how in failure]:
            print(f"\n{broken.__name__}: found by seed {seed}: {shown[0][:100]}")
            return
    pytest.fail(f"{broken.__name__} was not found by {len(SEEDS)} schedules")
