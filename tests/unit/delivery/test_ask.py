"""The query that closes a gap: what is kept of the document, how its filters are joined, what an answer is read as."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from typing import Any, NamedTuple

import msgspec
import pytest
from graphql import OperationDefinitionNode, parse, print_ast
from hypothesis import given, settings
from hypothesis import strategies as st

from bqstream.delivery.ask import Answer, Asker, Range
from bqstream.delivery.cursor import Cursor, Path
from bqstream.delivery.document import Document
from bqstream.delivery.enlarge import as_selected, enlarge
from bqstream.delivery.identity import Identity
from bqstream.delivery.shape import CubeShape, shape_of
from bqstream.errors import DocumentRefused
from bqstream.simulator.answers import prepare
from bqstream.simulator.chain import Block, Chain
from tests.documents import contradicts_itself, documented, needs_documents

PAGE = 2
NOON = int(datetime(2026, 7, 16, 12, tzinfo=UTC).timestamp())


def number(value: int) -> Cursor:
    return Cursor("number", value)


def asker(text: str, variables: Mapping[str, Any] | None = None, **kept: Any) -> Asker:
    return Asker(Document.parse(text, kept.pop("operation_name", None)), text, variables, **kept)


@dataclass
class Asked:
    """One request, taken apart."""

    query: str
    variables: dict[str, Any]

    @property
    def operation(self) -> OperationDefinitionNode:
        (found,) = [one for one in parse(self.query).definitions if isinstance(one, OperationDefinitionNode)]
        return found

    @property
    def root(self) -> Any:
        (found,) = self.operation.selection_set.selections
        return found

    @property
    def cubes(self) -> dict[str, Any]:
        """The fields under the root by response key."""
        return {(one.alias or one.name).value: one for one in self.root.selection_set.selections}

    def argument(self, key: str, name: str) -> str | None:
        """A cube's argument, on one line."""
        for one in self.cubes[key].arguments:
            if one.name.value == name:
                return Flat(print_ast(one.value))
        return None

    def where(self, key: str = "Transfers") -> str | None:
        return self.argument(key, "where")


