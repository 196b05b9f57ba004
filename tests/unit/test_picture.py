from __future__ import annotations

from datetime import UTC, datetime

from bqstream.picture import changes, text


def test_what_has_changed_is_sent_whole_and_of_a_series_what_is_new() -> None:
    before = {"samples": {"trades": ()}, "at": 1, "gaps": ()}
    first = {"samples": {"trades": ((1, 5.0), (2, 6.0))}, "at": 2, "gaps": ()}
    second = {"samples": {"trades": ((2, 6.0), (3, 7.0), (3.5, 8.0))}, "at": 3, "gaps": ("one",)}
    assert changes(before, first, ["samples"]) == {"samples": {"trades": ((1, 5.0), (2, 6.0))}, "at": 2}
    assert changes(first, second, ["samples"]) == {
        "samples": {"trades": ((3, 7.0), (3.5, 8.0))},
        "at": 3,
        "gaps": ("one",),
    }


def test_a_series_that_was_not_there_before_is_sent_whole() -> None:
    assert changes({"points": {"a": ((1,),)}}, {"points": {"b": ((0,), (1,))}}, ["points"]) == {
        "points": {"b": ((0,), (1,))}
    }


def test_a_value_is_text_of_which_no_digit_is_lost_and_that_is_not_too_long() -> None:
    assert text(2**60) == str(2**60)
    assert text(None) is None
    assert text(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00Z"
    assert text("x" * 500) == "x" * 199 + "…"
