"""What a batch means for the sink: rows by table and in order, gaps, dead letters, and a state to go on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bqstream import Gap, Message, SinkFailed, Undo, UsageError
from bqstream.checkpoint import Checkpoint
from bqstream.collect.commit import Commit
from bqstream.collect.deadletters import DeadLetters
from bqstream.collect.reading import Batch
from bqstream.collect.state import State
from bqstream.collect.writing import Prepared, Writing
from bqstream.delivery.decoding import decoder
from bqstream.delivery.document import Document
from bqstream.delivery.repair import ENDED
from bqstream.message import Arrival, Fork
from bqstream.tables.columns import drafts
from bqstream.tables.table import Rows

TWO = "subscription { EVM { A: Transfers { N Block { Time } } B: Blocks { N } } }"
START = datetime(2026, 1, 2, tzinfo=UTC)
GAP = Gap(start=START, end=None, cause="lost", cubes=("A",), number=1)


class Origin:
    """What a message asks of its stream."""

    cubes: tuple[str, ...] = ("A", "B")
    hides: bool = False
    into: Any = None
    decode = staticmethod(decoder(None))

    def ahead(self) -> float:
        return 0.0

    def shown(self, raw: bytes) -> bytes:
        return raw

    def checkpoint(self, number: int) -> Checkpoint:
        raise AssertionError("the reading side has asked for it")

    def forks(self, number: int) -> tuple[Fork, ...]:
        return ()


def raw(
    text: str, *, undo: Mapping[str, tuple[Any, ...]] | None = None, replayed: bool = False
) -> Message[Any]:
    message: Message[Any] = Message(Arrival(text.encode(), 1_000_000.0, 1, replayed), Origin(), 1)
    message.undo = Undo((), undo) if undo is not None else None
    return message


def message(a: Any = (), b: Any = (), **more: Any) -> Message[Any]:
    def rows(found: Any) -> Any:
        return (
            [{"N": one} if not isinstance(one, dict) else one for one in found] if found is not None else None
        )

    return raw(json.dumps({"data": {"EVM": {"A": rows(a), "B": rows(b)}}}), **more)


class Side:
    """The writing side, and the processes that come after one another."""

    def __init__(self, folder: Path, document: str = TWO, **options: Any) -> None:
        self.folder = folder
        self.document = document
        self.stored: Commit | None = None
        self.runs = 0
        self.begin(**options)

    def begin(
        self, document: str | None = None, *, flat: bool = True, evolve: bool = False, **options: Any
    ) -> None:
        """A new process goes on from what is stored."""
        self.document = document or self.document
        self.runs += 1
        state = State.loads(self.stored.state) if self.stored else None
        self.dead = DeadLetters(self.folder / "dead.jsonl")
        dead = self.dead.cut(state.dead_letters if state else None)
        self.writing = Writing(
            "T",
            drafts(Document.parse(self.document), None, **options),
            self.dead,
            run=f"run{self.runs}",
            state=state,
            dead=dead,
            number=self.stored.number if self.stored else 0,
            checkpoint="begun",
            flat=flat,
            evolve=evolve,
            shown=3,
        )

    def prepare(
        self, *messages: Message[Any], checkpoint: str | None = "c", gaps: tuple[Gap, ...] = ()
    ) -> tuple[Batch, Prepared]:
        batch = Batch(messages, checkpoint, {gap.number: gap for gap in gaps})
        return batch, self.writing.prepare(batch)

    def commit(self, *messages: Message[Any], **more: Any) -> Prepared:
        batch, prepared = self.prepare(*messages, **more)
        self.writing.done(batch, prepared)
        self.stored = prepared.commit
        return prepared

    @property
    def letters(self) -> list[dict[str, Any]]:
        return (
            [json.loads(line) for line in self.dead.path.read_text().splitlines()]
            if self.dead.path.exists()
            else []
        )


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


def steps(prepared: Prepared) -> list[tuple[str, list[Any], bool]]:
    """Each step's table, its column N, and whether it takes back."""
    return [(rows.table.name, list(rows.columns[0]), rows.undo) for rows in prepared.commit.steps]


