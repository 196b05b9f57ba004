"""Models of documents of our own: written, imported, and what they make of payloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from graphql import build_schema, introspection_from_schema

from bqstream.delivery.document import Document
from bqstream.errors import DocumentRefused, UsageError
from bqstream.models.model import model_of
from bqstream.models.seen import Seen
from bqstream.models.selected import selected
from bqstream.models.writer import module
from tests.models import checked, decoding, imported

Written = Callable[..., "Models"]


class Models:
    """A module as it was written for a document."""

    def __init__(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self.folder = path.parent
        self.text = text
        self.module = imported(path)
        self.of = decoding(path)

    def check(self) -> None:
        """They type-check strictly."""
        assert (said := checked(self.folder)).startswith("Success"), said

    def line(self, start: str) -> str:
        """What the text says behind ``start``, which stands on one line alone."""
        (found,) = (line.strip() for line in self.text.splitlines() if line.strip().startswith(start))
        return found.removeprefix(start).strip()

    def refuses(self, data: Any) -> str:
        with pytest.raises(msgspec.ValidationError) as error:
            self.of(data)
        return str(error.value)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write and import the models of a document; ``sample`` is the data of payloads."""

    def write(document: str, *sample: Any, seen: Seen | None = None, **options: Any) -> Models:
        seen = Seen() if sample else seen
        for data in sample:
            assert seen is not None
            seen.add(data)
        text = module(model_of(Document.parse(document), sample=seen, **options), origin="a test")
        return Models(tmp_path / "models.py", text)

    return write


def rows(*found: Any) -> Any:
    return {"EVM": {"Transfers": list(found)}}


# ---------------------------------------------------------------------- names and nesting


def test_aliases_name_the_attributes_and_the_fields_say_what_they_hold(written: Written) -> None:
    models = written("subscription { EVM { mine: Transfers { sent: Block { at: Time height: Number } } } }")
    data = models.of({"EVM": {"mine": [{"sent": {"at": "2026-01-31T12:00:00Z", "height": "5"}}]}})
    (row,) = data.EVM.mine
    assert (row.sent.at, row.sent.height) == (datetime(2026, 1, 31, 12, tzinfo=UTC), "5")


def test_keys_that_python_uses_itself_get_another_name_and_are_found_by_their_own(written: Written) -> None:
    keys = (
        "from",
        "class",
        "None",
        "str",
        "float",
        "list",
        "Decimal",
        "Struct",
        "field",
        "__typename",
        "from_",
        "Data",
    )
    models = written(
        f"subscription {{ EVM {{ Transfers {{ {' '.join(f'{key}: Hash' for key in keys)} }} }} }}"
    )
    (row,) = models.of(rows(dict.fromkeys(keys, "x"))).EVM.Transfers
    assert row.__struct_encode_fields__ == keys
    assert (
        set(row.__struct_fields__) & {"from", "class", "None", "str", "float", "list", "__typename"} == set()
    )
    assert {getattr(row, name) for name in row.__struct_fields__} == {"x"}
    assert (row.from_, row.from__, row.typename) == ("x", "x", "x")
    models.check()


def test_the_oddest_names_of_graphql_are_names_in_python(written: Written) -> None:
    keys = ("_", "__", "__5", "__class", "_a__b", "field_5", "class_")
    models = written(
        f"subscription {{ EVM {{ Transfers {{ {' '.join(f'{key}: Block {{ Hash }}' for key in keys)} }} }} }}"
    )
    (row,) = models.of(rows({key: {"Hash": key} for key in keys})).EVM.Transfers
    assert [getattr(row, name).Hash for name in row.__struct_fields__] == list(keys)
    models.check()


def test_classes_of_one_key_in_several_places_are_told_apart_by_the_way_to_them(written: Written) -> None:
    models = written(
        """subscription { EVM { DEXTrades { Trade { Buy { Currency { Symbol } } Sell { Currency { Name } } }
        Reply { Trade { Buy { Currency { Symbol } } } } Block { Number } } Transfers { Block { Hash } } } }"""
    )
    names = {name for name, kind in vars(models.module).items() if isinstance(kind, type)}
    assert {"DEXTradesRow", "TransfersRow", "DEXTradesBlock", "TransfersBlock", "SellCurrency"} <= names
    assert {"DEXTradesTradeBuy", "ReplyTradeBuy"} <= names
    assert {"DEXTradesTradeBuyCurrency", "ReplyTradeBuyCurrency"} <= names
    models.check()


