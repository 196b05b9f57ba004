"""The table of key fields, held against rows of the simulator."""

from __future__ import annotations

import pytest
from graphql import parse

from bqstream.delivery.document import Document
from bqstream.delivery.enlarge import enlarge
from bqstream.delivery.identity import _TABLE, identity_of
from bqstream.delivery.shape import shape_of
from bqstream.simulator.answers import prepare, rows_of
from bqstream.simulator.chain import Chain

EVERY = sorted(_TABLE)


@pytest.mark.parametrize(("root", "cube"), EVERY)
def test_a_key_begins_with_the_block_s_hash_and_names_no_field_twice(root: str, cube: str) -> None:
    identity = identity_of(root, cube)
    assert identity is not None
    assert identity.of[0] == ("Block", "Hash")
    assert len(set(identity.fields)) == len(identity.fields)


@pytest.mark.parametrize(("root", "cube"), EVERY)
def test_every_row_of_a_cube_has_a_key_of_its_own(root: str, cube: str) -> None:
    document = Document.parse(f"subscription {{ {root} {{ {cube} {{ Block {{ Time }} }} }} }}")
    enlarged = enlarge(document, shape_of(document))
    assert enlarged is not None
    parse(enlarged.text)
    asked, chain = prepare(enlarged.text, None, None), Chain(transactions=40)
    blocks = [chain.mine() for _ in range(3)]
    rows = [
        row
        for block in [*blocks, *chain.fork(1)]
        for index in range(block.portions)
        for _, row in rows_of(asked.portion(block, index) or {})
    ]
    keys = {enlarged.readers[cube].key(row) for row in rows}
    assert len(keys) == len(rows) >= 4
    assert None not in keys


def test_a_transaction_that_is_mined_again_is_another_row() -> None:
    text = "subscription { EVM { Transactions { Transaction { Hash } } } }"
    document = Document.parse(text)
    enlarged = enlarge(document, shape_of(document))
    assert enlarged is not None
    chain, asked = Chain(transactions=40), prepare(enlarged.text, None, None)
    chain.mine()
    before = chain.mine()
    (after,) = chain.fork(1)
    rows = [
        [r for n in range(b.portions) for _, r in rows_of(asked.portion(b, n) or {})] for b in (before, after)
    ]
    old, new = ({row["Transaction"]["Hash"] for row in side} for side in rows)
    assert old & new
    reader = enlarged.readers["Transactions"]
    assert not {reader.key(row) for row in rows[0]} & {reader.key(row) for row in rows[1]}


@pytest.mark.parametrize(
    ("root", "cube"),
    [
        ("EVM", "DEXTradeByTokens"),
        ("EVM", "TransactionBalances"),
        ("Trading", "Trades"),
        ("Trading", "Tokens"),
        ("Tron", "Transfers"),
        ("Hyperliquid", "Trades"),
        ("Bitcoin", "Blocks"),
    ],
)
def test_a_cube_whose_rows_nothing_counts_has_no_identity(root: str, cube: str) -> None:
    assert identity_of(root, cube) is None


def test_a_row_of_the_mempool_is_known_without_a_block() -> None:
    on_chain, waiting = identity_of("EVM", "Events"), identity_of("EVM", "Events", mempool=True)
    assert on_chain is not None
    assert waiting is not None
    assert waiting.of == (("Transaction", "Hash"),)
    assert waiting.within == on_chain.within
    assert identity_of("EVM", "Blocks", mempool=True) is None


def test_what_is_inferred_says_so() -> None:
    sure = {name for name in EVERY if not _TABLE[name].inferred}
    assert ("EVM", "Transfers") in sure
    assert ("EVM", "DEXTrades") not in sure
