"""How rows are counted across links, queries and what was delivered before."""

from __future__ import annotations

import msgspec

from bqstream.delivery.cursor import Cursor
from bqstream.delivery.tagged import Row
from bqstream.delivery.tally import Tally


def row(name: str, block: int = 1, price: str = "") -> Row:
    tag = f"{block}{name}".encode()
    return Row(msgspec.Raw(b"{}"), Cursor("number", block), tag, tag + price.encode(), tag, None)


def test_each_copy_is_delivered_from_the_link_on_which_it_comes_first() -> None:
    tally = Tally()
    brought = [(1, "x"), (2, "x"), (2, "x"), (1, "x"), (1, "y"), (2, "y"), (1, "x")]
    assert [tally.brought(source, row(name)) for source, name in brought] == [
        True,
        False,
        True,
        False,
        True,
        False,
        True,
    ]


def test_equal_rows_on_one_link_are_as_many_as_they_were() -> None:
    tally = Tally()
    assert [tally.brought(1, row("x")) for _ in range(3)] == [True] * 3


def test_what_was_delivered_before_is_not_delivered_again_from_another_link() -> None:
    tally = Tally()
    tally.seed(row("x"), [1])
    assert not tally.brought(2, row("x")), "its copy of the first"
    assert tally.brought(1, row("x")), "the second"
    assert not tally.brought(2, row("x"))


def test_a_query_owes_what_a_block_has_more_than_was_delivered() -> None:
    tally = Tally()
    tally.seed(row("x"), [1])
    assert tally.owed([row("x"), row("x"), row("y")]).count(True) == 2
    assert tally.owed([row("x"), row("x"), row("y")]) == [False] * 3, "asked again"
    assert [tally.brought(2, row("x")) for _ in range(3)] == [False, False, True], (
        "the third is of after the answer"
    )


def test_a_row_that_is_priced_anew_is_one_row_and_the_one_that_is_missing_is_chosen() -> None:
    tally = Tally()
    tally.seed(row("x", price="1.5"), [1])
    assert tally.owed([row("x", price="1.5"), row("x", price="9.0")]) == [False, True]
    tally = Tally()
    tally.seed(row("x", price="1.5"), [1])
    assert tally.owed([row("x", price="1.6")]) == [False]


def test_rows_that_a_checkpoint_names_are_delivered_by_nobody() -> None:
    tally = Tally()
    tally.seed_tag(1, b"1x", 2)
    assert tally.owed([row("x")] * 3).count(True) == 1
    assert not tally.brought(1, row("x"))


def test_a_row_that_was_let_go_is_missing() -> None:
    tally = Tally()
    assert tally.brought(1, row("x"))
    tally.taken_back(row("x"))
    assert tally.rows == 0
    assert tally.owed([row("x")]) == [True]


def test_another_row_under_the_same_key_is_seen() -> None:
    tally = Tally()
    tally.brought(1, row("x"))
    assert not tally.contradicts(row("x"))
    assert tally.contradicts(row("x")._replace(content=b"other"))


def test_what_is_forgotten_is_not_counted() -> None:
    tally = Tally()
    for block in (1, 2, 3):
        tally.brought(1, row("x", block))
    tally.forget_lowest()
    tally.forget_below(3)
    assert tally.rows == 1
    assert not tally.brought(2, row("x", 3))
