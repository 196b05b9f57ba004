"""Hidden fields: what is written into a document, and that nobody sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from graphql import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from bqstream.delivery.cursor import Cursor
from bqstream.delivery.document import Document
from bqstream.delivery.enlarge import Enlarged, Reader, as_selected, enlarge
from bqstream.delivery.shape import shape_of
from bqstream.simulator.answers import prepare, rows_of
from bqstream.simulator.chain import Chain


def enlarged(text: str, variables: dict[str, Any] | None = None) -> Enlarged:
    document = Document.parse(text)
    found = enlarge(document, shape_of(document, variables))
    assert found is not None
    return found


def portions(text: str, variables: dict[str, Any] | None = None, blocks: int = 3) -> list[Any]:
    """What the simulator sends for a document over the blocks of one chain, None for nothing."""
    asked, chain = prepare(text, variables, None), Chain(transactions=4)
    asked.portion(chain.mine(), 0)  # learns its filters
    mined = [chain.mine() for _ in range(blocks)]
    sent = [asked.portion(block, index) for block in mined for index in range(block.portions)]
    copied: list[Any] = msgspec.json.decode(msgspec.json.encode(sent))
    return copied


def assert_unseen(text: str, variables: dict[str, Any] | None = None) -> Enlarged:
    """The enlarged document's rows, less the hidden fields, are the user's own, to the order of their keys."""
    document = Document.parse(text)
    more = enlarged(text, variables)
    sent = portions(more.text, variables)
    hidden = [name for reader in more.readers.values() for name in reader.hidden]
    assert hidden
    assert any(name in row for data in sent if data for _, row in rows_of(data) for name in hidden)
    for data in sent:
        more.take_out(data)
    assert msgspec.json.encode(sent) == msgspec.json.encode(portions(document.text, variables))
    return more


def test_what_is_missing_is_written_beside_what_is_selected() -> None:
    more = assert_unseen("subscription { EVM { Events { Log { Index } Block { Time } } } }")
    assert more.text == (
        "subscription { EVM { Events { Log { Index } Block { Time }  bqs_Block: Block { Hash Number } "
        "bqs_Transaction: Transaction { Hash } bqs_Call: Call { Index } } } }"
    )
    reader = more.readers["Events"]
    assert reader.hidden == ("bqs_Block", "bqs_Call", "bqs_Transaction")
    assert reader.within == (("bqs_Call", "Index"), ("Log", "Index"))


def test_what_is_selected_under_an_alias_is_read_where_it_is() -> None:
    text = "subscription { EVM { Transactions { b: Block { h: Hash n: Number } Transaction { Hash } } } }"
    document = Document.parse(text)
    shape = shape_of(document)
    assert enlarge(document, shape) is None
    reader = as_selected(shape)["Transactions"]
    row = {"b": {"h": "0xb", "n": "21"}, "Transaction": {"Hash": "0xt"}}
    assert reader.key(row) == ("0xb", "0xt")
    assert reader.cursor(row) == Cursor("number", 21)


@pytest.mark.parametrize(
    "text",
    [
        "subscription { EVM { Transfers { count Block { Time } } } }",
        "subscription { EVM { Transfers(limit: {count: 1}) { Block { Time } } } }",
        "subscription { EVM { Transfers(limitBy: {by: Transaction_Hash, count: 1}) { Block { Time } } } }",
        "subscription { EVM { Transfers { joinCalls(Call_To: Transfer_Sender) { Call { To } } } } }",
        "subscription { EVM(mempool: true) { TransactionBalances { TokenBalance { Address } } } }",
        "subscription { Bitcoin { Blocks { Block { Height } } } }",
        "subscription { EVM { Balances { Balance { Address } } } }",
        "subscription { ticks }",
    ],
)
def test_a_document_whose_rows_could_change_is_left_as_it_is(text: str) -> None:
    document = Document.parse(text)
    assert enlarge(document, shape_of(document)) is None


@pytest.mark.parametrize("metric", ["count", "Trade { Buy { Amount(maximum: Trade_Buy_Amount) } }"])
def test_the_proof_can_fail_where_an_aggregate_is_added_to_its_rows_change(metric: str) -> None:
    text = f"subscription {{ EVM {{ DEXTrades {{ Block {{ Number }} {metric} }} }} }}"
    document = Document.parse(text)
    shape = shape_of(document)
    (cube,) = shape.cubes
    forced = enlarge(document, replace(shape, cubes=(replace(cube, doubt=None),)))
    assert forced is not None
    sent = portions(forced.text)
    for data in sent:
        forced.take_out(data)
    assert sent != portions(text)


def test_an_aggregate_beside_a_cube_of_facts_is_not_touched() -> None:
    more = assert_unseen("subscription { EVM { n: Transfers { count } Transfers { Transfer { Amount } } } }")
    assert "n: Transfers { count }" in more.text
    assert more.readers["n"] == Reader()


def test_in_the_mempool_only_the_key_is_added_and_nothing_of_a_block() -> None:
    more = assert_unseen("subscription { EVM(mempool: true) { Calls { Call { To } } } }")
    assert "Block" not in more.text
    assert more.readers["Calls"].of == (("bqs_Transaction", "Hash"),)


def test_a_fragment_that_others_share_stays_as_it_is() -> None:
    fragment = "fragment Row on Any { Transaction { Hash } }"
    more = assert_unseen(
        f"subscription {{ EVM {{ Transfers {{ ...Row }} n: Transfers {{ ...Row count }} }} }} {fragment}"
    )
    assert more.text.endswith(fragment)
    assert "n: Transfers { ...Row count }" in more.text


def test_a_cube_that_a_fragment_brings_is_added_to_where_it_stands() -> None:
    more = assert_unseen(
        "subscription { EVM { ...Cubes ...Cubes } } fragment Cubes on EVM { Transfers { Transfer { Amount } } }"
    )
    assert more.text.count("bqs_Block:") == 1


def test_a_comment_before_the_brace_swallows_nothing() -> None:
    assert_unseen("subscription { EVM { Transfers { Transfer { Amount } # all\n} } } # end")


def test_a_name_like_a_hidden_one_is_the_user_s_own() -> None:
    more = assert_unseen(
        "subscription { EVM { Blocks { bqs_Block: Block { Time } bbqs_Block: Block { Date } } } }"
    )
    assert more.readers["Blocks"].hidden == ("bbbqs_Block",)


def test_variables_directives_and_a_second_operation_stay_as_they_are() -> None:
    text = """
        subscription One($net: evm_network, $all: Boolean!, $min: String) {
          EVM(network: $net) { Transfers(where: {Transfer: {Amount: {ge: $min}}}) {
            Block @include(if: $all) { Number Hash } Transaction { Hash } } }
        }
        query Two { EVM { Transfers { count } } }
    """
    for all_of_it in (True, False):
        values = {"net": "bsc", "all": all_of_it, "min": "3"}
        document = Document.parse(text, "One")
        shape = shape_of(document, values)
        more = enlarge(document, shape)
        assert more is not None
        assert ("bqs_Block" in more.text) is not all_of_it
        parse(more.text)
        assert "query Two { EVM { Transfers { count } } }" in more.text


def test_the_same_cube_under_two_aliases_is_added_to_twice() -> None:
    more = assert_unseen("subscription { EVM { a: Calls { Call { To } } b: Calls { Call { From } } } }")
    assert more.readers["a"] == more.readers["b"]
    assert more.text.count("bqs_Block:") == 2


READER = Reader(
    kind="number", at=("b", "n"), of=(("b", "h"),), within=(("l", "i"),), branch=("b", "h"), hidden=("b", "l")
)


@pytest.mark.parametrize(
    ("row", "key", "cursor", "branch"),
    [
        ({"b": {"h": "0x", "n": "7"}, "l": {"i": 3}}, ("0x", 3), Cursor("number", 7), "0x"),
        ({"b": {"h": "0x", "n": None}, "l": None}, ("0x", None), None, "0x"),
        ({"b": {"h": None, "n": 7}, "l": {"i": 3}}, None, Cursor("number", 7), None),
        ({"b": {"h": "0x"}, "l": {"i": [1]}}, None, None, "0x"),
        ({"b": {"h": 7}, "l": {"i": 0.5}}, None, None, None),
        ({"b": [], "l": "x"}, None, None, None),
        ({}, None, None, None),
        (None, None, None, None),
        ([1], None, None, None),
        ("row", None, None, None),
    ],
)
def test_a_row_that_lacks_something_has_no_key_no_cursor_or_no_hash(
    row: Any, key: Any, cursor: Cursor | None, branch: str | None
) -> None:
    assert READER.key(row) == key
    assert READER.cursor(row) == cursor
    assert READER.hash(row) == branch
    READER.take_out(row)
    assert not row or row in ([1], "row")


@pytest.mark.parametrize(
    "data", [None, [], 3, {"EVM": None}, {"EVM": {"T": None, "U": [None, 1]}}, {"EVM": []}]
)
def test_data_of_no_known_form_is_left_alone(data: Any) -> None:
    before = msgspec.json.encode(data)
    Enlarged("", {"T": READER, "U": READER}).take_out(data)
    assert msgspec.json.encode(data) == before


PARTS = ["Block { Time }", "Block { n: Number }", "at: Block { Hash }", "Transaction { Hash }",
         "t: Transaction { From }", "Call { Index }", "Log { Index SmartContract }", "... on Any { Log { i: Index } }",
         "Block @skip(if: $yes) { Hash }", "Transaction @include(if: $yes) { Hash }", "__typename", "...Shared",
         'd: calculate(expression: "1 + 2")', "# Block { Number }\n", "ChainId"]  # fmt: skip
CUBES = ["Events", "Transfers", "Calls", "Blocks", "DEXTrades", "TransactionBalances", "DEXTradeByTokens"]
cubes = st.tuples(st.sampled_from(CUBES), st.lists(st.sampled_from(PARTS), max_size=6, unique=True))


@settings(max_examples=80, deadline=None)
@given(st.lists(cubes, min_size=1, max_size=3))
def test_whatever_is_selected_no_row_changes(asked: list[tuple[str, list[str]]]) -> None:
    inner = " ".join(f"c{n}: {name} {{ {' '.join(parts)} Gas }}" for n, (name, parts) in enumerate(asked))
    shared = "fragment Shared on Any { Block { Number } }"
    text = f"subscription ($yes: Boolean = true) {{ EVM {{ {inner} }} }} {shared}"
    document = Document.parse(text)
    more = enlarge(document, shape_of(document))
    if more is None:
        return
    sent = portions(more.text, blocks=1)
    for data in sent:
        more.take_out(data)
    assert msgspec.json.encode(sent) == msgspec.json.encode(portions(text, blocks=1))
