"""Rows by column: nothing is rounded, cut or lost; what does not fit is set apart with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.tables.flatten import CONVERT, flatten
from bqstream.tables.table import Column, Kind, Rows, Table

HIGHEST = 2**63 - 1
PATHS = (("A",), ("B", "A"), ("B", "C", "A"), ("B", "C", "D"), ("E", "F"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
texts = st.text(max_size=10)
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
FITTING: Mapping[Kind, st.SearchStrategy[Any]] = {
    "text": texts,
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "integer": st.integers(-(2**63), HIGHEST).map(str) | st.integers(-(2**63), HIGHEST),
    "boolean": st.booleans(),
    "timestamp": times.map(datetime.isoformat),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=18).map(lambda made: f"{made:f}"),
    "json": json_values.filter(lambda value: value is not None),
}


def table_of(kinds: Sequence[Kind]) -> Table:
    return Table(
        "T",
        "T",
        tuple(Column("_".join(path), path, kind) for path, kind in zip(PATHS, kinds, strict=False)),
    )


def nested(table: Table, values: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, value in zip(table.columns, values, strict=True):
        inside = row
        for key in column.path[:-1]:
            inside = inside.setdefault(key, {})
        inside[column.path[-1]] = value
    return row


def rows_of(made: Rows) -> list[tuple[Any, ...]]:
    return list(zip(*made.columns, strict=True))


def flat(kind: Kind, *values: Any, digits: tuple[int, int] | None = None) -> tuple[list[Any], list[str]]:
    """One column's values, and the reasons of those that do not fit."""
    table = Table("T", "T", (Column("A", ("A",), kind, digits),))
    made, misfits = flatten(table, [{"A": value} for value in values])
    assert made.count + len(misfits) == len(values)
    return list(made.columns[0]), [misfit.reason for misfit in misfits]


def as_held(kind: Kind, value: Any) -> Any:
    """What the column holds of a value that fits, said plainly."""
    if value is None:
        return None
    match kind:
        case "integer":
            return int(value)
        case "timestamp":
            return datetime.fromisoformat(value)
        case "decimal":
            return Decimal(value)
        case "json":
            return msgspec.json.encode(value).decode()
    return value


kinds = st.lists(st.sampled_from(list(CONVERT)), min_size=1, max_size=len(PATHS))


@given(kinds, st.data())
def test_rows_that_fit_come_back_as_they_were(kinds: list[Kind], data: st.DataObject) -> None:
    table = table_of(kinds)
    row = st.tuples(*(st.none() | FITTING[kind] for kind in kinds))
    rows = data.draw(st.lists(row, max_size=5))
    made, misfits = flatten(table, [nested(table, row) for row in rows])
    assert not misfits
    assert made.count == len(rows)
    assert rows_of(made) == [tuple(map(as_held, kinds, row)) for row in rows]


@given(st.lists(st.tuples(kinds, st.none()), max_size=1), st.data())
def test_any_rows_are_kept_or_set_apart_one_by_one_as_if_each_came_alone(
    drawn: Any, data: st.DataObject
) -> None:
    table = table_of(drawn[0][0] if drawn else ["text", "float", "integer", "timestamp", "decimal"])
    odd = st.lists(json_values, min_size=len(table.columns), max_size=len(table.columns)).map(
        lambda values: nested(table, values)
    )
    whole = st.tuples(*(st.none() | FITTING[column.kind] for column in table.columns)).map(
        lambda values: nested(table, values)
    )
    broken = st.fixed_dictionaries({"A": json_values, "B": json_values, "E": json_values})
    rows = data.draw(st.lists(whole | odd | broken | json_values, max_size=6))
    made, misfits = flatten(table, rows)
    alone = [flatten(table, [row]) for row in rows]
    assert rows_of(made) == [one for kept, _ in alone for one in rows_of(kept)]
    assert misfits == [misfit for _, wrong in alone for misfit in wrong]
    assert [misfit.row for misfit in misfits] == [
        row for row, (_, wrong) in zip(rows, alone, strict=True) if wrong
    ]
    assert all(misfit.reason.split(":")[0] in table.names for misfit in misfits)


