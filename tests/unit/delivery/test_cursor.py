"""Cursors: what a row shows, how two compare, and how they are written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.delivery.cursor import Cursor, CursorField, CursorKind

NOON = 1_784_203_200  # 2026-07-16T12:00:00Z
KINDS: list[CursorKind] = ["number", "slot", "height", "time", "timestamp"]


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("number", "21000000", 21_000_000),
        ("number", "36893488147419103232", 2**65),
        ("slot", 370_030_401, 370_030_401),
        ("height", "0", 0),
        ("time", "2026-07-16T12:00:00Z", NOON),
        ("time", "2026-07-16T14:00:00+02:00", NOON),
        ("time", "2026-07-16T12:00:00", NOON),
        ("time", "2026-07-16T12:00:00.999Z", NOON),
        ("timestamp", NOON, NOON),
        ("timestamp", str(NOON), NOON),
        ("timestamp", NOON * 1000 + 999, NOON),
        ("timestamp", f"{NOON}000000000", NOON),
    ],
)
def test_a_cursor_is_read_in_every_form_that_the_docs_show(kind: CursorKind, raw: Any, value: int) -> None:
    assert Cursor.parse(kind, raw) == Cursor(kind, value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raw", [None, True, 1.5, "", "-1", -1, "x", "²", [], {}, "9" * 500, "2026-13-01"])
def test_what_is_no_cursor_is_none_and_raises_nothing(kind: CursorKind, raw: Any) -> None:
    assert Cursor.parse(kind, raw) is None


@given(st.integers(0, 2**80), st.integers(0, 2**80))
def test_cursors_of_a_kind_compare_as_integers_however_they_are_written(one: int, other: int) -> None:
    first, second = Cursor.parse("number", str(one)), Cursor.parse("number", other)
    assert first is not None
    assert second is not None
    assert (first < second, first <= second, first == second) == (one < other, one <= other, one == other)
    assert max(first, second).value == max(one, other)


def test_cursors_of_two_kinds_do_not_compare() -> None:
    with pytest.raises(TypeError):
        Cursor("slot", 1) < Cursor("height", 2)  # noqa: B015
    assert Cursor("slot", 1) != Cursor("height", 1)


@given(st.sampled_from(KINDS), st.integers(0, 2**36))
def test_a_cursor_survives_a_checkpoint_and_its_literal_reads_as_itself(kind: CursorKind, value: int) -> None:
    cursor = Cursor(kind, value)
    assert Cursor.from_json(msgspec.json.decode(msgspec.json.encode(cursor.as_json()))) == cursor
    assert Cursor.parse("time" if cursor.is_time else kind, cursor.text()) is not None


@pytest.mark.parametrize(
    "value", [None, [], ["number"], ["inch", "1"], ["number", 1], ["number", "x"], "number"]
)
def test_a_spoiled_checkpoint_gives_no_cursor(value: Any) -> None:
    assert Cursor.from_json(value) is None


def test_a_cursor_shows_what_it_is() -> None:
    assert str(Cursor("slot", 7)) == "slot 7"
    assert str(Cursor("time", NOON)) == str(Cursor("timestamp", NOON)) == "2026-07-16T12:00:00Z"


def test_a_range_includes_both_ends_in_the_words_of_its_kind() -> None:
    number = CursorField("number", ("Block", "Number"), None)
    low, high = Cursor("number", 5), Cursor("number", 2**70)
    assert number.between(low, high) == {("Block", "Number", "ge"): low, ("Block", "Number", "le"): high}
    assert number.between(None, low) == {("Block", "Number", "le"): low}
    assert (high.literal(), high.text()) == ('"1180591620717411303424"', "1180591620717411303424")
    start = CursorField("time", ("Interval", "Time", "Start"), None)
    noon = Cursor("time", NOON)
    assert start.between(noon, None) == {("Interval", "Time", "Start", "since"): noon}
    assert (start.name, noon.literal()) == ("Interval_Time_Start", '"2026-07-16T12:00:00Z"')


def test_a_timestamp_is_asked_for_as_a_time() -> None:
    field = CursorField("timestamp", ("Block", "Time"), ("Block", "Timestamp"))
    noon = Cursor("timestamp", NOON)
    assert field.between(None, noon) == {("Block", "Time", "till"): noon}
    assert noon.text() == "2026-07-16T12:00:00Z"
