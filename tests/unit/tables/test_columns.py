"""Which columns a document's tables have, and what each of them holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from graphql import build_schema, introspection_from_schema
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bqstream import DocumentRefused, UsageError
from bqstream.delivery.document import Document
from bqstream.tables.columns import Draft, drafts
from bqstream.tables.flatten import flatten
from tests.documents import documented, needs_documents

TRANSFERS = """subscription($usd: Boolean = false) { EVM(network: eth) { Transfers {
    Block { Number Time Date }
    Transfer { Amount Success AmountInUSD @include(if: $usd) Type }
    Arguments { Name Value { ... on EVM_ABI_Integer_Value_Arg { integer } } }
    count
} } }"""


def drafted(
    document: str,
    variables: Mapping[str, Any] | None = None,
    *,
    operation_name: str | None = None,
    **options: Any,
) -> tuple[Draft, ...]:
    return drafts(Document.parse(document, operation_name), variables, **options)


def kinds(document: str, rows: list[Any] | None = None, **options: Any) -> dict[str, str]:
    """The first table's columns, as these rows show them to be."""
    table = drafted(document, **options)[0].settle(rows or [])
    return {column.name: column.kind for column in table.columns}


def one(selection: str) -> str:
    return f"subscription {{ EVM {{ Transfers {{ {selection} }} }} }}"


# ---------------------------------------------------------------------- names


def test_columns_are_the_values_of_a_row_by_the_way_to_them_in_the_documents_order() -> None:
    assert list(kinds(TRANSFERS)) == [
        *("Block_Number", "Block_Time", "Block_Date", "Transfer_Amount", "Transfer_Success", "Transfer_Type"),
        *("Arguments", "count"),
    ]


def test_what_a_directive_leaves_out_is_no_column() -> None:
    table = drafted(TRANSFERS, {"usd": True})[0].table
    assert "Transfer_AmountInUSD" in table.names
    assert "Transfer_AmountInUSD" not in drafted(TRANSFERS)[0].table.names


def test_aliases_name_columns_and_tables() -> None:
    (draft,) = drafted("subscription { EVM { Moves: Transfers { At: Block { N: Number } } } }")
    assert (draft.table.name, draft.table.cube) == ("Moves", "Moves")
    assert [(column.name, column.path) for column in draft.table.columns] == [("At_N", ("At", "N"))]


def test_fragments_are_part_of_what_they_stand_in_and_a_field_that_is_there_twice_is_one_column() -> None:
    document = """subscription S { EVM { Transfers { ...T Block { Number } ... on X { Block { Number Time } } } } }
        fragment T on Y { Transfer { Amount } }"""
    assert list(kinds(document)) == ["Transfer_Amount", "Block_Number", "Block_Time"]


def test_each_of_several_cubes_has_a_table_of_its_own() -> None:
    found = drafted("subscription { EVM { A: Transfers { Block { Number } } Blocks { Block { Time } } } }")
    assert [draft.table.name for draft in found] == ["A", "Blocks"]


