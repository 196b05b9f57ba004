"""Payloads decoded past hidden fields, and into the user's own types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from bqstream.delivery.decoding import decoder
from bqstream.delivery.document import Document
from bqstream.delivery.plan import Plan
from bqstream.errors import UsageError
from bqstream.message import cubes_of

HIDING = "subscription { EVM { __typename Transfers { __typename Transfer { Amount } to: Receiver } Names { limit } } }"


def plan_of(text: str) -> Plan:
    return Plan.make(Document.parse(text))


def brought(plan: Plan, row: dict[str, Any], **beside: Any) -> bytes:
    """What the service sends: the row and the hidden fields of the plan."""
    hidden = {name: {"Hash": "0x1", "Number": 5} for name in plan.readers["Transfers"].hidden}
    return json.dumps({"data": {"EVM": {"Transfers": [{**row, **hidden}]}}, **beside}).encode()


def test_hidden_fields_are_passed_over_and_all_that_was_selected_stays() -> None:
    plan = plan_of(HIDING)
    assert plan.hides
    row = {"__typename": "T", "Transfer": {"Amount": "1", "unknown": [1, None]}, "to": None}
    content = decoder(plan)(brought(plan, row, errors=[{"message": "x"}], extensions={"a": 1}))
    assert content.data == {"EVM": {"Transfers": [row]}}
    assert (content.errors, content.extensions) == ([{"message": "x"}], {"a": 1})


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"EVM": None},
        {"EVM": {"Transfers": None, "Names": None}},
        {"EVM": {"Transfers": [None, {"to": "0x2"}], "Names": [{"limit": 1}]}},
        {"__typename": "S", "EVM": {"__typename": "E", "Transfers": []}},
        {"EVM": {"Transfers": "no list"}},
        {"EVM": {"Transfers": [1, [2]]}},
        {"EVM": [{"Transfers": []}]},
        7,
    ],
)
def test_data_without_hidden_fields_is_as_it_came_whatever_its_shape(data: Any) -> None:
    assert decoder(plan_of(HIDING))(json.dumps({"data": data}).encode()).data == data


def test_hidden_fields_of_rows_in_another_shape_are_taken_out_all_the_same() -> None:
    plan = plan_of(HIDING)
    hidden = plan.readers["Transfers"].hidden[0]
    raw = json.dumps({"data": {"EVM": {"Transfers": [{"to": 1, hidden: 2}, 3]}}}).encode()
    assert decoder(plan)(raw).data == {"EVM": {"Transfers": [{"to": 1}, 3]}}


# ---------------------------------------------------------------------- types of the user's own


class Transfer(msgspec.Struct, gc=False):
    amount: str = msgspec.field(name="Amount")


class Row(msgspec.Struct, gc=False):
    transfer: Transfer = msgspec.field(name="Transfer")


class Under(msgspec.Struct):
    transfers: list[Row] = msgspec.field(name="Transfers", default_factory=list)


class Data(msgspec.Struct):
    evm: Under = msgspec.field(name="EVM")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    Transfer: dict[str, str]


class DictRow(TypedDict):
    Transfer: dict[str, str]


@dataclass
class DataclassRow:
    Transfer: dict[str, str]


@dataclass
class Cubes:
    Transfers: tuple[DictRow, ...]


@dataclass
class Roots:
    EVM: Cubes


def within(row: Any) -> Any:
    under = TypedDict("under", {"Transfers": list[row] | None})  # noqa: UP013
    return TypedDict("data", {"EVM": under | None})  # type: ignore[operator]


def test_a_struct_gets_its_fields_and_its_rows_are_found_by_the_services_names() -> None:
    plan = plan_of(HIDING)
    data = decoder(plan, Data)(brought(plan, {"Transfer": {"Amount": "1"}, "to": "0x2"})).data
    assert data == Data(Under([Row(Transfer("1"))]))
    assert list(cubes_of(data)) == [("Transfers", [Row(Transfer("1"))])]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (Strict, Strict({"Amount": "1"})),
        (DictRow, {"Transfer": {"Amount": "1"}}),
        (DataclassRow, DataclassRow({"Amount": "1"})),
        (dict[str, Any], {"Transfer": {"Amount": "1"}}),
        (dict[str, Any] | None, {"Transfer": {"Amount": "1"}}),
        (Any, {"Transfer": {"Amount": "1"}}),
    ],
)
def test_no_hidden_field_gets_into_a_row_of_any_type_or_breaks_it(row: Any, wanted: Any) -> None:
    plan = plan_of(HIDING)
    data = decoder(plan, within(row))(brought(plan, {"Transfer": {"Amount": "1"}})).data
    assert data == {"EVM": {"Transfers": [wanted]}}


def test_rows_may_be_in_a_dataclass_or_a_tuple() -> None:
    data = decoder(None, Roots)(b'{"data":{"EVM":{"Transfers":[{"Transfer":{"Amount":"1"}}]}}}').data
    assert [rows for _, rows in cubes_of(data)] == [({"Transfer": {"Amount": "1"}},)]


def test_what_does_not_fit_the_type_says_where() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.data\.EVM\.Transfers\[0\]\.Transfer\.Amount"):
        decoder(None, Data)(b'{"data":{"EVM":{"Transfers":[{"Transfer":{"Amount":1}}]}}}')


class ModelTransfer(BaseModel):
    amount: Decimal = Field(alias="Amount")


class ModelRow(BaseModel):
    Transfer: ModelTransfer
    to: str | None


class ModelUnder(BaseModel):
    transfers: list[ModelRow] = Field(alias="Transfers")


class ModelData(BaseModel):
    EVM: ModelUnder


@pydantic_dataclass
class PydanticData:
    evm: ModelUnder = Field(alias="EVM")


@pytest.mark.parametrize(("into", "root"), [(ModelData, "EVM"), (PydanticData, "evm")])
def test_a_model_of_pydantics_gets_its_fields_and_its_rows_are_found_by_their_aliases(
    into: Any, root: str
) -> None:
    plan = plan_of(HIDING)
    raw = brought(plan, {"Transfer": {"Amount": "1.50"}, "to": "0x2"}, errors=[{"message": "x"}])
    content = decoder(plan, into)(raw)
    (row,) = getattr(content.data, root).transfers
    assert (row.Transfer.amount, row.to, content.errors) == (Decimal("1.50"), "0x2", [{"message": "x"}])
    assert list(cubes_of(content.data)) == [("Transfers", [row])]


@pytest.mark.parametrize("extra", ["allow", "forbid", "ignore"])
def test_no_hidden_field_gets_into_a_model_of_pydantics_or_breaks_it(extra: Any) -> None:
    class Row(BaseModel):
        model_config = ConfigDict(extra=extra)
        to: str

    class Under(BaseModel):
        Transfers: list[Row]

    class Whole(BaseModel):
        EVM: Under

    plan = plan_of(HIDING)
    data = decoder(plan, Whole)(brought(plan, {"to": "0x2"})).data
    assert data is not None
    assert data.model_dump() == {"EVM": {"Transfers": [{"to": "0x2"}]}}


@pytest.mark.parametrize("payload", [b'{"data":null,"errors":[{}]}', b'{"errors":[{}]}'])
def test_data_that_is_null_is_no_model(payload: bytes) -> None:
    content = decoder(None, ModelData)(payload)
    assert (content.data, content.errors) == (None, [{}])


def test_what_does_not_fit_a_model_of_pydantics_says_where() -> None:
    row = b'{"Transfer":{"Amount":"many"}}'
    at = r"\$\.data\.EVM\.Transfers\[0\]\.Transfer\.Amount` \(and 1 more\)$"
    with pytest.raises(msgspec.ValidationError, match=at):
        decoder(None, ModelData)(b'{"data":{"EVM":{"Transfers":[%s]}}}' % row)


def test_a_type_that_cannot_be_decoded_into_is_refused() -> None:
    class Model:
        of_another_library: int

    class Local(msgspec.Struct):
        row: LocalRow  # type: ignore[name-defined]  # noqa: F821

    class Pair(NamedTuple):
        EVM: int

    class Unfinished(BaseModel):
        EVM: Nowhere  # type: ignore[name-defined]  # noqa: F821

    for into, why in (
        (int | Transfer | Row, "type=int"),
        (Model, "type=Model.*Struct"),
        (Local, "LocalRow"),
        ("Data", "give a class"),
        ({"a": 1}, "give a class"),
        (int, "an object"),
        (list, "an object"),
        (Pair, "an object"),
        (msgspec.Raw, "an object"),
        (RootModel[dict[str, int]], "an object"),
        (Unfinished, "type=Unfinished.*Nowhere"),
    ):
        with pytest.raises(UsageError, match=why):
            decoder(None, into)
