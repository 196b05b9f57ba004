"""Heights that come again on another branch: what is told, and what is taken back."""

from __future__ import annotations

import json

from bqstream.delivery.enlarge import Reader
from bqstream.delivery.forks import Forks
from bqstream.delivery.history import History
from bqstream.message import Arrival, Fork, Undo

READER = Reader(kind="number", at=("Block", "Number"), branch=("bqs_Block", "Hash"), hidden=("bqs_Block",))


class Chain:
    """What was delivered, one payload after another; rows are (height, hash, value)."""

    def __init__(self) -> None:
        self.history = History()
        self.forks = Forks({"A": READER}, self.history)

    @staticmethod
    def payload(*rows: tuple[int, str, int]) -> bytes:
        found = [
            {"Block": {"Number": str(height)}, "v": value, "bqs_Block": {"Hash": branch}}
            for height, branch, value in rows
        ]
        return json.dumps({"data": {"EVM": {"A": found}}}).encode()

    def bring(self, *rows: tuple[int, str, int]) -> int:
        raw = self.payload(*rows)
        self.history.add(Arrival(raw, 0.0, 1))
        self.history.take(Arrival(raw, 0.0, 1))
        return self.history.last

    def undone(self, number: int) -> list[int] | None:
        undo = self.forks.undo(number)
        return None if undo is None else [row["v"] for row in undo.rows.get("A", ())]


def test_a_chain_without_forks_takes_nothing_back() -> None:
    chain = Chain()
    for height in range(5):
        number = chain.bring((height, f"a{height}", height))
        assert chain.undone(number) is None
        assert chain.forks.at(number) == ()


def test_a_height_on_another_branch_is_told_with_both_hashes() -> None:
    chain = Chain()
    chain.bring((1, "a1", 1))
    assert chain.forks.at(chain.bring((1, "b1", 2))) == (Fork("A", 1, "b1", "a1"),)


def test_the_rows_of_the_block_and_of_all_that_followed_it_are_taken_back_newest_first() -> None:
    chain = Chain()
    for height in (1, 2, 3):
        assert (
            chain.undone(chain.bring((height, f"a{height}", height), (height, f"a{height}", 10 * height)))
            is None
        )
    number = chain.bring((2, "b2", 7))
    undo = chain.forks.undo(number)
    assert undo == Undo(
        (Fork("A", 2, "b2", "a2"),),
        {"A": tuple({"Block": {"Number": str(v % 10 or v // 10)}, "v": v} for v in (30, 3, 20, 2))},
    ), "as the user saw them, without hidden fields"
    assert chain.undone(chain.bring((3, "b3", 8))) is None, (
        "its rows were taken back with the first of the branch"
    )


def test_the_new_branch_is_not_taken_back_when_its_blocks_come_out_of_order() -> None:
    chain = Chain()
    for height in (1, 2, 3):
        chain.undone(chain.bring((height, f"a{height}", height)))
    assert chain.undone(chain.bring((3, "b3", 6))) == [3]
    assert chain.undone(chain.bring((4, "b4", 7))) is None
    assert chain.undone(chain.bring((2, "b2", 5))) == [2], "neither 3 nor 4 of the new branch"


def test_a_late_row_of_a_block_that_was_given_up_is_taken_back_with_the_next_payload() -> None:
    chain = Chain()
    chain.undone(chain.bring((1, "a1", 1)))
    assert chain.undone(chain.bring((1, "b1", 2))) == [1]
    assert chain.undone(chain.bring((1, "a1", 3))) is None, "it is delivered first"
    assert chain.undone(chain.bring((2, "b2", 4))) == [3]


def test_two_forks_in_a_row_take_back_each_branch_once() -> None:
    chain = Chain()
    chain.undone(chain.bring((1, "a1", 1)))
    assert chain.undone(chain.bring((1, "b1", 2))) == [1]
    assert chain.undone(chain.bring((1, "c1", 3))) == [2]


def test_rows_that_show_no_hash_are_never_taken_back() -> None:
    history = History()
    forks = Forks({"A": Reader(kind="time", at=("Block", "Time"))}, history)
    history.add(Arrival(b'{"data":{"EVM":{"A":[{"Block":{"Time":"2026-01-01T00:00:00Z"}}]}}}', 0.0, 1))
    assert forks.at(1) == ()
    assert forks.undo(1) is None


def test_what_was_held_back_of_a_branch_that_a_query_knew_to_be_given_up_does_not_take_the_trunk_back() -> (
    None
):
    chain = Chain()
    chain.undone(chain.bring((1, "a1", 1)))
    chain.undone(chain.bring((2, "b2", 2), (3, "b3", 3)))  # a query's, after the fork
    chain.forks.held(
        [
            chain.payload((2, "a2", 4)),
            chain.payload((3, "a3", 5), (4, "a4", 6)),
            chain.payload((2, "b2", 2)),  # the query has brought it, so that it does not come again
            chain.payload((4, "b4", 7)),
        ]
    )
    assert chain.undone(chain.bring((2, "a2", 4))) is None
    assert chain.undone(chain.bring((3, "a3", 5), (4, "a4", 6))) == [4], "one payload later"
    assert chain.undone(chain.bring((4, "b4", 7))) == [6, 5], "of a height too that no query brought"


def test_a_fork_that_is_newer_than_what_a_query_brought_counts_as_ever() -> None:
    chain = Chain()
    chain.undone(chain.bring((1, "a1", 1), (2, "a2", 2)))  # a query's, before the fork
    chain.forks.held([chain.payload((2, "b2", 3)), chain.payload((3, "b3", 4))])
    number = chain.bring((2, "b2", 3))
    assert chain.forks.at(number) == (Fork("A", 2, "b2", "a2"),)
    assert chain.undone(number) == [2]


def test_a_fork_within_what_was_held_back_counts_as_ever_where_no_query_knew_of_it() -> None:
    chain = Chain()
    chain.forks.held([chain.payload((1, "a1", 1)), chain.payload((1, "b1", 2))])
    assert chain.undone(chain.bring((1, "a1", 1))) is None
    assert chain.undone(chain.bring((1, "b1", 2))) == [1]
