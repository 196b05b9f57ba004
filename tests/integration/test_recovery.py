"""Tokens that are revoked, a token endpoint or a server that is down, a socket that falls silent: the stream goes on.

Quick runs take virtual time, outages in full length; ``pytest -m soak`` runs the two long ones in real time. Run
with ``-s`` to see each schedule.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from bqstream import Backoff, ClientCredentials, Timeouts
from bqstream.errors import ConnectionGivenUp, CredentialsRefused, TokenRefused
from bqstream.events import Connected, HandedOver, Lost, Refused, Stalled, TokenRefreshed, Waiting
from bqstream.simulator import Simulator
from tests.virtual_time import virtual_time

from .harness import TRANSFERS, Events, client_for, until
from .scene import Scene, passed, playing

SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
EXACT = Backoff(jitter=0)  # 0.5, 1, 2, 4 … seconds, so that a schedule can be compared
REFUSALS = ("401", "4401", "4403", "connection_error", "operation")


# ---------------------------------------------------------------------- tokens


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("refusal", REFUSALS)
@virtual_time
async def test_a_revoked_token_is_fetched_anew_once_at_once(refusal: str, subprotocol: str) -> None:
    options = {"backoff": EXACT, "subprotocol": subprotocol}
    async with playing(service={"refusal": refusal}, client=options) as scene:
        scene.simulator.faults.revoke()
        await scene.goes_on()
        assert scene.dials == 1, "revoking leaves an open socket alone (authorization/websocket)"
        scene.simulator.faults.close(1012)
        await until(lambda: scene.token_requests == 2)
        await scene.goes_on()
        await scene.assert_exact()
        scene.told(f"revoked, {refusal}, {subprotocol}")
        assert scene.token_requests == 2
        assert scene.dials == 3, "the first, one with the revoked token, one with the new"
        assert scene.waits() == [0.5], "the close; a refused token is not waited for"
        assert scene.waits(token=True) == []
        (refused,) = scene.seen.of(Refused)
        assert refused.what == ("operation 1" if refusal == "operation" else "token")


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("how", ["connection_error", "4401", "4403"])
@virtual_time
async def test_fresh_tokens_that_are_refused_are_fetched_with_back_off(how: Any, subprotocol: str) -> None:
    async with playing(client={"backoff": EXACT, "subprotocol": subprotocol}) as scene:
        scene.simulator.faults.refuse_acks(5, how)
        scene.simulator.faults.close(1012)
        await scene.recovered()
        await scene.assert_exact()
        scene.told(f"five tokens refused by {how}, {subprotocol}")
        assert scene.token_requests == 6
        assert scene.dials == 7
        waits = scene.waits(token=True)
        assert len(waits) == 4, "the first refusal is mended at once"
        for wait, longest in zip(waits, (1, 2, 4, 8), strict=True):
            assert longest / 2 <= wait <= longest


@pytest.mark.parametrize("what", ["close", "error", "silence"])
@virtual_time
async def test_a_token_that_expires_early_is_replaced_whatever_the_socket_does(what: Any) -> None:
    """A server that grants less than it says."""
    async with playing(
        service={"on_expiry": what}, client={"backoff": EXACT, "timeouts": Timeouts(idle=2)}
    ) as scene:
        scene.simulator.faults.expire()
        if what == "silence":  # the socket still beats: only the next dial shows it
            scene.simulator.faults.abort()
        await until(lambda: scene.token_requests == 2)
        await scene.goes_on()
        await scene.assert_exact()
        scene.told(f"expired early, then {what}")
        assert scene.token_requests == 2
        assert scene.dials <= 3


def _fetching(scene: Scene, down: float) -> None:
    """No tight loop: requests are those that the schedule allows, at 0.5 to 1 s, 1 to 2 s, 2 to 4 s …"""
    waits = scene.waits(token=True)
    assert sum(waits[:-1]) < down + 0.1, "events say when in milliseconds, and a request takes a moment"
    for wait, longest in zip(waits, (1, 2, 4, 8, 16), strict=False):
        assert longest / 2 <= wait <= longest
    assert len(waits) <= 5, "0.5 + 1 + 2 + 4 s at the least: a fifth ends after any five seconds"


async def endpoint_down(*, seconds: float, service: dict[str, Any]) -> Scene:
    """Two tokens' refresh falls into an outage of the token endpoint."""
    async with playing(service=service, client={"backoff": EXACT, "timeouts": Timeouts(grace=0.5)}) as scene:
        before = scene.token_requests
        scene.simulator.faults.token_endpoint("down")
        await until(lambda: scene.token_requests > before)
        await passed(seconds)
        scene.simulator.faults.token_endpoint("ok")
        refused, refreshed = scene.token_requests - before, len(scene.seen.of(TokenRefreshed))
        await until(lambda: len(scene.seen.of(TokenRefreshed)) > refreshed)
        await scene.goes_on(20)
        await scene.assert_exact()
        scene.told(f"token endpoint down for {seconds:g} s")
        assert refused == len(scene.waits(token=True)), "each refused request was followed by a wait"
        _fetching(scene, seconds)
    return scene


