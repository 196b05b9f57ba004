import asyncio

import pytest

from tests.virtual_time import WALL_AT_START, StuckError, suspend, virtual_clock, virtual_time


@virtual_time
async def test_an_hour_passes_at_once_on_both_clocks() -> None:
    clock = virtual_clock()
    await asyncio.sleep(3600)
    assert clock.monotonic() == 3600
    assert clock.wall() == WALL_AT_START + 3600


@virtual_time
async def test_timers_fire_in_their_order() -> None:
    order: list[int] = []

    async def after(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    await asyncio.gather(after(30), after(10), after(20))
    assert order == [10, 20, 30]


@virtual_time
async def test_a_wait_for_a_rounding_error_does_not_spin_for_ever() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1e6)
    end = loop.time() + 1e-9
    while loop.time() < end:  # noqa: ASYNC110
        await asyncio.sleep(1e-13)


@virtual_time
async def test_a_suspend_moves_the_wall_clock_alone() -> None:
    clock = virtual_clock()
    suspend(600)
    assert (clock.monotonic(), clock.wall()) == (0, WALL_AT_START + 600)


@virtual_time
async def test_sockets_within_the_process_work() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)


def test_waiting_for_what_cannot_come_fails() -> None:
    @virtual_time
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(StuckError):
        wait()


def test_a_task_left_behind_fails() -> None:
    @virtual_time
    async def leave() -> None:
        leave.task = asyncio.create_task(asyncio.sleep(1))  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="leaves tasks behind"):
        leave()
