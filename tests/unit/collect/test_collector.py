"""The loop that commits: a sink that fails in every way, and stopping in every state; over a service in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest
from gql import gql

from bqstream import (
    Backoff,
    Client,
    DocumentRefused,
    OperationFailed,
    SinkFailed,
    SinkLocked,
    SinkUnavailable,
    UsageError,
)
from bqstream.collect import Batching, Collected, Collector
from bqstream.collect.status import State
from bqstream.collect.writing import Writing
from tests.postgresql_server import PostgreSQLServer
from tests.unit.session.service import Service, mute, polite, settle
from tests.unit.test_client import client_of, service_of
from tests.virtual_time import virtual_time

from .memory import Down, Memory

DOCUMENT = "subscription { EVM { Blocks { N } } }"
SOON = Batching(seconds=1)


class Running:
    """A collector at work."""

    def __init__(self, client: Client, sink: Memory, collector: Collector) -> None:
        self.client = client
        self.sink = sink
        self.collector = collector
        self.task = asyncio.create_task(collector.run())

    @property
    def service(self) -> Service:
        return service_of(self.client)

    def state(self) -> State:
        return self.collector.status().state

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.service.publish(json.dumps({"EVM": {"Blocks": [{"N": number}]}}))

    @property
    def numbers(self) -> list[int]:
        return [row["N"] for row in self.sink.rows]

    async def ended(self) -> Collected:
        async with asyncio.timeout(1000):
            return await self.task


@contextlib.asynccontextmanager
async def collecting(
    folder: Path, sink: Memory | None = None, client: Any = None, document: Any = DOCUMENT, **options: Any
) -> AsyncIterator[Running]:
    sink = sink or Memory(folder / "lock")
    async with client_of(**(client or {})) as opened:
        running = Running(opened, sink, Collector(opened, document, sink, **{"batching": SOON, **options}))
        await settle()
        try:
            yield running
        finally:
            running.task.cancel()
            await asyncio.wait({running.task})
    assert sink.closed


# ---------------------------------------------------------------------- what is given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_gap": "raise"}, "on_gap"),
        ({"limit": 0}, "limit"),
        ({"name": "a/b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"table": "_bqstream_state"}, "_bqstream"),
        ({"columns": {"X": "text"}}, "^column X: the document has no such column"),
        ({"variables": [1]}, "variables"),
        ({"variables": {"n": 1}}, "n"),
    ],
)
@virtual_time
async def test_what_means_nothing_is_refused_before_anything_is_opened(
    options: dict[str, Any], said: str
) -> None:
    async with client_of() as client:
        with pytest.raises(UsageError, match=said):
            Collector(client, DOCUMENT, Memory(Path("nowhere")), **options)
        with pytest.raises((UsageError, DocumentRefused)):
            Collector(client, "query { EVM { Blocks { N } } }", Memory(Path("nowhere")))


@virtual_time
async def test_it_is_named_by_its_tables(tmp_path: Path) -> None:
    async with client_of() as client:
        two = "subscription { EVM { A: Blocks { N } Calls { N } } }"
        assert Collector(client, two, Memory(tmp_path / "lock")).name == "A+Calls"
        other = Collector(client, "subscription { feed { posts { id } } }", Memory(tmp_path / "lock"))
        assert (other.name, other.status().tables) == ("posts", ("posts",))
        assert Collector(client, DOCUMENT, Memory(tmp_path / "lock"), name="mine").name == "mine"


@virtual_time
async def test_the_variables_of_a_request_object_are_sent(tmp_path: Path) -> None:
    text = "subscription($n: Int, $m: Int) { EVM { Blocks(n: $n, m: $m) { N } } }"
    parsed = gql(text)
    asked: Any = SimpleNamespace(document=getattr(parsed, "document", parsed), variable_values={"n": 1})
    async with collecting(tmp_path, document=asked, variables={"m": 2}) as running:
        (sent,) = [frame for frame in running.service.open[0].heard if frame["type"] == "subscribe"]
        assert sent["payload"]["variables"] == {"n": 1, "m": 2}


# ---------------------------------------------------------------------- rows


@virtual_time
async def test_rows_are_committed_in_batches_until_it_is_stopped(tmp_path: Path) -> None:
    async with collecting(tmp_path) as running:
        running.publish(1, 2)
        await asyncio.sleep(1.1)
        assert running.numbers == [1, 2]
        running.publish(3)
        await settle()
        running.collector.stop()
        running.collector.stop()
        assert await running.ended() == Collected(rows=3, commits=3, misfits=0, gaps=0, holes=0)
        assert running.numbers == [1, 2, 3]
        assert running.state() == "done"
        running.collector.stop()
        assert running.state() == "done"
        assert running.collector.status().rows == 3
        assert [table for table, _ in running.collector.last_rows] == ["Blocks"] * 3


@virtual_time
async def test_the_first_commit_comes_before_the_first_row(tmp_path: Path) -> None:
    async with collecting(tmp_path) as running:
        assert [(commit.number, commit.count) for commit in running.sink.commits] == [(1, 0)]


@virtual_time
async def test_a_limit_ends_it(tmp_path: Path) -> None:
    async with collecting(tmp_path, limit=2) as running:
        running.publish(1, 2, 3)
        assert (await running.ended()).rows == 2


@virtual_time
async def test_it_ends_when_the_service_completes_the_subscription(tmp_path: Path) -> None:
    async with collecting(tmp_path) as running:
        running.publish(1)
        (socket,) = running.service.open
        socket.say("complete", next(iter(socket.live)))
        assert (await running.ended()).rows == 1
        assert running.numbers == [1]


@virtual_time
async def test_what_ends_the_subscription_is_raised_when_all_before_it_is_committed(tmp_path: Path) -> None:
    async with collecting(tmp_path) as running:
        running.publish(1)
        (socket,) = running.service.open
        socket.say("error", next(iter(socket.live)), [{"message": "no more"}])
        with pytest.raises(OperationFailed, match="no more"):
            await running.ended()
        assert running.numbers == [1]
        assert running.state() == "failed"


@virtual_time
async def test_a_lock_that_cannot_be_made_is_not_taken_for_another_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(lock: filelock.FileLock) -> None:
        raise filelock.Timeout(lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    async with client_of() as client:
        with pytest.raises(SinkFailed, match="lock, which keeps a second collector away, cannot be made"):
            await Collector(client, DOCUMENT, Memory(tmp_path / "lock")).run()


@virtual_time
async def test_a_reader_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    def gone(number: int) -> None:
        raise BrokenPipeError

    sink = Memory(tmp_path / "lock")
    async with collecting(tmp_path, sink) as running:
        sink.before = gone
        running.publish(1)
        with pytest.raises(BrokenPipeError):
            await running.ended()
        assert running.state() == "done"


@virtual_time
async def test_a_document_that_the_service_refuses_is_no_obstacle_to_another_under_its_name(
    tmp_path: Path,
) -> None:
    def refuse(socket: Any, frame: dict[str, Any]) -> None:
        if frame["type"] == "connection_init":
            socket.say("connection_ack")
        elif frame["type"] == "subscribe":
            errors = [
                {"message": "Cannot query field N", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}
            ]
            socket.say("error", frame["id"], errors)

    sink = Memory(tmp_path / "lock")
    async with collecting(
        tmp_path, sink, client={"script": refuse}, document=DOCUMENT.replace("N", "M")
    ) as running:
        with pytest.raises((DocumentRefused, OperationFailed), match="Cannot query"):
            await running.ended()
        assert running.state() == "failed"
    async with collecting(tmp_path, sink) as running:
        running.publish(1)
        await asyncio.sleep(2)
        assert running.numbers == [1]
    with pytest.raises(UsageError, match="another document"):
        async with collecting(tmp_path, sink, document=DOCUMENT.replace("N", "M")) as running:
            await running.ended()


@virtual_time
async def test_a_client_that_closes_ends_it_well_with_all_that_came(tmp_path: Path) -> None:
    async with collecting(tmp_path) as running:
        running.publish(1)
        await settle()
        await running.client.aclose()
        assert (await running.ended()).rows == 1


@virtual_time
async def test_a_bug_of_the_reading_side_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bqstream.collect.reading._count", lambda message: 1 // 0)
    async with collecting(tmp_path, limit=9) as running:
        running.publish(1)
        with pytest.raises(ZeroDivisionError):
            await running.ended()


@virtual_time
async def test_errors_beside_rows_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with collecting(tmp_path) as running:
        (socket,) = running.service.open
        name = next(iter(socket.live))
        socket.say("next", name, {"data": {"EVM": {"Blocks": None}}, "errors": [{"message": "timed out"}]})
        await asyncio.sleep(3)
        assert "1 messages with errors" in caplog.text
        assert "timed out" in caplog.text
        assert running.numbers == []


# ---------------------------------------------------------------------- a sink that fails


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("when", ["before", "after", "opening"])
def test_a_sink_that_is_down_for_a_while_has_each_row_once(tmp_path: Path, when: str, times: int) -> None:
    @virtual_time
    async def run() -> None:
        sink = Memory(tmp_path / "lock")
        setattr(sink, when, Down(times))
        async with collecting(tmp_path, sink) as running:
            await asyncio.sleep(200)
            running.publish(1, 2)
            await asyncio.sleep(2)
            setattr(sink, "before" if when == "opening" else when, Down(times))
            running.publish(3)
            await asyncio.sleep(200)
            assert running.numbers == [1, 2, 3]
            assert [commit.number for commit in sink.commits] == [1, 2, 3]
            assert running.state() == "collecting"
            assert running.collector.status().trouble == ""

    run()


@virtual_time
async def test_a_sink_that_is_down_is_told_and_tried_for_ever(tmp_path: Path) -> None:
    sink = Memory(tmp_path / "lock")
    sink.before = Down(10**9)
    async with collecting(tmp_path, sink, overdue=1e-9) as running:
        await asyncio.sleep(3600)
        status = running.collector.status()
        assert (status.state, status.trouble, status.overdue) == ("retrying", "it is down", True)
        assert status.pending_since is not None
        assert len(sink.tried) > 50
        sink.before = lambda _: None
        await asyncio.sleep(60)
        status = running.collector.status()
        assert (status.state, status.overdue, status.pending_since) == ("collecting", False, None)


@virtual_time
async def test_attempts_that_are_used_up_end_it(tmp_path: Path) -> None:
    sink = Memory(tmp_path / "lock")
    sink.before = Down(10**9)
    async with collecting(tmp_path, sink, backoff=Backoff(attempts=3)) as running:
        with pytest.raises(SinkUnavailable, match="it is down"):
            await running.ended()
        assert len(sink.tried) == 3
        assert (running.state(), running.collector.status().trouble) == ("failed", "")


@pytest.mark.parametrize("error", [SinkFailed("read-only"), SinkLocked("another")])
def test_a_sink_that_will_not_ends_it_at_once(tmp_path: Path, error: Exception) -> None:
    @virtual_time
    async def run() -> None:
        sink = Memory(tmp_path / "lock")
        sink.before = Down(1, first=2, error=error)
        async with collecting(tmp_path, sink) as running:
            running.publish(1)
            with pytest.raises(type(error)):
                await running.ended()
            assert sink.tried == [1, 2]
            assert running.numbers == []

    run()


@virtual_time
async def test_another_collectors_commit_in_between_ends_it(tmp_path: Path) -> None:
    sink = Memory(tmp_path / "lock")
    async with collecting(tmp_path, sink) as running:
        await asyncio.sleep(1)
        sink.commits.append(sink.commits[0])
        running.publish(1)
        with pytest.raises(SinkLocked):
            await running.ended()


@virtual_time
async def test_another_collectors_commit_is_not_taken_for_ones_own_whose_answer_was_lost(
    tmp_path: Path,
) -> None:
    sink = Memory(tmp_path / "lock")
    async with collecting(tmp_path, sink) as running:
        await asyncio.sleep(1)

        def answer_is_lost(number: int) -> None:
            from dataclasses import replace

            sink.commits.append(replace(sink.commits[-1], number=number, state=sink.commits[-1].state))
            raise SinkUnavailable("no answer")

        sink.before = answer_is_lost
        running.publish(1)
        with pytest.raises(SinkLocked, match="another collector"):
            await running.ended()


@virtual_time
async def test_a_second_collector_on_the_machine_is_refused(tmp_path: Path) -> None:
    async with collecting(tmp_path) as running:
        other = Memory(tmp_path / "lock", running.sink.commits)
        with pytest.raises(SinkLocked, match="on this machine"):
            await Collector(running.client, DOCUMENT, other).run()
        assert (other.opened, other.closed) == (0, 0)
        running.collector.stop()
        await running.ended()
        third = Collector(running.client, DOCUMENT, other)
        third.stop()
        await third.run()


@virtual_time
async def test_sinks_without_a_lock_file_are_told_apart_by_name_and_subscription(tmp_path: Path) -> None:
    sink = Memory(tmp_path / "lock")
    sink.lock, sink.name = None, f"memory {tmp_path}"
    async with collecting(tmp_path, sink, dead_letters=tmp_path / "dead") as running:
        other = Memory(tmp_path / "lock")
        other.lock, other.name = None, sink.name
        with pytest.raises(SinkLocked):
            await Collector(running.client, DOCUMENT, other).run()
        beside = Collector(running.client, DOCUMENT, other, name="another")
        beside.stop()
        await beside.run()


@virtual_time
async def test_a_lock_that_cannot_be_made_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with client_of() as client:
        for lock in (tmp_path / "file" / "lock", tmp_path):
            with pytest.raises(SinkFailed):
                await Collector(client, DOCUMENT, Memory(lock)).run()


# ---------------------------------------------------------------------- stopping and cancelling


@virtual_time
async def test_stop_before_run_ends_it_at_once(tmp_path: Path) -> None:
    async with client_of() as client:
        sink = Memory(tmp_path / "lock")
        collector = Collector(client, DOCUMENT, sink)
        collector.stop()
        assert await collector.run() == Collected(0, 0, 0, 0, 0)
        assert sink.commits == []
        assert collector.status().state == "done"


@virtual_time
async def test_stop_ends_it_while_no_link_can_be_had(tmp_path: Path) -> None:
    async with collecting(tmp_path, client={"script": mute}) as running:
        await asyncio.sleep(100)
        assert running.state() == "starting"
        running.collector.stop()
        assert running.state() == "stopping"
        assert await running.ended() == Collected(0, 0, 0, 0, 0)
        assert running.client.status().subscriptions == ()


@pytest.mark.parametrize("turns", range(12))
def test_stop_at_any_moment_of_the_beginning_ends_it(tmp_path: Path, turns: int) -> None:
    @virtual_time
    async def run() -> None:
        async with client_of() as client:
            sink = Memory(tmp_path / "lock")
            collector = Collector(client, DOCUMENT, sink)
            task = asyncio.create_task(collector.run())
            for _ in range(turns):
                await asyncio.sleep(0)
            collector.stop()
            async with asyncio.timeout(10):
                await task
            assert client.status().subscriptions == ()

    run()


@pytest.mark.parametrize("when", ["opening", "before"])
def test_stop_tries_a_sink_that_is_down_once_more(tmp_path: Path, when: str) -> None:
    @virtual_time
    async def run() -> None:
        sink = Memory(tmp_path / "lock")
        setattr(sink, when, Down(10**9))
        async with collecting(tmp_path, sink) as running:
            await asyncio.sleep(300)
            tried = len(sink.tried), sink.opened
            running.collector.stop()
            begun = asyncio.get_running_loop().time()
            with pytest.raises(SinkUnavailable):
                await running.ended()
            assert asyncio.get_running_loop().time() - begun < 1
            assert sum((len(sink.tried), sink.opened)) <= sum(tried) + 2

    run()


@virtual_time
async def test_a_sink_that_is_back_when_it_is_stopped_gets_what_was_read(tmp_path: Path) -> None:
    sink = Memory(tmp_path / "lock")
    async with collecting(tmp_path, sink) as running:
        sink.before = Down(10**9)
        running.publish(1)
        await asyncio.sleep(100)
        running.publish(2)
        await asyncio.sleep(10)
        sink.before = lambda _: None
        running.collector.stop()
        await running.ended()
        assert running.numbers == [1, 2]


@virtual_time
async def test_a_sink_that_hangs_is_overdue_and_cancelling_ends_it(tmp_path: Path) -> None:
    sink = Memory(tmp_path / "lock")
    async with collecting(tmp_path, sink, overdue=1e-9) as running:
        sink.hangs = asyncio.Event()
        running.publish(1)
        await asyncio.sleep(100)
        status = running.collector.status()
        assert (status.overdue, status.pending_rows) == (True, 1)
        running.collector.stop()
        await asyncio.sleep(100)
        assert running.state() == "stopping"
        running.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running.ended()
        assert running.state() == "failed"
        assert running.numbers == []


@pytest.mark.parametrize("turns", range(0, 40, 3))
def test_cancelling_at_any_moment_leaves_nothing_behind_and_loses_no_commit(
    tmp_path: Path, turns: int
) -> None:
    @virtual_time
    async def run() -> None:
        async with client_of() as client:
            sink = Memory(tmp_path / "lock")
            task = asyncio.create_task(Collector(client, DOCUMENT, sink, batching=SOON).run())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.status().subscriptions == ()
            assert sink.closed == (1 if turns else 0)

    run()


@pytest.mark.asyncio
async def test_cancelling_waits_for_the_thread_that_prepares_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def prepare(writing: Writing, batch: Any) -> Any:
        begun.set()
        assert go.wait(30)
        raise SinkFailed("too late")

    monkeypatch.setattr(Writing, "prepare", prepare)
    client = Client("a-token-of-the-test", endpoint="wss://service.test/graphql", backfill="off")
    client._engine = Service(polite)
    async with client:
        sink = Memory(tmp_path / "lock")
        task = asyncio.create_task(Collector(client, DOCUMENT, sink).run())
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        assert not sink.closed
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.closed


@virtual_time
async def test_two_sinks_collectors_of_one_name_in_one_folder_have_each_their_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with client_of() as client:
        sinks = [Memory(tmp_path / "lock") for _ in range(3)]
        sinks[0].lock = sinks[1].lock = None
        sinks[1].name = "another"
        paths = [Collector(client, DOCUMENT, sink)._dead_letters.path for sink in sinks]
        assert len(set(paths)) == 3
        assert paths[2] == tmp_path / "Blocks.dead.jsonl"
        assert paths[0] == Collector(client, DOCUMENT, sinks[0])._dead_letters.path
        assert all(path.name.startswith("Blocks.") and path.name.endswith(".dead.jsonl") for path in paths)


@virtual_time
async def test_its_state_is_told_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    async with client_of() as client:
        sink = Memory(tmp_path / "lock")
        collector = Collector(client, DOCUMENT, sink, batching=SOON)
        status = collector.status()
        assert (status.state, status.operation, status.sink) == ("starting", None, "memory")
        assert (status.rows, status.committed_at, status.newest, status.gaps) == (0, None, None, 0)
        task = asyncio.create_task(collector.run())
        await settle()
        assert (collector.status().state, collector.status().operation) == ("collecting", 1)
        service_of(client).publish('{"EVM":{"Blocks":[{"N":1}]}}')
        await asyncio.sleep(2)
        status = collector.status()
        assert (status.rows, status.commits, status.pending_since) == (1, 2, None)
        assert status.committed_at is not None
        assert datetime.now(UTC) - status.committed_at < timedelta(minutes=5)
        assert status.newest is not None
        collector.stop()
        assert collector.status().state == "stopping"
        await task
        assert collector.status().state == "done"
        assert "done, 1 rows" in repr(collector)


# ---------------------------------------------------------------------- rows that the sink cannot hold


@virtual_time
async def test_rows_that_postgresql_cannot_hold_go_to_the_dead_letters_and_the_others_to_their_table(
    tmp_path: Path, postgresql_server: PostgreSQLServer, database: str
) -> None:
    sink = postgresql_server.address(database)
    dead = tmp_path / "dead.jsonl"
    async with client_of() as client:
        text = "subscription { EVM { Blocks { N S L } } }"
        collector = Collector(client, text, sink, batching=SOON, dead_letters=dead)
        task = asyncio.create_task(collector.run())
        await asyncio.sleep(1)
        rows = [
            {"N": 1, "S": "plain", "L": ["a"]},
            {"N": 2, "S": "nul: \x00", "L": ["a"]},
            {"N": 3, "S": "written out: \\u0000", "L": []},
            {"N": 4, "S": "plain", "L": ["\x00"]},
        ]
        service_of(client).publish(json.dumps({"EVM": {"Blocks": rows}}))
        await settle()
        collector.stop()
        done = await task
    assert (done.rows, done.misfits) == (2, 2)
    stored = postgresql_server.query(database, 'SELECT "N", "S" FROM "Blocks" ORDER BY "N"')
    assert [(int(row["N"]), row["S"]) for row in stored] == [(1, "plain"), (3, "written out: \\u0000")]
    letters = [json.loads(line) for line in dead.read_text().splitlines()]
    assert [(letter["table"], letter["row"]) for letter in letters] == [
        ("Blocks", rows[1]),
        ("Blocks", rows[3]),
    ]
    assert {letter["reason"] for letter in letters} == {"the sink cannot hold it"}