class Flat(str):
    """GraphQL, equal to any other that differs in layout and commas alone (parsers lay it out as they like)."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and flat(self) == flat(other)


def flat(text: str) -> str:
    return " ".join(re.findall(r'"[^"]*"|[\w$@]+|[^\s,]', text))


def ask(
    text: str, ranges: Mapping[str, Range], variables: Mapping[str, Any] | None = None, **kept: Any
) -> Asked:
    floor = kept.pop("floor", False)
    payload = asker(text, variables, **kept).request(ranges, floor=floor)
    return Asked(**msgspec.json.decode(payload))


def where(own: str, asked: Range, variables: Mapping[str, Any] | None = None, declared: str = "") -> Asked:
    """Of a document with this filter of its own."""
    own = f"(where: {own})" if own else ""
    return ask(
        f"subscription {declared} {{ EVM {{ Transfers{own} {{ Log {{ Index }} }} }} }}",
        {"Transfers": asked},
        variables,
    )


FROM_5_TO_9 = Range(low=number(5), high=number(9))


# ---------------------------------------------------------------------- what is kept


def test_a_subscription_becomes_a_query_of_one_cube_and_where_its_newest_row_stands() -> None:
    asked = ask(
        "subscription Mine { EVM(network: bsc, trigger_on: head) { Transfers { Transfer { Amount } } } }",
        {"Transfers": FROM_5_TO_9},
    )
    assert Flat(asked.query) == (
        "query Mine {EVM(network: bsc, dataset: realtime) {"
        'Transfers(where: {Block: {Number: {ge: "5", le: "9"}}}, limit: {count: 5000}, '
        "orderBy: [{ascending: Block_Number}]) {Transfer {Amount}} "
        "bqs_head_Transfers: Transfers(limit: {count: 1}, orderBy: {descending: Block_Number}) "
        "{Block {Number Time}}}}"
    )
    assert asked.variables == {}


def test_only_the_cubes_that_are_asked_for_are_kept_and_each_cube_s_head_once() -> None:
    text = """
        subscription {
          chain: EVM { a: Transfers { Log { Index } } b: Transfers { Call { Index } } n: Calls { count } __typename }
        }
    """
    asked = ask(text, {"a": Range(), "b": Range()}, floor=True)
    assert list(asked.cubes) == ["a", "b", "bqs_head_Transfers", "bqs_floor_Transfers"]
    assert (asked.root.alias.value, asked.root.name.value) == ("chain", "EVM")
    assert asked.argument("bqs_floor_Transfers", "orderBy") == "{ascending: Block_Number}"
    assert asked.query.count("bqs_head_Transfers") == 1
    assert list(ask(text, {"b": Range()}).cubes) == ["b", "bqs_head_Transfers"]


def test_a_root_and_a_cube_that_are_mentioned_twice_or_in_fragments_are_one() -> None:
    asked = ask(
        """
        subscription Two { EVM { Transfers { Log { Index } } ...More } EVM { Calls { Call { To } } } }
        subscription Other { EVM { ...Unused } }
        fragment More on EVM_Subscription { Transfers { ...Row } Events { Log { Index } } }
        fragment Row on Any { Transfer { ...Deep } }
        fragment Deep on Any { Amount }
        fragment Unused on EVM_Subscription { Blocks { Block { Hash } } }
        """,
        {"Transfers": Range()},
        operation_name="Two",
    )
    assert Flat(print_ast(asked.cubes["Transfers"].selection_set)) == "{Log {Index} ...Row}"
    assert list(asked.cubes) == ["Transfers", "bqs_head_Transfers"]
    assert re.findall(r"fragment (\w+) on", asked.query) == ["Row", "Deep"]


def test_directives_above_a_row_are_resolved_and_those_in_it_are_kept() -> None:
    text = """
        subscription ($yes: Boolean = true, $no: Boolean!) { EVM {
          ... @include(if: $yes) { Transfers { Log @skip(if: $no) { Index } Call { Index } } }
          Calls @include(if: $no) { Call { To } }
        } }
    """
    asked = ask(text, {"Transfers": Range()}, {"no": False})
    assert "$yes" not in asked.query
    assert flat("Log @skip(if: $no)") in flat(asked.query)
    assert asked.variables == {"no": False}
    with pytest.raises(ValueError, match="no cube 'Calls'"):
        ask(text, {"Calls": Range()}, {"no": False})


def test_only_variables_that_the_query_uses_are_declared_and_sent() -> None:
    text = """
        subscription ($net: evm_network = bsc, $on: blocks_update_arg_enum, $who: String!, $other: [String], $n: Int) {
          EVM(network: $net, trigger_on: $on) {
            Transfers(where: {Transfer: {Sender: {is: $who}}}, orderBy: {descending: Block_Time}) { Log { Index } }
            Calls(where: {Call: {To: {in: $other}}}, limit: {count: $n}) { Call { To } }
          }
        }
    """
    given = {"on": "head", "who": "0xa", "other": ["0xb"], "n": 3, "never": 1}
    asked = ask(text, {"Transfers": Range()}, given)
    assert flat(asked.query).startswith(
        flat("query($net: evm_network = bsc, $who: String!) {EVM(network: $net,")
    )
    assert asked.variables == {"who": "0xa"}
    assert asked.where() == "{Transfer: {Sender: {is: $who}}}"


def test_values_of_a_gql_request_are_sent_like_those_given() -> None:
    text = (
        "subscription ($who: String) { EVM { Transfers(where: {Log: {Pc: {is: $who}}}) { Log { Index } } } }"
    )
    document = Document.parse(text)
    document = Document(
        **{name: getattr(document, name) for name in document.__slots__} | {"values": {"who": "x"}}
    )
    payload = msgspec.json.decode(Asker(document, text, None).request({"Transfers": Range()}))
    assert payload["variables"] == {"who": "x"}


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("EVM(dataset: combined, mempool: false)", "EVM(mempool: false, dataset: archive)"),
        ("Solana", "Solana(dataset: archive)"),
        ("Tron", "Tron(dataset: archive)"),
        ("Trading", "Trading(dataset: archive)"),
        ("Hyperliquid", "Hyperliquid(dataset: archive)"),
    ],
)
def test_the_dataset_is_the_one_that_is_asked_for(root: str, expected: str) -> None:
    text = f"subscription {{ {root} {{ Trades {{ Block {{ Time }} }} }} }}"
    query = ask(text, {"Trades": Range()}, dataset="archive").query
    assert flat(query).startswith(flat(f"query {{{expected} {{"))


def test_a_root_that_is_never_seen_with_a_dataset_gets_none_where_it_is_the_default() -> None:
    asked = ask("subscription { Hyperliquid { Trades { Block { Time } } } }", {"Trades": Range()})
    assert not asked.root.arguments


def test_hidden_fields_are_asked_for_like_the_user_s_own() -> None:
    document = Document.parse("subscription { EVM { bqs: Transfers { Log { Index } } } }")
    more = enlarge(document, shape_of(document))
    assert more is not None
    query = Asker(document, more.text, None).request({"bqs": FROM_5_TO_9}).decode()
    assert "bqs_Transaction: Transaction" in query
    assert "bqs_head_Transfers: Transfers" in query


def test_names_that_are_added_collide_with_none_of_the_document_s() -> None:
    text = """
        subscription ($bqs_0_w: Filter) { EVM {
          bqs_head_Transfers: Transfers(where: $bqs_0_w) { Log { Index } }
        } }
    """
    asked = ask(text, {"bqs_head_Transfers": FROM_5_TO_9}, {"bqs_0_w": {"Log": {}}})
    assert list(asked.cubes) == ["bqs_head_Transfers", "bbqs_head_Transfers"]
    assert asked.where("bqs_head_Transfers") == "$bbqs_0_bqs_0_w"


# ---------------------------------------------------------------------- the range, joined


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", '{Block: {Number: {ge: "5", le: "9"}}}'),
        ("null", '{Block: {Number: {ge: "5", le: "9"}}}'),
        ("{Block: null}", '{Block: {Number: {ge: "5", le: "9"}}}'),
        ("{Block: {Number: null}}", '{Block: {Number: {ge: "5", le: "9"}}}'),
        ("{Log: {Pc: {is: 1}}}", '{Log: {Pc: {is: 1}}, Block: {Number: {ge: "5", le: "9"}}}'),
        ("{Log: {Kind: {in: [a, b]}}}", '{Log: {Kind: {in: [a, b]}}, Block: {Number: {ge: "5", le: "9"}}}'),
        (
            "{any: [{Block: {Number: {gt: 7}}}, {Log: {Pc: {is: 1}}}]}",
            '{any: [{Block: {Number: {gt: 7}}}, {Log: {Pc: {is: 1}}}], Block: {Number: {ge: "5", le: "9"}}}',
        ),
        ('{Block: {Number: {gt: "7"}}}', '{Block: {Number: {gt: "7", ge: "5", le: "9"}}}'),
        ('{Block: {Number: {ge: "7"}}}', '{Block: {Number: {ge: "7", le: "9"}}}'),
        ('{Block: {Number: {ge: "3"}}}', '{Block: {Number: {ge: "5", le: "9"}}}'),
        ("{Block: {Number: {le: 7, ge: 5}}}", "{Block: {Number: {le: 7, ge: 5}}}"),
        ("{Block: {Number: {le: 70}}}", '{Block: {Number: {le: "9", ge: "5"}}}'),
        (
            "{Block: {Time: {since_relative: {hours_ago: 1}}}}",
            '{Block: {Time: {since_relative: {hours_ago: 1}}, Number: {ge: "5", le: "9"}}}',
        ),
    ],
)
def test_the_range_is_joined_to_the_user_s_filter(own: str, expected: str) -> None:
    assert where(own, FROM_5_TO_9).where() == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, '{Block: {Number: {ge: "5"}}}'),
        ("3", '{Block: {Number: {ge: "5"}}}'),
        (5, "{Block: {Number: {ge: $from}}}"),
        ("700000000000000000000", "{Block: {Number: {ge: $from}}}"),
    ],
)
def test_of_a_bound_that_is_a_variable_and_the_range_s_the_stricter_stays(value: Any, expected: str) -> None:
    own, declared = "{Block: {Number: {ge: $from}}}", "($from: String)"
    asked = where(own, Range(low=number(5)), {"from": value}, declared)
    assert asked.where() == expected
    assert asked.variables == ({"from": value} if "$from" in expected else {})
    assert where(own, Range(low=number(5)), {}, declared).where() == '{Block: {Number: {ge: "5"}}}'
    assert bool(asked.operation.variable_definitions) is ("$from" in expected)


def test_a_default_is_a_value_too() -> None:
    own = "{Block: {Number: {ge: $from, le: $to}}}"
    asked = where(own, FROM_5_TO_9, None, '($from: String = "8", $to: String = "30")')
    assert asked.where() == '{Block: {Number: {ge: $from, le: "9"}}}'
    assert flat(asked.query).startswith(flat('query($from: String = "8") {'))
    assert asked.variables == {}


def test_what_a_whole_variable_holds_is_joined_in_its_value() -> None:
    given = {
        "w": {"Log": {"Kind": {"is": "an_enum"}}, "Block": {"Number": {"gt": 4, "le": "7"}, "Time": None}}
    }
    asked = where("$w", Range(low=number(5), high=number(9), since=NOON), given, "($w: EVM_Transfer_Filter!)")
    assert asked.where() == "$bqs_0_w"
    assert flat(asked.query).startswith(flat("query($bqs_0_w: EVM_Transfer_Filter!) {"))
    assert asked.variables == {
        "bqs_0_w": {
            "Log": {"Kind": {"is": "an_enum"}},
            "Block": {"Number": {"gt": 4, "le": "7", "ge": "5"}, "Time": {"since": "2026-07-16T12:00:00Z"}},
        }
    }
    assert given["w"]["Block"] == {"Number": {"gt": 4, "le": "7"}, "Time": None}


def test_a_variable_that_already_holds_the_stricter_bounds_stays_the_user_s_own() -> None:
    given = {"w": {"Block": {"Number": {"ge": "6", "le": 8}}}}
    asked = where("$w", FROM_5_TO_9, given, "($w: EVM_Transfer_Filter)")
    assert asked.where() == "$w"
    assert asked.variables == given


@pytest.mark.parametrize("own", ["$w", "{Block: $w}", "{Block: {Number: $w}}"])
def test_a_variable_that_holds_null_is_no_condition(own: str) -> None:
    asked = where(own, FROM_5_TO_9, {"w": None}, "($w: Any)")
    assert asked.where() == '{Block: {Number: {ge: "5", le: "9"}}}'
    assert asked.variables == {}


def test_a_variable_inside_a_filter_is_joined_where_it_stands() -> None:
    own = "{Log: {Pc: $pc}, Block: {Number: $n, Time: {till: $t}}}"
    given = {"n": {"ne": "7"}, "pc": {"eq": 1}, "t": "2026-07-16T13:00:00Z"}
    declared = "($n: OLAP_BigInteger, $pc: OLAP_Integer, $t: DateTime)"
    asked = where(own, Range(low=number(5), till=NOON), given, declared)
    assert (
        asked.where() == '{Log: {Pc: $pc}, Block: {Number: $bqs_0_n, Time: {till: "2026-07-16T12:00:00Z"}}}'
    )
    assert asked.variables == {"pc": {"eq": 1}, "bqs_0_n": {"ne": "7", "ge": "5"}}
    assert flat(asked.query).startswith(flat("query($pc: OLAP_Integer, $bqs_0_n: OLAP_BigInteger) {"))


def test_a_variable_that_two_cubes_use_has_a_value_for_each_range() -> None:
    text = """
        subscription ($w: F = {Log: {Pc: {eq: 1}}}) { EVM {
          a: Transfers(where: $w) { Log { Index } }
          b: Transfers(where: $w) { Log { Index } }
          c: Transfers(where: $w) { Log { Index } }
          d: Transfers(where: $w) { Log { Index } }
        } }
    """
    ranges = {"a": Range(low=number(5)), "b": Range(low=number(6)), "c": Range(low=number(5)), "d": Range()}
    asked = ask(text, ranges)
    assert [asked.where(key) for key in "abcd"] == ["$bqs_0_w", "$bqs_1_w", "$bqs_0_w", "$w"]
    pc = {"Log": {"Pc": {"eq": 1}}}
    assert asked.variables == {
        "bqs_0_w": {**pc, "Block": {"Number": {"ge": "5"}}},
        "bqs_1_w": {**pc, "Block": {"Number": {"ge": "6"}}},
    }
    assert [print_ast(one.type) for one in asked.operation.variable_definitions or ()] == ["F", "F", "F"]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("2026-07-16T11:59:59Z", "2026-07-16T12:00:00Z"),
        ("2026-07-16T12:00:00+01:00", "2026-07-16T12:00:00Z"),
        ("2026-07-16T12:00:00.5Z", "2026-07-16T12:00:00.5Z"),
        ("2026-07-16 12:00:01", "2026-07-16 12:00:01"),
        ("2026-07-17", "2026-07-17"),
    ],
)
def test_times_are_compared_as_times(own: str, expected: str) -> None:
    asked = where(f'{{Block: {{Time: {{since: "{own}"}}}}}}', Range(since=NOON))
    assert asked.where() == f'{{Block: {{Time: {{since: "{expected}"}}}}}}'


def test_since_and_till_are_the_block_s_time_whatever_the_cursor_counts() -> None:
    asked = Range(since=NOON, till=NOON + 1)
    time = '{since: "2026-07-16T12:00:00Z", till: "2026-07-16T12:00:01Z"}'
    for root, cube, expected in (
        ("EVM", "Transfers", f"{{Block: {{Time: {time}}}}}"),
        ("Solana", "Transfers", f"{{Block: {{Time: {time}}}}}"),
        ("Trading", "Trades", f"{{Block: {{Time: {time}}}}}"),
        ("Trading", "Pairs", f"{{Interval: {{Time: {{Start: {time}}}}}}}"),
        ("Hyperliquid", "Candles", f"{{Interval: {{Time: {{Start: {time}}}}}}}"),
    ):
        text = f"subscription {{ {root} {{ {cube} {{ Block {{ Hash }} }} }} }}"
        assert ask(text, {cube: asked}).where(cube) == expected


def test_of_a_range_s_own_bounds_the_stricter_counts() -> None:
    text = "subscription { Trading { Trades { Side } } }"
    asked = Range(low=Cursor("time", NOON - 9), since=NOON, high=Cursor("time", NOON + 3), till=NOON + 9)
    assert ask(text, {"Trades": asked}).where("Trades") == (
        '{Block: {Time: {since: "2026-07-16T12:00:00Z", till: "2026-07-16T12:00:03Z"}}}'
    )


@pytest.mark.parametrize(
    ("root", "cube", "order", "shown"),
    [
        ("EVM", "Transfers", "Block_Number", "{Block {Number Time}}"),
        ("Tron", "Transfers", "Block_Number", "{Block {Number Time}}"),
        ("Solana", "Transfers", "Block_Slot", "{Block {Slot Time}}"),
        ("Trading", "Trades", "Block_Time", "{Block {Time}}"),
        ("Trading", "Tokens", "Interval_Time_Start", "{Interval {Time {Start}}}"),
        ("Hyperliquid", "Trades", "Block_Time", "{Block {Time}}"),
    ],
)
def test_rows_come_by_cursor_and_the_head_shows_it_and_its_time(
    root: str, cube: str, order: str, shown: str
) -> None:
    text = (
        f"subscription {{ {root} {{ {cube}(orderBy: {{descending: Block_Time}}) {{ Block {{ Hash }} }} }} }}"
    )
    asked = ask(text, {cube: Range()})
    assert asked.argument(cube, "orderBy") == f"[{{ascending: {order}}}]"
    head = f"bqs_head_{cube}"
    assert asked.argument(head, "orderBy") == f"{{descending: {order}}}"
    assert asked.where(head) is None
    assert Flat(print_ast(asked.cubes[head].selection_set)) == shown


def test_a_block_is_paged_inside_by_its_rows_identity() -> None:
    text = "subscription { EVM { Calls(where: {Block: {Number: {gt: 1}}}) { Call { To } } } }"
    asked = ask(text, {"Calls": Range(block=number(7), offset=40)}, count=20)
    assert asked.where("Calls") == '{Block: {Number: {gt: 1, ge: "7", le: "7"}}}'
    assert asked.argument("Calls", "limit") == "{count: 20, offset: 40}"
    assert asked.argument("Calls", "orderBy") == (
        "[{ascending: Block_Hash}, {ascending: Transaction_Hash}, {ascending: Call_Index}]"
    )


def test_a_block_is_paged_by_another_identity_where_one_is_given() -> None:
    text = "subscription { EVM { a: Calls { Call { To } } b: Calls { Call { To } } } }"
    given = {"a": Identity((("Block", "Hash"),), (("Call", "CallPath"),))}
    asked = ask(text, dict.fromkeys("ab", Range(block=number(7))), identities=given)
    assert asked.argument("a", "orderBy") == "[{ascending: Block_Hash}, {ascending: Call_CallPath}]"
    assert asked.argument("b", "orderBy") == "[{ascending: Call_To}]"


def test_a_block_of_rows_without_identity_is_paged_by_all_that_they_show() -> None:
    asked = ask(
        """
        subscription { Tron { Events {
          __typename Trade { AmountInUSD x: Amount } Arguments { Name Value { ... on A { address } } } Call { CallPath }
          Value { ... on A { hex } }
          c: calculate(expression: "1 + 2") Topics { Hash } Amount: Block { Time } ...More
        } } }
        fragment More on Any { Transaction { Hash } }
        """,
        {"Events": Range(block=number(7))},
    )
    assert asked.argument("Events", "orderBy") == (
        "[{ascending: Trade_Amount}, {ascending: Block_Time}, {ascending: Transaction_Hash}, "
        "{ascending: Trade_AmountInUSD}]"
    )
    assert asked.argument("Events", "limit") == "{count: 5000, offset: 0}"


def test_a_block_of_rows_that_show_nothing_to_order_by_is_paged_by_its_cursor() -> None:
    asked = ask("subscription { Tron { Events { Topics { Hash } } } }", {"Events": Range(block=number(7))})
    assert asked.argument("Events", "orderBy") == "[{ascending: Block_Number}]"


@pytest.mark.parametrize(
    ("text", "ranges", "word"),
    [
        ("EVM { Transfers { count } }", {"Transfers": Range()}, "aggregate"),
        ("EVM(mempool: true) { Transfers { Log { Index } } }", {"Transfers": Range()}, "mempool"),
        ("EVM { Transfers(limit: {count: 1}) { Log { Index } } }", {"Transfers": Range()}, "limit"),
        ("EVM { Transfers { Log { Index } } }", {"Calls": Range()}, "no cube 'Calls'"),
        ("EVM { Transfers { Log { Index } } }", {}, "no cube is asked for"),
        ("EVM { Transfers { Log { Index } } }", {"Transfers": Range(low=Cursor("slot", 1))}, "by number"),
        ("EVM { Transfers { Log { Index } } }", {"Transfers": Range(offset=5)}, "offset"),
        ("EVM { Transfers(where: [{}]) { Log { Index } } }", {"Transfers": FROM_5_TO_9}, "no object"),
        (
            "EVM { Transfers(where: {Block: {Number: 3}}) { Log { Index } } }",
            {"Transfers": FROM_5_TO_9},
            "no object",
        ),
        (
            'EVM { Transfers(where: {Block: {Number: {ge: "x"}}}) { Log { Index } } }',
            {"Transfers": FROM_5_TO_9},
            "compares a number with 'x'",
        ),
        (
            "EVM { Transfers(where: {Block: {Time: {till: 3}}}) { Log { Index } } }",
            {"Transfers": Range(till=NOON)},
            "compares a time with '?3",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_the_program(
    text: str, ranges: dict[str, Range], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        ask(f"subscription {{ {text} }}", ranges)


def test_there_is_no_other_dataset() -> None:
    with pytest.raises(ValueError, match="no dataset 'real time'"):
        ask("subscription { EVM { Blocks { Block { Hash } } } }", {"Blocks": Range()}, dataset="real time")


def test_the_room_is_imported_without_the_parser() -> None:
    code = "import sys, bqstream.delivery.ask; print(sorted({'graphql', 'gql'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- the answer

TWO = "subscription { chain: EVM { Transfers { Log { Index } } sold: DEXTrades { Log { Index } } n: Calls { count } } }"


def test_rows_of_an_answer_are_the_bytes_that_came() -> None:
    data = b"""{"chain": {
        "Transfers": [ {"Log" : {"Index":1.50}}, {"Log": {"Index": 12345678901234567890123}} ],
        "bqs_head_Transfers": [{"Block": {"Number": "12", "Time": "2026-07-16T12:00:00Z"}}],
        "bqs_floor_Transfers": [{"Block": {"Time": "2026-07-16T11:00:00Z", "Number": 2}}]}}"""
    found = asker(TWO).read(data)
    assert list(found) == ["Transfers"]
    answer = found["Transfers"]
    assert [bytes(row) for row in answer.rows] == [
        b'{"Log" : {"Index":1.50}}',
        b'{"Log": {"Index": 12345678901234567890123}}',
    ]
    assert (answer.head, answer.head_time) == (number(12), NOON)
    assert (answer.floor, answer.floor_time) == (number(2), NOON - 3600)
    assert asker(TWO).read(msgspec.Raw(data), ["Transfers"]).keys() == {"Transfers"}


def test_a_cube_that_holds_no_row_has_no_head() -> None:
    data = b'{"chain": {"sold": [], "bqs_head_DEXTrades": []}}'
    assert asker(TWO).read(data) == {"sold": Answer([], None, None, None, None)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b'{"chain": null}',
        b'{"EVM": {"Transfers": [], "bqs_head_Transfers": []}}',
        b'{"chain": {}}',
        b'{"chain": {"Transfers": []}}',
        b'{"chain": {"bqs_head_Transfers": []}}',
        b'{"chain": {"Transfers": null, "bqs_head_Transfers": []}}',
        b'{"chain": {"Transfers": {}, "bqs_head_Transfers": []}}',
        b'{"chain": {"Transfers": [], "bqs_head_Transfers": null}}',
        b'{"chain": {"Transfers": [], "bqs_head_Transfers": [null]}}',
        b'{"chain": {"Transfers": [], "bqs_head_Transfers": [{"Block": null}]}}',
        b'{"chain": {"Transfers": [], "bqs_head_Transfers": [{"Block": {"Number": "x", "Time": "2026-01-01"}}]}}',
        b'{"chain": {"Transfers": [], "bqs_head_Transfers": [{"Block": {"Number": "1", "Time": "noon"}}]}}',
        b'{"chain": {"n": [], "bqs_head_Calls": []}}',
        b'{"chain": {"Transfers": [], "bqs_head_Transfers": ' + b"[" * 100_000 + b"}}",
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        asker(TWO).read(data)


def test_an_answer_lacks_no_cube_that_was_asked_for() -> None:
    data = b'{"chain": {"sold": [], "bqs_head_DEXTrades": []}}'
    with pytest.raises(ValueError, match="no answer to the query: no Transfers"):
        asker(TWO).read(data, ["sold", "Transfers"])


# ---------------------------------------------------------------------- against the simulator

FILTERS = ["", "{Log: {Pc: {ge: 1}}}", "$w", "{Block: $b}", "{Block: {Number: {ge: $from, lt: $to}}}",
           "{any: [{Block: {Number: {gt: $from}}}, {Transaction: {Nonce: {lt: 500}}}]}",
           "{Block: {Time: {since: $at}, Number: $n}}"]  # fmt: skip
FIRST, SECOND = 21_000_000, int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())  # of a Chain
places = st.integers(-2, 8)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FILTERS), st.lists(places, min_size=7, max_size=7), st.integers(0, 15))
def test_an_answer_holds_what_both_the_user_and_the_range_ask_for(
    own: str, at: list[int], without: int
) -> None:
    moments = [datetime.fromtimestamp(SECOND + place, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for place in at]
    variables: dict[str, Any] = {
        "w": {"Block": {"Number": {"ge": str(FIRST + at[0])}, "Time": {"till": moments[1]}}},
        "b": {"Number": {"le": FIRST + at[0]}},
        "n": {"ge": FIRST + at[0], "ne": FIRST + at[1]},
        "from": FIRST + at[0],
        "to": str(FIRST + at[1]),
        "at": moments[2],
    }
    asked = Range(
        low=number(FIRST + at[3]) if without & 1 else None,
        high=number(FIRST + at[4]) if without & 2 else None,
        since=SECOND + at[5] if without & 4 else None,
        till=SECOND + at[6] if without & 8 else None,
    )
    argument = f"(where: {own})" if own else ""
    text = (
        "subscription ($w: A, $b: B, $n: C, $from: D, $to: E, $at: F) "
        f"{{ EVM {{ Transfers{argument} {{ Block {{ Number Time }} Transfer {{ Index }} }} }} }}"
    )
    chain = Chain(transactions=4)
    blocks = [chain.mine() for _ in range(7)]
    sent = prepare(text, variables, None)
    emitted = [
        row
        for block in blocks
        for index in range(block.portions)
        for row in (sent.portion(block, index) or {"EVM": {"Transfers": []}})["EVM"]["Transfers"]
        if (asked.low is None or int(row["Block"]["Number"]) >= asked.low.value)
        and (asked.high is None or int(row["Block"]["Number"]) <= asked.high.value)
        and (asked.since is None or block.time.timestamp() >= asked.since)
        and (asked.till is None or block.time.timestamp() <= asked.till)
    ]
    one = asker(text, variables)
    answer = one.read(answered(one.request({"Transfers": asked}), chain), ["Transfers"])["Transfers"]
    assert content(answer.rows) == content(msgspec.json.encode(row) for row in emitted)
    assert (answer.head, answer.head_time) == (number(FIRST + 6), SECOND + 6)


def answered(request: bytes, chain: Chain) -> bytes:
    """The ``data`` that the simulator answers."""
    payload = msgspec.json.decode(request)
    return msgspec.json.encode(prepare(payload["query"], payload["variables"], None).answer(chain)["data"])


def content(rows: Any) -> Counter[bytes]:
    """Rows as a multiset, less JSON floats, which a query may price anew."""
    return Counter(
        msgspec.json.encode(_less_floats(msgspec.json.decode(row)), order="sorted") for row in rows
    )


def _less_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _less_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_less_floats(inner) for inner in value]
    return None if isinstance(value, float) else value


# ---------------------------------------------------------------------- the documented subscriptions


class Form:
    """A document as it is sent, enlarged or as the user wrote it: what it emits over a chain, and who asks again."""

    def __init__(self, document: Document, text: str, variables: dict[str, Any]) -> None:
        self.text = text
        self.shape = shape_of(Document.parse(text), variables)
        self.fields = {cube.key: cube.fields for cube in self.shape.cubes}
        self.sent = prepare(text, variables, None)
        self.whole = Asker(document, text, variables, count=20_000)
        self.paged = Asker(document, text, variables, count=PAGE)

    def rows(self, key: str, block: Block) -> list[Any]:
        """Of one cube, all that the block's portions bring."""
        portions = (self.sent.portion(block, index) or {} for index in range(block.portions))
        return [row for data in portions for row in (data.get(self.shape.key) or {}).get(key) or ()]


