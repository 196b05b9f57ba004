"""Whatever a document selects and brings: models made of a sample import, and say all that the sample says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bqstream.delivery.document import Document
from bqstream.models.model import model_of
from bqstream.models.seen import Seen
from bqstream.models.writer import module
from tests.models import decoding, differences, untyped

KEYS = (
    "Block",
    "Trade",
    "Buy",
    "TradeBuy",
    "a",
    "_",
    "from",
    "None",
    "int",
    "Data",
    "field",
    "Amount",
    "Time",
    "Price",
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(
        ["1", "-0.5", "1e-18", "123456789012345678901.5", "007", "2026-01-31T12:00:00Z", "2026-01-31"]
    ),
)
LISTED = st.sampled_from([0, 0, 1, 2])  # how many lists are around it
# A leaf, or the fields of an object; each with its lists.
NODES: Any = st.recursive(
    st.tuples(LISTED, st.none()),
    lambda inner: st.tuples(LISTED, st.dictionaries(st.sampled_from(KEYS), inner, min_size=1, max_size=4)),
    max_leaves=12,
)
ROOTS = st.tuples(st.just(0), st.dictionaries(st.sampled_from(KEYS), NODES, min_size=1, max_size=3))


def text_of(node: Any) -> str:
    fields = node[1]
    return (
        ""
        if fields is None
        else "{ " + " ".join(f"{key} {text_of(one)}" for key, one in fields.items()) + " }"
    )


def values(node: Any) -> st.SearchStrategy[Any]:
    listed, fields = node
    found = (
        SCALARS
        if fields is None
        else st.fixed_dictionaries({key: values(one) for key, one in fields.items()})
    )
    for _ in range(listed):
        found = st.lists(found, max_size=3)
    return st.one_of(found, found, found, st.none()) if fields is not None or listed else found


@settings(max_examples=40, deadline=None)
@given(root=ROOTS, decimals=st.booleans(), draw=st.data())
def test_models_say_all_that_their_sample_says(root: Any, decimals: bool, draw: st.DataObject) -> None:
    document = Document.parse(f"subscription {{ Root {text_of(root)} }}")
    payloads = [{"Root": value} for value in draw.draw(st.lists(values(root), min_size=1, max_size=4))]
    seen = Seen()
    for data in payloads:
        seen.add_payload(msgspec.json.encode({"data": data}))
    source = module(model_of(document, sample=seen, decimals=decimals), origin="a sample")
    assert untyped(source) == set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "models.py"
        path.write_text(source, encoding="utf-8")
        decode = decoding(path)
    for data in payloads:
        assert list(differences(data, decode(data))) == [], source