def test_a_class_has_no_attributes_name(written: Written) -> None:
    models = written(
        "subscription { EVM { TransfersRow: Transfers { Block { Number } } Transfers { TransfersBlock: Hash "
        "Block { Hash } } } }"
    )
    block = {"Block": {"Hash": "0x1"}, "TransfersBlock": "0x2"}
    data = models.of({"EVM": {"TransfersRow": [{"Block": {"Number": "1"}}], "Transfers": [block]}})
    assert (data.EVM.TransfersRow[0].Block.Number, data.EVM.Transfers[0].Block.Hash) == ("1", "0x1")
    assert {"TransfersRow_", "TransfersBlock_", "TransfersRowRow", "TransfersRowBlock"} <= vars(
        models.module
    ).keys()
    models.check()


def test_a_field_mentioned_twice_has_the_fields_of_both(written: Written) -> None:
    models = written("subscription { EVM { Transfers { Block { Number } Block { Hash } } } }")
    block = models.of(rows({"Block": {"Number": "1", "Hash": "0x1"}})).EVM.Transfers[0].Block
    assert (block.Number, block.Hash) == ("1", "0x1")


# ---------------------------------------------------------------------- fragments and directives


def test_a_fragment_on_the_only_type_named_is_always_there(written: Written) -> None:
    models = written(
        """subscription { EVM { Transfers { ...Both } } }
        fragment Both on EVM_Transfer { Block { ...Numbered } Transfer { Sender } }
        fragment Numbered on EVM_Block { Number }"""
    )
    assert (
        models.of(rows({"Block": {"Number": "1"}, "Transfer": {"Sender": "0x1"}}))
        .EVM.Transfers[0]
        .Block.Number
        == "1"
    )
    assert "missing required field `Transfer`" in models.refuses(rows({"Block": {"Number": "1"}}))


def test_a_fragment_that_the_sample_shows_to_hold_for_some_alone_may_be_absent(written: Written) -> None:
    document = "subscription { EVM { Transfers { Block { Number } ... on Token { Transfer { Sender } } } } }"
    sample = rows({"Block": {"Number": "1"}, "Transfer": {"Sender": "0x1"}}, {"Block": {"Number": "2"}})
    assert [
        row.Transfer and row.Transfer.Sender for row in written(document, sample).of(sample).EVM.Transfers
    ] == [*("0x1", None)]


def test_members_of_a_union_may_each_be_absent(written: Written) -> None:
    models = written(
        """subscription { EVM { Calls { Arguments { Value { __typename
        ... on EVM_ABI_Address_Value_Arg { address } ... on EVM_ABI_Integer_Value_Arg { integer } } } } } }"""
    )
    values = [{"__typename": "A", "address": "0x1"}, {"__typename": "I", "integer": 5}, {"__typename": "B"}]
    data = models.of({"EVM": {"Calls": [{"Arguments": [{"Value": value} for value in values]}]}})
    found = [one.Value for one in data.EVM.Calls[0].Arguments]
    assert [(one.typename, one.address, one.integer) for one in found] == [
        ("A", "0x1", None),
        ("I", None, 5),
        ("B", None, None),
    ]


def test_what_a_variable_may_leave_out_may_be_absent_and_what_is_skipped_for_good_is_not_there(
    written: Written,
) -> None:
    models = written(
        """subscription ($more: Boolean = false) { EVM { Transfers {
        Block { Number Hash @include(if: $more) } Transfer @skip(if: $more) { Sender }
        ... @include(if: $more) { Log { Index } }
        Transaction @skip(if: true) { Hash } Call @include(if: true) { From } } } }"""
    )
    (row,) = models.of(rows({"Block": {"Number": "1"}, "Call": {"From": "0x1"}})).EVM.Transfers
    assert (row.Block.Number, row.Block.Hash, row.Transfer, row.Log, row.Call.From) == (
        "1",
        None,
        None,
        None,
        "0x1",
    )
    assert not hasattr(row, "Transaction")


