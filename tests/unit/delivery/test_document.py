"""What a document is found to ask for, and how it is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gql
import pytest

from bqstream.delivery.document import Document
from bqstream.errors import DocumentRefused, UsageError

TRADES = """subscription Trades($network: evm_network!, $limit: Int) {
  EVM(network: $network) {
    fast: DEXTrades(limit: {count: $limit}) { Block { Number } }
    ...more
    ... on EVM { Blocks { Block { Number } } }
  }
}
fragment more on EVM { Transfers { Transfer { Amount } } __typename }
"""


def test_a_document_says_what_it_asks_for() -> None:
    document = Document.parse(TRADES)
    assert (document.kind, document.root, document.operation_name) == ("subscription", "EVM", None)
    assert document.cubes == ("fast", "Transfers", "Blocks")
    assert document.variables == {"network": "evm_network!", "limit": "Int"}
    assert document.text == TRADES


def test_a_scalar_root_has_no_cubes() -> None:
    document = Document.parse("subscription { tick }")
    assert (document.root, document.cubes) == ("tick", ())


def test_a_document_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trades.graphql"
    file.write_text(TRADES, encoding="utf-8")
    assert Document.parse(file).text == TRADES


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Document.parse(tmp_path / "none.graphql")


def test_text_that_is_a_files_name_is_told_from_a_document() -> None:
    with pytest.raises(UsageError, match=r"give Path\('trades.graphql'\)"):
        Document.parse("trades.graphql")


def test_what_gql_gives_is_taken_whichever_its_version() -> None:
    document = Document.parse(gql.gql(TRADES))
    assert document.cubes == ("fast", "Transfers", "Blocks")
    assert Document.parse(document.text).cubes == document.cubes


def test_a_request_brings_its_variables_and_its_operation() -> None:
    class Request:  # what gql 4 has; gql 3 has the document alone
        document = getattr(gql.gql(TRADES), "document", gql.gql(TRADES))
        operation_name = "Trades"
        variable_values = {"limit": 3}  # noqa: RUF012

    document = Document.parse(Request())
    assert (document.operation_name, document.values) == ("Trades", {"limit": 3})


def test_something_else_is_no_document() -> None:
    with pytest.raises(UsageError, match="not int"):
        Document.parse(7)


def test_a_syntax_error_shows_the_place() -> None:
    with pytest.raises(DocumentRefused) as caught:
        Document.parse("subscription {\n  EVM {\n    DEXTrades(\n  }\n}")
    assert "(line 4, column 3)\n4 |   }\n  |   ^" in str(caught.value)


def test_a_tab_before_the_place_stays_a_tab() -> None:
    with pytest.raises(DocumentRefused) as caught:
        Document.parse("subscription {\n\tEVM ) }")
    assert str(caught.value).endswith("2 | \tEVM ) }\n  | \t    ^")


def test_two_roots_in_a_subscription_are_refused_with_the_place() -> None:
    with pytest.raises(DocumentRefused, match="has 2: EVM, Solana") as caught:
        Document.parse("subscription {\n  EVM { Blocks { x } }\n  Solana { Blocks { x } }\n}")
    assert "line 3, column 3" in str(caught.value)


def test_two_roots_that_a_fragment_brings_are_refused() -> None:
    with pytest.raises(DocumentRefused, match="has 2"):
        Document.parse("subscription { EVM { a } ...f } fragment f on Subscription { Tron { a } }")


def test_a_query_may_have_several_roots() -> None:
    document = Document.parse("query { EVM { Blocks { x } } Solana { Slots { x } } }")
    assert (document.kind, document.root, document.cubes) == ("query", "EVM", ("Blocks", "Slots"))


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("subscription A { a } subscription B { b }", None, "give operation_name: A, B"),
        ("subscription A { a } subscription B { b }", "C", "holds no operation 'C'; it holds A, B"),
        ("subscription { a }", "C", "it holds none with a name"),
        ("fragment f on EVM { a }", None, "holds no operation"),
        ("subscription { ...gone }", None, "no fragment 'gone'"),
        ("subscription { ...f } fragment f on S { ...f }", None, "holds itself"),
    ],
)
def test_an_operation_that_cannot_be_told_is_refused(text: str, name: str | None, why: str) -> None:
    with pytest.raises(DocumentRefused, match=why):
        Document.parse(text, name)


def test_one_of_several_operations_is_chosen_by_name() -> None:
    document = Document.parse("subscription A { a } subscription B { b }", "B")
    assert (document.root, document.operation_name) == ("b", "B")


def test_a_wrong_kind_says_what_to_use_instead() -> None:
    with pytest.raises(DocumentRefused, match=r"a query, not a subscription: execute\(\) takes it"):
        Document.parse("{ EVM { a } }").require("subscription")
    with pytest.raises(DocumentRefused, match=r"a subscription, not a query: subscribe\(\) takes it"):
        Document.parse(TRADES).require("query")
    Document.parse(TRADES).require("subscription")


# ---------------------------------------------------------------------- variables


def coerce(declared: str, text: str) -> Any:
    return Document.parse(f"subscription ($v: {declared}) {{ a(v: $v) }}").coerce("v", text)


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("Int", "-5", -5),
        ("Int", "null", None),
        ("Float!", "5", 5.0),
        ("Float", "1e3", 1000.0),
        ("Boolean!", "TRUE", True),
        ("String!", "5", "5"),
        ("String!", "null", "null"),
        ("String", '"quoted"', '"quoted"'),
        ("ID", "007", "007"),
        ("[String!]!", '["a", "b"]', ["a", "b"]),
        ("[String!]!", "a", ["a"]),
        ("[Int]", "[1, null]", [1, None]),
        ("[Int]", "null", None),
        ("[[Int]]", "[[1], [2]]", [[1], [2]]),
        ("EVM_Filter", '{"Block": {"Number": {"gt": "5"}}}', {"Block": {"Number": {"gt": "5"}}}),
        ("evm_network!", "eth", "eth"),
        ("DateTime", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("BigInt", "123", 123),
    ],
)
def test_a_variable_is_read_by_its_declared_type(declared: str, text: str, value: object) -> None:
    found = coerce(declared, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("Int", "5.5"),
        ("Int", "five"),
        ("Int", "true"),
        ("Int!", "null"),
        ("Float", "NaN"),
        ("Boolean", "1"),
        ("[Int!]", "[1, null]"),
        ("[String]", "[1]"),
        ("evm_network!", "null"),
    ],
)
def test_a_variable_that_its_type_does_not_allow_is_refused(declared: str, text: str) -> None:
    with pytest.raises(UsageError, match=r"\$v is declared"):
        coerce(declared, text)


def test_a_variable_that_is_not_declared_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"declares \$network, \$limit"):
        Document.parse(TRADES).coerce("netwrok", "eth")


def test_graphql_is_imported_when_a_document_is_parsed_and_not_before() -> None:
    code = (
        "import bqstream.delivery.document, bqstream.delivery.stream, sys; sys.exit('graphql' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
