"""Where the examples get their service from: yours if the environment names one, else the simulator.

Nothing in here is needed to use bqstream. It lets every example run as it stands, without an account.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bqstream.simulator import Simulator

DOCUMENTS = Path(__file__).parent / "documents"
_NAMES = ("BITQUERY_TOKEN", "BITQUERY_TOKEN_FILE", "BITQUERY_CLIENT_ID", "BITQUERY_CLIENT_ID_FILE")


@asynccontextmanager
async def service(*, token_ttl: float = 3600) -> AsyncIterator[None]:
    """Put a simulator's address and credentials into the environment, unless there are some."""
    if any(os.environ.get(name) for name in _NAMES):
        yield
        return
    async with Simulator(token_ttl=token_ttl, block_interval=0.25, seed=1) as simulator:
        os.environ["BITQUERY_ENDPOINT"] = simulator.endpoint
        os.environ["BITQUERY_TOKEN_URL"] = simulator.token_url
        os.environ["BITQUERY_CLIENT_ID"] = simulator.client_id
        os.environ["BITQUERY_CLIENT_SECRET"] = simulator.client_secret
        yield