def test_what_one_of_two_mentions_alone_selects_may_be_absent_where_that_one_may(written: Written) -> None:
    models = written(
        """subscription ($more: Boolean!) { EVM { Transfers { Block { Number }
        Block @include(if: $more) { Number Hash } } } }"""
    )
    assert models.of(rows({"Block": {"Number": "1"}})).EVM.Transfers[0].Block.Hash is None
    assert "missing required field" in models.refuses(rows({"Block": {"Hash": "0x1"}}))


@pytest.mark.parametrize(
    "document",
    [
        "subscription { EVM { ...Missing } }",
        "subscription { EVM { ...A } } fragment A on T { ...A }",
        "subscription { EVM { ...A } } fragment A on T { b { ...A } }",
    ],
)
def test_fragments_that_are_not_there_or_hold_themselves_are_refused(document: str) -> None:
    with pytest.raises(DocumentRefused, match="fragment"):
        selected(Document(document, "subscription", None, "EVM", ()))  # which parse() would refuse before


# ---------------------------------------------------------------------- what a sample tells


def test_what_was_seen_null_may_be_null_and_nothing_else(written: Written) -> None:
    document = (
        "subscription { EVM { Transfers { Transfer { Sender Receiver } Call { From } Block { Number } } } }"
    )
    full = {"Transfer": {"Sender": "a", "Receiver": "b"}, "Call": {"From": "c"}, "Block": {"Number": "1"}}
    models = written(
        document, rows(full), rows({**full, "Call": None, "Transfer": {"Sender": None, "Receiver": "b"}})
    )
    (row,) = models.of(
        rows({**full, "Call": None, "Transfer": {"Sender": None, "Receiver": "b"}})
    ).EVM.Transfers
    assert (row.Call, row.Transfer.Sender, row.Transfer.Receiver) == (None, None, "b")
    assert "$.data.EVM.Transfers[0].Block" in models.refuses(rows({**full, "Block": None}))
    assert "Receiver" in models.refuses(rows({**full, "Transfer": {"Sender": "a", "Receiver": None}}))


def test_a_field_holds_every_form_that_was_seen(written: Written) -> None:
    document = "subscription { Other { things { a b c d e } } }"
    sample = [
        {"a": 1, "b": "x", "c": True, "d": 1, "e": []},
        {"a": 2, "b": 5, "c": False, "d": 1.5, "e": [[1], [None]]},
    ]
    models = written(document, {"Other": {"things": sample}})
    (row, *_) = models.of({"Other": {"things": sample}}).Other.things
    assert [models.line(f"{key}:") for key in "abcde"] == [
        "int",
        "str | int",
        "bool",
        "float",
        "list[list[int | None]]",
    ]
    assert row.d == 1.0


def test_lists_are_told_from_objects_by_what_was_seen(written: Written) -> None:
    document = "subscription { Other { things { one { a } many { a } grid { a } } } }"
    data = {"Other": {"things": [{"one": {"a": 1}, "many": [{"a": 1}], "grid": [[{"a": 1}, None], []]}]}}
    models = written(document, data)
    (thing,) = models.of(data).Other.things
    assert (thing.one.a, thing.many[0].a, thing.grid[0][0].a, thing.grid[0][1]) == (1, 1, 1, None)


def test_data_without_lists_is_an_object(written: Written) -> None:
    models = written(
        "subscription { event { id at } }", {"event": {"id": 7, "at": "2026-01-31T12:00:00.123456Z"}}
    )
    assert models.of({"event": {"id": 7, "at": "2026-01-31T12:00:00.5Z"}}).event.at.microsecond == 500_000


def test_a_scalar_root_is_an_attribute(written: Written) -> None:
    assert written("subscription { count }", {"count": 5}).of({"count": 6}).count == 6


def test_text_that_is_no_time_once_stays_text(written: Written) -> None:
    moments = [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.123456789Z",
        "2026-13-31T12:00:00Z",
        "",
        "2026-01-31",
    ]
    for other in moments[1:]:
        data = [rows({"Block": {"Time": moment}}) for moment in (moments[0], other)]
        models = written("subscription { EVM { Transfers { Block { Time } } } }", *data)
        assert models.of(data[1]).EVM.Transfers[0].Block.Time == other


