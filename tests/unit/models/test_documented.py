"""Models of every documented subscription, by its fields' names, by a sample and by a schema: they import, type-check
strictly, leave nothing open to anything, and say all that the dict form says.

The documents are not the project's: without them this is skipped. Figures are printed with ``-s``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bqstream import DocumentRefused
from bqstream.delivery.document import Document
from bqstream.message import cubes_of
from bqstream.models.model import Model, model_of
from bqstream.models.seen import Seen
from bqstream.models.writer import module
from bqstream.simulator.answers import Refusal, prepare
from bqstream.simulator.chain import Chain
from tests.documents import contradicts_itself, documented, needs_documents
from tests.models import checked, decoding, differences, structs_in, untyped

from .sdl import sdl_of

pytestmark = needs_documents
BLOCKS = 12
Payloads = list[dict[str, Any]]


def brought() -> list[tuple[str, Document, Payloads]]:
    """Where each document comes from, the document, and what it brings over the same blocks."""
    found = []
    for entry in documented():
        try:
            prepared = prepare(entry["document"], entry["variables"], None)
            found.append((entry["source"], Document.parse(entry["document"]), prepared))
        except (Refusal, DocumentRefused):
            continue
    chain = Chain(seed=5)
    data: list[Payloads] = [[] for _ in found]
    for _ in range(BLOCKS):
        block = chain.mine()
        for (_, _, prepared), payloads in zip(found, data, strict=True):
            payloads += [one for n in range(block.portions) if (one := prepared.portion(block, n))]
    return [(source, document, payloads) for (source, document, _), payloads in zip(found, data, strict=True)]


def by_sample(document: Document, payloads: Payloads, decimals: bool) -> Model:
    seen = Seen()
    for data in payloads:
        seen.add(data)
    return model_of(document, sample=seen, decimals=decimals)


WAYS: dict[str, Callable[[Document, Payloads, bool], Model]] = {
    "names": lambda document, payloads, decimals: model_of(document, decimals=decimals),
    "sample": by_sample,
    "schema": lambda document, payloads, decimals: model_of(
        document, schema=sdl_of(document.text, payloads), decimals=decimals
    ),
}


def test_models_of_every_document_type_check_and_lose_nothing_of_what_it_brings(tmp_path: Path) -> None:
    figures: Counter[str] = Counter()
    wrong: list[str] = []
    for number, (source, document, payloads) in enumerate(brought()):
        assert payloads or contradicts_itself(document.text), source
        figures["documents"] += 1
        for way, make in WAYS.items():
            decimals = number % 2 == 1
            text = module(make(document, payloads, decimals), origin=f"a document and a {way}")
            path = tmp_path / f"{way}_{number}.py"
            path.write_text(text, encoding="utf-8")
            assert untyped(text) == set(), text
            decode = decoding(path)
            for data in payloads:
                typed = decode(data)
                wrong += [f"{source}, by {way}: {one}" for one in differences(data, typed)]
                figures["rows"] += sum(len(rows) for _, rows in cubes_of(typed))
            figures.update(modules=1, structs=structs_in(text), payloads=len(payloads))
            figures["decimals"] += text.count("Decimal")
            figures["times"] += text.count("datetime")
    said = checked(tmp_path)
    print("\n" + ", ".join(f"{count:,} {what}" for what, count in figures.items()) + f", {len(wrong)} wrong")
    print(said.strip())
    assert wrong == []
    assert said.startswith("Success: no issues found"), said
    assert figures["documents"] == len(documented()) - 1  # one has empty braces
    assert figures["modules"] == 3 * figures["documents"]
    assert min(figures.values()) > 0


def test_a_model_made_of_a_sample_takes_what_comes_after_it(tmp_path: Path) -> None:
    """The first half of what came is the sample, and all of it is decoded: what fails is of a form or a null that the
    sample did not show, and must be rare."""
    messages = failed = 0
    path = tmp_path / "half.py"
    for _, document, payloads in brought():
        model = by_sample(document, payloads[: len(payloads) // 2], False)
        path.write_text(module(model, origin="half"), encoding="utf-8")
        decode = decoding(path)
        for data in payloads[len(payloads) // 2 :]:
            messages += 1
            try:
                decode(data)
            except msgspec.ValidationError:
                failed += 1
    print(f"\n{messages:,} messages after the sample, {failed} do not fit")
    assert messages > 2000
    assert failed <= messages / 1000


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda data: _first(data, 1.5), id="a number in place of a string"),
        pytest.param(lambda data: _first(data, "another"), id="another string"),
        pytest.param(lambda data: {**data, "more": 1}, id="a field that no struct has"),
    ],
)
def test_the_comparison_sees_what_is_lost(broken: Callable[[Any], Any], tmp_path: Path) -> None:
    text = "subscription { EVM { Transfers { Transfer { Sender } Block { Number } } } }"
    path = tmp_path / "models.py"
    path.write_text(module(model_of(Document.parse(text)), origin="x"), encoding="utf-8")
    data = {"EVM": {"Transfers": [{"Transfer": {"Sender": "0x1"}, "Block": {"Number": "5"}}]}}
    typed = decoding(path)(data)
    assert list(differences(data, typed)) == []
    assert list(differences(broken(data), typed)) != []


def _first(data: Any, value: Any) -> Any:
    return {"EVM": {"Transfers": [{**data["EVM"]["Transfers"][0], "Transfer": {"Sender": value}}]}}
