"""The fixture ``bqstream_simulator``: a simulator in a thread of its own, one for each test.

    @pytest.mark.bqstream_simulator(token_ttl=5, block_interval=0.1)
    def test_my_collector(bqstream_simulator):
        run_my_collector(endpoint=bqstream_simulator.endpoint, token=bqstream_simulator.token())
        bqstream_simulator.faults.close(1013)

It is a `SimulatorThread`, bound to no loop and no plugin for one; the marker's arguments are the simulator's options,
those of the nearest marker first (function, class, module).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .threads import SimulatorThread


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "bqstream_simulator(**options): options of the fixture bqstream_simulator"
    )


@pytest.fixture
def bqstream_simulator(request: pytest.FixtureRequest) -> Iterator[SimulatorThread]:
    """A running simulator of the service, in a thread of its own, one for each test.

    It has endpoint, token_url, client_id, client_secret, token(), faults and ledger. Its options are the marker's:
    @pytest.mark.bqstream_simulator(token_ttl=5, block_interval=0.1).
    """
    from .threads import SimulatorThread

    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("bqstream_simulator"))):
        options.update(marker.kwargs)
    with SimulatorThread(**options) as simulator:
        yield simulator
