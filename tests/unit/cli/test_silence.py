from __future__ import annotations

from typing import Any

import pytest

from bqstream.cli.findings import Cause
from bqstream.cli.silence import QUERY_ONLY, Evidence, Inquiry, why_silent
from bqstream.delivery.document import Document

NOW = 1_800_000_000.0
TRANSFERS = """subscription ($network: evm_network!, $other: String) {
  EVM(network: $network) { Transfers(where: {Transfer: {Sender: {is: "0x1"}}}) { Block { Number } } }
}"""


def evidence(**changes: Any) -> Evidence:
    usual: dict[str, Any] = {"cubes": ("Transfers",), "filtered": True, "now": NOW, "heads": (int(NOW) - 3,)}
    return Evidence(**usual | changes)


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (evidence(), "filter"),
        (evidence(filtered=False), "quiet-cube"),
        (evidence(heads=(int(NOW) - 121,)), "chain-stalled"),
        (evidence(heads=(int(NOW) - 500, int(NOW) - 3)), "filter"),  # another cube goes on, so the chain does
        (evidence(matching=1), "over-cap"),
        (evidence(matching=5, heads=(int(NOW) - 500,)), "over-cap"),
        (evidence(heads=(), unknown="points limit exceeded"), "silent"),
        (evidence(heads=()), "silent"),
        (evidence(cubes=("Balances",), heads=(), unknown="no block"), "query-only"),
        (evidence(cubes=("Balances", "Transfers")), "filter"),
        (evidence(cubes=(), heads=(), unknown="it has no rows"), "silent"),
    ],
)
def test_each_evidence_has_one_cause(seen: Evidence, cause: Cause) -> None:
    found, says = why_silent(seen, stalled_after=120.0)
    assert found == cause
    assert says
    if seen.unknown and cause == "silent":
        assert seen.unknown in says


def test_the_cubes_that_the_documentation_says_never_stream_are_known() -> None:
    assert {"Balances", "Holders", "Uncles"} <= QUERY_ONLY


def answer(head: str | None, *rows: dict[str, Any]) -> Any:
    heads = [] if head is None else [{"Block": {"Number": "9", "Time": head}}]
    return lambda prefix: {"EVM": {"Transfers": list(rows), prefix: heads}}


def test_an_inquiry_asks_for_the_documents_own_rows_since_it_was_surely_live_and_for_the_head() -> None:
    document = Document.parse(TRANSFERS)
    inquiry = Inquiry(document, {"network": "eth"}, subscribed=NOW + 0.9)
    query, variables = inquiry.request()
    asked = Document.parse(query)
    assert asked.kind == "query"
    assert variables == {"network": "eth"}
    assert '"0x1"' in query
    assert "2027-01-15T08:00:02" in query  # two seconds on, since the time there is known to one
    (head,) = set(asked.cubes) - {"Transfers"}
    for time, rows, enough in (
        ("2027-01-15T08:00:02Z", [], False),
        ("2027-01-15T08:00:03Z", [], True),
        ("2027-01-15T08:00:01Z", [{"Block": {"Number": "9"}}], True),
        (None, [], False),
    ):
        answers = inquiry.read(answer(time, *rows)(head))
        assert inquiry.enough(answers) is enough
        seen = inquiry.evidence(NOW + 5, answers)
        assert (seen.filtered, seen.matching, len(seen.heads)) == (True, len(rows), int(time is not None))


@pytest.mark.parametrize(
    "text",
    [
        "subscription { EVM { Balances { Balance { Amount } } } }",
        "subscription { EVM { Transfers { count } } }",
        "subscription { Something { Else { a } } }",
        "subscription { tick }",
    ],
)
def test_what_cannot_be_asked_for_says_why(text: str) -> None:
    inquiry = Inquiry(Document.parse(text), {}, subscribed=NOW)
    assert inquiry.impossible
    assert inquiry.evidence(NOW).unknown == inquiry.impossible
