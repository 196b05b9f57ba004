"""Which subprotocol a connection speaks (RFC 6455 section 4.1): what the server chose, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .legacy import Legacy
from .machine import Machine
from .modern import Modern
from .redaction import shown
from .verdicts import Action, Kind, Verdict

_MACHINES: dict[str, type[Modern] | type[Legacy]] = {kind.subprotocol: kind for kind in (Modern, Legacy)}

MODERN = Modern.subprotocol
LEGACY = Legacy.subprotocol
SUBPROTOCOLS = (MODERN, LEGACY)  # in the order in which they are offered


@dataclass(frozen=True, slots=True)
class Alone:
    """The server did not say which it speaks: redial, offering one of these at a time, in this order."""

    subprotocols: tuple[str, ...]


def negotiate(offered: Sequence[str], chosen: str | None) -> str | Alone | Verdict:
    """The subprotocol to speak after an upgrade that answered ``offered`` by ``chosen`` (``None``: nothing).

    A Verdict says to close the connection with nothing sent: the server chose what was not offered.
    """
    if chosen and chosen in offered:
        return chosen
    if chosen:
        return Verdict(
            action=Action.END_CLIENT,
            kind=Kind.CONNECTION,
            why=f"the server chose a subprotocol that was not offered: {shown(chosen)}",
        )
    return offered[0] if len(offered) == 1 else Alone(tuple(offered))


def machine_for(subprotocol: str) -> Machine:
    """A fresh machine for one connection. Raises KeyError for what is not in ``SUBPROTOCOLS``."""
    return _MACHINES[subprotocol]()
