"""Random schedules of twenty faults on several documents at once, and the ledger's word on every row.

    pytest tests/faults/test_schedules.py                                   # a dozen, fresh ones each time
    BQSTREAM_FAULT_SECONDS=120 pytest tests/faults/test_schedules.py        # for two minutes: CI's slice
    pytest -m soak tests/faults/test_schedules.py                           # the first five hundred
    python -m tests.faults SEED                                             # one of them, with its log

A failure prints its seed and that last command. The sums stand at the end of pytest's output.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.conftest import SEED

from .conftest import FIGURES
from .run import Outcome, play
from .schedule import schedule_of

QUICK = 12
# Rows of a cube with a limit of its own on sockets that bring them in other orders; a first subscribe over the plan's
# cap; a document of which nothing was owed.
ONCE_BROKEN = (1_199_559_713, 1_693_779_806, 321)
SOAK, CHUNK = 500, 10
SECONDS = float(os.environ.get("BQSTREAM_FAULT_SECONDS") or 0)
SHARES = range((os.cpu_count() or 1) if SECONDS else 0)
ROOT = Path(__file__).parents[2]
Record = Callable[[str, object], None]


def seeds(share: int) -> Iterable[int]:
    """Fresh seeds without end, the same for the same session's seed."""
    chance = random.Random(f"{SEED} {share}")
    while True:
        yield chance.randrange(1_000, 2**32)


def assert_kept(played: Iterable[int], record: Record) -> None:
    """Play these schedules to the end, and fail with the report of each that breaks the promise."""
    outcomes = []
    began = time.process_time()
    for seed in played:
        outcomes.append(play(schedule_of(seed)))
    record(FIGURES, figures(outcomes, time.process_time() - began))
    broken = [outcome for outcome in outcomes if outcome.failures]
    assert not broken, "\n\n".join(
        [
            f"{len(broken)} of {len(outcomes)} schedules broke the promise",
            *(one.report() for one in broken[:3]),
        ]
    )


def figures(outcomes: list[Outcome], seconds: float) -> dict[str, int]:
    total = {"schedules": len(outcomes)}
    for outcome in outcomes:
        for name, value in outcome.figures.items():
            total[name] = total.get(name, 0) + value
    total["virtual seconds"] = round(sum(outcome.virtual for outcome in outcomes))
    return {**total, "milliseconds": round(1000 * seconds)}


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_a_schedule_that_once_broke_the_promise_keeps_it(seed: int, record_property: Record) -> None:
    assert_kept([seed], record_property)


@pytest.mark.parametrize("number", range(QUICK))
def test_a_fresh_schedule_keeps_the_promise(number: int, record_property: Record) -> None:
    assert_kept([next(iter(seeds(number)))], record_property)


if SECONDS:

    @pytest.mark.timeout(SECONDS + 120)
    @pytest.mark.parametrize("share", SHARES)
    def test_fresh_schedules_for_as_long_as_is_asked(share: int, record_property: Record) -> None:
        until = time.monotonic() + SECONDS

        def played() -> Iterable[int]:
            for seed in seeds(QUICK + share):
                if time.monotonic() >= until:
                    return
                yield seed

        assert_kept(played(), record_property)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SOAK, CHUNK))
def test_five_hundred_schedules_keep_the_promise(first: int, record_property: Record) -> None:
    assert_kept(range(first, first + CHUNK), record_property)


def test_a_seed_is_one_run_in_every_process() -> None:
    """Whatever the order of sets, and whatever ran before: each event, message and row at the same time."""
    seed = next(iter(seeds(0)))
    digests = {play(schedule_of(seed)).digest}
    for hashing in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults", str(seed), "--digest"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1, f"python -m tests.faults {seed}"
