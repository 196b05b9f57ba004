"""Each thing that can go wrong, alone: no row is lost and none repeated. The cases stand in ``cases.py``.

``pytest tests/faults/test_each_fault.py -n 0 -s`` prints a line for each.
"""

from __future__ import annotations

import pytest

from .cases import CASES, Case
from .run import STRICT, Outcome, play

EACH = [
    pytest.param(case, subprotocol, id=f"{case.name}, {subprotocol}")
    for case in CASES
    for subprotocol in case.subprotocols
]


@pytest.mark.parametrize(("case", "subprotocol"), EACH)
def test_nothing_is_lost_and_nothing_repeated_by(case: Case, subprotocol: str) -> None:
    if case.needs_queries and not STRICT:
        pytest.xfail("what is lost here is not named until queries bring it")
    outcome = play(case.schedule(subprotocol))
    print(f"{case.name}, {subprotocol}: {outcome.line()}")
    assert not outcome.failures, outcome.report()
    assert_it_happened(case, outcome)


def assert_it_happened(case: Case, outcome: Outcome) -> None:
    figures = outcome.figures
    assert all(judgement.delivered or judgement.document.sparse for judgement in outcome.judgements)
    for name, least in case.at_least.items():
        assert figures[name] >= least or (name == "truncated" and not STRICT), (name, outcome.report())
    for name, most in case.at_most.items():
        assert figures[name] <= most, (name, outcome.report())
    if STRICT and "gaps" in case.at_least and all(one.document.closable for one in outcome.judgements):
        assert figures["gaps closed"] == figures["gaps"], outcome.report()
