"""A gap as its user sees it: named at once, closed by queries in order, or a hole that says why; nothing else moves."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from bqstream import Backoff, Checkpoint, Message, Timeouts
from bqstream.errors import BqstreamError, GapFound, OperationFailed
from bqstream.events import Connected, GapNamed
from bqstream.simulator import Simulator
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, Reader, client_for, reading, settled, until
from .scene import BLOCK, passed, playing

EXACT = Backoff(jitter=0)
OTHERS = TRANSFERS.replace("Hash }", "Hash From }")
HIDDEN = "subscription { EVM(network: eth) { Transfers { Transfer { Amount } } } }"
COUNTED = "n: Transfers { count Transfer { Currency { Symbol } } }"
TWO = f"subscription {{ EVM(network: eth) {{ Transfers {{ Block {{ Number }} Transfer {{ Amount }} }} {COUNTED} }} }}"


class Messages(Reader):
    """Keeps the messages themselves."""

    def __init__(self, *args: Any) -> None:
        self.got: list[Message] = []
        super().__init__(*args)

    async def _read(self) -> None:
        try:
            async for message in self.subscription:
                self.got.append(message)
                self.messages += 1
                self.rows.extend(message.rows())
        except BqstreamError as error:
            self.error = error


async def dropped(simulator: Simulator, seen: Events) -> None:
    """The link goes, and another one is there."""
    links = len(seen.of(Connected))
    simulator.faults.close(1012)
    await until(lambda: len(seen.of(Connected)) > links)


# ---------------------------------------------------------------------- closed


@virtual_time
async def test_what_was_missing_comes_before_what_was_held_back_and_is_said_to_come_from_a_query() -> None:
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
        client.subscribe(TRANSFERS) as stream,
    ):
        reader = Messages(stream, TRANSFERS, None, client)
        await passed(
            70
        )  # a gap of the first minute begins with the first block, of which some was sent before
        simulator.faults.down(4)
        await until(lambda: stream.closing)
        (gap,) = stream.gaps
        assert (gap.cause, gap.closed, gap.reason, gap.end, gap.cubes) == (
            *("lost", False, None, None),
            ("Transfers",),
        )
        assert str(gap).endswith("being closed")
        assert client.status().subscriptions[0].closing
        await until(lambda: len(seen.of(Connected)) == 2)
        before = reader.messages
        await passed(2)
        assert reader.messages == before, "live messages are held back"
        (verdict,) = await settled(simulator, reader)
        assert verdict.exact, verdict
        (gap,) = stream.gaps
        assert gap.closed
        assert not gap.is_hole
        assert gap.end is not None
        assert gap.how in str(gap)
        assert [(event.gap.closed, event.gap.cause) for event in seen.of(GapNamed)] == [
            (False, "lost"),
            (True, "lost"),
        ]
        replayed = [message for message in reader.got if message.replayed]
        assert replayed
        assert {message.link for message in replayed} == {0}
        assert {message.link for message in reader.got} == {0, 1, 2}
        (status,) = client.status().subscriptions
        assert status.backfilled == sum(len(list(message.rows())) for message in replayed)
        assert status.queries == simulator.counters["queries"] > 0
        assert f"brought {status.backfilled} rows" in gap.how
        numbers = [int(row["Block"]["Number"]) for row in reader.rows]
        assert all(after >= before for before, after in pairwise(numbers))
        reader.task.cancel()


@virtual_time
async def test_a_drop_while_a_gap_is_being_closed_widens_it_and_it_is_closed_all_the_same() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        for _ in range(4):
            await dropped(scene.simulator, scene.seen)
            await passed(1)
        await scene.assert_exact()
        (gap,) = scene.gaps
        assert gap.end is not None
        assert (gap.end - gap.start).total_seconds() > 4 * 1


@pytest.mark.parametrize("lag", [0.5, 3.0, 12.0])
@virtual_time
async def test_a_query_side_that_lags_is_waited_for(lag: float) -> None:
    async with playing(service={"query_lag": lag}, client={"backoff": EXACT}) as scene:
        await dropped(scene.simulator, scene.seen)
        await scene.assert_exact()
        assert len(scene.gaps) == 1
        assert scene.simulator.counters["queries"] < 20, "a lagging side is not asked in a tight loop"


@virtual_time
async def test_queries_that_are_refused_for_a_while_are_asked_again() -> None:
    async with playing(client={"backoff": EXACT, "timeouts": Timeouts(query=10)}) as scene:
        scene.simulator.faults.refuse_queries(4, 503)
        await dropped(scene.simulator, scene.seen)
        await scene.assert_exact()


@virtual_time
async def test_a_token_that_is_revoked_while_a_gap_is_being_closed_is_fetched_anew() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        await dropped(scene.simulator, scene.seen)
        scene.simulator.faults.revoke()
        await scene.assert_exact()
        assert scene.token_requests == 2


@virtual_time
async def test_many_subscriptions_that_lose_their_link_together_are_all_closed_a_few_queries_at_a_time() -> (
    None
):
    documents = [TRANSFERS.replace("Transfers {", f"cube{n}: Transfers {{", 1) for n in range(20)]
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK, transactions=2, portions=1) as simulator,
        client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
    ):
        streams = [await client.subscribe(document) for document in documents]
        readers = [
            Reader(stream, document, None, client)
            for stream, document in zip(streams, documents, strict=True)
        ]
        await until(lambda: all(reader.messages > 5 for reader in readers))
        simulator.faults.slow(0.2)
        await dropped(simulator, seen)
        verdicts = await settled(simulator, *readers)
        assert [verdict for verdict in verdicts if not verdict.exact] == []
        assert all(gap.closed for reader in readers for gap in reader.gaps)
        for reader in readers:
            reader.task.cancel()


# ---------------------------------------------------------------------- holes


@pytest.mark.parametrize("message", ["no such field", "the cube is broken"])
@virtual_time
async def test_a_query_that_is_refused_leaves_a_hole_with_the_services_words_and_what_was_held_comes(
    message: str,
) -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.refuse_queries(100, message=message)
        await dropped(scene.simulator, scene.seen)
        verdict = await scene.assert_nothing_unnamed()
        assert verdict.lost
        (gap,) = scene.gaps
        assert gap.reason is not None
        assert message in gap.reason
        assert gap.reason in str(gap)
        assert [event.gap.is_hole for event in scene.seen.of(GapNamed)] == [False, True]
        assert scene.simulator.counters["queries"] <= 2, "what is refused for good is not asked again"


@virtual_time
async def test_a_query_side_that_is_down_for_good_is_given_up_in_the_end() -> None:
    async with playing(client={"backoff": EXACT, "timeouts": Timeouts(query=10)}) as scene:
        scene.simulator.faults.refuse_queries(100_000, 503)
        await dropped(scene.simulator, scene.seen)
        await until(lambda: not scene.reader.subscription.closing, within=200)
        verdict = await scene.assert_nothing_unnamed()
        assert verdict.lost
        (gap,) = scene.gaps
        assert gap.reason == "the query side did not catch up"


@virtual_time
async def test_beside_a_cube_that_cannot_be_asked_for_the_other_is_closed() -> None:
    async with playing(client={"backoff": EXACT}, document=TWO) as scene:
        await dropped(scene.simulator, scene.seen)
        (verdict,) = await settled(scene.simulator, scene.reader, within=2)
        assert verdict.repeated == verdict.foreign == 0, verdict
        assert verdict.lost
        assert all("n" in row for row in _lost(scene.simulator, scene.reader))
        by_cube = {gap.cubes: gap for gap in scene.gaps}
        assert by_cube[("Transfers",)].closed
        assert by_cube[("n",)].is_hole
        assert len(scene.gaps) == 2


def _lost(simulator: Simulator, reader: Reader) -> list[dict[str, Any]]:
    owed = [{cube: row} for _, cube, row in simulator.ledger.rows(reader.document)]
    for row in reader.rows:
        if row in owed:
            owed.remove(row)
    return owed


# ---------------------------------------------------------------------- on_gap="raise"


@virtual_time
async def test_who_wants_to_be_stopped_at_a_gap_is_not_stopped_by_one_that_is_closed() -> None:
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
        reading(client, on_gap="raise") as reader,
    ):
        await until(lambda: reader.messages > 5)
        await dropped(simulator, seen)
        (verdict,) = await settled(simulator, reader)
        assert reader.error is None
        assert verdict.exact
        assert [gap.closed for gap in reader.gaps] == [True]


@pytest.mark.parametrize("document", [TRANSFERS, TWO], ids=["one cube", "two cubes"])
@pytest.mark.parametrize("backfill", ["auto", "off"])
@virtual_time
async def test_who_wants_to_be_stopped_at_a_gap_is_stopped_once_it_is_a_hole_and_alone(
    backfill: Any, document: str
) -> None:
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
        reading(client, OTHERS) as neighbour,
        reading(client, document, on_gap="raise", backfill=backfill) as reader,
    ):
        await until(lambda: reader.messages > 5)
        simulator.faults.refuse_queries(2, message="no such field")
        await dropped(simulator, seen)
        await until(lambda: reader.task.done())
        assert isinstance(reader.error, GapFound)
        assert reader.error.gap.is_hole
        await until(lambda: not neighbour.subscription.closing)
        before = neighbour.messages
        await until(lambda: neighbour.messages > before + 10)
        assert neighbour.error is None
        assert len(client.status().subscriptions) == 1


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("moment", [0.1, 3.0, 6.5, 7.0])
@pytest.mark.parametrize("what", ["subscription", "client"])
@virtual_time
async def test_what_is_closed_while_a_gap_is_being_closed_asks_no_more_and_leaves_nothing(
    what: str, moment: float
) -> None:
    """``virtual_time`` looks for tasks that are left."""
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.slow(0.3)
        await dropped(scene.simulator, scene.seen)
        await passed(moment)
        before = scene.simulator.counters["queries"]
        await (scene.client if what == "client" else scene.reader.subscription).aclose()
        await asyncio.wait({scene.reader.task})
        assert scene.reader.error is None
        await passed(30)
        assert scene.simulator.counters["queries"] <= before + 1, "one that was on its way"
        assert scene.client.status().subscriptions == ()


@virtual_time
async def test_an_error_that_ends_the_operation_comes_after_what_was_held_back_and_the_gap_is_a_hole() -> (
    None
):
    async with playing(client={"backoff": EXACT}) as scene:
        await dropped(scene.simulator, scene.seen)
        await passed(2)
        before = scene.reader.messages
        scene.simulator.faults.errors("the cube is broken")
        await until(lambda: scene.reader.task.done())
        assert isinstance(scene.reader.error, OperationFailed)
        assert scene.reader.messages >= before + 5
        (gap,) = scene.gaps
        assert gap.reason == "the operation ended before it could be closed"
        assert scene.reader.verdict(scene.simulator).repeated == 0


# ---------------------------------------------------------------------- from before


@pytest.mark.parametrize("how", ["an age", "a time", "a block"])
@virtual_time
async def test_rows_since_a_while_ago_come_first_and_each_once(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.virtual_time.WALL_AT_START", time.time())  # as the simulator's chain begins
    async with Simulator(block_interval=BLOCK) as simulator, client_for(simulator) as client:
        await simulator.blocks(150)
        since: Any = timedelta(seconds=10)
        if how == "a time":
            since = datetime.fromtimestamp(client._clock.wall(), UTC) - since
        if how == "a block":
            answer = await client.execute(
                "{ EVM(network: eth) { Blocks(limit: {count: 1}, orderBy: {descending: Block_Number}) "
                "{ Block { Number } } } }"
            )
            since = int(answer["EVM"]["Blocks"][0]["Block"]["Number"]) - 50
        async with reading(client, since=since) as reader:
            await until(lambda: reader.messages > 5)
            (verdict,) = await settled(simulator, reader)
            assert verdict.exact, verdict
            assert verdict.early, "what was there before"
            numbers = [int(row["Block"]["Number"]) for row in reader.rows]
            assert sorted(set(numbers)) == list(range(min(numbers), max(numbers) + 1))
            if how == "a block":
                assert min(numbers) == since
            else:
                assert max(numbers) - min(numbers) >= 45
            (gap,) = reader.gaps
            assert (gap.cause, gap.closed) == ("since", True)


@pytest.mark.parametrize("document", [TRANSFERS, HIDDEN], ids=["with places", "without"])
@pytest.mark.parametrize("away", [0.0, 20.0])
@virtual_time
async def test_a_new_client_goes_on_from_a_message_and_each_row_comes_once(
    away: float, document: str
) -> None:
    rows: list[Any] = []
    taken: Checkpoint | None = None
    async with Simulator(block_interval=BLOCK) as simulator:
        for life in range(4):
            async with client_for(simulator) as client, client.subscribe(document, resume=taken) as stream:
                count = 0
                async for message in stream:
                    rows.extend(message.rows())
                    count += 1
                    if count == 7 * (life + 1):
                        assert stream.checkpoint != message.checkpoint
                        taken = Checkpoint.loads(message.checkpoint.dumps())
                        break
                await passed(1)  # what waits in the buffer is in no checkpoint
                assert taken is not None
            await passed(away)
        async with client_for(simulator) as client, reading(client, document, resume=taken) as reader:
            await settled(simulator, reader)
            verdict = simulator.ledger.verdict(document, rows + reader.rows)
            assert verdict.exact, verdict
            (gap,) = reader.gaps
            assert (gap.cause, gap.closed) == ("resumed", True)


# ---------------------------------------------------------------------- hidden fields


@virtual_time
async def test_hidden_fields_are_sent_and_seen_by_nobody() -> None:
    seen = Events()
    async with (
        Simulator(block_interval=BLOCK) as simulator,
        client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
        client.subscribe(HIDDEN) as stream,
    ):
        reader = Messages(stream, HIDDEN, None, client)
        await until(lambda: reader.messages > 5)
        await dropped(simulator, seen)
        (verdict,) = await settled(simulator, reader)
        assert verdict.exact, verdict
        assert any(message.replayed for message in reader.got)
        for message in reader.got:
            assert b"bqs_" not in message.raw
            assert message.size > len(message.raw)
            assert all(set(row) == {"Transfer"} for row in message.data["EVM"]["Transfers"])
        reader.task.cancel()
