"""What documents ask for, read without a schema."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import print_ast

from bqstream.delivery.document import Document
from bqstream.delivery.shape import CubeShape, Shape, shape_of
from bqstream.errors import DocumentRefused


def read(text: str, variables: dict[str, Any] | None = None) -> Shape:
    return shape_of(Document.parse(text), variables)


def only(text: str, variables: dict[str, Any] | None = None) -> CubeShape:
    (cube,) = read(text, variables).cubes
    return cube


def test_root_and_cubes_are_read_through_aliases_fragments_and_variables() -> None:
    shape = read(
        """
        subscription Both($net: evm_network = bsc, $on: blocks_update_arg_enum) {
          chain: EVM(network: $net, trigger_on: $on) { ...Cubes sold: DEXTrades { ...Row } }
        }
        fragment Cubes on EVM_Subscription { Transfers(limit: {count: 3}) { ...Row } }
        fragment Row on Anything { b: Block { n: Number ... on Block { Time } } }
        """,
        {"on": "head"},
    )
    assert (shape.root, shape.key, shape.reason) == ("EVM", "chain", None)
    assert shape.arguments == {"network": "bsc", "trigger_on": "head"}
    assert (shape.trigger_on, shape.mempool) == ("head", False)
    assert [(cube.key, cube.name, cube.kind) for cube in shape.cubes] == [
        ("Transfers", "Transfers", "facts"),
        ("sold", "DEXTrades", "facts"),
    ]
    sold = shape.cubes[1]
    assert sold.selected is not None
    assert (sold.selected.kind, sold.selected.field, sold.selected.at) == (
        "number",
        ("Block", "Number"),
        ("b", "n"),
    )
    assert sold.fields[("Block", "Time")] == ("b", "Time")


def test_a_cube_keeps_its_own_arguments_as_they_stand() -> None:
    cube = only(
        """
        subscription ($who: String) { EVM { Transfers(
          where: {Transfer: {Sender: {is: $who}}}, orderBy: {descending: Block_Time}
        ) { Block { Number } } } }
        """
    )
    assert cube.where is not None
    assert "$who" in print_ast(cube.where)
    assert cube.order_by is not None
    assert cube.limit is None
    assert cube.limit_by is None
    assert cube.reason is None


@pytest.mark.parametrize(
    ("root", "cube", "selected", "best", "shown"),
    [
        ("EVM", "Transfers", "Block { Number Time }", "number", "number"),
        ("EVM", "Transfers", "Block { Time }", "number", "time"),
        ("EVM", "Transfers", "Block { Time(interval: {count: 1}) }", "number", None),
        ("Tron", "Transfers", "Transfer { Amount }", "number", None),
        ("Solana", "DEXTrades", "Block { Height Slot }", "slot", "slot"),
        ("Solana", "DEXTrades", "Block { Height }", "slot", "height"),
        ("Solana", "DEXTrades", "Block { Height Time }", "slot", "time"),
        ("Trading", "Trades", "Block { Timestamp }", "time", "timestamp"),
        ("Trading", "Pairs", "Interval { Time { Start } }", "time", "time"),
        ("Trading", "Pairs", "Block { Time }", "time", None),
        ("Hyperliquid", "Trades", "Block { Number }", "time", "number"),
    ],
)
def test_the_best_cursor_is_named_and_the_best_of_the_selected(
    root: str, cube: str, selected: str, best: str, shown: str | None
) -> None:
    found = only(f"subscription {{ {root} {{ {cube} {{ {selected} }} }} }}")
    assert found.cursor is not None
    assert found.cursor.kind == best
    assert (found.selected.kind if found.selected else None) == shown
    assert found.clock is not None
    assert found.clock.kind == "time"


def test_cubes_of_intervals_are_upserts_and_asked_for_by_their_start() -> None:
    found = only("subscription { Trading { Tokens { Token { Id } } } }")
    assert found.upserts
    assert found.cursor is not None
    assert found.cursor.field == ("Interval", "Time", "Start")
    assert not only("subscription { Trading { Trades { Side } } }").upserts


@pytest.mark.parametrize(
    "field",
    [
        "count",
        "n: count(distinct: Block_Coinbase)",
        "sum(of: Transfer_Amount)",
        "Transfer { sum(of: Transfer_Amount) }",
        "Transfer { Amount(maximum: Transfer_Amount) }",
        "Trade { Buy { end: PriceInUSD(maximum: Block_Time) } }",
        "median(of: Trade_PriceInUSD)",
        "quantile(of: Trade_Price, level: 0.9)",
        "uniq(of: Transfer_Sender)",
        "average(of: Transfer_Amount)",
        "skew(of: Transfer_Amount)",
        "nakamoto(of: Transfer_Amount)",
        "a_metric_of_tomorrow",
        "Trade { PriceAsymmetry(selectWhere: {lt: 0.1}) }",
        "Block { Time(interval: {in: minutes, count: 1}) }",
        "joinCalls(join: left, Call_To: Transfer_Receiver) { Call { To } }",
        'calculate(expression: "sum(Transfer_Amount)")',
    ],
)
def test_what_groups_or_may_group_is_an_aggregate(field: str) -> None:
    text = f"subscription {{ EVM {{ Transfers {{ Transaction {{ Hash }} ...F }} }} }} fragment F on T {{ {field} }}"
    found = only(text)
    assert found.kind == "aggregate"
    assert found.doubt is not None
    assert found.reason == found.doubt


@pytest.mark.parametrize(
    "field",
    [
        "__typename",
        "Transaction { Hash(if: null) }",
        "Arguments { Value { ... on EVM_ABI_Address_Value_Arg { address } ... on EVM_ABI_Bytes_Value_Arg { hex } } }",
        'calculate(expression: "round($TokenBalance_PostBalance - $TokenBalance_PreBalance, 3)")',
    ],
)
def test_what_is_of_one_row_is_a_fact(field: str) -> None:
    assert only(f"subscription {{ EVM {{ Events {{ {field} }} }} }}").kind == "facts"


@pytest.mark.parametrize(
    ("root", "cube", "word"),
    [
        ("EVM(mempool: true)", "Transfers", "mempool"),
        ("EVM(mempool: $on)", "Transfers", "mempool"),
        ("EVM", "Transfers(limit: {count: 5})", "limit"),
        ("EVM", "Transfers(limitBy: {by: Transaction_Hash, count: 1})", "limitBy"),
        ("EVM", 'Transfers(tokenSmartContract: "0x")', "tokenSmartContract"),
        ("EVM", "Balances", "no block"),
        ("Bitcoin", "Blocks", "Bitcoin"),
    ],
)
def test_a_cube_whose_gaps_cannot_be_closed_says_why(root: str, cube: str, word: str) -> None:
    found = only(f"subscription ($on: Boolean = true) {{ {root} {{ {cube} {{ Block {{ Hash }} }} }} }}")
    assert found.reason is not None
    assert word in found.reason


@pytest.mark.parametrize(
    ("cube", "records"),
    [
        ("Transfers { Block { Number } }", True),
        ("Transfers(limit: {count: 5}) { Block { Number } }", True),
        ("Transfers(limitBy: {by: Transaction_Hash, count: 1}) { Block { Number } }", True),
        ("Transfers(limit: {count: 5}) { count }", False),
        ("Transfers(limit: {count: 5}, offset: 3) { Block { Number } }", False),
        ("Transfers { count }", False),
    ],
)
def test_a_limit_leaves_rows_out_but_what_is_left_are_records(cube: str, records: bool) -> None:
    assert only(f"subscription {{ EVM {{ {cube} }} }}").records is records


def test_an_argument_that_a_variable_leaves_null_is_none() -> None:
    text = "subscription ($l: Limit) { EVM { Transfers(limit: $l, where: null) { Block { Number } } } }"
    assert only(text).arguments == {}
    assert only(text, {"l": {"count": 1}}).limit is not None


def test_what_directives_leave_out_is_not_there() -> None:
    text = """
        subscription ($more: Boolean = false) { EVM {
          Transfers { Block { Number @include(if: $more) Time } Transfer @skip(if: true) { sum(of: Transfer_Amount) } }
          Calls @include(if: $more) { count }
        } }
    """
    (transfers,) = read(text).cubes
    assert transfers.kind == "facts"
    assert transfers.selected is not None
    assert transfers.selected.kind == "time"
    assert [cube.kind for cube in read(text, {"more": True}).cubes] == ["facts", "aggregate"]


def test_a_cube_that_is_mentioned_twice_is_one() -> None:
    found = only("subscription { EVM { Transfers { Block { Number } } Transfers { Block { Time } } } }")
    assert len(found.nodes) == 2
    assert found.fields.keys() == {("Block", "Number"), ("Block", "Time")}


@pytest.mark.parametrize("text", ["subscription { ticks }", "subscription { EVM { Height } }"])
def test_a_scalar_has_no_rows(text: str) -> None:
    shape = read(text)
    assert shape.reason or [cube.kind for cube in shape.cubes] == ["scalar"]
    assert all(cube.reason for cube in shape.cubes)


@pytest.mark.parametrize(
    "text",
    [
        "subscription { EVM { Transfers { Block { ...Gone } } } }",
        "subscription { EVM { Transfers { ...A } } } fragment A on T { ...A }",
        "subscription { EVM { Transfers { ...A } } } fragment A on T { Block { ...A } }",
        "subscription { EVM @skip(if: true) { Transfers { Block { Time } } } }",
    ],
)
def test_a_document_that_cannot_be_resolved_is_refused(text: str) -> None:
    with pytest.raises(DocumentRefused):
        read(text)