@virtual_time
async def test_a_token_endpoint_that_is_down_for_five_seconds_costs_nothing_while_the_token_lives() -> None:
    scene = await endpoint_down(seconds=5, service={"token_ttl": 40, "on_expiry": "close"})
    assert scene.gaps == ()
    assert scene.simulator.counters["queries"] == 0
    assert scene.seen.of(Lost) == []
    assert {event.mode for event in scene.seen.of(HandedOver)} == {"overlap"}


@virtual_time
async def test_a_token_endpoint_that_is_down_for_longer_than_the_token_lives_costs_a_gap_that_is_closed() -> (
    None
):
    scene = await endpoint_down(seconds=5, service={"token_ttl": 6, "on_expiry": "close"})
    assert {gap.cause for gap in scene.gaps} == {"lost"}
    assert scene.dials <= 5


@virtual_time
async def test_a_link_is_read_on_past_its_tokens_expiry_while_no_other_token_can_be_had() -> None:
    """The service documents no close at expiry; design: handover, step 3."""
    scene = await endpoint_down(seconds=5, service={"token_ttl": 6})
    assert scene.seen.of(Lost) == []
    # Once there is one, the old link goes soon, whatever that proves.
    assert {gap.cause for gap in scene.gaps} <= {"handover"}


@virtual_time
async def test_retry_after_of_the_token_endpoint_is_honoured() -> None:
    async with playing(service={"token_ttl": 40}, client={"backoff": EXACT}) as scene:
        scene.simulator.faults.token_endpoint("refuse", count=2, status=429, retry_after=3)
        await until(lambda: len(scene.seen.of(TokenRefreshed)) == 2, within=60)
        await scene.goes_on()
        assert scene.waits(token=True) == [3.0, 3.0]
        assert scene.token_requests == 4
        await scene.assert_exact()


@virtual_time
async def test_refused_credentials_end_at_once() -> None:
    seen = Events()
    async with Simulator() as simulator:
        wrong = ClientCredentials(simulator.client_id, "wrong", token_url=simulator.token_url)
        with pytest.raises(CredentialsRefused, match="invalid_client"):
            async with client_for(simulator, wrong, on_event=seen.append):
                pass
        assert simulator.counters["token_requests"] == 1
        assert simulator.counters["dials"] == 0


@virtual_time
async def test_credentials_that_are_refused_later_end_what_has_no_link_and_name_why() -> None:
    async with playing(client={"backoff": EXACT}) as scene:
        scene.simulator.faults.token_endpoint("refuse", status=401, error="invalid_client")
        scene.simulator.faults.revoke()
        scene.simulator.faults.close(1012)
        await until(lambda: scene.reader.task.done())
        assert isinstance(scene.reader.error, CredentialsRefused)
        assert "invalid_client" in str(scene.reader.error)
        assert scene.token_requests == 2
        assert scene.dials == 2


