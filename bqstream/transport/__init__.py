"""The only sockets: frames in and out, through one engine or another; ``base`` says what an engine does."""

from __future__ import annotations

from .base import Engine
from .websockets import WebsocketsEngine


def engine_for(name: str) -> Engine:
    """The engine that ``Client(engine=…)`` names; "auto" is the best that is installed."""
    return {"auto": WebsocketsEngine, "websockets": WebsocketsEngine}[name]()
