from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from bqstream.collect.table import Column, Rows
from tests.nats_server import NatsServer

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
