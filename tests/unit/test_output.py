from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bqstream.output import Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.mark.asyncio
async def test_a_full_pipe_holds_up_the_writer_and_not_the_loop(pipe: tuple[int, int]) -> None:
    read, write = pipe
    data = os.urandom(1024 * 1024)
    os.set_blocking(read, False)
    writing = asyncio.ensure_future(Output(write).write(data))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing.done()
    got = b""
    while len(got) < len(data):
        with contextlib.suppress(BlockingIOError):
            got += os.read(read, 65536)
        await asyncio.sleep(0)
    await writing
    assert got == data


@pytest.mark.asyncio
async def test_a_reader_that_goes_away_breaks_the_pipe_even_while_waiting(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writing = asyncio.ensure_future(Output(write).write(bytes(1024 * 1024)))
    await asyncio.sleep(0)
    os.close(read)
    with pytest.raises(BrokenPipeError):
        await writing


@pytest.mark.asyncio
async def test_a_cancelled_write_leaves_no_watcher_behind(pipe: tuple[int, int]) -> None:
    _, write = pipe
    writing = asyncio.ensure_future(Output(write).write(bytes(1024 * 1024)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert asyncio.get_running_loop().remove_writer(write) is False


@pytest.mark.asyncio
async def test_a_file_takes_everything(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        await Output(file.fileno()).write(b"x" * 100_000)
    assert path.stat().st_size == 100_000
