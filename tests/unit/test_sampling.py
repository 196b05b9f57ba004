"""The one call that blocks, against the service in a thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from bqstream import ClientCredentials, Timeouts, UsageError, sample
from bqstream.simulator.threads import SimulatorThread, start_in_thread
from tests.virtual_time import virtual_time

TRANSFERS = "subscription { EVM(network: eth) { Transfers { Block { Number Time } Transfer { Amount } } } }"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    with start_in_thread(block_interval=0.1) as running:
        yield running


def environment(simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITQUERY_ENDPOINT", simulator.endpoint)
    monkeypatch.setenv("BITQUERY_TOKEN_URL", simulator.token_url)
    monkeypatch.setenv("BITQUERY_CLIENT_ID", simulator.client_id)
    monkeypatch.setenv("BITQUERY_CLIENT_SECRET", simulator.client_secret)


def test_a_sample_is_a_table_of_so_many_rows(
    simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(simulator, monkeypatch)
    document = TRANSFERS.replace("subscription", "subscription ($network: evm_network)").replace(
        "eth", "$network"
    )
    table = sample(document, {"network": "eth"}, rows=20, decimals=True, timeouts=Timeouts(connect=20))
    assert table.num_rows == 20
    assert table.schema.field("Transfer_Amount").type == pa.decimal128(38, 18)


def test_a_sample_without_a_number_of_rows_takes_its_time(simulator: SimulatorThread) -> None:
    credentials = ClientCredentials(
        simulator.client_id, simulator.client_secret, token_url=simulator.token_url
    )
    began = time.monotonic()
    table = sample(TRANSFERS, seconds=1, credentials=credentials, endpoint=simulator.endpoint)
    assert table.num_rows > 20
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "rows=1000"),
        ({"rows": 1, "colour": "red"}, "no option colour"),
        ({"rows": 1, "cube": "Blocks"}, "no cube"),
    ],
)
def test_a_sample_that_cannot_mean_anything_is_refused(
    given: dict[str, Any], word: str, simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(simulator, monkeypatch)
    with pytest.raises(UsageError, match=word):
        sample(TRANSFERS, **given)


@virtual_time
async def test_a_sample_in_a_running_loop_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(UsageError, match=r"await bqstream.connect\(\).*await stream.to_arrow"):
        sample(TRANSFERS, rows=1)
