from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bqstream import Client, UsageError, prometheus
from bqstream.collect.metrics import registry_of
from bqstream.collect.monitor import Monitor
from bqstream.simulator import Simulator
from tests.integration.harness import TRANSFERS, client_for, reading, until
from tests.unit.collect.stand_in import AT, SUBSCRIPTION, StandInClient, StandInCollector

WITHOUT_UNIT = {  # counts and states, which have none
    *("bqstream_links", "bqstream_handovers", "bqstream_reconnects", "bqstream_messages", "bqstream_gaps"),
    *("bqstream_dropped_messages", "bqstream_truncated_messages", "bqstream_merged_rows", "bqstream_rows"),
    *("bqstream_backfill_queries", "bqstream_backfilled_rows", "bqstream_buffer_messages", "bqstream_parked"),
    "bqstream_paused",
    *("bqstream_closing_gap", "bqstream_unproven", "bqstream_slow_consumer_closes", "bqstream_misfits"),
    *("bqstream_rows_taken_back", "bqstream_commits", "bqstream_holes", "bqstream_pending_rows"),
    *("bqstream_commit_overdue", "bqstream_subscribed"),
}


def read(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Every sample of ours, by its name and subscription."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, sample.labels.get("subscription", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name.startswith("bqstream_")
    }


@pytest.mark.asyncio
async def test_a_client_is_shown_while_it_is_open_and_leaves_the_registry_when_it_is_closed(
    simulator: Simulator,
) -> None:
    registry = CollectorRegistry()
    async with client_for(simulator) as client:
        prometheus.register(client, registry)
        async with reading(client) as reader:
            await until(lambda: reader.messages >= 3)
            found = read(registry)
            assert found["bqstream_links", ""] == 1
            assert found["bqstream_messages_total", "1"] >= 3
            assert found["bqstream_handovers_total", ""] == found["bqstream_reconnects_total", ""] == 0
            assert found["bqstream_token_expiry_timestamp_seconds", ""] > 1_700_000_000
    assert read(registry) == {}
    assert not registry._collector_to_names


@pytest.mark.asyncio
async def test_a_scrape_in_another_thread_meets_subscriptions_that_come_and_go(simulator: Simulator) -> None:
    registry = CollectorRegistry()
    async with client_for(simulator) as client:
        prometheus.register(client, registry)
        async with client.subscribe(TRANSFERS):
            scrapes = [asyncio.create_task(asyncio.to_thread(generate_latest, registry)) for _ in range(20)]
            for _ in range(20):
                async with client.subscribe(TRANSFERS):
                    pass
            await asyncio.gather(*scrapes)
        assert {name for _, name in read(registry)} <= {"", "1", "2"}


def test_one_registry_shows_one_open_client() -> None:
    registry = CollectorRegistry()
    first, second = Client("token"), Client("token")
    prometheus.register(first, registry)
    with pytest.raises(UsageError, match="another client"):
        prometheus.register(second, registry)
    del first
    gc.collect()
    prometheus.register(second, registry)
    assert read(registry)["bqstream_links", ""] == 0


def test_labels_are_numbers_that_are_used_again() -> None:
    names = prometheus.numbered({}, [1, 2, 3])
    assert names == {1: "1", 2: "2", 3: "3"}
    names = prometheus.numbered(names, [2, 7])
    assert names == {2: "2", 7: "1"}
    assert prometheus.numbered(names, [2, 7, 8]) == {2: "2", 7: "1", 8: "3"}


def test_a_collector_has_its_own_metrics_under_its_name_and_each_series_once() -> None:
    monitor, client = Monitor(), StandInClient(1)
    client.subscriptions = [replace(SUBSCRIPTION, waiting_bytes=512, gaps=9)]
    client.expires = AT
    collector = StandInCollector(
        rows=100,
        commits=4,
        committing_seconds=0.5,
        committed_at=AT,
        misfits=2,
        gaps=3,
        holes=1,
        newest=AT,
        overdue=True,
        pending_rows=6,
    )
    monitor.watch(client, [collector, StandInCollector("blocks", operation=None)])
    registry = registry_of(monitor)
    found = read(registry)
    expected = {
        "bqstream_rows_total": 100,
        "bqstream_gaps_total": 3,
        "bqstream_holes_total": 1,
        "bqstream_misfits_total": 2,
        "bqstream_commits_total": 4,
        "bqstream_buffer_bytes": 512,
        "bqstream_pending_rows": 6,
        "bqstream_commit_overdue": 1,
        "bqstream_subscribed": 1,
        "bqstream_last_commit_timestamp_seconds": AT.timestamp(),
        "bqstream_commit_duration_seconds_count": 4,
        "bqstream_commit_duration_seconds_sum": 0.5,
    }
    assert {name: found[name, "trades"] for name in expected} == expected
    assert found["bqstream_token_expiry_timestamp_seconds", ""] == AT.timestamp()
    assert found["bqstream_lag_seconds", "trades"] > 0
    assert ("bqstream_lag_seconds", "blocks") not in found
    assert found["bqstream_subscribed", "blocks"] == 0

    names = [family.name for family in registry.collect()]
    assert len(names) == len(set(names))
    for family in registry.collect():
        if family.name.startswith("bqstream_"):
            assert family.documentation.endswith(".")
            assert family.name in WITHOUT_UNIT or family.name.endswith(("_seconds", "_bytes")), family.name
            assert all(set(sample.labels) <= {"subscription"} for sample in family.samples)