def test_the_type_of_a_value_that_the_document_asks_for_is_a_column() -> None:
    assert list(kinds(one("__typename Block { Number }"))) == ["__typename", "Block_Number"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (one("Block_Number: count Block { Number }"), "the column block_number 2 times"),
        (one("a: count A: sum"), "the column a 2 times"),
        ("subscription { EVM { a: Transfers { x } A: Transfers { y } } }", "2 tables a"),
        ("subscription { EVM { _bqstream_gaps: Transfers { x } } }", "_bqstream are taken"),
    ],
)
def test_names_that_are_one_in_a_database_are_refused(document: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        drafted(document)


def test_a_list_that_the_rows_show_takes_no_other_columns_name() -> None:
    (draft,) = drafted(one("A_B: count A { B { C D } }"))
    draft.settle([{"A_B": 1, "A": {"B": {"C": 1}}}])
    with pytest.raises(UsageError, match="a_b 2 times"):
        draft.settle([{"A_B": 1, "A": {"B": [{"C": 1}]}}])


@pytest.mark.parametrize(
    "document",
    [
        "subscription { price }",
        "subscription { ticker { price volume } }",
        "subscription { EVM { network } }",
    ],
)
def test_what_has_no_rows_is_one_column_of_json(document: str) -> None:
    assert kinds(document) == {"data": "json"}


def test_another_services_root_has_a_table_for_data_without_lists_too() -> None:
    document = "subscription { feed { posts { id text } } }"
    posts, whole = drafted(document)
    assert (posts.table.name, posts.table.names) == ("posts", ("id", "text"))
    assert (whole.table.name, whole.table.cube, whole.table.names) == ("feed", "", ("data",))
    assert [draft.table.name for draft in drafted(document, table="news")] == ["news", "news"]


def test_a_table_is_named_by_the_user_where_there_is_one() -> None:
    assert drafted(one("Block { Number }"), table="moves")[0].table.name == "moves"
    with pytest.raises(UsageError, match="are taken"):
        drafted(one("Block { Number }"), table="_BQSTREAM_state")
    with pytest.raises(UsageError, match="several cubes, each with a table of its own: A, B"):
        drafted("subscription { EVM { A: Transfers { x } B: Transfers { y } } }", table="x")


# ---------------------------------------------------------------------- what they hold


def test_the_services_habits_say_what_a_column_holds_that_shows_nothing() -> None:
    assert kinds(TRANSFERS, variables={"usd": True}) == {
        "Block_Number": "integer",
        "Block_Time": "timestamp",
        "Block_Date": "text",
        "Transfer_Amount": "text",
        "Transfer_Success": "boolean",
        "Transfer_AmountInUSD": "float",
        "Transfer_Type": "text",
        "Arguments": "json",
        "count": "text",
    }
    assert kinds(TRANSFERS, decimals=True)["Transfer_Amount"] == "decimal"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, 2], "float"),
        ([1, 2**53 + 1], "text"),  # no double holds it
        ([True, None], "boolean"),
        ([True, 1], "text"),
        (["a", None], "text"),
        ([1, "1"], "text"),
        ([{"a": 1}], "json"),
        ([[], [1]], "json"),
        ([None], "text"),
        ([], "text"),
    ],
)
def test_the_first_rows_say_what_a_column_holds_that_no_habit_knows(values: list[Any], kind: str) -> None:
    assert kinds(one("unknown"), [{"unknown": value} for value in values]) == {"unknown": kind}


@pytest.mark.parametrize(
    ("number", "kind"), [("1", "integer"), (1, "integer"), ("0x1", "text"), ("1.5", "text"), (1.5, "float")]
)
def test_the_first_rows_overrule_a_habit_that_does_not_fit_them(number: Any, kind: str) -> None:
    assert kinds(one("Block { Number }"), [{"Block": {"Number": number}}]) == {"Block_Number": kind}


def test_times_finer_than_a_microsecond_are_text_where_the_first_rows_show_them() -> None:
    rows = [{"Block": {"Time": "2024-10-19T12:00:00.123456789Z"}}]
    assert kinds(one("Block { Time }"), rows) == {"Block_Time": "text"}


def test_a_list_on_the_way_is_one_column_that_holds_it_whole() -> None:
    document = one("Block { Number } Log { Topics_: Topics { Hash } Odd { A B { C } } }")
    rows = [{"Block": {"Number": "1"}, "Log": {"Topics_": [], "Odd": [{"A": 1, "B": {"C": 2}}]}}]
    table = drafted(document)[0].settle(rows)
    assert table.names == ("Block_Number", "Log_Topics_", "Log_Odd")
    made, misfits = flatten(table, rows)
    assert not misfits
    assert [values[0] for values in made.columns] == [1, "[]", '[{"A":1,"B":{"C":2}}]']


def test_a_list_that_only_some_of_the_first_rows_have_is_found() -> None:
    assert kinds(one("Odd { A }"), [{"Odd": None}, {}, {"Odd": []}]) == {"Odd": "json"}


@settings(suppress_health_check=[HealthCheck.too_slow])
@example([{"A": {"B": []}}, {"A": []}])
@given(st.lists(st.fixed_dictionaries({}, optional={"A": st.none() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.fixed_dictionaries({}, optional={"B": inner}),
    max_leaves=4)}), min_size=1, max_size=4))  # fmt: skip
def test_rows_fit_the_table_that_they_have_shown_unless_one_path_is_both_an_object_and_none(
    rows: list[Any],
) -> None:
    table = drafted(one("A { B }"))[0].settle(rows)
    _, misfits = flatten(table, rows)
    for misfit in misfits:
        assert not isinstance(misfit.row["A"], dict | list | None), "a value where an object was asked for"


