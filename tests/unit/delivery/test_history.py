"""What is kept of what was delivered."""

from __future__ import annotations

import json

import pytest

from bqstream.delivery.history import History
from bqstream.delivery.rows import Rows, fingerprint
from bqstream.message import Arrival


def payload(**cubes: list[int]) -> bytes:
    return json.dumps({"data": {"EVM": cubes}}).encode()


def taken(history: History, arrival: Arrival) -> None:
    history.needed = history.taken
    history.take(arrival)


def test_history_lets_go_of_what_is_too_old_but_for_the_last_span_before() -> None:
    history = History(seconds=60)
    for second in range(200):
        history.add(Arrival(b"x", float(second), 1))
        taken(history, Arrival(b"x" * 1, float(second), 1))
    assert [entry.at for entry in history.entries()] == [float(second) for second in range(108, 200)]
    assert (history.first, history.taken, history.last) == (109, 200, 200)
    assert history.evicted_at == 107.0


def test_what_came_last_before_a_long_silence_is_kept() -> None:
    history = History(seconds=60)
    for at in (0.0, 500.0, 510.0, 900.0):
        history.add(Arrival(b"x", at, 1))
        taken(history, Arrival(b"x" * 1, at, 1))
    assert [entry.at for entry in history.entries()] == [500.0, 510.0, 900.0]


def test_history_lets_go_of_what_is_too_much() -> None:
    history = History(size=1000)
    for _ in range(200):
        history.add(Arrival(b"x" * 99, 0.0, 1))
        taken(history, Arrival(b"x" * 99, 0.0, 1))
    assert len(history) == 10
    assert history.size == 990


def test_the_two_newest_that_were_taken_are_kept_however_large_and_old() -> None:
    history = History(seconds=60, size=1000)
    for at in (0.0, 500.0, 1000.0):
        history.add(Arrival(b"x" * 5000, at, 1))
        taken(history, Arrival(b"x" * 5000, at, 1))
    assert [entry.at for entry in history.entries()] == [500.0, 1000.0]


def test_what_waits_is_kept_whatever_its_age_and_size() -> None:
    history = History(seconds=60, size=1000)
    for second in range(200):
        history.add(Arrival(b"x" * 99, float(second), 1))
    assert (len(history), history.size) == (200, 0)
    assert len(list(history.entries(150))) == 150
    for second in range(11):
        taken(history, Arrival(b"x" * 99, float(second), 1))
    assert (history.first, history.size) == (2, 990)


def test_what_was_held_back_is_as_old_as_its_delivery() -> None:
    history = History()
    history.add(Arrival(b"live", 5.0, 1))
    history.add(Arrival(b"held", 2.0, 1, True))
    assert [(entry.at, entry.replayed) for entry in history.entries()] == [(5.0, False), (5.0, True)]


def test_the_last_rows_of_a_cube_are_found_oldest_first_up_to_a_time() -> None:
    history = History()
    for second in range(5):
        history.add(Arrival(payload(A=[10 * second, 10 * second + 1], B=[]), float(second), 1))
    wanted = [fingerprint(str(number).encode()) for number in (11, 20, 21)]
    assert history.last_rows("A", 3, before=2.0) == wanted
    assert history.last_rows("B", 3, before=2.0) == []
    assert len(history.last_rows("A", 1000, before=9.0)) == 10


def test_the_cubes_of_the_last_payloads_are_known() -> None:
    history = History()
    history.add(Arrival(payload(Old=[1]), 0.0, 1))
    for _ in range(8):
        history.add(Arrival(payload(A=[1], B=[]), 0.0, 1))
    assert history.keys() == {"A", "B"}


@pytest.mark.parametrize("root", ["null", '{"A":null}', '{"A":null,"B":null}'])
def test_errors_beside_only_nulls_are_no_row(root: str) -> None:
    data = f'{{"data":{{"EVM":{root}}},"errors":'
    assert Rows(f'{data}[{{"message":"out"}}]}}'.encode()).count == 0
    assert Rows(f"{data}[]}}".encode()).count == 1


def test_a_cube_that_is_null_beside_another_has_no_rows() -> None:
    rows = Rows(b'{"data":{"EVM":{"A":null,"B":[1,2]}},"errors":[{"message":"A is out"}]}')
    assert {key: len(found) for key, found in rows.by_key.items()} == {"A": 0, "B": 2}
    assert rows.only({"A": [], "B": [False, True]}) == (
        b'{"data":{"EVM":{"A":null,"B":[2]}},"errors":[{"message":"A is out"}]}'
    )
