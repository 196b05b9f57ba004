from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bqstream import Gap, events, timeline
from bqstream.collect.monitor import Monitor
from bqstream.timeline import LinkSpan
from tests.unit.collect.stand_in import AT, SUBSCRIPTION, StandInClient, StandInCollector
from tests.virtual_time import virtual_clock, virtual_time


def at(seconds: float) -> Any:
    return AT + timedelta(seconds=seconds)


@virtual_time
async def test_a_sample_is_kept_for_each_second_of_a_quarter_of_an_hour() -> None:
    monitor, collector = Monitor(virtual_clock()), StandInCollector()
    monitor.watch(StandInClient(1), [collector])
    running = asyncio.create_task(monitor.run())
    for second in range(1000):
        collector.set(rows=10 * second, newest=at(second - 3))
        await asyncio.sleep(1)
    running.cancel()
    await asyncio.wait({running})
    samples = monitor.picture().samples["trades"]
    assert len(samples) == 900
    assert {round(after.at - before.at, 3) for before, after in itertools.pairwise(samples)} == {1.0}
    assert {round(sample.rate) for sample in samples[1:]} == {10}
    assert all(sample.lag is not None and 3 <= sample.lag <= 5 for sample in samples)


@virtual_time
async def test_commits_that_are_far_apart_make_an_even_rate_that_ends_when_no_more_come() -> None:
    monitor, collector = Monitor(virtual_clock()), StandInCollector()
    monitor.watch(StandInClient(), [collector])
    running = asyncio.create_task(monitor.run())
    await asyncio.sleep(0.1)
    for minute in range(1, 5):
        await asyncio.sleep(60)
        collector.set(rows=600 * minute)
    await asyncio.sleep(60)
    rates = [sample.rate for sample in monitor.picture().samples["trades"]]
    assert all(round(rate) == 10 for rate in rates[62:])
    await asyncio.sleep(60)
    assert round(monitor.picture().collectors[0].rate) == 5
    await asyncio.sleep(120)
    assert monitor.picture().collectors[0].rate == 0
    running.cancel()
    await asyncio.wait({running})


@virtual_time
async def test_lag_is_now_less_the_newest_row_and_none_before_the_first() -> None:
    monitor, collector = Monitor(virtual_clock()), StandInCollector()
    monitor.watch(StandInClient(), [collector])
    assert monitor.picture().collectors[0].lag is None
    collector.set(newest=at(-7))
    await asyncio.sleep(1)
    assert monitor.picture().collectors[0].lag == 8
    collector.set(newest=at(60))
    assert monitor.picture().collectors[0].lag == 0


@virtual_time
async def test_each_link_is_drawn_from_its_acknowledgement_to_its_end_and_how_it_ended() -> None:
    monitor, client = Monitor(virtual_clock()), StandInClient(5)
    monitor.watch(client, [])
    for link in (1, 2, 3, 4, 5, 6):
        monitor.event(events.Connected(at=at(link), link=link, subprotocol="graphql-transport-ws"))
    monitor.event(
        events.HandedOver(at=at(10), old=1, new=2, mode="overlap", operations=1, unproven=0, merged=3)
    )
    monitor.event(events.Lost(at=at(11), link=2, why="closed with 1012"))
    monitor.event(events.Stalled(at=at(12), link=3, seconds=10))
    monitor.event(events.Lost(at=at(12.5), link=3, why="no sign of life"))
    monitor.event(events.SlowConsumer(at=at(13), link=4))
    monitor.event(events.Lost(at=at(13), link=4, why="closed with 1013"))
    await asyncio.sleep(20)
    monitor.sample()
    assert monitor.picture().links == (
        LinkSpan(link=1, start=at(1), end=at(10), how="handed over", to=2),
        LinkSpan(link=2, start=at(2), end=at(11), how="lost"),
        LinkSpan(link=3, start=at(3), end=at(12), how="stalled"),
        LinkSpan(link=4, start=at(4), end=at(13), how="shed"),
        LinkSpan(link=5, start=at(5)),
        LinkSpan(link=6, start=at(6), end=at(20), how="closed"),
    )
    assert monitor.picture().shed == 1


