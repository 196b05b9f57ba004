from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.live import Live

from bqstream import Status, events
from bqstream.cli.view import LiveView, Moment, NoView, PlainView
from bqstream.status import LinkStatus

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def moment(seconds: float, *, expires: datetime | None = None) -> Moment:
    status = Status(
        state="live",
        token_expires_at=expires,
        rotations=3,
        reconnects=1,
        unproven=0,
        links=(LinkStatus(number=4, state="live", operations=2, messages=9),),
        subscriptions=(),
    )
    rows, rates = {"trades": 1234, "chain": 6}, {"trades": 40.4, "chain": 1.0}
    return Moment(seconds=seconds, total=30, token_ttl=5, rows=rows, rates=rates, status=status)


def test_the_live_view_shows_rows_rates_token_links_hand_overs_and_the_newest_events() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=100, force_terminal=False)
    view = LiveView(_live=Live(console=console, auto_refresh=False))
    with view:
        for link in range(1, 21):
            view.event(events.Lost(at=AT, link=link, why="the server went away"))
        view.show(moment(7, expires=datetime.now(UTC) + timedelta(seconds=60)))
    text = screen.getvalue()
    for part in ("7 of 30 s", "trades", "1,234", "40", "4 live", "link 20: the server went away"):
        assert part in text
    assert "good for 60 s" in text
    assert "link 12:" not in text


def test_plain_lines_come_every_two_seconds_with_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    with view:
        for tenth in range(41):
            view.show(moment(tenth / 10))
        view.event(events.SlowConsumer(at=AT, link=4))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["0.0", "2.0", "4.0"]
    assert "1,240 rows, 41 a second" in lines[0]
    assert "3 hand-overs" in lines[0]
    assert lines[3].endswith("slow consumer: link 4 was closed with 1013")


def test_with_json_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with NoView() as _:
        NoView().event(events.SlowConsumer(at=AT, link=4))
        NoView().show(moment(1))
    assert capsys.readouterr() == ("", "")
