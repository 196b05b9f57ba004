"""How reading and closing go together: who may read, stop, go on, close, and when; and what is warned of."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

import bqstream
from bqstream import Client, ClientCredentials, ConnectionGivenUp, Timeouts
from bqstream.delivery.stream import Stream
from bqstream.errors import UsageError
from bqstream.events import Event, GapNamed
from bqstream.simulator import Simulator
from bqstream.simulator.threads import SimulatorThread
from bqstream.subscription import Subscription
from tests.integration.harness import TRANSFERS, Reader, client_for, settled, until
from tests.virtual_time import virtual_time

BLOCKS = "subscription { EVM(network: eth) { Blocks { Block { Number } } } }"
QUERY = "{ EVM(network: eth) { Blocks(limit: {count: 1}) { Block { Number } } } }"


def simulated(**options: Any) -> Simulator:
    return Simulator(**{"block_interval": 0.05, "transactions": 3} | options)


# ---------------------------------------------------------------------- reads that are cancelled


class Interrupted(Reader):
    """Reads each message in a task of its own, and cancels 200 of them, at any moment of their lives."""

    cancelled = 0

    async def _read(self) -> None:
        chance = random.Random(random.random())
        try:
            while True:
                task = asyncio.ensure_future(self.subscription.__anext__())
                if self.cancelled < 200:
                    await self._disturb(task, chance)
                try:
                    message = await task
                except asyncio.CancelledError:
                    if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                        raise
                    self.cancelled += 1
                else:
                    self.messages += 1
                    self.rows.extend(message.rows())
        except StopAsyncIteration:
            pass

    async def _disturb(self, task: asyncio.Future[Any], chance: random.Random) -> None:
        for _ in range(chance.choice((0, 1, 2, 5))):
            await asyncio.sleep(0)
        waiter = self.subscription._waiter
        if waiter is not None and chance.random() < 0.7:
            waiter.add_done_callback(lambda _: task.cancel())  # there is a message, and the reader has it not
        else:
            task.cancel()


@virtual_time
async def test_two_hundred_cancelled_reads_lose_and_repeat_no_row() -> None:
    async with simulated(token_ttl=4) as simulator, client_for(simulator) as client:
        async with client.subscribe(TRANSFERS) as stream:
            reader = Interrupted(stream, TRANSFERS)
            await until(lambda: reader.cancelled == 200 and client.status().rotations > 1)
            (verdict,) = await settled(simulator, reader)
            reader.task.cancel()
            await asyncio.wait({reader.task})
        assert verdict.exact, verdict
        assert verdict.emitted > 200


@pytest.fixture
def sigint_heeded() -> Iterator[None]:
    """A shell starts what it puts into the background with SIGINT ignored; Python and asyncio then leave it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_heeded")
def test_ctrl_c_in_a_read_leaves_client_and_stream_as_they_were() -> None:
    """As in a notebook: the cell is interrupted, the loop goes on, and so does the next cell."""
    with SimulatorThread(block_interval=0.05) as simulator, asyncio.Runner() as runner:
        credentials = ClientCredentials(
            simulator.client_id, simulator.client_secret, token_url=simulator.token_url
        )
        rows: list[Any] = []

        async def cell_1() -> tuple[Client, Subscription]:
            client = await bqstream.connect(credentials, endpoint=simulator.endpoint)
            return client, await client.subscribe(BLOCKS)

        async def cell_2(interrupt: bool) -> None:
            async for row in stream.rows():
                rows.append(row)
                if len(rows) % 3 == 0:
                    if not interrupt:
                        return
                    signal.raise_signal(signal.SIGINT)
                    await asyncio.sleep(3600)

        async def cell_3() -> None:
            await client.aclose()

        client, stream = runner.run(cell_1())
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                runner.run(cell_2(interrupt=True))
        runner.run(cell_2(interrupt=False))
        runner.run(cell_3())
    numbers = [row["Block"]["Number"] for row in rows]
    assert len(rows) == 12
    assert len(set(numbers)) == 12
    assert threading.active_count() == 1


class Struck:
    """A loop without a handler for SIGINT, as in a console: KeyboardInterrupt rises wherever it strikes, once."""

    def __init__(self) -> None:
        self.armed = False

    def strike(self) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def told(self, event: Event) -> None:
        if isinstance(event, GapNamed) and not event.gap.closed:
            self.strike()


async def _rows_of(stream: Subscription) -> list[Any]:
    rows: list[Any] = []
    async with asyncio.timeout(20):
        async for message in stream:
            rows += message.rows()
            if message.replayed:
                return rows
    return rows