def kinds(prepared: Prepared, table: int = 0) -> dict[str, str]:
    return {column.name: column.kind for column in prepared.commit.tables[table].columns}


# ---------------------------------------------------------------------- rows


def test_the_rows_of_many_messages_are_one_step_a_table_in_the_order_in_which_they_came(side: Side) -> None:
    prepared = side.commit(message([1, 2], [7]), message([], []), message([3], [8]))
    assert steps(prepared) == [("A", [1, 2, 3], False), ("B", [7, 8], False)]
    assert prepared.commit.count == 5
    assert prepared.last == [("A", {"N": 3, "Block_Time": None}), ("B", {"N": 7}), ("B", {"N": 8})]


def test_rows_that_are_taken_back_are_so_after_what_came_before_and_before_what_comes_after(
    side: Side,
) -> None:
    prepared = side.commit(
        message([1, 2]),
        message([3], [4], undo={"A": ({"N": 2}, {"N": 1})}),
        message([5], undo={"B": ({"N": 4},)}),
    )
    assert steps(prepared) == [
        ("A", [1, 2], False),
        ("A", [2, 1], True),
        ("A", [3], False),
        ("B", [4], False),
        ("B", [4], True),
        ("A", [5], False),
    ]
    assert prepared.commit.count == 5


def test_rows_that_never_fitted_are_not_taken_back(side: Side) -> None:
    side.commit(message([1]))
    prepared = side.commit(message(undo={"A": ({"N": 1}, {"N": "x"})}))
    assert steps(prepared) == [("A", [1], True)]
    assert side.letters == []


def test_a_message_that_only_takes_back_of_a_table_without_rows_does_nothing(side: Side) -> None:
    assert steps(side.commit(message(undo={"A": ({"N": 1},)}))) == []


def test_a_null_cube_beside_another_has_no_rows_and_errors_are_told(side: Side) -> None:
    prepared = side.commit(
        raw('{"data":{"EVM":{"A":null,"B":[{"N":1}]}},"errors":[{"message":"no A"}]}'),
        raw('{"data":{"EVM":{"A":null,"B":null}},"errors":[{"message":"neither"}]}'),
        raw('{"data":null,"errors":[{"message":"nothing"}]}'),
    )
    assert steps(prepared) == [("B", [1], False)]
    assert [error[0]["message"] for error in prepared.errors] == ["no A", "neither", "nothing"]
    assert side.letters == []


def test_a_payload_that_cannot_be_decoded_is_a_dead_letter_and_the_others_are_none_the_worse(
    side: Side,
) -> None:
    bad = '{"data":{"EVM":{"A":[{"N":1e999}],"B":[]}}}'
    prepared = side.commit(
        message([1]), raw(bad), raw('{"data":{"EVM":{"A":[{"N":"\\ud800"}]}}}'), message([2])
    )
    assert steps(prepared) == [("A", [1, 2], False)]
    assert prepared.misfits == 2
    assert side.letters[0]["row"] == bad
    assert "cannot be decoded" in side.letters[0]["reason"]


def test_bytes_that_are_no_text_are_a_dead_letter(side: Side) -> None:
    odd: Message[Any] = Message(Arrival(b'{"data":"\xff"}', 1.0, 1), Origin(), 1)
    side.commit(odd)
    assert side.letters[0]["row"] == '{"data":"\\xff"}'


def test_data_that_is_no_row_of_a_cube_is_a_dead_letter(side: Side) -> None:
    prepared = side.commit(raw('{"data":{"EVM":7}}'), raw('{"data":{"EVM":{"C":[{"N":1}]}}}'), message([1]))
    assert steps(prepared) == [("A", [1], False)]
    assert [letter["row"] for letter in side.letters] == [[{"EVM": 7}], [{"N": 1}]]


