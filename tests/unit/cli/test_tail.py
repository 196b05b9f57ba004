from __future__ import annotations

import json

import pytest

from bqstream.cli.tail import _json_lines, _table

from .conftest import Bqstream

BLOCKS = "subscription { EVM(network: eth) { Blocks { Block { Number Hash } } } }"
TYPED = "subscription ($network: evm_network!, $least: Int) { EVM(network: $network) { Blocks(a: $least) { b } } }"
ROWS = [
    {"Trade": {"Amount": "12.500000000000000000001", "Price": 1.5}, "Block": {"Number": "7", "Empty": None}}
]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--query", "subscription { EVM { Blocks { Block { Number } }"], "line 1"),
        (["--query", "query { EVM { Blocks { Block { Number } } } }"], "subscription"),
        (["--query", "subscription { A { B { c } } C { D { e } } }"], "root"),
        (["--query", BLOCKS, "--var", "nobody=1"], "nobody"),
        (["--query", BLOCKS, "--var", "novalue"], "NAME=VALUE"),
        (["--query", TYPED, "--var", "network=eth", "--var", "least=many"], "least"),
        (["--query", BLOCKS, "--for", "soon"], "30s, 5m or 1h"),
        (["--query", BLOCKS, "--endpoint", "http://192.0.2.1/graphql"], "https://"),
        (["--query", BLOCKS, "--since", "yesterday"], "an age like 6h"),
        ([], "DOCUMENT"),
        (["nowhere.graphql"], "nowhere.graphql"),
    ],
)
def test_wrong_usage_or_a_wrong_document_ends_with_2_before_any_connection(
    arguments: list[str], says: str, bqstream: Bqstream
) -> None:
    # Nobody listens there: an attempt to connect would end with another code, and not at once.
    env = {"BITQUERY_TOKEN": "abc", "BITQUERY_ENDPOINT": "http://127.0.0.1:1/graphql"}
    end = bqstream("tail", *arguments, env=env)
    assert (end.code, end.out) == (2, "")
    assert says in end.err
    assert "token refreshed" not in end.err


def test_missing_credentials_end_with_3_and_say_what_to_set(bqstream: Bqstream) -> None:
    env: dict[str, str | None] = {
        f"BITQUERY_{name}": None for name in ("TOKEN", "CLIENT_ID", "CLIENT_SECRET")
    }
    env |= {f"{name}_FILE": None for name in env}
    end = bqstream("tail", "--query", BLOCKS, env=env)
    assert end.code == 3
    assert "BITQUERY_CLIENT_SECRET" in end.err


def test_a_row_is_one_line_and_keeps_its_digits() -> None:
    lines = _json_lines(ROWS * 2).decode().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0]) == ROWS[0]


def test_a_table_has_a_column_for_each_leaf() -> None:
    text = _table(ROWS).decode()
    for cell in ("Trade.Amount", "12.500000000000000000001", "Trade.Price", "1.5", "Block.Empty", "null"):
        assert cell in text


def test_a_table_of_no_rows_is_nothing() -> None:
    assert _table([]) == b""


def test_rows_of_a_scalar_root_are_values() -> None:
    assert _json_lines([1, "two"]) == b'1\n"two"\n'
    assert "two" in _table(["two"]).decode()
