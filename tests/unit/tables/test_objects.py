"""Payloads read as objects hold what the same payloads read as dicts do, or are left to that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.tables.flatten import picked
from bqstream.tables.objects import objects_of
from bqstream.tables.table import Column, Table

PATHS = (("class",), ("B", "None"), ("B", "C", "self"), ("B", "C", "__typename"), ("E", "F"))
TABLE = Table("T", "Trades", tuple(Column("_".join(path), path, "text") for path in PATHS))
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.fixed_dictionaries({"X": st.integers()})
)


def objects(fields: dict[str, Any]) -> Any:
    """With any of the fields, and others, and perhaps null in its place."""
    return st.fixed_dictionaries({}, optional={**fields, "Hidden": values}) | st.none()


rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "class": values,
            "B": objects({"None": values, "C": objects({"self": values, "__typename": values})}),
            "E": objects({"F": values}),
            "Hidden": values,
        },
    ),
    max_size=6,
)


def payload(data: Any, **more: Any) -> bytes:
    return msgspec.json.encode({"data": data, **more})


@given(rows)
def test_objects_have_the_values_that_dicts_have(nested: list[Any]) -> None:
    reader = objects_of(TABLE, "EVM")
    assert reader is not None
    found = reader.rows(payload({"EVM": {"Other": [{"class": 1}], "Trades": nested}}))
    assert found is not None
    assert reader.columns(found) == picked(TABLE, msgspec.json.decode(msgspec.json.encode(nested)))


@pytest.mark.parametrize(
    "raw",
    [
        payload({"EVM": {"Trades": [{"class": 1}]}}, errors=[{"message": "one of two failed"}]),
        payload({"EVM": {"Trades": None}}),
        payload({"EVM": {"Other": []}}),
        payload({"EVM": None}),
        payload(None),
        payload({"EVM": {"Trades": [None]}}),
        payload({"EVM": {"Trades": [{"B": 1}]}}),
        payload({"EVM": {"Trades": [{"B": [{"None": 1}]}]}}),
        payload({"EVM": {"Trades": {"class": 1}}}),
        payload(5),
        b'{"data":{"EVM":{"Trades":[{"class":1e999}]}}}',
        b"no JSON",
    ],
)
def test_what_is_shaped_otherwise_is_left_to_the_general_way(raw: bytes) -> None:
    reader = objects_of(TABLE, "EVM")
    assert reader is not None
    assert reader.rows(raw) is None


def test_a_table_that_holds_data_whole_has_no_objects() -> None:
    assert objects_of(Table("T", "", (Column("data", (), "json"),)), "counter") is None
