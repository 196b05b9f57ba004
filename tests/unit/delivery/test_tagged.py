"""What rows are compared by."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.delivery.cursor import Cursor
from bqstream.delivery.enlarge import Reader
from bqstream.delivery.keyed import Keyed
from bqstream.delivery.rows import Payload
from bqstream.delivery.tagged import Row, cursors_of, tagged, tags_of

KEYED = Reader(
    kind="number", at=("Block", "Number"), of=(("Hash",),), within=(("Log",),), hidden=("bqs_Log",)
)
ALIKE = Reader(kind="number", at=("Block", "Number"), branch=("bqs_Block", "Hash"), hidden=("bqs_Block",))


def row(text: str, reader: Reader = ALIKE) -> Row:
    return tagged(msgspec.Raw(text.encode()), reader)


def test_rows_under_one_key_are_one_whatever_else_they_hold_and_their_content_shows_it() -> None:
    one = row('{"Hash":"0x1","Log":2,"Amount":"5","Block":{"Number":"7"}}', KEYED)
    same = row('{"Block":{"Number":"7"},"Amount":"5","Hash":"0x1","Log":2}', KEYED)
    other = row('{"Hash":"0x1","Log":2,"Amount":"6","Block":{"Number":"7"}}', KEYED)
    assert one.tag == one.exact == same.tag == other.tag
    assert one.content == same.content != other.content
    assert one.cursor == Cursor("number", 7)
    assert row('{"Hash":"0x1","Log":3,"Block":{"Number":"7"}}', KEYED).tag != one.tag


def test_a_row_whose_key_is_not_there_is_told_by_its_content() -> None:
    assert row('{"Hash":null,"Log":2,"v":1}', KEYED).tag != row('{"Hash":null,"Log":2,"v":2}', KEYED).tag


def test_a_price_is_no_part_of_what_a_query_is_compared_by_but_of_what_links_are() -> None:
    one = row('{"Block":{"Number":"7"},"Price":1.5,"Amount":"2.5"}')
    dearer = row('{"Block":{"Number":"7"},"Price":1.75,"Amount":"2.5"}')
    assert one.tag == dearer.tag
    assert one.exact != dearer.exact
    assert row('{"Block":{"Number":"7"},"Price":1.5,"Amount":"2.75"}').tag != one.tag, "a string is exact"


def test_equal_rows_of_two_blocks_or_of_two_branches_are_two() -> None:
    rows = [
        row(f'{{"v":1,"Block":{{"Number":"{block}"}},"bqs_Block":{{"Hash":"{branch}"}}}}')
        for block, branch in ((7, "0xa"), (8, "0xa"), (7, "0xb"))
    ]
    assert len({one.tag for one in rows}) == 3
    assert [one.hash for one in rows] == ["0xa", "0xa", "0xb"]


def test_what_cannot_be_read_is_compared_by_its_bytes() -> None:
    assert row("1e999").tag == row("1e999").tag != row("2e999").tag
    assert row("[1]").cursor is None


def test_the_short_way_to_a_place_says_the_same() -> None:
    for reader in (KEYED, ALIKE):
        for text in ('{"Hash":"0x1","Log":2,"Block":{"Number":"7"},"p":1.5}', '{"Block":{}}', "3"):
            raw = msgspec.Raw(text.encode())
            cursor = tagged(raw, reader).cursor
            found = cursors_of({"A": [raw], "B": None, "C": [raw]}, {"A": reader, "B": reader})
            assert found == {"A": [cursor] if cursor else [], "B": []}


# ---------------------------------------------------------------------- many at once

NESTED = Reader(
    kind="number",
    at=("Block", "Number"),
    of=(("bqs_Block", "Hash"), ("Transaction", "Hash")),
    within=(("Call", "Index"), ("Log", "Index")),
    branch=("bqs_Block", "Hash"),
    hidden=("bqs_Block",),
)
PLACELESS = Reader(of=(("Hash",),))
OBJECT = Reader(kind="number", at=("Block", "Number"), of=(("Block",), ("Block", "Hash")))
READERS = {"Keyed": KEYED, "Nested": NESTED, "Alike": ALIKE, "Placeless": PLACELESS, "Object": OBJECT}


def counted(raw: bytes, readers: dict[str, Reader]) -> dict[str, Counter[tuple[Cursor | None, bytes]]]:
    """How often each tag is at each place, by cube: each row read by itself."""
    cubes = Payload(raw).cubes
    rows = {key: [tagged(row, reader) for row in cubes.get(key) or ()] for key, reader in readers.items()}
    return {key: Counter((row.cursor, row.tag) for row in found) for key, found in rows.items() if found}


def counted_at_once(
    raw: bytes, readers: dict[str, Reader]
) -> dict[str, Counter[tuple[Cursor | None, bytes]]]:
    found = tags_of(raw, readers, Keyed(readers))
    parts = {
        key: Counter(
            (cursor, joined[start : start + 9])
            for cursor, joined in tags.items()
            for start in range(0, len(joined), 9)
        )
        for key, tags in found.items()
    }
    return {key: rows for key, rows in parts.items() if rows}


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(["0x1", "0x2", "7", "8", "", "\u2603", "7.0", "-1", 7, 8, 7.0, 1.5, -1, 2**64, 10**30]),
    st.just([1]),
    st.just({"Hash": "0x1"}),
)
USUAL = st.sampled_from(["0x1", "0x2", "7", "8", 7, 8])


def objects(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Rows of which each part may be missing."""
    of = st.fixed_dictionaries
    return of(
        {"Hash": value},
        optional={
            "Log": value | of({}, optional={"Index": value}),
            "Call": value | of({"Index": value}),
            "Block": of({"Number": value}, optional={"Hash": value, "Price": st.just(1.5)}),
            "bqs_Block": of({"Hash": value}),
            "Transaction": of({"Hash": value}),
            "Amount": value,
        },
    )