def test_ctrl_c_in_a_links_reading_ends_the_link_so_that_what_it_cut_short_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    struck, taken = Struck(), Stream.payloads

    def payloads(stream: Stream, *values: Any) -> bool:
        struck.strike()
        return taken(stream, *values)

    monkeypatch.setattr(Stream, "payloads", payloads)
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    with SimulatorThread(block_interval=0.05) as simulator:
        client = run(_opened(simulator, timeouts=Timeouts(grace=0.2)))
        stream = run(_awaited(client.subscribe(BLOCKS)))
        rows = run(_take(stream, 5))
        struck.armed = True
        _wait_for_ctrl_c(loop)
        numbers = [*rows, *(int(row["Block"]["Number"]) for row in run(_rows_of(stream)))]
        assert set(range(numbers[4], max(numbers))) <= set(numbers)
        assert [gap.cause for gap in stream.gaps] == ["lost"]
        run(client.aclose())
    loop.close()


def test_ctrl_c_in_a_task_of_the_clients_own_ends_it_and_its_readers_are_told() -> None:
    struck = Struck()
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    with SimulatorThread(block_interval=0.05) as simulator:
        client = run(_opened(simulator, on_event=struck.told))
        stream = run(_awaited(client.subscribe(BLOCKS)))
        run(_take(stream, 5))
        struck.armed = True
        simulator.faults.close(1012)
        _wait_for_ctrl_c(loop)
        with pytest.raises(ConnectionGivenUp, match="interrupted"):
            run(_rows_of(stream))
        run(client.aclose())
        assert asyncio.all_tasks(loop) == set()
    loop.close()


def _wait_for_ctrl_c(loop: asyncio.AbstractEventLoop) -> None:
    waiting = loop.create_task(asyncio.sleep(5))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(waiting)
    waiting.cancel()  # which the loop has left behind


async def _awaited(subscribing: Awaitable[Subscription]) -> Subscription:
    return await subscribing


# ---------------------------------------------------------------------- who reads, and when


@virtual_time
async def test_after_a_break_the_next_loop_goes_on_with_the_next_message() -> None:
    async with simulated() as simulator, client_for(simulator) as client, client.subscribe(BLOCKS) as stream:
        numbers = []
        for _ in range(10):
            async for message in stream:
                numbers.append(int(message.data["EVM"]["Blocks"][0]["Block"]["Number"]))
                break
            await asyncio.sleep(0.12)
        assert numbers == list(range(numbers[0], numbers[0] + 10))
        async for row in stream.rows():
            assert int(row["Block"]["Number"]) == numbers[-1] + 1
            break


@virtual_time
async def test_a_second_reader_is_an_error_and_the_first_reads_on() -> None:
    async with (
        simulated(block_interval=1) as simulator,
        client_for(simulator) as client,
        client.subscribe(BLOCKS) as stream,
    ):
        first = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0)
        for second in (stream.__anext__, stream.rows().__anext__):
            with pytest.raises(UsageError, match="another task"):
                await second()
        assert (await first).data
        assert (await anext(stream)).data


@virtual_time
async def test_a_stream_may_be_read_in_another_task_than_the_one_that_subscribed() -> None:
    async with simulated() as simulator, client_for(simulator) as client:
        stream = await asyncio.create_task(_subscribe(client))
        numbers = await asyncio.create_task(_take(stream, 3))
        more = await asyncio.create_task(_take(stream, 3))
        await asyncio.create_task(stream.aclose())
        assert numbers + more == list(range(numbers[0], numbers[0] + 6))
        assert client.status().subscriptions == ()


async def _subscribe(client: Client) -> Subscription:
    return await client.subscribe(BLOCKS)


async def _take(stream: Subscription, count: int) -> list[int]:
    return [int((await anext(stream)).data["EVM"]["Blocks"][0]["Block"]["Number"]) for _ in range(count)]


# ---------------------------------------------------------------------- closing


@virtual_time
async def test_closing_a_stream_ends_its_reader_quietly_and_may_be_done_twice() -> None:
    async with simulated(block_interval=3600) as simulator, client_for(simulator) as client:
        stream = await client.subscribe(BLOCKS)
        reader = asyncio.create_task(_all(stream))
        await asyncio.sleep(1)
        await asyncio.gather(stream.aclose(), stream.aclose())
        await stream.aclose()
        assert await reader == []
        assert [message async for message in stream] == []
        await until(lambda: simulator.counters.open_sockets == 0)
        assert client.status().state == "idle"


@virtual_time
async def test_closing_the_client_ends_every_reader_quietly_and_may_be_done_twice() -> None:
    async with simulated(block_interval=3600) as simulator, client_for(simulator) as client:
        streams = [await client.subscribe(BLOCKS) for _ in range(5)]
        readers = [asyncio.create_task(_all(stream)) for stream in streams]
        await asyncio.sleep(1)
        await asyncio.gather(client.aclose(), client.aclose())
        await client.aclose()
        assert await asyncio.gather(*readers) == [[]] * 5
        for stream in streams:
            await stream.aclose()
        assert simulator.counters.open_sockets == 0
        assert client.status().state == "closed"


async def _all(stream: Subscription) -> list[Any]:
    return [message async for message in stream]


@virtual_time
async def test_what_waits_is_still_read_after_the_client_was_closed() -> None:
    async with simulated() as simulator, client_for(simulator) as client:
        stream = await client.subscribe(BLOCKS)
        await until(lambda: client.status().subscriptions[0].waiting_messages >= 3)
        await client.aclose()
        assert len(await _all(stream)) >= 3
        await stream.aclose()