class Emitted(NamedTuple):
    """A row that a subscription brought: where it stands, its block's (or interval's) time, and itself in each form."""

    cursor: Cursor
    time: int
    forms: list[bytes]


class Documented:
    """One document and the cubes of it that can be asked again."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.source: str = entry["source"]
        document, variables = Document.parse(entry["document"]), entry["variables"]
        shape = shape_of(document, variables)
        more = enlarge(document, shape)
        self.readers = more.readers if more else as_selected(shape)
        self.cubes = {one.key: one for one in shape.cubes if one.reason is None}
        texts = [more.text, document.text] if more else [document.text]
        self.forms = [Form(document, text, variables) for text in texts]

    def emitted(self, key: str, blocks: list[Block]) -> list[Emitted]:
        """Every row of one cube over the blocks."""
        found = []
        for block in blocks:
            for rows in zip(*(form.rows(key, block) for form in self.forms), strict=True):
                cursor = self.readers[key].cursor(rows[0])
                assert cursor is not None, self.source
                time = cursor.value if cursor.is_time else int(block.time.timestamp())
                found.append(Emitted(cursor, time, [msgspec.json.encode(row) for row in rows]))
        return found


@cache
def every() -> list[Documented]:
    found = []
    for entry in documented():
        try:
            found.append(Documented(entry))
        except DocumentRefused:  # one selects nothing
            assert re.search(r"\)\s*\{\s*\}", entry["document"])
    return [one for one in found if one.cubes]


@cache
def chain_of_all() -> tuple[Chain, list[Block]]:
    """A chain that has learned every document's filters, two blocks a second."""
    chain = Chain(seed=11, block_interval=0.5)
    first = chain.mine()
    for one in every():
        one.forms[0].sent.portion(first, 0)
    return chain, [first, *(chain.mine() for _ in range(11))]


