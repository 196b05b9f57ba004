"""Both subprotocols as state machines: bytes in, events out; and what each refusal means."""

from .envelope import request
from .machine import Acked, Alive, Broken, Completed, Errored, Event, Machine, Next
from .negotiation import LEGACY, MODERN, SUBPROTOCOLS, Alone, machine_for, negotiate
from .redaction import redact, shown
from .verdicts import Action, Kind, Verdict, classify_close, classify_errors, classify_upgrade

__all__ = [
    "LEGACY",
    "MODERN",
    "SUBPROTOCOLS",
    "Acked",
    "Action",
    "Alive",
    "Alone",
    "Broken",
    "Completed",
    "Errored",
    "Event",
    "Kind",
    "Machine",
    "Next",
    "Verdict",
    "classify_close",
    "classify_errors",
    "classify_upgrade",
    "machine_for",
    "negotiate",
    "redact",
    "request",
    "shown",
]
