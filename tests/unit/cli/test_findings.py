from __future__ import annotations

from typing import get_args

import pytest

from bqstream.cli.findings import ADVICE, CAUSES, Cause, Check, Finding, exit_code_of

GOOD = Finding(check="clock", says="as the service's")


def test_every_cause_has_advice_of_its_own() -> None:
    assert set(ADVICE) == set(CAUSES)
    assert len(set(ADVICE.values())) == len(CAUSES)


@pytest.mark.parametrize(
    ("causes", "code"),
    [
        ([], 0),
        (["clock"], 1),
        (["filter"], 1),
        (["document"], 1),
        (["no-credentials"], 3),
        (["clock", "token-refused"], 3),
        (["over-cap"], 3),
        (["plan"], 3),
    ],
)
def test_the_exit_code_tells_credentials_and_plan_from_other_faults(causes: list[Cause], code: int) -> None:
    found = [GOOD, *(Finding(check="subscribe", says="…", cause=cause) for cause in causes)]
    assert exit_code_of(found) == code


def test_a_finding_is_a_value_that_says_what_to_do_where_something_is_wrong() -> None:
    assert (GOOD.good, GOOD.advice) == (True, None)
    wrong = Finding(check="clock", says="an hour off", cause="clock")
    assert not wrong.good
    assert wrong.as_dict() == {
        "check": "clock",
        "good": False,
        "says": "an hour off",
        "cause": "clock",
        "advice": ADVICE["clock"],
    }
    assert set(get_args(Check)) >= {"credentials", "exchange", "clock", "handshake", "first row"}
    with pytest.raises(AttributeError):
        wrong.says = "well"  # type: ignore[misc]