def test_objects_where_the_document_selects_none_are_kept_as_json(written: Written) -> None:
    data = {"thing": {"meta": {"any": [1, "x", None]}}}
    models = written(
        "subscription ($m: Boolean!) { thing { meta other: meta @skip(if: $m) } }",
        {"thing": {**data["thing"], "other": {}}},
    )
    assert msgspec.json.decode(models.of(data).thing.meta) == {"any": [1, "x", None]}
    assert bytes(models.of(data).thing.other) == b"null"
    models.check()


def test_what_nothing_is_known_of_takes_any_scalar_and_is_named(written: Written) -> None:
    document = "subscription { EVM { Transfers { Transfer { Wondrous } } } }"
    assert model_of(Document.parse(document)).open == ("EVM.Transfers.Transfer.Wondrous",)
    models = written(document)
    for value in ("x", 1, 1.5, True, None):
        assert models.of(rows({"Transfer": {"Wondrous": value}})).EVM.Transfers[0].Transfer.Wondrous == value
    models.check()


# ---------------------------------------------------------------------- decimals

AMOUNTS = (
    "subscription { EVM { Transfers { Transfer { Amount Id Price PriceInUSD } sum(of: Transfer_Amount) } } }"
)
WIDE = "123456789012345678901234567890.123456789012345678"


@pytest.mark.parametrize("sampled", [False, True])
def test_numbers_wider_than_a_double_are_exact(written: Written, sampled: bool) -> None:
    row = {"Transfer": {"Amount": WIDE, "Id": "0012345", "Price": "0.1", "PriceInUSD": 1.5}, "sum": WIDE}
    sample = [rows(row)] if sampled else []
    text, exact = written(AMOUNTS, *sample), written(AMOUNTS, *sample, decimals=True)
    (plain,), (found,) = text.of(rows(row)).EVM.Transfers, exact.of(rows(row)).EVM.Transfers
    assert (plain.Transfer.Amount, plain.sum, plain.Transfer.Price) == (WIDE, WIDE, "0.1")
    assert (found.Transfer.Amount, found.sum, found.Transfer.Price) == (
        Decimal(WIDE),
        Decimal(WIDE),
        Decimal("0.1"),
    )
    assert found.Transfer.Id == "0012345"
    assert float(found.Transfer.PriceInUSD) == 1.5


def test_a_wide_number_that_is_a_json_number_is_exact_too(written: Written) -> None:
    models = written(AMOUNTS, decimals=True)
    amount = msgspec.Raw(WIDE.encode())
    row = {"Transfer": {"Amount": amount, "Id": "1", "Price": 2, "PriceInUSD": 1}, "sum": None}
    assert models.of(rows(row)).EVM.Transfers[0].Transfer.Amount == Decimal(WIDE)


def test_json_numbers_that_no_double_holds_are_exact_where_the_sample_shows_them(written: Written) -> None:
    document = "subscription { Other { things { whole part small mixed } } }"
    row = b'{"whole":12345678901234567890,"part":0.12345678901234567890,"small":0.1,"mixed":%s}'
    found = [row % mixed for mixed in (b"1.5", b"12345678901234567890")]
    raw = b'{"data":{"Other":{"things":[%s]}}}' % b",".join(found)
    seen = Seen()
    seen.add_payload(raw)
    exact = written(document, seen=seen, decimals=True)
    assert [exact.line(f"{key}:") for key in ("whole", "part", "small", "mixed")] == [
        *("Decimal", "Decimal", "float", "Decimal")
    ]
    (first, second) = exact.of(msgspec.Raw(raw[len(b'{"data":') : -1])).Other.things
    assert (first.whole, first.part, first.small) == (
        12345678901234567890,
        Decimal("0.12345678901234567890"),
        0.1,
    )
    assert (first.mixed, second.mixed) == (Decimal("1.5"), 12345678901234567890)
    plain = written(document, seen=seen)
    assert [plain.line(f"{key}:") for key in ("whole", "mixed")] == ["int", "int | float"]


