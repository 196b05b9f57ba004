from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bqstream import Gap, events
from bqstream.wording import counted, line, shown, timed, tone

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAMPLES = (
    events.Connected(at=AT, link=1, subprotocol="graphql-ws"),
    events.Lost(at=AT, link=1, why="1006"),
    events.TokenRefreshed(at=AT, expires_at=None),
    events.HandedOver(at=AT, old=1, new=2, mode="overlap", operations=2, unproven=0, merged=31),
    events.Refused(at=AT, what="token", why="Unauthorized"),
    events.Stalled(at=AT, link=1, seconds=10),
    events.Parked(at=AT, operation=3, resumed=False),
    events.Paused(at=AT, operation=3),
    events.Resumed(at=AT, operation=3),
    events.Waiting(at=AT, until=AT, attempt=2, why="503"),
    events.GapNamed(at=AT, operation=3, gap=Gap(start=AT, end=None, cause="lost", detail="the link went")),
    events.SlowConsumer(at=AT, link=4),
)


def test_every_event_has_words_of_its_own() -> None:
    kinds = {kind.__name__ for kind in events.Event.__subclasses__() if kind.__module__ == events.__name__}
    assert {type(sample).__name__ for sample in SAMPLES} == kinds
    lines = [line(sample) for sample in SAMPLES]
    assert len(set(lines)) == len(lines)
    assert not any(type(sample).__name__ == text for sample, text in zip(SAMPLES, lines, strict=True))


def test_a_hand_over_says_how_and_what_it_could_show() -> None:
    assert line(SAMPLES[3]) == (
        "handed over by overlap: link 1 to 2, 2 operations, 31 rows merged, every row accounted for"
    )


def test_a_gap_says_what_has_become_of_it_before_it_says_why_it_is_there() -> None:
    gap = Gap(start=AT, end=None, cause="lost", cubes=("Blocks",), detail="the link went")
    clock = f"{AT.astimezone():%H:%M:%S}"

    def said(**values: Any) -> str:
        return line(events.GapNamed(at=AT, operation=3, gap=replace(gap, **values)), {3: "Blocks"})

    assert said() == f"gap in Blocks, {clock} to now: being closed (lost: the link went)"
    assert said(end=AT, reason="no such points") == (
        f"gap in Blocks, {clock} to {clock}: a hole: no such points (lost: the link went)"
    )
    assert said(end=AT, reason="the operation ended before it could be closed") == (
        f"gap in Blocks, {clock} to {clock}: left open: the operation ended before it could be closed "
        "(lost: the link went)"
    )
    assert said(end=AT, closed=True, how="2 queries brought 7 rows") == (
        f"gap in Blocks, {clock} to {clock}: closed: 2 queries brought 7 rows"
    )
    assert "operation 3 of Blocks" in line(events.GapNamed(at=AT, operation=3, gap=gap))
    assert " 01 Jan " in said(start=AT - timedelta(days=1))


def test_an_event_of_a_later_release_goes_by_its_name() -> None:
    class Novel(events.Event):
        pass

    try:
        assert line(Novel(at=AT)) == "Novel"
        assert [field.name for field in fields(Novel)] == ["at"]
    finally:
        del Novel


def test_a_line_starts_with_the_readers_own_time() -> None:
    assert timed(SAMPLES[-1]).startswith(f"{AT.astimezone():%H:%M:%S} slow consumer")


def test_numbers_are_grouped_and_nouns_agree() -> None:
    assert [counted(n, "row") for n in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]


def test_what_others_wrote_commands_nothing_on_a_terminal() -> None:
    assert shown("a\x1b[2Jb\x07\x9b\u202ec\td\ne") == "a\ufffd[2Jb\ufffd\ufffd\ufffdc\td\ne"


def test_a_gap_that_a_pause_makes_is_no_trouble_unless_it_is_a_hole() -> None:
    gap = Gap(start=AT, end=None, cause="paused")
    event = events.GapNamed(at=AT, operation=3, gap=gap)
    assert tone(event) == "plain"
    assert tone(replace(event, gap=replace(gap, reason="it is an aggregate"))) == "trouble"
    assert tone(replace(event, gap=replace(gap, closed=True))) == "good"
