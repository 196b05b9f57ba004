"""Frames as a server writes them, and machines as far as a test needs them. Item numbers: the conformance list
that these tests follow, statement by statement."""

from __future__ import annotations

import json
from typing import Any

from bqstream.protocol import LEGACY, MODERN, Machine, machine_for, request

NEXT = {MODERN: "next", LEGACY: "data"}
DOCUMENT = request("subscription { EVM { DEXTrades { Block { Number } } } }")


def wire(type: str, **fields: Any) -> bytes:
    return json.dumps({"type": type, **fields}, separators=(",", ":")).encode()


def said(frame: bytes | None) -> dict[str, Any]:
    assert frame is not None
    value = json.loads(frame)
    assert isinstance(value, dict)
    return value


def waiting(subprotocol: str) -> Machine:
    """Its connection_init is out."""
    machine = machine_for(subprotocol)
    machine.init(None)
    return machine


def ready(subprotocol: str) -> Machine:
    """Acknowledged."""
    machine = waiting(subprotocol)
    machine.receive(wire("connection_ack"))
    return machine


def started(subprotocol: str) -> tuple[Machine, str]:
    """Acknowledged, with one operation."""
    machine = ready(subprotocol)
    return machine, machine.subscribe(DOCUMENT)[0]


def payload(machine: Machine, operation: Any, **result: Any) -> bytes:
    """A frame that brings a result."""
    return wire(NEXT[machine.subprotocol], id=operation, payload=result)
