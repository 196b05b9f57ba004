"""Rows that no table takes are in a file, once, however often a process dies between the file and the commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream import SinkFailed
from bqstream.collect.deadletters import DeadLetters
from bqstream.tables.flatten import Misfit


def letters(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_letter_holds_the_row_and_why(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    DeadLetters(path).add([Misfit("T", {"a": [None, 10**30, "\n\0"]}, "it is odd")])
    (letter,) = letters(path)
    assert letter.pop("at")
    assert letter == {"table": "T", "reason": "it is odd", "row": {"a": [None, 10**30, "\n\0"]}}


def test_there_is_no_file_before_there_is_a_letter(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "dead.jsonl")
    assert dead.cut(0) == 0
    assert not dead.path.exists()


def test_what_is_beyond_the_last_commit_is_cut_off(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "dead.jsonl")
    size = dead.add([Misfit("T", 1, "")])
    dead.add([Misfit("T", 2, "")])
    assert dead.cut(size) == size
    dead.add([Misfit("T", 3, "")])
    assert [letter["row"] for letter in letters(dead.path)] == [1, 3]


def test_what_no_commit_knows_of_stays(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    size = DeadLetters(path).add([Misfit("T", 1, "of a former process")])
    assert DeadLetters(path).cut(None) == size
    assert DeadLetters(tmp_path / "none").cut(None) == 0
    assert len(letters(path)) == 1


def test_a_file_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "dead.jsonl")
    size = dead.add([Misfit("T", 1, "")])
    dead.path.rename(tmp_path / "old.jsonl")
    assert dead.cut(size) == 0
    size = dead.add([Misfit("T", 2, "")])
    dead.add([Misfit("T", 3, "")])
    dead.cut(size)
    assert [letter["row"] for letter in letters(dead.path)] == [2]


def test_a_file_that_somebody_else_has_cut_is_refused(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "dead.jsonl")
    size = dead.add([Misfit("T", "a long row", "")])
    dead.path.write_text("{}\n")
    with pytest.raises(SinkFailed, match="move it away"):
        dead.cut(size)


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    DeadLetters(tmp_path / "a" / "b" / "dead.jsonl").add([Misfit("T", 1, "")])
    assert len(letters(tmp_path / "a" / "b" / "dead.jsonl")) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_letters_are_there_once_whichever_commits_go_through(commits: list[tuple[int, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        dead, size = DeadLetters(Path(folder) / "dead.jsonl"), 0
        kept: list[object] = []
        for number, (count, through) in enumerate(commits):
            size = dead.cut(size)
            misfits = [Misfit("T", [number, place], "") for place in range(count)]
            after = dead.add(misfits) if misfits else size
            if through:
                size, kept = after, kept + [misfit.row for misfit in misfits]
        dead.cut(size)
        found = [letter["row"] for letter in letters(dead.path)] if dead.path.exists() else []
        assert found == kept
