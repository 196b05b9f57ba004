from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import nats
import pytest
import trustme
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from bqstream import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from bqstream.collect.commit import Stored
from bqstream.collect.sink import Sink, open_sink
from bqstream.collect.sinks.nats import _takes as takes
from bqstream.tables.table import Column, Rows
from tests.nats_server import NatsServer
from tests.secrecy import told

from .committing import SUBSCRIPTION, TABLE, commit, odd_rows, rows
from .contract import SinkContract


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Its messages are so short that every commit takes several."""
    with NatsServer(tmp_path_factory.mktemp("nats"), "max_payload: 1024") as running:
        yield running


class Proxy:
    """Between sink and server. ``deaf``: what the server says is lost; ``slow``: what it is told waits."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.deaf = self.slow = False
        self.kill_after: int | None = None  # bytes, from now on
        self.url = ""
        self._waiting: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._tasks = asyncio.TaskGroup()

    def let_go(self) -> None:
        for writer, data in self._waiting:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.server.port)
        except OSError:
            writer.close()
            return
        self._tasks.create_task(self._answers(theirs, writer))
        while data := await _read(reader):
            if self.kill_after is not None:
                self.kill_after -= len(data)
                if self.kill_after < 0:
                    self.kill_after = None
                    self.server.kill()
            if self.slow:
                self._waiting.append((ours, data))
            else:
                ours.write(data)
        if all(one is not ours for one, _ in self._waiting):
            ours.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await _read(reader):
            if not self.deaf:
                writer.write(data)
        writer.close()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._server.close()
        for writer, _ in self._waiting:
            writer.close()
        await self._tasks.__aexit__(*error)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(2**16)
    except OSError:
        return b""


