"""Rows that become tables part by part: all of them, in order, whichever way they come, and typed as settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from bqstream import OperationFailed
from bqstream.delivery.document import Document
from bqstream.tables.columns import drafts
from bqstream.tables.frame import PART, SETTLE, Frame

DOCUMENT = """subscription { EVM { Trades: DEXTrades {
    Block { Number Time } Trade { Buy { Amount PriceInUSD } Success } Label: Tag
} } }"""
FIRST = datetime(2026, 1, 2, tzinfo=UTC)


def frame_of(document: str = DOCUMENT, *, strict: bool = False, **told: Any) -> Frame:
    (draft,) = drafts(Document.parse(document), **told)
    return Frame(draft, "EVM", strict=strict)


def row(number: int, **changed: Any) -> dict[str, Any]:
    """``Block_Number=…`` and so on, where it is to be another than usual."""
    value: Callable[[str, Any], Any] = changed.get
    time = (FIRST + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
    return {
        "Block": {"Number": value("Block_Number", str(number)), "Time": value("Block_Time", time)},
        "Trade": value(
            "Trade",
            {
                "Buy": {
                    "Amount": value("Trade_Buy_Amount", f"{number}.5"),
                    "PriceInUSD": value("Trade_Buy_PriceInUSD", number / 4),
                },
                "Success": value("Trade_Success", number % 2 == 0),
            },
        ),
        "Label": value("Label", f"tag {number}"),
    }


def raw(rows: Sequence[Any]) -> bytes:
    return msgspec.json.encode({"data": {"EVM": {"Trades": rows}}})


def feed(frame: Frame, rows: Sequence[Any]) -> str:
    """As a subscription does; says which way was taken."""
    read = frame.read(raw(rows))
    if read is None:
        frame.add(rows)
        return "dicts"
    frame.add_read(read)
    return "objects"


def test_rows_come_out_in_order_and_none_is_missing_whatever_the_messages_hold() -> None:
    frame, rows, ways = frame_of(), [row(number) for number in range(SETTLE + 2 * PART + 500)], set()
    at, size = 0, 1
    while at < len(rows):
        ways.add(feed(frame, rows[at : at + size]))
        at, size = at + size, size * 3 % 997
    assert ways == {"dicts", "objects"}
    assert frame.count == len(rows)
    table = frame.take()
    assert table.column("Block_Number").to_pylist() == list(range(len(rows)))
    assert table.column("Label").to_pylist() == [one["Label"] for one in rows]
    assert table.column("Block_Time")[7].as_py() == FIRST + timedelta(seconds=7)
    assert max(chunk.num_rows for chunk in table.to_batches()) < PART + 1_000
    assert table.schema == pa.schema(
        {
            "Block_Number": pa.int64(),
            "Block_Time": pa.timestamp("us", tz="UTC"),
            "Trade_Buy_Amount": pa.string(),
            "Trade_Buy_PriceInUSD": pa.float64(),
            "Trade_Success": pa.bool_(),
            "Label": pa.string(),
        }
    )


def test_a_message_of_another_shape_among_others_is_read_in_its_place() -> None:
    frame = frame_of()
    feed(frame, [row(0)])
    frame.settle()
    ways = [feed(frame, [row(1)]), feed(frame, [row(2, Trade=None), None]), feed(frame, [row(4)])]
    assert ways == ["objects", "dicts", "objects"]
    table = frame.take()
    assert table.column("Block_Number").to_pylist() == [0, 1, 2, None, 4]
    assert table.column("Trade_Buy_Amount").to_pylist() == ["0.5", "1.5", None, None, "4.5"]


def test_only_the_first_rows_say_what_a_column_holds() -> None:
    frame = frame_of()
    feed(frame, [row(number, Label=number) for number in range(SETTLE - 1)])
    assert frame.table is None
    feed(frame, [row(2, Label="a word"), row(1, Label=1)])
    assert frame.table is not None
    assert {column.name: column.kind for column in frame.table.columns}["Label"] == "text"
    frame = frame_of()
    feed(frame, [row(number, Label=number) for number in range(SETTLE)] + [row(2, Label="a word")])
    assert frame.table is not None
    assert {column.name: column.kind for column in frame.table.columns}["Label"] == "float"


WIDENED = [
    ("Block_Number", "7", "0x7", "7"),
    ("Block_Time", "2026-01-02T00:00:07.25Z", "soon", "2026-01-02T00:00:07.250000Z"),
    ("Trade_Buy_PriceInUSD", 0.25, "a lot", "0.25"),
    ("Trade_Success", True, "perhaps", "true"),
    ("Trade_Buy_Amount", "1234567890.5", "1e-30", "1234567890.5"),
]


@pytest.mark.parametrize(("name", "first", "then", "text"), WIDENED, ids=[name for name, *_ in WIDENED])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_value_that_does_not_fit_turns_its_column_into_text(
    name: str, first: Any, then: Any, text: str, parts: int
) -> None:
    frame = frame_of(decimals=True)
    feed(frame, [row(7, **{name: first}), row(8, **{name: None})])
    frame.settle()
    if parts == 2:
        frame._gather()
        frame._flush()
    feed(frame, [row(9, **{name: then})])
    table = frame.take()
    before = [text, None] if parts == 2 else [first if isinstance(first, str) else text, None]
    assert table.column(name).to_pylist() == [*before, then]
    others = [field.name for field in table.schema if pa.types.is_string(field.type)]
    assert others == ["Label"] if name == "Label" else set(others) == {"Label", name}
    assert table.column("Label").to_pylist() == ["tag 7", "tag 8", "tag 9"]


def test_a_list_where_an_object_stood_is_kept_as_json() -> None:
    frame = frame_of()
    feed(frame, [row(1)])
    frame.settle()
    assert feed(frame, [row(2, Trade=[1, "two"])]) == "dicts"
    table = frame.take()
    assert table.column("Trade_Buy_Amount").to_pylist() == ["1.5", '[1,"two"]']
    assert table.column("Trade_Success").to_pylist() == ["false", '[1,"two"]']


def test_a_strict_frame_names_the_column_and_keeps_every_row() -> None:
    frame = frame_of(strict=True)
    feed(frame, [row(1)])
    frame.settle()
    feed(frame, [row(2, Block_Number="many")])
    for _ in range(2):
        with pytest.raises(OperationFailed, match=r"Block_Number of row 2 .*many"):
            frame.take()
    frame.strict = False
    assert frame.take().column("Block_Number").to_pylist() == ["1", "many"]


def test_what_was_not_taken_out_stays() -> None:
    frame = frame_of()
    feed(frame, [row(number) for number in range(5)])
    assert frame.take(2).column("Block_Number").to_pylist() == [0, 1]
    feed(frame, [row(5)])
    assert frame.count == 4
    assert frame.take(3).column("Block_Number").to_pylist() == [2, 3, 4]
    assert frame.take(100).column("Block_Number").to_pylist() == [5]
    assert frame.count == frame.nbytes == 0


def test_without_a_row_there_are_the_columns_of_the_document() -> None:
    schema = frame_of(decimals=True).take().schema
    assert schema.field("Block_Time").type == pa.timestamp("us", tz="UTC")
    assert schema.field("Trade_Buy_Amount").type == pa.decimal128(38, 18)
    assert schema.field("Label").type == pa.string()


def test_decimals_are_exact_and_text_where_the_first_rows_have_more_digits() -> None:
    amount = "12345678901234567890.123456789012345678"
    frame = frame_of(decimals=True)
    feed(frame, [row(1, Trade_Buy_Amount=amount), row(2, Trade_Buy_Amount=3)])
    column = frame.take().column("Trade_Buy_Amount")
    assert column.type == pa.decimal128(38, 18)
    assert column.to_pylist() == [Decimal(amount), Decimal(3)]
    frame = frame_of(decimals=True, strict=True)
    feed(frame, [row(1, Trade_Buy_Amount=f"{amount}9"), row(2)])
    assert frame.take().column("Trade_Buy_Amount").to_pylist() == [f"{amount}9", "2.5"]


def test_what_the_user_says_of_a_column_counts() -> None:
    frame = frame_of(columns={"Block_Number": "text", "Trade_Buy": "json", "Label": "decimal(5, 2)"})
    feed(frame, [row(1, Label="3.25")])
    table = frame.take()
    assert table.column("Block_Number").to_pylist() == ["1"]
    assert table.column("Trade_Buy").to_pylist() == ['{"Amount":"1.5","PriceInUSD":0.25}']
    assert table.schema.field("Label").type == pa.decimal128(5, 2)