def test_another_services_data_without_lists_of_rows_is_kept_whole(tmp_path: Path) -> None:
    side = Side(tmp_path, "subscription { feed { post { id } } }")
    prepared = side.commit(raw('{"data":{"feed":{"post":{"id":1}}}}'), raw('{"data":{"feed":null}}'))
    (rows,) = prepared.commit.steps
    assert (rows.table.name, rows.table.names) == ("feed", ("data",))
    assert rows.columns == [['{"feed":{"post":{"id":1}}}', '{"feed":null}']]
    assert side.letters == []


def test_another_services_lists_are_rows(tmp_path: Path) -> None:
    side = Side(tmp_path, "subscription { feed { posts { N text } } }")
    prepared = side.commit(raw('{"data":{"feed":{"posts":[{"N":1,"text":"a"}]}}}'))
    assert steps(prepared) == [("posts", [1], False)]
    assert [table.name for table in prepared.commit.tables] == ["posts"]


def test_a_scalar_root_is_one_column(tmp_path: Path) -> None:
    side = Side(tmp_path, "subscription { price }")
    (rows,) = side.commit(raw('{"data":{"price":7}}')).commit.steps
    assert rows.columns == [['{"price":7}']]


def test_a_sink_that_nests_gets_rows_as_they_came(tmp_path: Path) -> None:
    side = Side(tmp_path, flat=False)
    odd = {"N": [1, {"x": "y"}], "Block": 7}
    prepared = side.commit(message([odd, 2], undo={"A": ({"N": 0},)}))
    undone, added = prepared.commit.steps
    assert (undone.undo, undone.nested, undone.count) == (True, [{"N": 0}], 1)
    assert (added.nested, added.columns, added.count) == ([odd, {"N": 2}], (), 2)
    assert prepared.last == [("A", odd), ("A", {"N": 2})]
    assert side.letters == []


def test_what_queries_brought_is_counted(side: Side) -> None:
    assert side.commit(message([1, 2], replayed=True), message([3])).backfilled == 2


def test_the_newest_row_is_told_by_its_blocks_time_or_else_by_when_it_came(side: Side) -> None:
    times = [{"N": 1, "Block": {"Time": f"2026-01-0{day}T00:00:00Z"}} for day in (2, 3, 1)]
    assert side.commit(message(times)).newest == datetime(2026, 1, 3, tzinfo=UTC)
    assert side.commit(message([], [1])).newest == datetime.fromtimestamp(1_000_000, UTC)
    assert side.commit(checkpoint=None).newest is None


# ---------------------------------------------------------------------- tables


def test_a_table_is_settled_by_its_first_rows_and_stays_so_in_the_next_process(side: Side) -> None:
    assert side.commit().commit.tables == ()
    assert kinds(side.commit(message([1]))) == {"N": "float", "Block_Time": "timestamp"}
    side.begin()
    prepared = side.commit(message(["x", 2], ["y"]))
    assert kinds(prepared) == {"N": "float", "Block_Time": "timestamp"}
    assert kinds(prepared, 1) == {"N": "text"}
    assert steps(prepared) == [("A", [2], False), ("B", ["y"], False)]
    assert [letter["reason"] for letter in side.letters] == ['N: "x" is no JSON number']


def test_a_commit_that_did_not_go_through_settles_nothing(side: Side) -> None:
    side.prepare(message([1]))
    assert kinds(side.commit(message(["x"]))) == {"N": "text", "Block_Time": "timestamp"}


def test_a_document_with_more_fields_is_refused_unless_it_may_evolve(side: Side) -> None:
    side.commit(message([1]))
    more = TWO.replace("A: Transfers { N", "A: Transfers { N Other")
    with pytest.raises(UsageError, match="has no column Other yet: --evolve"):
        side.begin(more)
    side.begin(more, evolve=True)
    assert list(kinds(side.commit())) == ["N", "Block_Time"]
    prepared = side.commit(message([{"N": 1, "Other": 1.5}]))
    assert kinds(prepared) == {"N": "float", "Block_Time": "timestamp", "Other": "float"}
    assert prepared.commit.evolve
    side.begin()
    assert kinds(side.commit(message([{"N": 1, "Other": "x"}])))["Other"] == "float"