@virtual_time
async def test_a_closed_client_says_so_to_whoever_uses_it() -> None:
    async with simulated() as simulator:
        client = Client("any-token-at-all", endpoint=simulator.endpoint)
        for _ in range(2):  # before it is opened, and after it was closed
            with pytest.raises(UsageError, match="not open"):
                await client.subscribe(BLOCKS)
            with pytest.raises(UsageError, match="not open"):
                async with client.subscribe(BLOCKS):
                    pass
            with pytest.raises(UsageError, match="not open"):
                await client.execute(QUERY)
            assert client.status().state == "closed"
            if client._task is None:
                await client.aclose()  # nothing to close
                await client.open()
                with pytest.raises(UsageError, match="opened before"):
                    await client.open()
                await client.aclose()
        with pytest.raises(UsageError, match="opened before"):
            await client.open()


@virtual_time
async def test_a_client_is_opened_in_one_task_and_closed_in_another() -> None:
    async with simulated() as simulator:
        credentials = ClientCredentials(
            simulator.client_id, simulator.client_secret, token_url=simulator.token_url
        )
        client = await asyncio.create_task(bqstream.connect(credentials, endpoint=simulator.endpoint))
        stream = await asyncio.create_task(_subscribe(client))
        assert len(await asyncio.create_task(_take(stream, 3))) == 3
        await asyncio.create_task(client.aclose())
        await until(lambda: simulator.counters.open_sockets == 0)


@pytest.mark.parametrize("within", [asyncio.timeout, asyncio.timeout_at])
@virtual_time
async def test_closing_may_be_cut_short_and_still_leaves_nothing(within: Callable[[float], Any]) -> None:
    """A server that answers no close handshake; whoever closes does not wait for it."""
    async with simulated() as simulator, client_for(simulator) as client:
        stream = await client.subscribe(BLOCKS)
        assert await _take(stream, 1)
        simulator.faults.stall()
        now = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with within(0.5 if within is asyncio.timeout else now + 0.5):
                await client.aclose()
        assert asyncio.get_running_loop().time() - now < 1
        assert client.status().state == "closed"
        assert client._task is not None
        assert client._task.done()
        simulator.faults.abort()
        await until(lambda: simulator.counters.open_sockets == 0)


# ---------------------------------------------------------------------- what is warned of


def _run(scene: Callable[[SimulatorThread], Coroutine[Any, Any, None]]) -> None:
    with SimulatorThread(block_interval=0.05) as simulator:
        asyncio.run(scene(simulator))
    gc.collect()


async def _opened(simulator: SimulatorThread, **options: Any) -> Client:
    credentials = ClientCredentials(
        simulator.client_id, simulator.client_secret, token_url=simulator.token_url
    )
    return await bqstream.connect(credentials, endpoint=simulator.endpoint, **options)


def test_a_client_that_is_never_closed_warns_when_its_loop_has_ended() -> None:
    held = []

    async def careless(simulator: SimulatorThread) -> None:
        held.append(await _opened(simulator))

    _run(careless)
    with pytest.warns(ResourceWarning, match="Client was never closed"):
        _let_go(held)


def _let_go(held: list[Any]) -> None:
    held.clear()
    gc.collect()


@pytest.mark.parametrize("paused", [False, True])
@virtual_time
async def test_a_client_that_is_let_go_with_its_streams_warns_and_is_closed(paused: bool) -> None:
    async with simulated() as simulator:
        before = asyncio.all_tasks()
        credentials = ClientCredentials(
            simulator.client_id, simulator.client_secret, token_url=simulator.token_url
        )
        client = await bqstream.connect(credentials, endpoint=simulator.endpoint)
        held = [await client.subscribe(BLOCKS)]
        del client
        gc.collect()
        assert await _take(held[0], 3), "a stream that is held keeps its client"
        if paused:
            await held[0].pause()
        with pytest.warns(ResourceWarning, match="Subscription 1, .* was never closed"):
            _let_go(held)
        with pytest.warns(ResourceWarning, match="Client was never closed"):
            await until(lambda: gc.collect() >= 0 and asyncio.all_tasks() == before)
        await until(lambda: simulator.counters.open_sockets == 0)


def test_a_stream_that_is_never_closed_warns_and_one_whose_client_was_closed_does_not() -> None:
    async def careless(simulator: SimulatorThread) -> None:
        client = await _opened(simulator)
        stream = await client.subscribe(BLOCKS)
        assert await _take(stream, 1)
        del stream
        gc.collect()
        await client.aclose()

    async def careful(simulator: SimulatorThread) -> None:
        client = await _opened(simulator)
        stream = await client.subscribe(BLOCKS)
        await until(lambda: client.status().subscriptions[0].waiting_messages > 1)
        await client.aclose()
        assert stream.gaps == ()

    with pytest.warns(ResourceWarning, match=r"Subscription 1, open, \d+ waiting> was never closed"):
        _run(careless)
    _run(careful)