def test_text_among_the_numbers_keeps_them_text(written: Written) -> None:
    full = {"Id": "1", "Price": "", "PriceInUSD": 1.5}
    data = rows(
        {"Transfer": {**full, "Amount": "1"}, "sum": None},
        {"Transfer": {**full, "Amount": "n/a"}, "sum": None},
    )
    models = written(AMOUNTS, data, decimals=True)
    assert [row.Transfer.Amount for row in models.of(data).EVM.Transfers] == ["1", "n/a"]


# ---------------------------------------------------------------------- what a schema tells

SCHEMA = """
scalar DateTime scalar BigInt scalar JSON scalar Wei
enum Side { buy sell }
type Query { nothing: Int }
type Subscription { EVM(network: Side): EVM }
type EVM { Transfers: [Row!]! Missing: Int }
type Row { Amount: BigInt! Side: Side Time: DateTime! Meta: JSON List: [[Int!]]! Who: Who! Either: Either!
  Fee: Wei Odd: Wei }
interface Who { Address: String! }
type User implements Who { Address: String! Name: String! }
type Contract implements Who { Address: String! Code: String }
union Either = User | Contract
"""


def declared(selection: str) -> str:
    return f"subscription {{ EVM {{ Transfers {{ {selection} }} }} }}"


def test_a_schema_says_what_fields_hold_and_what_may_be_null(written: Written) -> None:
    models = written(declared("Amount Side Time Meta List"), schema=SCHEMA, decimals=True)
    row = {
        "Amount": WIDE,
        "Side": None,
        "Time": "2026-01-31T12:00:00Z",
        "Meta": {"a": 1},
        "List": [[1], None],
    }
    (found,) = models.of(rows(row)).EVM.Transfers
    assert (found.Amount, found.Side, found.List) == (Decimal(WIDE), None, [[1], None])
    assert msgspec.json.decode(found.Meta) == {"a": 1}
    assert models.of({"EVM": None}).EVM is None
    models.check()
    assert "Amount" in models.refuses(rows({**row, "Amount": None}))
    assert "List" in models.refuses(rows({**row, "List": [[None]]}))


def test_a_field_is_there_if_the_fragments_that_select_it_are_of_every_type(written: Written) -> None:
    models = written(
        declared(
            """Who { ... on Who { Address } ... on User { Name } }
            Either { __typename ... on User { Address } ... on Contract { Address Code } } Amount"""
        ),
        schema=SCHEMA,
    )
    assert models.line("Name:") == "str | None = None"
    assert models.line("Code:") == "str | None = None"
    assert [line.strip() for line in models.text.splitlines() if "Address" in line] == ["Address: str"] * 2
    row = {"Who": {"Address": "a"}, "Either": {"__typename": "User", "Address": "b"}, "Amount": "1"}
    (found,) = models.of(rows(row)).EVM.Transfers
    assert (found.Who.Address, found.Who.Name, found.Either.Address, found.Amount) == ("a", None, "b", "1")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (declared("Wondrous"), "EVM.Transfers.Wondrous is not in it"),
        ("subscription { Solana { Transfers { Amount } } }", "Solana is not in it"),
        (declared("Who"), "EVM.Transfers.Who is an object there"),
        (declared("Amount { of }"), "EVM.Transfers.Amount is a value there"),
        (declared("Amount Odd"), "Wei of EVM.Transfers.Odd"),
    ],
)
def test_a_schema_that_does_not_fit_the_document_is_refused_in_words(document: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        model_of(Document.parse(document), schema=SCHEMA)


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(UsageError, match="--schema: this is no schema"):
        model_of(Document.parse(declared("Amount")), schema="type Query {")


def test_a_scalar_of_the_schemas_own_holds_what_a_sample_shows_or_what_the_field_holds_by_its_name(
    written: Written,
) -> None:
    shown = written(
        declared("Odd Fee"), rows({"Odd": 5, "Fee": "1"}, {"Odd": "x", "Fee": None}), schema=SCHEMA
    )
    assert (shown.line("Odd:"), shown.line("Fee:")) == ("str | int | None", "str | None")
    assert written(declared("Fee"), schema=SCHEMA).line("Fee:") == "str | float | None"


def test_a_schema_may_be_an_introspection(written: Written) -> None:
    introspection = json.dumps({"data": introspection_from_schema(build_schema(SCHEMA))})
    assert written(declared("Amount"), schema=introspection).line("Amount:") == "str"