def test_a_field_that_is_asked_for_no_more_is_a_column_no_more(side: Side) -> None:
    side.commit(message([1]))
    side.begin(TWO.replace("Block { Time }", ""), evolve=True)
    assert list(kinds(side.commit(message([2])))) == ["N"]


def test_a_column_whose_field_has_another_way_to_it_is_read_there(side: Side) -> None:
    side.commit(message([1]))
    side.begin(TWO.replace("Block { Time }", "Block_Time: Time"), evolve=True)
    prepared = side.commit(message([{"N": 2, "Block_Time": "2026-01-01T00:00:00Z"}]))
    assert prepared.commit.steps[0].columns == [[2.0], [datetime(2026, 1, 1, tzinfo=UTC)]]


def test_a_list_stays_one_column(tmp_path: Path) -> None:
    side = Side(tmp_path, "subscription { EVM { A: Transfers { N Odd { X Y } } } }")
    side.commit(raw('{"data":{"EVM":{"A":[{"N":1,"Odd":[]}]}}}'))
    side.begin()
    assert list(kinds(side.commit())) == ["N", "Odd"]
    side.begin("subscription { EVM { A: Transfers { N Odd { X Z } } } }")
    assert list(kinds(side.commit())) == ["N", "Odd"]


def test_a_table_keeps_its_name_and_a_column_what_it_holds(side: Side) -> None:
    side.commit(message([1]))
    with pytest.raises(UsageError, match="keep that name"):
        side.begin(TWO.replace("B: Blocks { N }", ""), table="other")
    with pytest.raises(UsageError, match="N of A is float since its first commit, and cannot become text"):
        side.begin(columns={"N": "text"})
    side.begin(columns={"N": "float"})


def test_the_digits_of_a_decimal_stay(side: Side) -> None:
    side.begin(columns={"N": "decimal(10, 2)"})
    side.commit(message(["1.25"]))
    with pytest.raises(UsageError, match="cannot become decimal"):
        side.begin(columns={"N": "decimal(10, 3)"})


# ---------------------------------------------------------------------- state and dead letters


def test_commits_are_numbered_and_their_checkpoints_stay_where_nothing_moved(side: Side) -> None:
    found = [
        side.commit(checkpoint=None),
        side.commit(message([1]), checkpoint="x"),
        side.commit(checkpoint=None),
    ]
    assert [prepared.commit.number for prepared in found] == [1, 2, 3]
    assert [State.loads(prepared.commit.state).checkpoint for prepared in found] == ["begun", "x", "x"]
    side.begin()
    assert side.commit().commit.number == 4


def test_a_commit_that_is_prepared_again_is_the_same_and_leaves_one_letter(side: Side) -> None:
    side.commit(message([1]))
    batch, first = side.prepare(message(["x", 2]), gaps=(GAP,))
    letters = side.letters
    again = side.writing.prepare(batch)
    assert (again.commit.number, again.commit.steps, again.commit.gaps) == (
        first.commit.number, first.commit.steps, first.commit.gaps,
    )  # fmt: skip
    assert again.commit.state == first.commit.state
    assert [letter["row"] for letter in side.letters] == [letter["row"] for letter in letters] == [{"N": "x"}]


def test_letters_of_a_commit_that_never_was_are_gone_in_the_next_process(side: Side) -> None:
    side.commit(message([1]))
    side.commit(message(["kept"]))
    side.prepare(message(["crashed"]))
    side.begin()
    assert [letter["row"] for letter in side.letters] == [{"N": "kept"}]
    side.commit(message(["crashed"]))
    assert [letter["row"] for letter in side.letters] == [{"N": "kept"}, {"N": "crashed"}]


def test_letters_that_were_moved_away_are_no_obstacle_even_if_the_next_commit_is_tried_twice(
    side: Side,
) -> None:
    side.commit(message([1]))
    side.commit(message(["a long first row"]))
    side.dead.path.unlink()
    batch, _ = side.prepare(message(["x"]))
    side.writing.done(batch, side.writing.prepare(batch))
    assert [letter["row"] for letter in side.letters] == [{"N": "x"}]