@pytest.mark.parametrize("row", [None, {}, {"B": None}, {"A": None, "B": {"C": None}, "E": {}}])
def test_what_is_null_or_absent_on_any_level_is_null(row: Any) -> None:
    made, misfits = flatten(table_of(["text", "float", "json", "integer", "boolean"]), [row, row])
    assert not misfits
    assert rows_of(made) == [(None,) * 5] * 2


@pytest.mark.parametrize("kind", list(CONVERT))
@pytest.mark.parametrize("odd", [[], [{"A": "1"}], "text", 7, True])
def test_what_stands_where_an_object_was_expected_sets_the_row_apart(kind: Kind, odd: Any) -> None:
    table = Table("T", "T", (Column("B_A", ("B", "A"), kind),))
    made, (misfit,) = flatten(table, [{"B": None}, {"B": odd}])
    assert (made.count, misfit.row) == (1, {"B": odd})
    assert misfit.reason.startswith("B_A: ")


def test_the_rows_that_fit_stay_in_order_where_others_do_not() -> None:
    values, reasons = flat("integer", "1", "x", "2", 2.5, "3")
    assert values == [1, 2, 3]
    assert reasons == ['A: "x" is no integer of 64 bits', "A: 2.5 is no integer of 64 bits"]


def test_a_row_that_fits_nowhere_is_named_once_by_its_first_column() -> None:
    table = Table("T", "T", (Column("A", ("A",), "float"), Column("B", ("B",), "integer")))
    made, (misfit,) = flatten(table, [{"A": "x", "B": "y"}])
    assert not made.count
    assert misfit.reason == 'A: "x" is no JSON number'


def test_integers_are_of_64_bits_and_written_as_json_writes_them() -> None:
    values, reasons = flat("integer", str(HIGHEST), -HIGHEST - 1, HIGHEST + 1, str(-HIGHEST - 2), "9" * 40)
    assert values == [HIGHEST, -HIGHEST - 1]
    assert len(reasons) == 3
    assert flat("integer", "007", "+7", "7.0", " 7", "७", "", True, 7.0)[0] == []
    assert flat("integer", "0", "-7", 7, None)[0] == [0, -7, 7, None]


def test_an_integer_stands_in_a_column_of_floats_where_a_double_holds_it() -> None:
    values, reasons = flat("float", 1.5, 1, 2**53, 2**53 + 1, 10**400, None, True, "1.5")
    assert values == [1.5, 1.0, 2.0**53, None]
    assert all(type(value) in (float, type(None)) for value in values)
    assert len(reasons) == 4


def test_times_with_offsets_are_the_same_moment_and_those_without_are_of_utc() -> None:
    values, _ = flat(
        "timestamp",
        "2024-10-19T12:00:00Z",
        "2024-10-19T14:00:00.25+02:00",
        "2024-10-19T12:00:00",
        "2024-10-19",
    )
    noon = datetime(2024, 10, 19, 12, tzinfo=UTC)
    assert values == [noon, noon.replace(microsecond=250000), noon, noon.replace(hour=0)]
    assert all(value.tzinfo is UTC for value in values)


def test_a_time_finer_than_a_microsecond_is_not_cut() -> None:
    values, reasons = flat(
        "timestamp",
        "2024-10-19T12:00:00.123456000Z",
        "2024-10-19T12:00:00.123456789Z",
        "2024-10-19T12:00:00.1234560001Z",
    )
    assert values == [datetime(2024, 10, 19, 12, 0, 0, 123456, tzinfo=UTC)]
    assert reasons == [
        'A: "2024-10-19T12:00:00.123456789Z" is no time, or finer than a microsecond',
        'A: "2024-10-19T12:00:00.1234560001Z" is no time, or finer than a microsecond',
    ]


@pytest.mark.parametrize(
    "odd", ["", "soon", "0001-01-01T00:00:00+10:00", "2024-10-19T25:00:00Z", 1729339200, []]
)
def test_what_is_no_time_is_set_apart(odd: Any) -> None:
    assert flat("timestamp", odd)[0] == []


