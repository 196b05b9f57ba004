"""What one source owes the other, on its own."""

from __future__ import annotations

from typing import ClassVar

from bqstream.delivery.seam import Owed


class Compared(bytes):
    """A fingerprint that counts how often it is compared."""

    times: ClassVar[int] = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()


def owing(*rows: bytes, in_order: bool = False, sure: bool = False) -> Owed:
    owed = Owed(in_order, sure)
    for at, row in enumerate(rows):
        owed.owe(row, float(at))
    return owed


def test_a_row_in_any_order_costs_the_same_however_many_are_owed() -> None:
    count = 2000
    rows = [Compared(f"{number}".encode()) for number in range(count)]
    owed = owing(*rows)
    Compared.times = 0
    # The first one never comes: all the others come before their turn.
    assert [owed.settle(row) for row in reversed(rows[1:])] == [True] * (count - 1)
    assert Compared.times < 20 * count
    assert owed.settle(rows[5]) is False
    owed.forget_before(0.0)
    assert not owed.rows


def test_equal_rows_are_owed_as_often_as_they_were_delivered() -> None:
    owed = owing(b"a", b"b", b"b", b"c")
    assert [owed.settle(row) for row in (b"b", b"b", b"b", b"c")] == [True, True, False, True]
    assert [row for row, _ in owed.rows][:1] == [b"a"]
    assert owed.settle(b"a") is True
    assert not owed.rows


def test_what_is_in_order_says_that_another_row_had_to_come_first() -> None:
    owed = owing(b"a", b"b", in_order=True, sure=True)
    assert owed.settle(b"b") is None
    owed.forget_before(9.0)
    assert [owed.settle(row) for row in (b"a", b"b", b"a")] == [True, True, False]


def test_what_came_early_is_not_waited_for_once_the_rows_before_it_are_forgotten() -> None:
    owed = owing(b"a", b"b", b"c", b"b")
    assert owed.settle(b"b") is True
    owed.forget_before(0.0)
    assert [row for row, _ in owed.rows] == [b"c", b"b"]