def test_letters_that_cannot_be_written_say_so(side: Side) -> None:
    side.commit(message([1]))
    side.dead.path.mkdir()
    with pytest.raises(SinkFailed):
        side.prepare(message(["x"]))


# ---------------------------------------------------------------------- gaps


def record(prepared: Prepared) -> list[tuple[str, bool, str | None]]:
    return [(gap.id, gap.closed, gap.reason) for gap in prepared.commit.gaps]


def test_a_gap_is_recorded_when_it_is_new_and_whenever_it_has_changed(side: Side) -> None:
    assert record(side.commit(gaps=(GAP,))) == [("run1-1", False, None)]
    assert record(side.commit(gaps=(GAP,))) == []
    later = replace(GAP, number=2, reason="the mempool")
    assert record(side.commit(gaps=(GAP, later))) == [("run1-2", False, "the mempool")]
    closed = replace(GAP, closed=True, end=START + timedelta(seconds=1), how="by queries")
    assert record(side.commit(gaps=(closed, later))) == [("run1-1", True, None)]
    assert State.loads(side.stored.state if side.stored else "").open_gaps == ()


def test_a_gap_that_a_commit_did_not_get_through_with_is_recorded_by_the_next(side: Side) -> None:
    side.prepare(gaps=(GAP,))
    assert record(side.commit(gaps=(GAP,))) == [("run1-1", False, None)]


RESUMED = replace(GAP, cause="resumed", number=1)


def test_what_a_process_was_closing_when_it_died_is_closed_with_what_its_successor_lacks(side: Side) -> None:
    side.commit(gaps=(GAP,))
    side.begin()
    assert record(side.commit(gaps=(RESUMED,))) == [("run2-1", False, None)]
    closed = replace(RESUMED, closed=True, how="by queries")
    assert record(side.commit(gaps=(closed,))) == [("run2-1", True, None), ("run1-1", True, None)]
    assert record(side.commit(gaps=(closed,))) == []


def test_it_stays_open_through_processes_that_die_before_they_have_closed_it(side: Side) -> None:
    side.commit(gaps=(GAP,))
    side.begin()
    side.commit(gaps=(RESUMED,))
    side.begin()
    closed = replace(RESUMED, closed=True)
    assert record(side.commit(gaps=(closed,))) == [
        ("run3-1", True, None),
        ("run1-1", True, None),
        ("run2-1", True, None),
    ]


def test_what_was_given_up_since_the_subscription_ended_is_asked_for_by_the_successor(side: Side) -> None:
    assert record(side.commit(gaps=(replace(GAP, reason=ENDED),))) == [("run1-1", False, None)]
    side.begin()
    closed = replace(RESUMED, closed=True)
    assert record(side.commit(gaps=(closed,))) == [("run2-1", True, None), ("run1-1", True, None)]


def test_it_is_a_hole_where_the_successors_is(side: Side) -> None:
    side.commit(gaps=(GAP,))
    side.begin()
    hole = replace(RESUMED, reason="an outage past the window")
    assert record(side.commit(gaps=(hole,))) == [
        ("run2-1", False, "an outage past the window"),
        ("run1-1", False, "an outage past the window"),
    ]


def test_what_another_cube_lacks_says_nothing_of_it(side: Side) -> None:
    side.commit(gaps=(GAP,))
    side.begin()
    other = replace(RESUMED, cubes=("B",), reason="an aggregate")
    own = replace(RESUMED, number=2)
    assert record(side.commit(gaps=(other, own))) == [
        ("run2-1", False, "an aggregate"),
        ("run2-2", False, None),
    ]
    assert record(side.commit(gaps=(other, replace(own, closed=True)))) == [
        ("run2-2", True, None),
        ("run1-1", True, None),
    ]


def test_rows_of_a_step_are_as_many_as_it_says(side: Side) -> None:
    prepared = side.commit(message([1, "x", 2]), message(undo={"A": ({"N": 1},)}))
    assert all(
        isinstance(rows, Rows) and rows.count == len(rows.columns[0]) for rows in prepared.commit.steps
    )
