"""Scenario ``speed``: bqstream beside its peers and beside bare loops, each decoding every message."""

from __future__ import annotations

import asyncio
import importlib.util

from . import node, readers
from .load import Flood, serving
from .rounds import Figures, Read, measure, show, warm

LOADS = ((1, 1, 60_000), (100, 1, 1_500), (799, 1, 200), (1, 100, 60_000))  # rows, subscriptions, messages
GQL, FLOOR = "gql, websockets", "bare picows + orjson"


def clients(rows: int, subscriptions: int, *, quick: bool) -> dict[str, Read]:
    """Who reads, by name; who is not installed is left out."""
    found: dict[str, Read] = {
        "bqstream": readers.bqstream(subscriptions),
        "bqstream, typed": readers.bqstream(subscriptions, typed=True),
        "bqstream, message.raw": readers.bqstream(subscriptions, raw_rows=rows),
        GQL: readers.gql(subscriptions),
    }
    if not quick:
        found["gql, aiohttp"] = readers.gql(subscriptions, transport="aiohttp")
    if not node.missing():
        found["graphql-ws, Node"] = node.graphql_ws(subscriptions)
    if bare():
        found["bare websockets + orjson"] = readers.bare_websockets(subscriptions)
        found["bare aiohttp + orjson"] = readers.bare_aiohttp(subscriptions)
        found[FLOOR] = readers.bare_picows(subscriptions)
    return found


def bare() -> bool:
    """Whether the bare loops' libraries are installed."""
    return all(map(importlib.util.find_spec, ("orjson", "picows")))


def run(*, quick: bool) -> Figures:
    if why := node.missing():
        print(f"\nspeed: graphql-ws is left out: {why}")
    figures: Figures = []
    for rows, subscriptions, most in LOADS:
        messages = most // 4 if quick else most
        found = clients(rows, subscriptions, quick=quick)
        with serving(Flood(subscriptions, rows, subscriptions)) as small:
            asyncio.run(warm(small.url, found))
        with serving(Flood(messages, rows, subscriptions)) as server:
            took = asyncio.run(measure(server.url, found, messages, rows, 3 if quick else 5))
        title = f"speed: {rows} row(s) a message, {subscriptions} subscription(s), {messages} messages"
        shown = show(title, took, [name for name in (GQL, FLOOR) if name in took])
        figures += [{**one, "rows": rows, "subscriptions": subscriptions} for one in shown]
    return figures
