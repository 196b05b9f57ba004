"""Scenario ``speed``: bqstream beside its peers and beside bare loops, each decoding every message."""

from __future__ import annotations

import asyncio
import importlib.util

from . import readers
from .load import serving
from .rounds import Read, measure, show

LOADS = ((1, 1, 60_000), (100, 1, 1_500), (799, 1, 200), (1, 100, 60_000))  # rows, subscriptions, messages


def clients(rows: int, subscriptions: int, *, quick: bool) -> dict[str, Read]:
    """Who reads, by name; the bare loops are left out where their libraries are not installed."""
    found = {
        "bqstream": readers.bqstream(subscriptions=subscriptions),
        "bqstream, message.raw": readers.bqstream(subscriptions=subscriptions, raw_rows=rows),
        "gql, websockets": readers.gql_websockets(subscriptions),
    }
    if not quick:
        found["gql, aiohttp"] = readers.gql_websockets(subscriptions, transport="aiohttp")
    if all(map(importlib.util.find_spec, ("orjson", "picows"))):
        found["bare websockets + orjson"] = readers.bare_websockets(subscriptions)
        found["bare aiohttp + orjson"] = readers.bare_aiohttp(subscriptions)
        found["bare picows + orjson"] = readers.bare_picows(subscriptions)
    return found


def run(*, quick: bool) -> None:
    for rows, subscriptions, most in LOADS:
        messages = most // 4 if quick else most
        with serving(messages, rows, subscriptions) as url:
            took = asyncio.run(
                measure(url, clients(rows, subscriptions, quick=quick), messages, rows, 3 if quick else 5)
            )
        title = f"speed: {rows} row(s) a message, {subscriptions} subscription(s), {messages} messages"
        show(title, took, [name for name in ("gql, websockets", "bare picows + orjson") if name in took])
