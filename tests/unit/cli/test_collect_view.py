from __future__ import annotations

import asyncio
import io
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from bqstream import events
from bqstream.cli.collect_view import LiveCollect, PlainCollect, page, sparkline, view_of
from bqstream.collect.monitor import Monitor
from bqstream.timeline import Sample
from tests.unit.collect.stand_in import AT, StandInClient, StandInCollector
from tests.virtual_time import virtual_clock, virtual_time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(**values: Any) -> tuple[Monitor, StandInCollector]:
    monitor, client, collector = Monitor(virtual_clock()), StandInClient(4), StandInCollector(**values)
    client.expires = AT + timedelta(seconds=90)
    monitor.watch(client, [collector, StandInCollector("blocks", operation=2)])
    return monitor, collector


def drawn(monitor: Monitor, width: int) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width).print(page(monitor.picture(), width))
    return screen.getvalue()


@pytest.mark.parametrize("width", [80, 140])
@virtual_time
async def test_the_live_view_has_all_that_matters_and_no_line_is_too_long(width: int) -> None:
    monitor, _ = watched(
        name="a-subscription-with-a-long-name",
        sink="postgresql://collector@database.example:5432/" + "x" * 80,
        rows=123_456_789,
        gaps=12,
        holes=2,
        misfits=3,
        newest=AT - timedelta(seconds=7),
        committed_at=AT - timedelta(seconds=1),
        state="retrying",
        trouble="the disk is full (No space left on device): make room; nothing is lost " * 2,
    )
    monitor.event(events.TokenRefreshed(at=AT, expires_at=AT + timedelta(seconds=180)))
    monitor.event(events.Lost(at=AT, link=3, why="the server went away " * 10))
    text = drawn(monitor, width)
    for part in ("123,456,789", "12, 2 holes", "7.0 s", "retrying", "good for 90 s", "4 live", "hand-overs"):
        assert part in text
    for part in ("committed 1.0 s ago", "3 misfits", "the disk is full", "lost: link 3", "blocks", "–"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


@virtual_time
async def test_the_newest_events_are_shown() -> None:
    monitor, _ = watched()
    for link in range(20):
        monitor.event(events.Connected(at=AT, link=link, subprotocol="graphql-ws"))
    text = drawn(monitor, 100)
    assert [int(number) for number in re.findall(r"connected: link (\d+)", text)] == list(range(12, 20))


def test_a_sparkline_is_the_last_minute_with_the_newest_on_the_right() -> None:
    samples = [Sample(float(second), float(second % 8), None) for second in range(1, 61)]
    assert sparkline(samples, 60, 60.5)[-8:] == "▆▇█▁▂▃▄▅"
    assert len(sparkline(samples, 10, 60.5)) == 10
    assert sparkline([], 5, 60.0) == "     "
    assert sparkline([Sample(59.0, 0.0, None)], 5, 60.0) == "    ▁"
    assert sparkline([Sample(float(at), 4.0, None) for at in range(0, 60, 2)], 60, 60.0)[1:] == "█" * 59


@virtual_time
async def test_plain_lines_come_every_ten_seconds_at_the_end_and_with_each_event() -> None:
    clock = virtual_clock()
    out = io.StringIO()
    monitor, collector = watched(newest=AT, rows=5)
    with PlainCollect(out) as view:
        for tick in range(50):
            if tick == 30:
                monitor.event(events.SlowConsumer(at=AT, link=4))
                collector.set(state="retrying", trouble="the disk is full", misfits=1, holes=1, gaps=1)
            view.show(monitor.picture())
            await asyncio.sleep(0.5)
    lines = out.getvalue().splitlines()
    assert clock.monotonic() == 25
    trades = [line[9:] for line in lines if line[9:].startswith("trades:")]
    assert len(trades) == 4  # at 0, 10 and 20 seconds, and at the end
    assert trades[0] == "trades: 5 rows, 0.0 a second, 0.0 s behind the chain, 0 gaps, collecting"
    assert trades[-1] == (
        "trades: 5 rows, 0.0 a second, 24 s behind the chain, 1 gap (1 hole), 1 misfit, "
        "retrying: the disk is full"
    )
    assert sum("links: 4 live" in line for line in lines) == 4
    assert sum("slow consumer: link 4" in line for line in lines) == 1


def test_what_a_collector_logs_has_its_time_too_as_long_as_the_view_is_there() -> None:
    out, log = io.StringIO(), logging.getLogger("bqstream.collect")
    with PlainCollect(out):
        log.warning("trades: the sink is down")
    log.warning("later")
    assert re.fullmatch(r"\d\d:\d\d:\d\d trades: the sink is down\n", out.getvalue())


def test_every_event_is_told_once_though_the_oldest_are_forgotten() -> None:
    monitor, out = Monitor(), io.StringIO()
    view = PlainCollect(out)
    for link in range(250):
        monitor.event(events.Connected(at=AT, link=link, subprotocol="graphql-ws"))
        if link % 90 == 0:
            view.show(monitor.picture())
    told = [int(number) for number in re.findall(r"link (\d+)", out.getvalue())]
    assert told == list(range(181))


def test_a_terminal_gets_the_live_view_and_everything_else_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(view_of(Terminal()), LiveCollect)
    assert isinstance(view_of(io.StringIO()), PlainCollect)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view_of(Terminal()), PlainCollect)


@virtual_time
async def test_no_color_is_honoured() -> None:
    monitor, _ = watched(state="retrying", trouble="the disk is full", rows=5)

    def coloured() -> bool:
        screen = Terminal()
        view = view_of(screen)
        with view:
            view.show(monitor.picture())
        return re.search(r"\x1b\[(?:\d+;)*3\d", screen.getvalue()) is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        patch.delenv("NO_COLOR", raising=False)
        assert coloured()
        patch.setenv("NO_COLOR", "1")
        assert not coloured()
