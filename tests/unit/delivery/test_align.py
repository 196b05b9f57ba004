"""Finding the place of one sequence in another."""

from __future__ import annotations

from bqstream.delivery.align import MANY, PROOF, Alignment

NEVER = float("-inf")


def rows(text: str) -> list[bytes]:
    return [letter.encode() for letter in text]


def aligned(log: str, new: str, *, old_first: bool = True) -> Alignment:
    """Letters that came one after another, a second apart, on either side."""
    alignment = Alignment()
    for old in (True, False) if old_first else (False, True):
        for second, row in enumerate(rows(log if old else new)):
            (alignment.add_old if old else alignment.add_new)(row, float(second))
    return alignment


def test_every_place_at_which_all_that_both_have_agrees_is_a_candidate() -> None:
    assert aligned("abcabc", "abc").places(NEVER, NEVER) == [0, 3]
    assert aligned("xyzab", "abc").places(NEVER, NEVER) == [3]
    assert aligned("xyz", "abc").places(NEVER, NEVER) == []


def test_a_place_is_given_up_at_the_first_row_that_disagrees_whichever_side_brings_it() -> None:
    for old_first in (True, False):
        assert aligned("abcabd", "abd", old_first=old_first).places(NEVER, NEVER) == [3]
        assert aligned("abxab", "abc", old_first=old_first).places(NEVER, NEVER) == [3]


def test_what_came_a_grace_ago_on_one_side_narrows_the_places() -> None:
    alignment = aligned("aaaa", "aa")
    assert alignment.places(NEVER, NEVER) == [0, 1, 2, 3]
    assert alignment.places(1.0, NEVER) == [0, 1, 2]
    assert alignment.places(1.0, 3.0) == [2]


def test_more_places_than_can_be_followed_are_told_apart_by_time_alone() -> None:
    alignment = Alignment()
    for _ in range(MANY + 1):
        alignment.add_old(b"a", 0.0)
    alignment.add_new(b"a", 0.0)
    assert alignment.places(NEVER, NEVER) is None
    assert alignment.guess(None, *alignment.window(NEVER, NEVER)) == 0
    assert alignment.places(0.0, 0.0) == [MANY]
    alignment.add_new(b"b", 0.0)
    assert alignment.places(0.0, 0.0) == []


def test_the_largest_overlap_is_guessed() -> None:
    alignment = aligned("abxab", "ab")
    assert alignment.guess([0, 3], 0, 4) == 0
    assert alignment.guess([3, 4], 0, 4) == 3
    assert alignment.guess([], 0, 4) is None


def test_rare_rows_prove_more_than_common_ones() -> None:
    common = rows("abababababababababab")
    assert aligned("ab", "ab").evidence(0, rows("xyzabxyz")) == 0.0
    assert aligned("aab", "aab").evidence(0, common) < PROOF
    letters = "abcdefghijkl"
    assert aligned(letters, letters).evidence(0, common) >= PROOF


def test_rows_that_nobody_can_bring_any_more_are_forgotten() -> None:
    alignment = aligned("abcd", "")
    assert alignment.forget_before(1.0) == 1.0
    assert alignment.log == rows("cd")
    alignment.add_new(b"c", 4.0)
    assert alignment.forget_before(9.0) is None
    assert alignment.places(NEVER, NEVER) == [0]
