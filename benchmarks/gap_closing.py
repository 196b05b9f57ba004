"""Scenario ``gap closing``: what it costs, while nothing goes wrong, that gaps could be closed.

The same rows are read with ``backfill="auto"``, with ``backfill="off"``, and as a cube with a limit of its own, which
is sent as it stands, with no hidden field; of a document that selects its own keys, and of one to which hidden fields
are added, so that its rows are longer. And with a checkpoint taken now and then, as a collector does.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from .load import Flood, serving
from .rounds import Figures, Read, measure, ratio, show, warm

CHECKPOINT_ROWS = 10_000
AUTO, OFF, PLAIN, STORED = (
    'backfill="auto"',
    'backfill="off"',
    "a limit of its own, none hidden",
    f"a checkpoint every {CHECKPOINT_ROWS:,} rows",
)
KEYS = "Block { Number Hash } Transaction { Hash } Call { Index } Log { Index } Transfer { Index Type Amount Sender }"
BARE = "Block { Number } Transfer { Amount Sender } Transaction { Hash }"
DOCUMENTS = {"its own keys selected": KEYS, "hidden fields added": BARE}


def reader(
    selection: str, *, backfill: Literal["auto", "off"] = "auto", limit: str = "", checkpoints: bool = False
) -> Read:
    """Reads all rows, each message decoded."""
    document = f"subscription {{ EVM {{ Transfers{limit} {{ {selection} }} }} }}"

    async def read(url: str) -> int:
        from bqstream import Client

        count = stored = 0
        async with (
            Client("token-of-the-benchmark", endpoint=url, backfill=backfill) as client,
            client.subscribe(document) as stream,
        ):
            async for message in stream:
                count += len(message.data["EVM"]["Transfers"])
                if checkpoints and count - stored >= CHECKPOINT_ROWS:
                    message.checkpoint.dumps()
                    stored = count
        return count

    return read


def readers(selection: str) -> dict[str, Read]:
    return {
        AUTO: reader(selection),
        OFF: reader(selection, backfill="off"),
        PLAIN: reader(selection, limit="(limit: {count: 800})"),
        STORED: reader(selection, checkpoints=True),
    }


def run(*, quick: bool) -> Figures:
    loads = ((1, 40_000), (10, 12_000), (100, 1_500))
    found: dict[str, float] = {}
    figures: Figures = []
    for title, selection in DOCUMENTS.items():
        for rows, most in loads:
            messages = most // 4 if quick else most
            with serving(Flood(1, rows)) as small:
                asyncio.run(warm(small.url, readers(selection)))
            with serving(Flood(messages, rows)) as server:
                took = asyncio.run(measure(server.url, readers(selection), messages, rows, 3 if quick else 5))
            figures += show(
                f"gap closing, {title}: {rows} row(s) a message, {messages} messages", took, [OFF]
            )
            found[f"{title}, {rows} row(s) a message"] = ratio(took, AUTO, OFF, "processor")
    worst = min(found, key=lambda name: found[name])
    print(f"\ngap closing on is {found[worst]:.2f} x off at the least, by processor time: {worst}")
    return figures
