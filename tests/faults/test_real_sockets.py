"""Some schedules on the kernel's sockets and in real time, shortened and several at once.

``pytest -m soak tests/faults/test_real_sockets.py -n 0`` takes a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from .conftest import FIGURES
from .run import play_for_real
from .schedule import schedule_of
from .test_schedules import figures

SCHEDULES, AT_ONCE = 20, 10
SHORTENED = 1 / 4


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.asyncio
@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
async def test_schedules_keep_the_promise_on_real_sockets(
    first: int, record_property: Callable[[str, object], None]
) -> None:
    schedules = [schedule_of(seed).scaled(SHORTENED) for seed in range(first, first + AT_ONCE)]
    outcomes = await asyncio.gather(*(play_for_real(schedule) for schedule in schedules))
    record_property(FIGURES, figures(outcomes, max(outcome.real for outcome in outcomes)))
    broken = [outcome for outcome in outcomes if outcome.failures]
    assert not broken, "\n\n".join(outcome.report() for outcome in broken)
