from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bqstream.notebook.values import cells, is_measure, number, time_of


def test_a_row_is_its_values_by_the_keys_on_the_way() -> None:
    row = {"Block": {"Number": "7", "Empty": {}}, "Log": [{"a": 1}], "Null": None}
    assert list(cells(row)) == [
        (("Block", "Number"), "7"),
        (("Block", "Empty"), "{}"),
        (("Log",), '[{"a":1}]'),
        (("Null",), None),
    ]
    assert list(cells(5)) == [((), 5)]


@pytest.mark.parametrize(
    ("value", "drawn"),
    [
        *((1, 1.0), (-0.5, -0.5), ("12.50", 12.5), ("1e3", 1000.0), ("9" * 60, 1e60)),
        *(
            (True, None),
            (None, None),
            ("0x12", None),
            ("", None),
            ("1,5", None),
            ("nan", None),
            (10**400, None),
        ),
        *(("9" * 81, None), ("1e999", None), ("٣", None)),
    ],
)
def test_amounts_are_drawn_as_numbers_and_nothing_else_is(value: Any, drawn: float | None) -> None:
    assert number(value) == drawn


def test_the_time_of_a_row_is_that_of_its_block() -> None:
    row = {"Other": {"Time": "2020-01-01T00:00:00Z"}, "Block": {"Time": "2026-01-02T03:04:05Z"}}
    assert time_of(cells(row)) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert time_of(cells({"Block": {"Time": "yesterday"}})) is None
    assert time_of(cells({"Block": {"Number": 1}})) is None


def test_amounts_and_prices_are_measures_and_numbers_of_blocks_are_none() -> None:
    assert is_measure(("Trade", "Buy", "Amount"))
    assert is_measure(("Trade", "Buy", "PriceInUSD"))
    assert not is_measure(("Block", "Number"))