@virtual_time
async def test_a_link_that_was_seen_to_be_gone_before_its_hand_over_was_told_ends_by_it() -> None:
    monitor = Monitor(virtual_clock())
    monitor.watch(StandInClient(), [])
    monitor.event(events.Connected(at=at(0), link=1, subprotocol="graphql-ws"))
    monitor.sample()
    monitor.event(
        events.HandedOver(at=at(2), old=1, new=2, mode="replace", operations=1, unproven=0, merged=0)
    )
    assert monitor.picture().links == (LinkSpan(link=1, start=at(0), end=at(0), how="handed over", to=2),)


def test_a_gap_is_one_however_often_more_is_told_of_it_and_bears_the_subscriptions_name() -> None:
    monitor = Monitor()
    monitor.watch(StandInClient(), [StandInCollector(operation=3)])
    gap = Gap(start=AT, end=None, cause="lost", cubes=("DEXTrades",))
    monitor.event(events.GapNamed(at=AT, operation=3, gap=gap))
    closed = replace(gap, end=at(1), closed=True, how="2 queries brought 7 rows")
    monitor.event(events.GapNamed(at=at(1), operation=3, gap=closed))
    monitor.event(events.GapNamed(at=at(2), operation=4, gap=gap))
    picture = monitor.picture()
    assert [(one.subscription, one.gap) for one in picture.gaps] == [("trades", closed), ("operation 4", gap)]
    assert [one.tone for one in picture.events] == ["trouble", "good", "trouble"]


def test_what_is_kept_is_bounded() -> None:
    monitor = Monitor()
    for number in range(1000):
        monitor.event(events.Connected(at=at(number), link=number, subprotocol="graphql-ws"))
        monitor.event(events.TokenRefreshed(at=at(number), expires_at=None))
        gap = Gap(start=at(number), end=None, cause="lost", number=number)
        monitor.event(events.GapNamed(at=at(number), operation=1, gap=gap))
    picture = monitor.picture()
    kept = (len(picture.links), len(picture.tokens), len(picture.gaps), len(picture.events))
    assert kept == (timeline.LINKS, timeline.TOKENS, timeline.GAPS, timeline.EVENTS)
    assert picture.links[-1].link == 999


def test_a_picture_joins_a_collector_with_what_waits_in_its_subscription() -> None:
    monitor, client, collector = Monitor(), StandInClient(), StandInCollector()
    client.subscriptions = [replace(SUBSCRIPTION, waiting_messages=3, waiting_bytes=900, parked=True)]
    collector.last_rows = [("trades", {"Block_Number": 1})]
    monitor.watch(client, [collector])
    picture = monitor.picture()
    (watched,) = picture.collectors
    assert (watched.waiting_messages, watched.waiting_bytes, watched.parked) == (3, 900, True)
    assert picture.rows == (("trades", {"Block_Number": 1}),)
    assert watched.subscribed


@pytest.mark.parametrize("state", ["starting", "stopping", "done", "failed"])
def test_a_collector_is_subscribed_while_it_collects_or_retries(state: Any) -> None:
    monitor, collector = Monitor(), StandInCollector(state=state)
    monitor.watch(StandInClient(), [collector])
    assert not monitor.picture().collectors[0].subscribed
    collector.set(state="retrying")
    assert monitor.picture().collectors[0].subscribed
    collector.set(operation=None)
    assert not monitor.picture().collectors[0].subscribed


def test_collectors_of_one_name_are_told_apart() -> None:
    monitor = Monitor()
    monitor.watch(StandInClient(), [StandInCollector(), StandInCollector("blocks"), StandInCollector()])
    picture = monitor.picture()
    assert [one.status.name for one in picture.collectors] == ["trades", "blocks", "trades (2)"]
    assert set(picture.samples) == {"trades", "blocks", "trades (2)"}


def test_a_client_is_shown_from_when_it_was_open_and_what_it_counted_after_it_was_closed_too() -> None:
    monitor, client = Monitor(), StandInClient(1)
    client.state = "closed"
    monitor.watch(client, [])
    assert monitor.picture().client is None
    client.state, client.rotations = "live", 7
    monitor.sample()
    client.state, client.rotations = "closed", 0
    status = monitor.picture().client
    assert status is not None
    assert (status.state, status.rotations, status.links) == ("closed", 7, ())


def test_before_it_watches_anything_the_picture_is_empty() -> None:
    picture = Monitor().picture()
    assert (picture.client, picture.collectors, picture.links) == (None, (), ())
