"""What an examination is of, as a value."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Blocks of Ethereum, twelve seconds apart.
USUAL = "subscription { EVM(network: eth) { Blocks { Block { Number Time } } } }"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is examined. Times are in seconds.

    ``document``       text; ``variables`` and ``operation_name`` as ``Client.subscribe`` takes them.
    ``within``         how long the first row may take; never less than half as long again as ``idle``.
    ``patience``       for each answer to a request or a dial, and for the query side to see what was streamed.
    ``stalled_after``  how old the newest row of all may be.
    ``options``        of the client.
    """

    credentials: Any = None
    endpoint: str = "eu"
    document: str = USUAL
    variables: Mapping[str, Any] = field(default_factory=dict)
    operation_name: str | None = None
    within: float = 30.0
    idle: float = 10.0
    patience: float = 10.0
    stalled_after: float = 120.0
    tls: ssl.SSLContext | None = None
    wall: Callable[[], float] = time.time
    options: Mapping[str, Any] = field(default_factory=dict)
