"""Every way in which a service closes, refuses or garbles: what passes is waited for, what does not is said.

In virtual time; run with ``-s`` to see each schedule.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from bqstream import Backoff
from bqstream.errors import ConnectionGivenUp, DocumentRefused, OperationFailed, PlanError
from bqstream.events import Connected, HandedOver, Lost, Refused, SlowConsumer
from bqstream.simulator import Simulator
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, client_for, reading, settled, until
from .scene import BLOCK, playing

SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
EXACT = Backoff(jitter=0)
NEEDS_A_BOOLEAN = TRANSFERS.replace("subscription {", "subscription ($when: Boolean!) {").replace(
    "Transaction {", "Transaction @include(if: $when) {"
)


# ---------------------------------------------------------------------- closes


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1014, 4408, 4499, 4500, 4504, 4999])
@virtual_time
async def test_a_passing_close_is_redialled_after_one_wait(code: int, subprotocol: str) -> None:
    async with playing(client={"backoff": EXACT, "subprotocol": subprotocol}) as scene:
        if code == 1006:
            scene.simulator.faults.abort()
        else:
            scene.simulator.faults.close(code)
        await scene.recovered()
        await scene.assert_exact()
        assert scene.waits() == [0.5]
        assert (scene.dials, scene.token_requests) == (2, 1)
        (lost,) = scene.seen.of(Lost)
        assert f"{code}" in lost.why
        assert [gap.cause for gap in scene.gaps] == ["lost"]


@pytest.mark.parametrize(("code", "error"), [(4400, "invalid"), (4409, "report this bug"), (1003, "data")])
@virtual_time
async def test_a_close_that_blames_us_ends_the_subscription_and_says_so(code: int, error: str) -> None:
    async with playing() as scene:
        scene.simulator.faults.close(code)
        await until(lambda: scene.reader.task.done())
        assert isinstance(scene.reader.error, ConnectionGivenUp)
        assert error in str(scene.reader.error)
        assert scene.dials == 1


@virtual_time
async def test_too_many_requests_are_answered_with_five_seconds_of_patience() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.close(4429, "Too many requests")
        await scene.recovered()
        await scene.assert_exact()
        (wait,) = scene.waits()
        assert 5 <= wait <= 5.5
        assert scene.dials == 2


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_slow_consumer_is_told_so_and_waits_longer_each_time(subprotocol: str) -> None:
    """Redialling alone does not cure it (subscriptions/silent-disconnect-reconnect), and it is never fatal."""
    async with playing(client={"backoff": EXACT, "subprotocol": subprotocol}) as scene:
        for count in range(1, 6):
            scene.simulator.faults.close(1013, "client is not consuming messages fast enough")
            await scene.recovered(links=count + 1)
        verdict = await scene.assert_exact()
        scene.told(f"shed five times, {subprotocol}, {verdict.emitted} rows, none lost")
        assert [event.link for event in scene.seen.of(SlowConsumer)] == [1, 2, 3, 4, 5]
        assert scene.waits() == [0.5, 1, 2, 4, 8]
        assert scene.dials == 6
        assert all(a < b for a, b in pairwise(scene.waits()))


@virtual_time
async def test_a_server_that_acknowledges_and_closes_is_not_redialled_at_the_first_delay_for_ever() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.pause()
        for count in range(2, 7):
            scene.simulator.faults.close(1012)
            await until(lambda count=count: len(scene.seen.of(Connected)) == count, within=60)  # type: ignore[misc]
        assert scene.waits() == [0.5, 1, 2, 4, 8], "data reset it once, an ack does not"


# ---------------------------------------------------------------------- frames


@virtual_time
async def test_a_message_over_the_limit_ends_with_an_error_that_names_the_limit() -> None:
    async with playing(client={"max_message_bytes": 100_000}) as scene:
        scene.simulator.faults.oversize(200_000)
        await until(lambda: scene.reader.task.done())
        assert isinstance(scene.reader.error, ConnectionGivenUp)
        assert "max_message_bytes is 100000" in str(scene.reader.error)
        assert scene.dials == 1


@virtual_time
async def test_a_message_of_many_mebibytes_is_taken_by_default() -> None:
    async with playing() as scene:
        scene.simulator.faults.oversize(20 * 1024 * 1024)
        await scene.goes_on()
        assert (await scene.assert_exact()).exact


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("kind", ["type", "id", "error"])
@virtual_time
async def test_frames_that_mean_nothing_are_ignored(kind: str, subprotocol: str) -> None:
    async with playing(client={"subprotocol": subprotocol}) as scene:
        for _ in range(20):
            scene.simulator.faults.garbage(kind)
        await scene.goes_on()
        assert (await scene.assert_exact()).exact
        assert scene.dials == 1


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize(("kind", "code"), [("json", 4400), ("list", 4400), ("binary", 1003)])
@virtual_time
async def test_a_frame_that_is_no_message_costs_the_link_and_not_the_stream(
    kind: str, code: int, subprotocol: str
) -> None:
    async with playing(client={"backoff": EXACT, "subprotocol": subprotocol}) as scene:
        scene.simulator.faults.garbage(kind)
        await scene.recovered()
        await scene.assert_exact()
        assert scene.waits() == [0.5]
        assert scene.dials == 2
        assert scene.simulator.counters.sockets[0].close_code == code


@virtual_time
async def test_a_server_that_sends_nothing_but_garbage_is_given_up() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.pause()
        while not scene.reader.task.done():
            links = scene.links
            scene.simulator.faults.garbage("json")
            await until(lambda links=links: scene.links > links or scene.reader.task.done(), within=90)  # type: ignore[misc]
        assert isinstance(scene.reader.error, ConnectionGivenUp)
        assert scene.dials == 6
        assert scene.waits() == [0.5, 1, 2, 4, 8]


# ---------------------------------------------------------------------- refused dials


@pytest.mark.parametrize("status", [424, 429, 500, 502, 503, 504])
@virtual_time
async def test_a_passing_refusal_of_the_dial_is_backed_off_from_five_seconds_doubled(status: int) -> None:
    async with playing(service={"block_interval": 1}, client={"backoff": EXACT}) as scene:
        scene.simulator.faults.refuse_dials(count=3, status=status)
        scene.simulator.faults.close(1012)
        await scene.recovered()
        verdict = await scene.assert_exact()
        scene.told(f"dial refused three times with {status}, {verdict.emitted} rows, none lost")
        first, *waits = scene.waits()
        assert first == 0.5
        for wait, floor in zip(waits, (10, 20, 40), strict=True):
            assert floor <= wait <= floor * 1.1
        assert scene.dials == 5
        assert scene.token_requests == 1


@virtual_time
async def test_a_rate_limit_waits_sixty_seconds_at_most() -> None:
    async with Simulator() as simulator:
        seen = Events()
        simulator.faults.refuse_dials(count=6, status=429)
        async with client_for(simulator, backoff=EXACT, on_event=seen.append) as client:
            await (await client.subscribe(TRANSFERS)).aclose()
        waits = [(event.until - event.at).total_seconds() for event in seen if hasattr(event, "until")]
        for wait, floor in zip(waits, (5, 10, 20, 40, 60, 60), strict=True):
            assert floor <= wait <= floor * 1.1


@virtual_time
async def test_retry_after_wins_over_the_schedule() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.refuse_dials(count=2, status=429, retry_after=7)
        scene.simulator.faults.close(1012)
        await scene.recovered()
        await scene.assert_exact()
        assert scene.waits() == [0.5, 7, 7]
        assert scene.dials == 4


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, ""),
        (402, "No active billing period"),
        (403, "No active billing period"),
        (429, "points limit exceeded"),
    ],
)
@virtual_time
async def test_an_unpaid_plan_ends_at_once_with_an_error_that_says_so(status: int, body: str) -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.refuse_dials(count=100, status=status, body=body)
        scene.simulator.faults.close(1012)
        await until(lambda: scene.reader.task.done())
        assert isinstance(scene.reader.error, PlanError)
        assert scene.dials == 2
        with pytest.raises(PlanError, match=r"billing|plan"):
            await scene.client.subscribe(TRANSFERS)


@pytest.mark.parametrize("status", [400, 404])
@virtual_time
async def test_a_wrong_address_is_given_up_at_once(status: int) -> None:
    async with Simulator() as simulator:
        simulator.faults.refuse_dials(count=100, status=status)
        async with client_for(simulator) as client:
            with pytest.raises(ConnectionGivenUp, match=str(status)):
                await client.subscribe(TRANSFERS)
        assert simulator.counters["dials"] == 1


# ---------------------------------------------------------------------- one operation, and its neighbours


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_refused_document_never_ends_the_others(subprotocol: str) -> None:
    async with playing(client={"subprotocol": subprotocol}) as scene:
        async with scene.client.subscribe(NEEDS_A_BOOLEAN, {"when": "often"}) as refused:
            with pytest.raises(DocumentRefused, match="must be a Boolean") as caught:
                await anext(refused)
            assert caught.value.errors[0]["locations"]
        await scene.goes_on()
        assert (await scene.assert_exact()).exact
        assert scene.dials == 1


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_socket_that_is_closed_for_one_documents_syntax_ends_that_one_alone(
    subprotocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference server closes with 4500 (protocol.md, item 22); this client's own parser is out of the way."""
    options = {"backoff": EXACT, "subprotocol": subprotocol}
    async with playing(service={"syntax_error": "close"}, client=options) as scene:
        wrong = msgspec.json.encode({"query": "subscription { EVM { Transfers { Block { Number } }"})
        monkeypatch.setattr("bqstream.client.request_of", lambda *_: wrong)
        async with scene.client.subscribe("subscription { mute }") as refused:
            with pytest.raises(DocumentRefused, match="Syntax Error"):
                await anext(refused)
        await scene.goes_on()
        await scene.assert_exact()
        assert scene.dials <= 2
        assert scene.simulator.counters["subscribes"] == scene.dials + 1, "the wrong one is never sent again"


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_an_error_on_a_running_operation_ends_it_with_what_the_service_said(subprotocol: str) -> None:
    async with playing(client={"subprotocol": subprotocol}) as scene:
        scene.simulator.faults.errors("the cube is broken")
        await until(lambda: scene.reader.task.done())
        assert isinstance(scene.reader.error, OperationFailed)
        assert scene.reader.error.errors[0]["message"] == "the cube is broken"
        async with reading(scene.client) as again:
            await until(lambda: again.messages >= 5)
        assert scene.dials <= 2


