from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from typing import Any

import pytest

from bqstream import SinkFailed, SinkUnavailable, UsageError
from bqstream.collect.sink import open_sink

from .committing import SUBSCRIPTION, TABLE, commit, gap, odd_rows, rows


class Standard:
    """Standard output that is some descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def _lines(capfd: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capfd.readouterr().out.split("\n")[:-1]]


@pytest.mark.asyncio
async def test_rows_are_lines_and_nothing_is_kept_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("stdout:")
    assert sink.name == "stdout: (at most once)"
    assert not sink.flat
    assert await sink.open(SUBSCRIPTION) is None
    await sink.commit(commit(1, rows(2), odd_rows(), gaps=[gap("a")]))
    await sink.commit(commit(2, rows(1, undo=True)))
    assert await sink.open(SUBSCRIPTION) is None
    await sink.aclose()
    await sink.aclose()
    undone = {"_undo": True, **rows(1).nested[0]}
    assert _lines(capfd) == [*rows(2).nested, *odd_rows().nested, undone]


@pytest.mark.asyncio
async def test_rows_of_several_tables_say_whose_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    other = replace(TABLE, name="Blocks")
    sink = open_sink("stdout:")
    made = commit(1, rows(1), rows(1, 1, table=other), rows(1, undo=True))
    await sink.commit(replace(made, tables=(TABLE, other)))
    first, second = rows(2).nested
    assert _lines(capfd) == [
        {"Transfers": first},
        {"Blocks": second},
        {"_undo": True, "Transfers": first},
    ]


@pytest.mark.asyncio
async def test_a_slow_reader_holds_up_no_loop_and_one_that_is_gone_breaks_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdout", Standard(write))
    committing = asyncio.ensure_future(open_sink("stdout:").commit(commit(1, rows(5_000))))
    await asyncio.sleep(0)
    assert not committing.done()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        await committing
    os.close(write)


@pytest.mark.asyncio
async def test_what_may_have_gone_through_in_part_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", Standard(full))
    with pytest.raises(SinkFailed, match="No space") as caught:
        await open_sink("stdout:").commit(commit(1, rows(1)))
    assert not isinstance(caught.value, SinkUnavailable)
    os.close(full)


def test_it_has_no_place_and_no_options() -> None:
    with pytest.raises(UsageError, match="jsonl:rows"):
        open_sink("stdout:rows.jsonl")
    with pytest.raises(UsageError, match="no option 'rotate'"):
        open_sink("stdout:?rotate=1h")


@pytest.mark.asyncio
async def test_several_take_turns_at_a_slow_pipe_and_keep_no_second_collector_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdout", Standard(write))
    sinks = [open_sink("stdout:") for _ in range(3)]
    assert all(sink.stateless for sink in sinks)  # type: ignore[attr-defined]

    def everything() -> list[str]:
        with os.fdopen(read) as pipe:
            return list(pipe)

    reading = asyncio.create_task(asyncio.to_thread(everything))
    async with asyncio.timeout(30):
        await asyncio.gather(*(sink.commit(commit(1, rows(2_000))) for sink in sinks))
    os.close(write)
    found = [json.loads(line) for line in await reading]
    assert found == list(rows(2_000).nested) * 3
