"""What a field holds by its name, until its rows or a schema say it."""

from __future__ import annotations

import pytest

from bqstream.tables.scalars import Schema, guess, is_list


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("Block.Number", "integer"),
        ("Block.Slot", "integer"),
        ("Reply.Block.Height", "integer"),
        ("Transfer.Number", None),
        ("Log.Index", "integer"),
        ("Transfer.Currency.Decimals", "integer"),
        ("Block.Time", "timestamp"),
        ("Time", "timestamp"),
        ("Interval.Time.Start", "timestamp"),
        ("Block.Timestamp", None),
        ("Block.Date", None),
        ("Transfer.Amount", "decimal"),
        ("Transfer.AmountInUSD", "float"),
        ("Trade.PriceInUSD", "float"),
        ("Trade.Price", None),
        ("Transaction.Gas", "decimal"),
        ("Transaction.GasPrice", "decimal"),
        ("TransactionStatus.Success", "boolean"),
        ("Transfer.Currency.Fungible", "boolean"),
        ("Transfer.Currency.Symbol", None),
        ("count", None),
    ],
)
def test_a_field_is_known_by_the_services_habits(path: str, kind: str | None) -> None:
    assert guess(tuple(path.split("."))) == kind


def test_fields_that_hold_lists_are_known() -> None:
    assert is_list(("Log", "Topics"))
    assert not is_list(("Topics", "Hash"))


def test_a_schema_says_nothing_of_objects_unknown_fields_and_unknown_scalars() -> None:
    schema = Schema(
        "scalar X type Query { A: R } type R { B: [B] } type B { C: D E: X F: Int! G: [Int!]! } type D { E: Int }"
    )
    found = {
        path: schema.kind(("A", "B", *path.split("."))) for path in ("C", "C.E", "E", "F", "G", "G.x", "H")
    }
    assert found == {
        "C": None,
        "C.E": "integer",
        "E": None,
        "F": "integer",
        "G": "json",
        "G.x": None,
        "H": None,
    }