@virtual_time
async def test_a_passing_error_on_an_operation_is_started_again_and_its_gap_is_closed() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.errors("temporarily blocked due to a high number of long-running queries")
        await scene.goes_on()
        await scene.assert_exact()
        assert [gap.cause for gap in scene.gaps] == ["lost"]
        assert scene.dials == 1
        assert scene.simulator.counters["subscribes"] == 2


@pytest.mark.parametrize("ended", ["stop", "stop is not honoured"])
@virtual_time
async def test_an_operation_that_does_not_stop_costs_a_hand_over_without_it(ended: str) -> None:
    """The service ignores ``stop`` (subscriptions/examples); only another link ends what it goes on sending."""
    honoured = ended == "stop"
    service = {"honour_stop": honoured, "block_interval": BLOCK / 4}
    async with playing(service=service, client={"subprotocol": "graphql-ws"}) as scene:
        async with reading(scene.client) as closed:
            await until(lambda: closed.messages >= 5)
        if honoured:
            await scene.goes_on(200)
        else:
            await until(lambda: scene.seen.of(HandedOver))
        await scene.goes_on(20)
        assert (await scene.assert_exact()).exact
        assert len(scene.seen.of(HandedOver)) == (not honoured)
        newest = scene.simulator.counters.sockets[-1]
        assert newest.operations == (2 if honoured else 1)
        assert scene.simulator.counters.open_sockets == 1


@virtual_time
async def test_the_plans_cap_is_waited_out_slowly() -> None:
    seen = Events()
    async with (
        Simulator(block_interval=1, cap=1, over_cap="error") as simulator,
        client_for(simulator, on_event=seen.append, backoff=EXACT) as client,
        reading(client) as first,
        reading(client) as second,
    ):
        await until(lambda: second.task.done(), within=600)
        assert isinstance(second.error, PlanError)
        assert first.messages > 50
        (verdict,) = await settled(simulator, first)
        assert verdict.exact
        refused = [event for event in seen.of(Refused) if "concurrent" in event.why]
        assert len(refused) <= 6
        assert simulator.counters["subscribes"] == 1 + len(refused)
        for before, after in pairwise(event.at.timestamp() for event in refused):
            assert after - before >= 5