@pytest.mark.parametrize("refusal", REFUSALS)
@virtual_time
async def test_a_static_token_that_is_refused_ends_with_an_error_that_says_what_to_do(refusal: Any) -> None:
    async with Simulator(refusal=refusal) as simulator:
        async with client_for(simulator, "not-one-of-its-tokens") as client:
            with pytest.raises(TokenRefused, match="static one: generate a new one") as refused:
                async with client.subscribe(TRANSFERS) as stream:
                    await anext(stream)
            assert "not-one-of-its-tokens" not in str(refused.value)
        assert simulator.counters["dials"] == 1
        assert simulator.counters["token_requests"] == 0


# ---------------------------------------------------------------------- the server, and silence


async def server_down(*, seconds: float, client: dict[str, Any]) -> Scene:
    async with playing(client=client) as scene:
        scene.simulator.faults.down(seconds)
        await scene.recovered()
        verdict = await scene.assert_exact()
        scene.told(f"server down for {seconds:g} s, {verdict.emitted} rows, none lost")
        (gap,) = scene.gaps
        assert (gap.cause, gap.cubes) == ("lost", ("Transfers",))
        assert scene.dials == 2, "dials that found a listener"
        assert scene.token_requests == 1, "a token is not fetched anew because a server is down"
    return scene


@virtual_time
async def test_a_server_that_is_down_for_ten_seconds_is_redialled_on_schedule() -> None:
    scene = await server_down(seconds=10, client={"backoff": EXACT})
    assert scene.waits() == [0.5, 1.0, 2.0, 4.0, 8.0]
    gap = scene.gaps[0]
    assert gap.end is not None
    # 15.5 s until the dial, then what may come late of the outage (``timeouts.grace``), then two equal answers.
    assert 15 + 5 < (gap.end - gap.start).total_seconds() < 17 + 5 + 5


@virtual_time
async def test_without_backfill_a_server_that_is_down_costs_what_it_sent_meanwhile_and_that_is_named() -> (
    None
):
    async with playing(client={"backoff": EXACT, "backfill": "off"}) as scene:
        scene.simulator.faults.down(10)
        await scene.recovered()
        verdict = await scene.assert_nothing_unnamed()
        assert verdict.lost
        (gap,) = scene.gaps
        assert (gap.cause, gap.reason) == ("lost", 'backfill is "off"')
        assert gap.end is not None
        assert 15 < (gap.end - gap.start).total_seconds() < 17
        assert scene.simulator.counters["queries"] == 0


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ("Transfers { count Transfer { Currency { Symbol } } }", "aggregate"),
        ("Transfers(limit: {count: 1000}) { Transfer { Amount Sender Receiver } }", "limit"),
    ],
)
@virtual_time
async def test_what_cannot_be_asked_for_is_named_with_the_reason(selection: str, reason: str) -> None:
    document = f"subscription {{ EVM(network: eth) {{ {selection} }} }}"
    async with playing(client={"backoff": EXACT}, document=document) as scene:
        scene.simulator.faults.down(10)
        await scene.recovered()
        verdict = await scene.assert_nothing_unnamed()
        assert verdict.lost
        (gap,) = scene.gaps
        assert gap.cause == "lost"
        assert gap.reason is not None
        assert reason in gap.reason
        assert scene.simulator.counters["queries"] == 0


@virtual_time
async def test_jitter_only_shortens_waits_and_by_no_more_than_its_share() -> None:
    scene = await server_down(seconds=10, client={"backoff": Backoff(jitter=0.5, maximum=3)})
    waits = scene.waits()
    for wait, longest in zip(waits, [0.5, 1, 2, *[3] * len(waits)], strict=False):
        assert longest / 2 <= wait <= longest
    assert sum(waits[:-1]) <= 10 <= sum(waits) + 0.1
    assert len(waits) <= 3 + 10 / 1.5