# ---------------------------------------------------------------------- what the user says


def test_what_the_user_says_stands_whatever_the_rows_show() -> None:
    columns = {"Block_Number": "text", "Transfer_Amount": "decimal(38, 18)", "count": "integer"}
    table = drafted(TRANSFERS, columns=columns)[0].settle([{"Block": {"Number": "1"}, "count": 1.5}])
    found = {column.name: (column.kind, column.digits) for column in table.columns}
    assert found["Block_Number"] == ("text", None)
    assert found["Transfer_Amount"] == ("decimal", (38, 18))
    assert found["count"] == ("integer", None)


def test_the_user_may_say_that_an_object_is_one_column_of_json() -> None:
    found = kinds(one("Odd { A B { C } } Block { Number }"), columns={"Odd": "json"})
    assert found == {"Odd": "json", "Block_Number": "integer"}
    with pytest.raises(UsageError, match="no such column; it has Odd_A"):
        drafted(one("Odd { A }"), columns={"Odd": "text"})


def test_every_mistake_is_named_at_once() -> None:
    wrong = {"Block_Number": "int", "Nowhere": "text", "count": "decimal(2, 3)", "Block_Date": "decimal(0,0)"}
    with pytest.raises(UsageError) as raised:
        drafted(TRANSFERS, columns=wrong, schema="nonsense")
    said = str(raised.value)
    assert all(part in said for part in ("=int", "Nowhere", "decimal(2, 3)", "decimal(0,0)", "--schema"))


SCHEMA = """
schema { query: Query subscription: Subscription }
type Query { EVM(network: String): EVM }
type Subscription { EVM(network: String): EVM }
type EVM { Transfers(limit: Int): [Transfer!] }
type Transfer { Block: Block Transfer: Fields Arguments: [Argument!]! Odd: [Argument] count: Int }
type Block { Number: BigInt Time: DateTime Date: Date }
type Fields { Amount: String Success: Boolean AmountInUSD: Float Type: Type }
type Argument { Name: String Value: Value }
union Value = EVM_ABI_Integer_Value_Arg
type EVM_ABI_Integer_Value_Arg { integer: BigInt }
enum Type { token native }
scalar BigInt
scalar DateTime
scalar Date
"""


@pytest.mark.parametrize("form", ["language", "introspection", "response"])
def test_a_schema_says_what_columns_hold(form: str) -> None:
    import json

    text = SCHEMA
    if form != "language":
        found: dict[str, Any] = dict(introspection_from_schema(build_schema(SCHEMA)))
        text = json.dumps({"data": found} if form == "response" else found)
    document = TRANSFERS.replace("count", "Odd { Name } count").replace("Amount ", "Value: Amount ")
    assert kinds(document, variables={"usd": True}, schema=text, decimals=True) == {
        "Block_Number": "decimal",
        "Block_Time": "timestamp",
        "Block_Date": "text",
        "Transfer_Value": "text",
        "Transfer_Success": "boolean",
        "Transfer_AmountInUSD": "float",
        "Transfer_Type": "text",
        "Arguments": "json",
        "Odd": "json",
        "count": "integer",
    }
    assert kinds(document, schema=text)["Block_Number"] == "text"


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '{"data": null}', "[]", "type {", '{"__schema": {}}', "null"]
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--schema"):
        drafted(TRANSFERS, schema=text)


def test_the_user_overrules_a_schema() -> None:
    assert kinds(TRANSFERS, schema=SCHEMA, columns={"count": "text"})["count"] == "text"


# ---------------------------------------------------------------------- the documented subscriptions


@needs_documents
def test_every_documented_subscription_has_tables_with_unique_names_in_no_time() -> None:
    started = time.monotonic()
    columns = 0
    for line in documented():
        try:
            document = Document.parse(line["document"])
        except DocumentRefused:  # some are excerpts
            continue
        found = drafts(document, line.get("variables") or None)
        assert found, line["source"]
        names = [draft.table.name.lower() for draft in found]
        assert len(set(names)) == len(names), line["source"]
        for draft in found:
            table = draft.settle([])
            assert table.columns, line["source"]
            assert len({name.lower() for name in table.names}) == len(table.names)
            columns += len(table.columns)
    assert columns > 300
    assert time.monotonic() - started < 30