def test_decimals_are_exact_whatever_their_length() -> None:
    wide = "115792089237316195423570985008687907853269984665640564039457584007913129639935.000000000000000001"
    values, reasons = flat("decimal", wide, "-0.5", "1e-30", 10**60, 0.1, None)
    assert values == [
        Decimal(wide), Decimal("-0.5"), Decimal("1e-30"), Decimal(10**60), Decimal("0.1"), None,
    ]  # fmt: skip
    assert not reasons


@pytest.mark.parametrize(
    "odd",
    ["NaN", "Infinity", "-inf", "sNaN", "1_000", " 1", "1 ", "1e9999", "1e-9999", "0e99999999999999999999", "٣",
     ".5", "", "9" * 2000, True, [], {}, "0x10"],
)  # fmt: skip
def test_what_is_no_number_or_an_endless_one_is_no_decimal(odd: Any) -> None:
    assert flat("decimal", odd)[0] == []


def test_a_decimal_of_so_many_digits_is_never_rounded() -> None:
    values, reasons = flat(
        "decimal", "123.45", "123.4500", "1234.5", "0.001", "-999.99", "0e5", digits=(5, 2)
    )
    assert values == [Decimal("123.45"), Decimal("123.45"), Decimal("-999.99"), Decimal(0)]
    assert reasons == [
        'A: "1234.5" has more than 3 digits before the point',
        'A: "0.001" has more than 2 digits after the point',
    ]


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(1, 20), st.integers(0, 20))
def test_what_a_decimal_column_takes_fits_its_digits_as_they_are_counted_in_text(
    value: Decimal, precision: int, scale: int
) -> None:
    scale = min(scale, precision)
    if abs(value.adjusted()) > 100:
        return
    values, _ = flat("decimal", str(value), digits=(precision, scale))
    before, _, after = f"{abs(value):f}".partition(".")
    fits = len(before.lstrip("0")) <= precision - scale and len(after.rstrip("0")) <= scale
    assert values == ([value] if fits else [])


def test_text_takes_everything_and_keeps_what_is_no_text_as_json() -> None:
    values, reasons = flat("text", "a\0b", 10**30, 1.5, True, [1, {"b": None}], {}, None, "NaN", "\U0001f600")
    assert values == [
        "a\0b",
        "1" + 30 * "0",
        "1.5",
        "true",
        '[1,{"b":null}]',
        "{}",
        None,
        "NaN",
        "\U0001f600",
    ]
    assert not reasons


def test_json_is_text_that_reads_as_the_value() -> None:
    values, _ = flat("json", [{"Name": "to"}], "text", 10**40, None)
    assert values == ['[{"Name":"to"}]', '"text"', "1" + 40 * "0", None]


def test_a_reason_shows_no_more_than_a_line_of_a_long_value() -> None:
    (reason,) = flat("float", "x" * 10_000)[1]
    assert len(reason) < 120


def test_rows_are_not_changed() -> None:
    row = {"A": "1", "B": {"A": [1]}}
    flatten(table_of(["integer", "text"]), [row])
    assert row == {"A": "1", "B": {"A": [1]}}


def test_rows_that_the_sink_cannot_hold_are_set_apart_beside_those_that_do_not_fit() -> None:
    table = Table("T", "T", (Column("N", ("N",), "integer"), Column("S", ("S",), "text")))
    sent = [{"N": 1, "S": "a"}, {"N": "x", "S": "bad"}, {"N": 3, "S": "bad"}, {"N": 4, "S": "d"}]
    asked: list[Rows] = []

    def refused(rows: Rows) -> list[int]:
        asked.append(rows)
        return [at for at, value in enumerate(rows.columns[1]) if value == "bad"]

    made, misfits = flatten(table, sent, refused=refused)
    assert (made.count, [*made.columns]) == (2, [[1, 4], ["a", "d"]])
    assert [misfit.row for misfit in misfits] == sent[1:3]
    assert misfits[0].reason.startswith("N: ")
    assert misfits[1].reason == "the sink cannot hold it"
    assert [rows.count for rows in asked] == [4]