def read_lines(target: str) -> list[dict[str, Any]]:
    """What a reader of the subject gets, from another thread, since the contract reads without awaiting."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _read_lines(target)).result()


async def _read_lines(target: str) -> list[dict[str, Any]]:
    server, _, place = target.removeprefix("nats://").partition("/")
    stream, _, subject = place.partition("?")[0].partition("/")
    client = await nats.connect(f"nats://{server}")
    js = client.jetstream()
    lines: list[dict[str, Any]] = []
    commit = 0
    body = b""
    part = of = 0
    try:
        last = (await js.get_last_msg(stream, subject)).seq
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        messages = await js.subscribe(subject, stream=stream, config=config, ordered_consumer=True)
        while True:
            message = await messages.next_msg(timeout=5)
            headers = message.headers or {}
            former, (part, of) = part, map(int, headers["Bqstream-Part"].split("/"))
            body = message.data if part == 1 else body + message.data
            assert part in (1, former + 1)
            if part == of:
                commit += 1
                assert headers["Bqstream-Commit"] == str(commit)
                found = [json.loads(line) for line in body.split(b"\n")[:-1]]
                assert [next(iter(line)) == "state" for line in found] == [False] * (len(found) - 1) + [True]
                lines += found
            if message.metadata.sequence.stream == last:
                return lines
    except NotFoundError:
        return []
    finally:
        await client.close()


class TestNATS(SinkContract):
    streams = 0

    @pytest.fixture
    def target(self, server: NatsServer) -> str:
        TestNATS.streams += 1
        return f"{server.url}/ROWS{TestNATS.streams}/rows.{TestNATS.streams}"

    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        return [line["row"] for line in read_lines(target) if "row" in line and line["table"] == table]

    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        return {line["gap"]["id"]: line["gap"] for line in read_lines(target) if "gap" in line}

    def expected(self, *steps: Rows) -> list[dict[str, Any]]:
        return [row for step in steps for row in step.nested]

    @pytest.mark.asyncio
    async def test_rows_are_taken_back_one_copy_of_each(self, target: str) -> None:
        """Nothing is deleted: a line says so."""
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(4), odd_rows()))
            await sink.commit(commit(2, rows(2, undo=True), replace(odd_rows(), undo=True), rows(1, 50)))
            lines = read_lines(target)
            assert [line["undo"] for line in lines if "undo" in line] == self.expected(rows(2), odd_rows())
            self.same(target, rows(4), odd_rows(), rows(1, 50))

    @pytest.mark.asyncio
    async def test_a_column_that_the_table_lacks_is_added_on_request_only(self, target: str) -> None:
        """A subject has no columns: rows are as the service nests them."""
        wider = replace(TABLE, columns=(*TABLE.columns, Column("Log_Index", ("Log", "Index"), "integer")))
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(1)))
            await sink.commit(commit(2, rows(1, 1, table=wider), table=wider))
            self.same(target, rows(1), rows(1, 1, table=wider))


class TestNATSInParts(TestNATS):
    @pytest.fixture
    def target(self, narrow_server: NatsServer) -> str:
        TestNATS.streams += 1
        return f"{narrow_server.url}/ROWS{TestNATS.streams}/rows.{TestNATS.streams}"


@contextlib.asynccontextmanager
async def opened(target: str) -> AsyncIterator[Sink]:
    sink = open_sink(target)
    try:
        yield sink
    finally:
        await sink.aclose()


@contextlib.asynccontextmanager
async def jetstream(server: NatsServer, **options: Any) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(server.url, **options)
    try:
        yield client.jetstream()
    finally:
        await client.close()


def numbers(target: str) -> list[int]:
    return [line["row"]["Block"]["Number"] for line in read_lines(target) if "row" in line]


def number_of(stored: Stored | None) -> int:
    return stored.number if stored else 0


# ---------------------------------------------------------------------- what is there once


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bqstream.collect.sinks.nats._ANSWER", 0.3)


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
async def test_a_commit_whose_acknowledgement_was_lost_is_found_by_open(own_server: NatsServer) -> None:
    async with Proxy(own_server) as proxy, opened(f"{proxy.url}/S/rows") as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, rows(2)))
        proxy.deaf = True
        with pytest.raises(SinkUnavailable, match=r"no answer within 0\.3 s"):
            await sink.commit(commit(2, rows(2, 2)))
        with pytest.raises(SinkUnavailable, match="not open"):
            await sink.commit(commit(2, rows(2, 2)))
        proxy.deaf = False
        assert number_of(await sink.open(SUBSCRIPTION)) == 2
        await sink.commit(commit(3, rows(2, 4)))
        assert numbers(f"{own_server.url}/S/rows") == list(range(6))


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
async def test_a_commit_that_arrives_after_open_has_looked_is_not_doubled(own_server: NatsServer) -> None:
    target = f"{own_server.url}/S/rows"
    proxy = Proxy(own_server)
    async with jetstream(own_server) as js, proxy, opened(f"{proxy.url}/S/rows") as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, rows(2)))
        proxy.slow = True
        with pytest.raises(SinkUnavailable):
            await sink.commit(commit(2, rows(2, 2)))
        proxy.slow = False
        assert number_of(await sink.open(SUBSCRIPTION)) == 1
        proxy.let_go()
        while (await js.get_last_msg("S", "rows")).seq == 1:
            pass
        with pytest.raises(SinkUnavailable, match="arrived after all"):
            await sink.commit(commit(2, rows(2, 2)))
        assert number_of(await sink.open(SUBSCRIPTION)) == 2
        assert numbers(target) == list(range(4))


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
async def test_the_same_commit_is_stored_once_after_the_duplicate_window_too(own_server: NatsServer) -> None:
    target = f"{own_server.url}/S/rows"
    async with jetstream(own_server) as js, Proxy(own_server) as proxy:
        await js.add_stream(name="S", subjects=["rows", "probe"], duplicate_window=0.1)
        async with opened(f"{proxy.url}/S/rows") as sink, opened(target) as other:
            await sink.open(SUBSCRIPTION)
            await other.open(SUBSCRIPTION)
            proxy.deaf = True
            with pytest.raises(SinkUnavailable):
                await sink.commit(commit(1, rows(2)))
            while (await js.publish("probe", headers={"Nats-Msg-Id": "1"})).duplicate is not True:
                pass
            while (await js.publish("probe", headers={"Nats-Msg-Id": "1"})).duplicate:
                pass  # the window goes by
            with pytest.raises(SinkLocked):
                await other.commit(commit(1, rows(2)))
            proxy.deaf = False
            assert number_of(await sink.open(SUBSCRIPTION)) == 1
            assert numbers(target) == [0, 1]


@pytest.mark.asyncio
async def test_a_server_that_is_killed_in_the_middle_of_a_commit_goes_on_without_half_of_it(
    own_server: NatsServer,
) -> None:
    target = f"{own_server.url}/S/rows"
    async with Proxy(own_server) as proxy, opened(f"{proxy.url}/S/rows") as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(first := commit(1, rows(10)))
        proxy.kill_after = 1_500_000  # the first part is stored, the second is on its way
        with pytest.raises(SinkUnavailable):
            await sink.commit(commit(2, rows(10_000, 10)))
        with pytest.raises(SinkUnavailable):
            await sink.open(SUBSCRIPTION)
        own_server.start()
        async with jetstream(own_server) as js:
            last = await js.get_last_msg("S", "rows")
            assert (last.headers or {})["Bqstream-Part"] == "1/3"
        stored = await sink.open(SUBSCRIPTION)
        assert stored is not None
        assert (stored.number, stored.state) == (1, first.state)
        await sink.commit(commit(2, rows(20, 10)))  # not the same rows
        assert numbers(target) == list(range(30))
        own_server.kill()
        own_server.start()
        assert number_of(await sink.open(SUBSCRIPTION)) == 2


@pytest.mark.asyncio
async def test_a_commit_of_many_messages_and_a_long_state_are_read_back(server: NatsServer) -> None:
    target = f"{server.url}/LARGE/large"
    large = replace(commit(1, rows(25_000)), state="é\n" * 50_000)
    async with opened(target) as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(large)
        stored = await sink.open(SUBSCRIPTION)
        assert stored is not None
        assert (stored.number, stored.state) == (1, large.state)
        await sink.commit(commit(2))
    lines = read_lines(target)
    assert sum(len(json.dumps(line)) for line in lines) > 5_000_000
    assert numbers(target) == list(range(25_000))


@pytest.mark.asyncio
async def test_a_row_that_is_longer_than_a_message_is_cut(narrow_server: NatsServer) -> None:
    target = f"{narrow_server.url}/LONG/long"
    row = {"Block": {"Number": 1}, "Text": "x" * 5000}
    async with opened(target) as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, Rows(TABLE, 1, nested=[row])))
        assert number_of(await sink.open(SUBSCRIPTION)) == 1
    assert read_lines(target)[0]["row"] == row


@pytest.mark.asyncio
@pytest.mark.parametrize("length", [400, 1024, 5000, 20_000])
async def test_a_state_that_is_longer_than_a_message_is_cut_and_found_by_another(
    narrow_server: NatsServer, length: int
) -> None:
    """A collector of a few thousand rows a second has a state of megabytes."""
    async with jetstream(narrow_server) as js:
        await js.add_stream(name=f"STATE{length}", subjects=[f"s{length}.>"])
    target = f"{narrow_server.url}/STATE{length}/s{length}.a"
    states = [f"{number}" * length for number in range(3)]
    async with opened(target) as sink, opened(f"{narrow_server.url}/STATE{length}/s{length}.b") as other:
        await other.open("other")
        await sink.open(SUBSCRIPTION)
        for number, count in ((1, 7), (2, 0), (3, 30)):
            async with asyncio.TaskGroup() as both:  # their messages lie between one another
                both.create_task(other.commit(replace(commit(number, rows(9)), subscription="other")))
                both.create_task(sink.commit(replace(commit(number, rows(count)), state=states[number - 1])))
            async with opened(target) as another:
                assert await another.open(SUBSCRIPTION) == Stored(number, states[number - 1])
    assert len(numbers(target)) == 37


# ---------------------------------------------------------------------- streams and subjects


@pytest.mark.asyncio
async def test_a_stream_that_is_there_stays_as_it_is_and_takes_several_subscriptions(
    own_server: NatsServer,
) -> None:
    async with jetstream(own_server) as js:
        made = await js.add_stream(
            name="S", subjects=["rows.>"], max_age=3600, discard="new", max_msg_size=2000, duplicate_window=1
        )
        async with opened(f"{own_server.url}/S/rows.a") as one, opened(f"{own_server.url}/S/rows.b") as other:
            await one.open("one")
            await other.open("other")
            for number in (1, 2):  # their messages lie between one another
                await one.commit(replace(commit(number, rows(20)), subscription="one"))
                await other.commit(replace(commit(number, rows(20)), subscription="other"))
            assert number_of(await other.open("other")) == 2
            async with opened(one.name) as wrong:
                with pytest.raises(SinkFailed, match="has the rows of 'one'"):
                    await wrong.open("other")
        info = await js.stream_info("S")
        assert info.config == made.config
        assert info.state.messages > 8  # in parts, as max_msg_size wants


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"subjects": ["others.*"]}, r"takes others\.\*.*nats stream edit"),
        ({"subjects": ["rows"], "retention": "workqueue"}, "retention limits"),
        ({"subjects": ["rows"], "retention": "interest"}, "retention limits"),
        ({"subjects": ["rows"], "no_ack": True}, "does not acknowledge"),
    ],
)
async def test_a_stream_that_does_not_fit_is_refused(
    own_server: NatsServer, settings: dict[str, Any], told: str
) -> None:
    async with jetstream(own_server) as js, opened(f"{own_server.url}/S/rows") as sink:
        await js.add_stream(name="S", **settings)
        with pytest.raises(SinkFailed, match=told):
            await sink.open(SUBSCRIPTION)


@pytest.mark.asyncio
async def test_a_subject_to_which_others_publish_is_refused(own_server: NatsServer) -> None:
    async with jetstream(own_server) as js, opened(f"{own_server.url}/S/rows") as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, rows(1)))
        await js.publish("rows", b"theirs")
        with pytest.raises(SinkLocked):
            await sink.commit(commit(2, rows(1)))
        with pytest.raises(SinkFailed, match="others publish there"):
            await sink.open(SUBSCRIPTION)


@pytest.mark.asyncio
async def test_half_a_commit_whose_predecessor_has_expired_is_named(own_server: NatsServer) -> None:
    target = f"{own_server.url}/S/rows"
    async with jetstream(own_server) as js, opened(target) as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, rows(1)))
        headers = {"Bqstream-Subscription": SUBSCRIPTION, "Bqstream-Part": "1/2", "Bqstream-Previous": "1"}
        await js.publish("rows", headers=headers)
        assert number_of(await sink.open(SUBSCRIPTION)) == 1
        await js.purge_stream("S", keep=1)
        with pytest.raises(SinkFailed, match="nats stream purge S --subject=rows"):
            await sink.open(SUBSCRIPTION)


@pytest.mark.asyncio
async def test_a_collector_goes_on_when_all_it_committed_has_expired(own_server: NatsServer) -> None:
    async with jetstream(own_server) as js, opened(f"{own_server.url}/S/rows") as sink:
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, rows(1)))
        await js.purge_stream("S")
        await sink.commit(commit(2, rows(1)))
        assert number_of(await sink.open(SUBSCRIPTION)) == 2


@pytest.mark.parametrize(
    ("pattern", "subject", "taken"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        (">", "a", True),
        ("a.>", "a", False),
        ("a.*", "a.b.c", False),
        ("a", "b", False),
        ("a.b.>", "a.c.d", False),
    ],
)
def test_a_streams_subjects_are_matched_as_the_server_does(pattern: str, subject: str, taken: bool) -> None:
    assert takes(pattern, subject) is taken


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.asyncio
@pytest.mark.parametrize("limits", [{"max_bytes": 20_000}, {"max_msgs": 1}])
async def test_a_stream_that_is_full_passes(own_server: NatsServer, limits: dict[str, Any]) -> None:
    async with jetstream(own_server) as js, opened(f"{own_server.url}/S/rows") as sink:
        await js.add_stream(name="S", subjects=["rows"], discard="new", **limits)
        await sink.open(SUBSCRIPTION)
        await sink.commit(commit(1, rows(10)))
        with pytest.raises(SinkUnavailable, match="make room"):
            await sink.commit(commit(2, rows(100, 10)))
        await js.update_stream(name="S", subjects=["rows"])
        assert number_of(await sink.open(SUBSCRIPTION)) == 1
        await sink.commit(commit(2, rows(100, 10)))
        assert numbers(f"{own_server.url}/S/rows") == list(range(110))


ACCOUNTS = """
accounts {
    WITHOUT { users: [{ user: without, password: word }] }
    SMALL {
        jetstream { max_store: 20000, max_streams: 1 }
        users: [{ user: small, password: word }]
    }
    LARGE {
        jetstream: enabled
        users: [{
            user: reader
            password: word
            permissions { publish: ["$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.MSG.GET.*"] }
        }, {
            user: nobody
            password: word
            permissions { publish: "nothing" }
        }, {
            user: deaf
            password: word
            permissions { subscribe: "nothing" }
        }]
    }
}
"""


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def become(name: str, password: str = "word") -> None:
        monkeypatch.setenv("NATS_USER", name)
        monkeypatch.setenv("NATS_PASSWORD", password)

    return become


@pytest.mark.asyncio
async def test_limits_and_permissions_of_an_account_are_named(
    tmp_path: Path, user: Callable[[str], None]
) -> None:
    with NatsServer(tmp_path / "nats", ACCOUNTS) as server:
        async with opened(f"{server.url}/S/rows") as sink:
            user("without")
            with pytest.raises(SinkFailed, match="the user's account must have it"):
                await sink.open(SUBSCRIPTION)
            for name, what in [("nobody", r"Publish to ..JS\.API"), ("deaf", r"Subscription to ._INBOX")]:
                user(name)
                with pytest.raises(SinkFailed, match=f"(?i)permissions violation for {what}"):
                    await sink.open(SUBSCRIPTION)
            user("reader")
            await sink.open(SUBSCRIPTION)
            with pytest.raises(SinkFailed, match=r"(?i)permissions violation for publish to .rows"):
                await sink.commit(commit(1, rows(1)))
            user("small")
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(100)))  # the last that is taken may go beyond the limit
            with pytest.raises(SinkUnavailable, match="resource limits exceeded for account: make room"):
                await sink.commit(commit(2, rows(100)))
        async with opened(f"{server.url}/OTHER/others") as sink:
            with pytest.raises(SinkFailed, match="maximum number of streams"):
                await sink.open(SUBSCRIPTION)


@pytest.mark.asyncio
async def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", jetstream=False) as server:
        async with opened(f"{server.url}/S/rows") as sink:
            with pytest.raises(SinkUnavailable, match=r"no JetStream answers.*needs -js"):
                await sink.open(SUBSCRIPTION)


@pytest.mark.asyncio
async def test_a_server_that_is_away_or_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bqstream.collect.sinks.nats._CONNECT", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"nats://127.0.0.1:{port}/S/rows") as sink:
            with pytest.raises(SinkUnavailable, match="no answer"):
                await sink.open(SUBSCRIPTION)
    async with opened(f"nats://127.0.0.1:{port}/S/rows") as sink:
        with pytest.raises(SinkUnavailable, match=r"refused|failed"):
            await sink.open(SUBSCRIPTION)


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
async def test_a_commit_can_be_cancelled(own_server: NatsServer) -> None:
    async with Proxy(own_server) as proxy, opened(f"{proxy.url}/S/rows") as sink:
        await sink.open(SUBSCRIPTION)
        proxy.deaf = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sink.commit(commit(1, rows(1)))
        proxy.deaf = False
        assert number_of(await sink.open(SUBSCRIPTION)) == 1


# ---------------------------------------------------------------------- credentials and addresses

PASSWORD = "p4ssw0rd-Kx82QmZt"
TOKEN = "t0ken-Vb71LpRw93Yd"


async def refused(target: str, caplog: pytest.LogCaptureFixture) -> str:
    """What is told, logged and shown when a sink is not let in; none of it may be a secret."""
    caplog.set_level(logging.DEBUG)
    async with opened(target) as sink:
        with pytest.raises(SinkFailed) as caught:
            await sink.open(SUBSCRIPTION)
        shown = "\n".join([*told(caught.value), repr(sink), sink.name, caplog.text])
    assert PASSWORD not in shown
    assert TOKEN not in shown
    return str(caught.value)


@pytest.mark.asyncio
async def test_a_user_and_a_password_are_needed_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = f"authorization {{ user: me, password: {PASSWORD} }}"
    with NatsServer(tmp_path / "nats", settings) as server:
        target = f"{server.url}/S/rows"
        assert "refuses the user (Authorization Violation)" in await refused(target, caplog)
        monkeypatch.setenv("NATS_USER", "me")
        assert "half of a pair" in await refused(target, caplog)
        monkeypatch.setenv("NATS_PASSWORD", PASSWORD + "-")
        assert "Authorization Violation" in await refused(target, caplog)
        monkeypatch.setenv("NATS_PASSWORD_FILE", str(tmp_path / "password"))
        assert "NATS_PASSWORD_FILE names cannot be read: No such file" in await refused(target, caplog)
        (tmp_path / "password").write_bytes(PASSWORD.encode() + b"\xff")
        assert "UnicodeDecodeError" in await refused(target, caplog)
        (tmp_path / "password").write_text(PASSWORD + "\n")
        async with opened(target) as sink:
            assert await sink.open(SUBSCRIPTION) is None
            assert PASSWORD not in repr(sink) + caplog.text


@pytest.mark.asyncio
async def test_a_token_is_needed_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServer(tmp_path / "nats", f'authorization {{ token: "{TOKEN}" }}') as server:
        target = f"{server.url}/S/rows"
        monkeypatch.setenv("NATS_TOKEN", TOKEN[::-1])
        assert "Authorization Violation" in await refused(target, caplog)
        monkeypatch.setenv("NATS_TOKEN", TOKEN)
        async with opened(target) as sink:
            assert await sink.open(SUBSCRIPTION) is None
            assert TOKEN not in repr(sink) + caplog.text


@contextlib.asynccontextmanager
async def pretender(**info: Any) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Something that speaks as a server in plain text, and keeps what it is told."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = {"server_id": "x", "version": "2.10.0", "max_payload": 2**20, "headers": True, **info}
        writer.write(b"INFO " + json.dumps(known).encode() + b"\r\n")
        heard.append(await _read(reader))
        writer.write(b"-ERR 'Authorization Violation'\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "info", [{}, {"tls_required": False, "auth_required": True}, {"tls_available": True}]
)
async def test_tls_never_falls_back_to_plain_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, info: dict[str, Any]
) -> None:
    monkeypatch.setenv("NATS_TOKEN", TOKEN)
    async with pretender(**info) as (port, heard):
        await refused(f"tls://127.0.0.1:{port}/S/rows", caplog)
    assert heard[0][:2] == b"\x16\x03"  # a TLS handshake, and nothing before it


@pytest.mark.asyncio
async def test_tls_needs_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = f'tls {{ cert_file: "{tmp_path}/certificate.pem", key_file: "{tmp_path}/key.pem" }}'
    with NatsServer(tmp_path / "nats", settings) as server:
        target = f"tls://localhost:{server.port}/S/rows"
        async with opened(target) as sink:
            with pytest.raises(SinkFailed, match=r"not trusted .*SSL_CERT_FILE"):
                await sink.open(SUBSCRIPTION)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(10_000)))
            assert number_of(await sink.open(SUBSCRIPTION)) == 1
        async with opened(f"tls://127.0.0.1:{server.port}/S/rows") as sink:
            with pytest.raises(SinkFailed, match=r"not trusted .*IP address mismatch"):
                await sink.open(SUBSCRIPTION)


class Nkeys(ModuleType):
    """What nats-py uses of the library; it signs nothing."""

    seed = b""

    @staticmethod
    def from_seed(seed: bytearray) -> Nkeys:
        made = Nkeys("pair")
        made.seed = bytes(seed)
        return made

    def sign(self, nonce: bytes) -> bytes:
        return nonce + b" by " + self.seed[-4:]

    def wipe(self) -> None: ...


CREDENTIALS = f"""-----BEGIN NATS USER JWT-----
eyJ.{PASSWORD}.sig
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUA{TOKEN}
------END USER NKEY SEED------
"""


@pytest.mark.asyncio
async def test_a_credentials_file_is_used_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "me.creds"
    monkeypatch.setenv("NATS_CREDS", str(path))
    async with pretender(auth_required=True, nonce="once") as (port, heard):
        target = f"nats://127.0.0.1:{port}/S/rows"
        assert "NATS_CREDS names cannot be read: No such file" in await refused(target, caplog)
        path.write_text(TOKEN)
        assert "no credentials file" in await refused(target, caplog)
        path.write_text(CREDENTIALS)
        monkeypatch.setitem(sys.modules, "nkeys", None)
        assert 'pip install "bqstream[nats]"' in await refused(target, caplog)
        monkeypatch.setitem(sys.modules, "nkeys", Nkeys("nkeys"))
        assert "Authorization Violation" in await refused(target, caplog)
    told_to = json.loads(heard[-1].splitlines()[0].removeprefix(b"CONNECT "))
    assert told_to["jwt"] == f"eyJ.{PASSWORD}.sig"
    assert base64.b64decode(told_to["sig"]).decode() == f"once by {TOKEN[-4:]}"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nats:S/rows", "give nats://HOST"),
        ("nats://host", "give nats://HOST"),
        ("nats://127.0.0.1/S", "give nats://HOST"),
        ("nats://127.0.0.1/S/", "give nats://HOST"),
        ("nats:///S/rows", "give nats://HOST"),
        ("nats://127.0.0.1:port/S/rows", "give nats://HOST"),
        ("tls://host/S/rows..a", "give tls://HOST"),
        ("tls://host/S/rows.*", "wildcards"),
        ("tls://host/A.B/rows", "full stop"),
        ("tls://host/S/rows?domain=x", "no option 'domain'"),
        ("tls://host/S/rows?plaintext=maybe", "yes or no"),
        ("nats://nats.example.com/S/rows", "use tls://, or .plaintext=yes"),
        (f"tls://{TOKEN}@host/S/rows", "no user, password or token"),
        (f"tls://me:{PASSWORD}@host/S/rows", "no user, password or token"),
    ],
)
def test_addresses_that_are_wrong_are_explained(address: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        open_sink(address)
    assert TOKEN not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("nats://localhost/S/a.b", "nats://localhost:4222/S/a.b"),
        ("nats://[::1]:4333/S/a", "nats://[::1]:4333/S/a"),
        ("nats://nats.example.com/S/a?plaintext=yes", "nats://nats.example.com:4222/S/a"),
        ("tls://nats.example.com/S/a", "tls://nats.example.com:4222/S/a"),
    ],
)
def test_addresses_have_a_default_port(address: str, name: str) -> None:
    assert open_sink(address).name == name
