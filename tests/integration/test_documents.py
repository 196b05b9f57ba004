"""Every documented subscription streams rows of its own shape through at least one hand-over, each row once.

The documents are not the project's: without them this is skipped. A sample is quick, in virtual time; all of them, in
real time, are `pytest -m soak -n 0`, which prints figures.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from bqstream import DocumentRefused, Gap, Timeouts
from bqstream.simulator import Simulator
from bqstream.simulator.habits import habit
from bqstream.simulator.ledger import Verdict
from tests.documents import assert_shaped, contradicts_itself, documented, needs_documents, shape_of
from tests.virtual_time import virtual_time

from .harness import Reader, client_for, reading, settled, until

pytestmark = needs_documents
SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
AT_ONCE = 40
TTL = 6.0
BLOCK = 0.5
GRACE = 1.0


@dataclass
class Figures:
    """What the documents that ran so far came to, to be quoted."""

    documents: int = 0
    rows: int = 0
    handovers: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    unparsed: list[str] = field(default_factory=list)
    rowless: list[str] = field(default_factory=list)

    def add(self, name: str, verdict: Verdict, gaps: tuple[Gap, ...]) -> None:
        """One document's outcome; ``gaps`` are those that were named while rows still came."""
        self.documents += 1
        self.rows += verdict.delivered
        self.gaps.update(gap.cause for gap in gaps)
        for names, count in (
            (self.lost, verdict.lost),
            (self.repeated, verdict.repeated + verdict.foreign + verdict.early),
            (self.rowless, verdict.delivered == 0),
        ):
            names += [name] * count

    @property
    def line(self) -> str:
        gaps = ", ".join(f"{cause} {count}" for cause, count in self.gaps.items()) or "none"
        return (
            f"{self.documents:9} {self.rows:7} {self.handovers:10} {len(self.lost):5} "
            f"{len(self.repeated):9}  {gaps}"
        )


HEADING = "documents    rows hand-overs  lost  repeated  gaps"


async def stream_all(batch: list[dict[str, Any]], figures: Figures, **options: Any) -> None:
    """Subscribe all of these documents on one client until each has crossed, and ask the ledger about each."""
    async with (
        Simulator(token_ttl=TTL, block_interval=BLOCK) as simulator,
        client_for(simulator, connections=2, timeouts=Timeouts(grace=GRACE), **options) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        named: dict[Reader, str] = {}
        for entry in batch:
            opening = reading(client, entry["document"], entry["variables"])
            try:
                named[await stack.enter_async_context(opening)] = entry["source"]
            except DocumentRefused:
                figures.unparsed.append(entry["source"])
        sending = [reader for reader in named if not contradicts_itself(reader.document)]
        # Rows before a hand-over, and after it.
        await until(lambda: all(len(reader.links) > 1 for reader in sending), within=90)
        # A chain that stands still proves no crossing: what is named from here on says so rightly.
        gaps = [reader.subscription.gaps for reader in named]
        verdicts = await settled(simulator, *named)
        figures.handovers += client.status().rotations
        for (reader, name), verdict, holes in zip(named.items(), verdicts, gaps, strict=True):
            assert reader.error is None, (name, reader.error)
            figures.add(name, verdict, holes)
            shape = shape_of(reader.document)
            for data in reader.data:
                assert_shaped(data, shape, name)


@cache
def entries() -> tuple[list[dict[str, Any]], list[str]]:
    """What can be asked of the service, and what it would shed the asker for: a cube that needs a filter and has
    none (subscriptions/which-cubes-stream)."""
    shed = [entry for entry in documented() if habit(entry["document"]) == "shed"]
    return [entry for entry in documented() if entry not in shed], [entry["source"] for entry in shed]


# They ask for a price below 0.95 and above 1.05.
ROWLESS = ["docs/stablecoin-APIs/stablecoin-trades-api.md"] * 2
EMPTY_BRACES = ["docs/start/mempool.md"]


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_a_sample_of_the_documents_streams_through_a_handover(subprotocol: str) -> None:
    figures = Figures()

    @virtual_time
    async def run() -> None:
        asked, _ = entries()
        await stream_all(asked[:: len(asked) // 20], figures, subprotocol=subprotocol)

    run()
    assert figures.documents >= 20
    assert figures.rowless == figures.unparsed == figures.lost == figures.repeated == []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.asyncio
async def test_all_documents_stream_through_a_handover(
    subprotocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures()
    asked, shed = entries()
    with capsys.disabled():
        print(f"\n{subprotocol}, {AT_ONCE} at a time, so far:\n{HEADING}")
        for start in range(0, len(asked), AT_ONCE):
            await stream_all(asked[start : start + AT_ONCE], figures, subprotocol=subprotocol)
            print(figures.line)
        print(f"no syntax: {figures.unparsed}; shed unasked: {shed}; no row can pass: {figures.rowless}")
    assert figures.documents + len(figures.unparsed) + len(shed) == len(documented())
    assert figures.lost == figures.repeated == []
    assert figures.unparsed == EMPTY_BRACES
    assert figures.rowless == ROWLESS