ROWS = st.lists(objects(USUAL), max_size=4) | st.lists(objects(VALUES) | VALUES, max_size=4) | st.none()
DATA = st.fixed_dictionaries({}, optional=dict.fromkeys([*READERS, "Another"], ROWS))


@given(DATA, st.sets(st.sampled_from(list(READERS)), min_size=1))
def test_all_rows_of_a_payload_at_once_have_the_tags_that_each_has(data: Any, keys: set[str]) -> None:
    readers = {key: READERS[key] for key in sorted(keys)}
    raw = msgspec.json.encode({"data": {"EVM": data}})
    assert counted_at_once(raw, readers) == counted(raw, readers)


USUALLY = '"bqs_Block":{"Hash":"0x1"},"Transaction":{"Hash":"0x2"},"Block":{"Number":"7"},"Log":null'


@pytest.mark.parametrize(
    "odd",
    [
        b'"Amount":1e999',
        b'"Amount":"\xff"',
        b'"Amount":' + b"1" * 5000,
        b'"Amount":"\\ud800"',
        b'"Amount":' + b"[" * 5000 + b"]" * 5000,
        b'"Bl\\u006fck":{"Number":"8"}',
        b'"Block":{"Number":"8"}',
        b'"Block":{"Number":7}',
        b'"Block":{"Number":7.0}',
        b'"Block":{"Hash":"0x2"}',
        b'"Log":{"Index":7.0}',
        b'"Log":{"Index":1e999}',
        b'"Log":7',
        b'"Call":{"Index":true}',
        b'"Transaction":null',
        b'"Transaction":{"Hash":null}',
        b'"Amount":01',
    ],
)
@pytest.mark.parametrize("root", [b"%b", b'{"__typename":"x","EVM":%b}', b'{"EVM":%b,"Solana":{}}'])
def test_odd_bytes_change_nothing_in_that(odd: bytes, root: bytes) -> None:
    cubes = b'{"Nested":[{%b},{%b,%b}],"Alike":null}' % (USUALLY.encode(), USUALLY.encode(), odd)
    for data in (b'{"EVM":%b}' % cubes, root.replace(b"%b", cubes), cubes, b"null", b"3", b'{"EVM":null}'):
        for raw in (b'{"data":%b}' % data, b'{"data":%b,"errors":[{}]}' % data, data):
            readers = {"Nested": NESTED, "Alike": ALIKE}
            assert counted_at_once(raw, readers) == counted(raw, readers)


def test_a_row_of_which_only_its_key_can_be_read_is_told_by_it() -> None:
    text = '{"Hash":"0x1","Log":2,"Block":{"Number":"7"},"Amount":%s}'
    one, same = row(text % "1e999", KEYED), row(text % "5", KEYED)
    assert (one.tag, one.cursor) == (same.tag, same.cursor)
    assert one.content != same.content
