"""What is kept of what was delivered."""

from __future__ import annotations

import json

import pytest

from bqstream.delivery.history import History
from bqstream.delivery.rows import Rows, fingerprint


def payload(**cubes: list[int]) -> bytes:
    return json.dumps({"data": {"EVM": cubes}}).encode()


def test_history_lets_go_of_what_is_too_old() -> None:
    history = History(seconds=60)
    for second in range(200):
        history.add(b"x", float(second))
    assert len(history) == 61


def test_history_lets_go_of_what_is_too_much() -> None:
    history = History(size=1000)
    for _ in range(200):
        history.add(b"x" * 99, 0.0)
    assert len(history) == 10
    assert history.size == 990
    history.add(b"x" * 5000, 0.0)
    assert (len(history), history.size) == (0, 0)


def test_the_last_rows_of_a_cube_are_found_oldest_first_up_to_a_time() -> None:
    history = History()
    for second in range(5):
        history.add(payload(A=[10 * second, 10 * second + 1], B=[]), float(second))
    wanted = [fingerprint(str(number).encode()) for number in (11, 20, 21)]
    assert history.last("A", 3, before=2.0) == wanted
    assert history.last("B", 3, before=2.0) == []
    assert len(history.last("A", 1000, before=9.0)) == 10


def test_the_cubes_of_the_last_payloads_are_known() -> None:
    history = History()
    history.add(payload(Old=[1]), 0.0)
    for _ in range(8):
        history.add(payload(A=[1], B=[]), 0.0)
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