@needs_documents
def test_every_documented_subscription_is_asked_for_again_over_a_range() -> None:
    chain, blocks = chain_of_all()
    cubes = requests = rows = empty = 0
    since, till = (int(blocks[at].time.timestamp()) for at in (4, 7))
    for one in every():
        by_cursor: dict[str, Range] = {}
        expected: dict[str, tuple[list[Emitted], list[Emitted]]] = {}
        for key in one.cubes:
            found = one.emitted(key, blocks)
            places = sorted({row.cursor.value: row.cursor for row in found}.items())
            low, high = (places[len(places) * n // 4][1] for n in (1, 3)) if places else (None, None)
            by_cursor[key] = Range(low=low, high=high)
            between = [row for row in found if low and high and low <= row.cursor <= high]
            expected[key] = between, [row for row in found if since <= row.time <= till]
            cubes += 1
            rows += len(between)
            if not found:
                assert contradicts_itself(one.forms[0].text), one.source
                empty += 1
        by_time = dict.fromkeys(by_cursor, Range(since=since, till=till))
        for n, form in enumerate(one.forms):
            for way, ranges in enumerate((by_cursor, by_time)):
                request = form.whole.request(ranges, floor=True)
                parse(msgspec.json.decode(request)["query"])
                requests += 1
                for key, answer in form.whole.read(answered(request, chain), ranges).items():
                    wanted = (row.forms[n] for row in expected[key][way])
                    assert content(answer.rows) == content(wanted), one.source
                    check_ends(one.cubes[key], answer, blocks)
    print(
        f"\n{len(every())} documents, {cubes} cubes, {requests} requests, {rows} rows; without rows: {empty}"
    )
    assert cubes > 250
    assert rows > 5000


def check_ends(cube: CubeShape, answer: Answer, blocks: list[Block]) -> None:
    """The head is the chain's newest block, the floor its oldest; of intervals, the last and the first to start."""
    assert cube.cursor is not None
    assert answer.head is not None
    assert answer.floor is not None
    assert answer.head_time is not None
    kind, times = cube.cursor.kind, [int(one.time.timestamp()) for one in (blocks[0], blocks[-1])]
    if cube.cursor.field[0] == "Interval":
        assert answer.floor < answer.head == Cursor(kind, answer.head_time)
        assert answer.head_time <= times[-1]
        return
    places = times if kind == "time" else [one.number for one in (blocks[0], blocks[-1])]
    assert [answer.floor, answer.head] == [Cursor(kind, place) for place in places]
    assert [answer.floor_time, answer.head_time] == times


@needs_documents
def test_every_documented_subscription_s_fullest_block_is_paged_without_a_row_lost_or_doubled() -> None:
    chain, blocks = chain_of_all()
    cubes = pages = rows = 0
    for one in every():
        for key in one.cubes:
            found = one.emitted(key, blocks)
            for fullest, count in Counter(row.cursor for row in found).most_common(1):
                cubes += 1
                rows += count
                block = [row.forms for row in found if row.cursor == fullest]
                for n, form in enumerate(one.forms):
                    brought: list[msgspec.Raw] = []
                    page = [msgspec.Raw()] * PAGE
                    while len(page) == PAGE:
                        request = form.paged.request({key: Range(block=fullest, offset=len(brought))})
                        page = form.paged.read(answered(request, chain), [key])[key].rows
                        brought += page
                        pages += 1
                    assert content(brought) == content(forms[n] for forms in block), one.source
                    if n == 0:
                        order = re.findall(r"{ascending: (\w+)}", request.decode())
                        check_strict(order, form.fields[key], [forms[0] for forms in block])
    print(f"\n{cubes} cubes, {rows} rows, {pages} pages of {PAGE}")
    assert cubes > 250
    assert pages > 3 * cubes


def check_strict(order: list[str], fields: Mapping[Path, Path], rows: list[bytes]) -> None:
    """Rows that tie in the order are equal."""
    places = {"_".join(path): at for path, at in fields.items()}
    seen: dict[bytes, bytes] = {}
    for raw in rows:
        row = msgspec.json.decode(raw)
        key = msgspec.json.encode(
            [reduce(lambda found, name: found[name], places[name], row) for name in order]
        )
        assert seen.setdefault(key, raw) == raw
