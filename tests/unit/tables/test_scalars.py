"""What a field holds by its name, until its rows or a schema say it."""

from __future__ import annotations

import pytest

from bqstream.tables.scalars import Schema, forms, guess, is_list


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
        ("Transaction.Signer", None),
        ("Accounts.IsSigner", "boolean"),
        ("Price.IsQuotedInUsd", "boolean"),
        ("Transfer.Currency.HasURI", "boolean"),
        ("Trade.Issuer", None),
        ("Transfer.Currency.Symbol", None),
        ("count", None),
    ],
)
def test_a_field_is_known_by_the_services_habits(path: str, kind: str | None) -> None:
    assert guess(tuple(path.split("."))) == kind


@pytest.mark.parametrize(
    ("root", "path", "found"),
    [
        ("EVM", "Block.Number", {"string"}),
        ("EVM", "Transaction.Index", {"string", "integer"}),
        ("EVM", "Log.Index", {"integer"}),
        ("EVM", "Transfer.Amount", {"string"}),
        ("Trading", "Supply.Amount", {"string", "number"}),
        ("EVM", "Trade.Price", {"string", "number"}),
        ("EVM", "Transfer.AmountInUSD", {"string", "number"}),
        ("Solana", "Instruction.Accounts.IsWritable", {"boolean"}),
        ("Solana", "Transaction.Signer", {"string"}),
        ("EVM", "Arguments.Value.bigInteger", {"string"}),
        ("EVM", "Arguments.Value.integer", {"integer"}),
        ("EVM", "Arguments.Value.bool", {"boolean"}),
        ("EVM", "Call.Value", {"string"}),
        ("EVM", "count", {"string"}),
        ("EVM", "sum", {"string", "number"}),
        ("EVM", "Block.Time", {"string"}),
        ("EVM", "__typename", {"string"}),
        ("EVM", "Trade.Wondrous", set()),
    ],
)
def test_how_json_brings_a_field_is_known_by_the_services_habits(
    root: str, path: str, found: set[str]
) -> None:
    assert forms(root, tuple(path.split("."))) == found


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
