"""What is kept in the sink is stable text, and is read by the version that wrote it alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bqstream import UsageError
from bqstream.collect.commit import GapRecord
from bqstream.collect.state import State
from bqstream.tables.table import Column, Table

GAP = GapRecord(
    id="a-1",
    cause="lost",
    cubes=("T",),
    start=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    end=None,
    low="1",
    high=None,
    closed=False,
    how="",
    reason=None,
    detail="it's gone",
)
STATE = State(
    run="a",
    checkpoint='{"bqstream_checkpoint":1}',
    tables=(Table("T", "T", (Column("A_B", ("A", "B"), "decimal", (38, 18)),)),),
    dead_letters=7,
    open_gaps=(GAP,),
)


def test_a_state_is_read_as_it_was_and_written_the_same_again() -> None:
    assert State.loads(STATE.dumps()) == STATE
    assert State.loads(STATE.dumps()).dumps() == STATE.dumps()


def test_the_text_of_a_state_is_what_former_versions_have_stored() -> None:
    assert STATE.dumps() == (
        '{"run":"a","checkpoint":"{\\"bqstream_checkpoint\\":1}","tables":[{"name":"T","cube":"T","columns":[{"name":"A_B",'
        '"path":["A","B"],"kind":"decimal","digits":[38,18]}]}],"dead_letters":7,"dead_file":"","open_gaps":[{"id":"a-1","cause":"lost",'
        '"cubes":["T"],"start":"2026-01-02T03:04:05.000006Z","end":null,"low":"1","high":null,"closed":false,"how":"",'
        '"reason":null,"detail":"it\'s gone"}],"version":1}'
    )


@pytest.mark.parametrize(
    "text", ["", "{}", "null", '{"version":1}', "\x00", '{"version":"1"}', STATE.dumps()[:-9]]
)
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no collector's state"):
        State.loads(text)


def test_a_state_of_another_version_is_refused_by_its_number() -> None:
    with pytest.raises(UsageError, match="version 2; this bqstream reads version 1"):
        State.loads(STATE.dumps().replace('"version":1', '"version":2'))
