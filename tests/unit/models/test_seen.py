"""What a sample shows, place by place."""

from __future__ import annotations

import pytest

from bqstream.models.seen import Seen


def seen(*values: object) -> Seen:
    made = Seen()
    for value in values:
        made.add(value)
    return made


def test_nothing_but_null_tells_nothing() -> None:
    assert not seen().told
    assert not seen(None, None).told
    assert seen(None, 0).told


def test_a_key_that_one_object_lacks_is_absent_and_one_that_is_null_is_not() -> None:
    found = seen({"a": 1, "b": None}, None, {"b": 2})
    assert (found.absent("a"), found.absent("b"), found.absent("c")) == (True, False, True)
    assert not seen().absent("a")


def test_all_elements_of_all_lists_are_one_place() -> None:
    items = seen([1, "x"], [], [[None]]).items
    assert items is not None
    assert (items.times, items.forms) == (3, {"integer", "string"})
    assert items.items is not None
    assert (items.items.times, items.items.nulls) == (1, 1)


def test_true_is_no_integer() -> None:
    assert seen(True).forms == {"boolean"}


@pytest.mark.parametrize(
    ("text", "numeric", "fraction", "moment"),
    [
        ("0", True, False, False),
        ("-12.50", True, True, False),
        ("1e-18", True, False, False),
        ("007", False, False, False),
        ("1.", False, False, False),
        ("٣", False, False, False),
        ("1e99999", False, False, False),
        ("", False, False, False),
        ("2026-01-31T12:00:00Z", False, False, True),
        ("2026-01-31T12:00:00.123456+02:00", False, False, True),
        ("2026-01-31T12:00:00.1234567Z", False, False, False),
        ("2026-02-31T12:00:00Z", False, False, False),
        ("2026-01-31 12:00:00Z", False, False, False),
        ("2026-01-31", False, False, False),
        ("0000-01-31T12:00:00Z", False, False, False),
    ],
)
def test_text_is_told_from_numbers_and_times(text: str, numeric: bool, fraction: bool, moment: bool) -> None:
    found = seen(text)
    assert (found.numeric, found.fractions, found.moments) == (numeric, fraction, moment)