@virtual_time
async def test_full_jitter_makes_no_tight_loop() -> None:
    scene = await server_down(seconds=10, client={})
    waits = scene.waits()
    assert all(a.attempt + 1 == b.attempt for a, b in pairwise(scene.seen.of(Waiting)))
    assert sum(waits[:-1]) <= 10
    assert len(waits) < 30


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_silent_socket_is_dropped_after_timeouts_idle(subprotocol: str) -> None:
    options = {"backoff": EXACT, "timeouts": Timeouts(idle=2), "subprotocol": subprotocol}
    async with playing(service={"keepalive": 0.5}, client=options) as scene:
        scene.simulator.faults.stall()
        await scene.recovered()
        await scene.assert_exact()
        scene.told(f"silent socket, {subprotocol}")
        (stalled,) = scene.seen.of(Stalled)
        assert 2 <= stalled.seconds < 2.5
        assert scene.dials == 2
        assert scene.waits() == [0.5]
        (gap,) = scene.gaps
        assert gap.cause == "lost"
        assert "no sign of life" in gap.detail


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_socket_that_beats_without_data_is_left_alone(subprotocol: str) -> None:
    """Over the plan's cap a subscription is silent on a healthy socket (plans/rate-limits)."""
    options = {"timeouts": Timeouts(idle=2), "subprotocol": subprotocol}
    async with playing(service={"keepalive": 0.5}, client=options) as scene:
        scene.simulator.faults.stall(data_only=True)
        await passed(30)
        assert scene.seen.of(Stalled) == []
        assert scene.dials == 1


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@virtual_time
async def test_a_quiet_socket_without_keep_alives_lives_by_our_own_pings(subprotocol: str) -> None:
    options = {"timeouts": Timeouts(idle=2), "subprotocol": subprotocol}
    async with playing(service={"keepalive": None}, client=options) as scene:
        scene.simulator.pause()
        await passed(30)
        assert scene.seen.of(Stalled) == []
        assert scene.dials == 1


@virtual_time
async def test_a_server_that_never_acknowledges_is_given_timeouts_ack_and_backed_off_from() -> None:
    async with playing(client={"backoff": EXACT, "timeouts": Timeouts(ack=1)}) as scene:
        scene.simulator.faults.refuse_acks(3, "silence")
        scene.simulator.faults.abort()
        await scene.recovered()
        await scene.assert_exact()
        assert scene.waits() == [0.5, 1.0, 2.0, 4.0], (
            "an acknowledged link's data reset it, a dead dial does not"
        )
        assert scene.dials == 5


@virtual_time
async def test_attempts_bound_the_failures_in_a_row() -> None:
    async with playing(client={"backoff": Backoff(attempts=3, jitter=0)}) as scene:
        scene.simulator.faults.refuse_dials(count=100, status=503)
        scene.simulator.faults.close(1012)
        await until(lambda: scene.reader.task.done(), within=60)
        assert isinstance(scene.reader.error, ConnectionGivenUp)
        assert "3 failures in a row" in str(scene.reader.error)
        assert "503" in str(scene.reader.error)
        assert scene.dials == 1 + 2, "the close was the first failure"


@virtual_time
async def test_attempts_bound_the_first_dials_too() -> None:
    async with Simulator() as simulator:
        simulator.faults.refuse_dials(count=100, status=503)
        async with client_for(simulator, backoff=Backoff(attempts=3)) as client:
            with pytest.raises(ConnectionGivenUp, match="3 failures in a row"):
                await client.subscribe(TRANSFERS)
        assert simulator.counters["dials"] == 3


# ---------------------------------------------------------------------- in real time


@pytest.mark.soak
@pytest.mark.asyncio
async def test_a_server_that_is_down_for_ten_seconds_in_real_time() -> None:
    scene = await server_down(seconds=10, client={"backoff": EXACT})
    assert scene.waits()[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.soak
@pytest.mark.asyncio
async def test_a_token_endpoint_that_is_down_for_five_seconds_in_real_time() -> None:
    scene = await endpoint_down(seconds=5, service={"token_ttl": 40, "on_expiry": "close"})
    assert scene.gaps == ()
    assert len(scene.seen.of(Connected)) >= 2
