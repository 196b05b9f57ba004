"""What rows are compared by."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bqstream.delivery.cursor import Cursor
from bqstream.delivery.enlarge import Reader
from bqstream.delivery.tagged import Row, cursors_of, place_of, tagged

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


parts = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
anything = parts | st.lists(parts, max_size=2) | st.dictionaries(st.sampled_from(["Number", "Hash"]), parts)
names = st.sampled_from(["Hash", "Log", "Block", "bqs_Block", "bqs_Log", "v"])


@given(st.dictionaries(names, anything) | anything)
def test_the_short_way_to_a_tag_leads_to_the_same_whatever_a_row_holds(value: Any) -> None:
    for reader in (KEYED, ALIKE, KEYED.by_content):
        raw = msgspec.Raw(msgspec.json.encode(value))
        whole = tagged(raw, reader)
        assert place_of(raw, reader) == (whole.cursor, whole.tag)


def test_the_short_ways_say_the_same() -> None:
    for reader in (KEYED, ALIKE):
        for text in ('{"Hash":"0x1","Log":2,"Block":{"Number":"7"},"p":1.5}', '{"Block":{}}', "3", "1e999"):
            raw = msgspec.Raw(text.encode())
            whole = tagged(raw, reader)
            assert place_of(raw, reader) == (whole.cursor, whole.tag)
            found = cursors_of({"A": [raw], "B": None, "C": [raw]}, {"A": reader, "B": reader})
            assert found == {"A": [whole.cursor] if whole.cursor else [], "B": []}
