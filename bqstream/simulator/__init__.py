"""A service that behaves as Bitquery's streaming API does, for tests and for trying things out, on loopback.

It shares no code with the client, so that one misreading of the protocol cannot cancel out another. Its parts are
imported when they are asked for: the pytest plugin must cost nothing where it is not used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ledger import Ledger, Verdict
    from .server import Simulator
    from .settings import Behaviour, Settings
    from .threads import SimulatorThread, start_in_thread

__all__ = ["Behaviour", "Ledger", "Settings", "Simulator", "SimulatorThread", "Verdict", "start_in_thread"]

_HOMES = {
    "Behaviour": "settings",
    "Ledger": "ledger",
    "Settings": "settings",
    "Simulator": "server",
    "SimulatorThread": "threads",
    "Verdict": "ledger",
    "start_in_thread": "threads",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
