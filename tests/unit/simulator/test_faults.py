from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

from bqstream.simulator import Simulator
from bqstream.simulator import faults as faults_module
from bqstream.simulator.faults import FAULTS, Faults

from ...virtual_time import virtual_time
from .peer import LEGACY, MODERN, QUICK, TRADES, ask, dial, http, settle, subscribed

SLOW_CHAIN: dict[str, Any] = {"block_interval": 1.0, "seed": 7}


async def control(simulator: Simulator, **body: Any) -> tuple[int, dict[str, Any]]:
    async with http() as session, session.post(simulator.control_url, json=body) as response:
        return response.status, msgspec.json.decode(await response.read())


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4401, 4500])
async def test_a_socket_can_be_closed_with_any_code_and_reason(code: int) -> None:
    async with (
        Simulator(**QUICK) as simulator,
        subscribed(simulator) as first,
        subscribed(simulator) as second,
    ):
        simulator.faults.close(code, "as asked", socket=2)
        closed = await second.closed()
        assert (closed.code, closed.reason) == (code, "as asked")
        assert await first.data()


@pytest.mark.asyncio
async def test_all_sockets_can_be_reset_without_a_close_frame() -> None:
    async with (
        Simulator(**QUICK) as simulator,
        subscribed(simulator) as first,
        subscribed(simulator) as second,
    ):
        simulator.faults.abort()
        assert [(await peer.closed()).code for peer in (first, second)] == [1006, 1006]


@virtual_time
async def test_a_stalled_socket_is_silent_and_stays_open() -> None:
    async with Simulator(**SLOW_CHAIN) as simulator, subscribed(simulator) as peer:
        await peer.data()
        simulator.faults.stall()
        before = len(peer.rows)
        await peer.say("ping")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await peer.hear_until("pong after the stall")
        assert len(peer.rows) <= before + 3 * 8  # what was on its way
        assert not peer.ws.closed
        assert simulator.counters.open_sockets == 1
        simulator.pause()
        await simulator.drained()  # a stalled socket holds nothing up
        assert simulator.ledger.verdict(TRADES, peer.rows).lost > 0


@virtual_time
async def test_a_stalled_socket_answers_no_close_frame() -> None:
    async with (
        Simulator(**SLOW_CHAIN) as simulator,
        subscribed(simulator, timeout=aiohttp.ClientWSTimeout(ws_close=2.0)) as peer,
    ):
        await peer.data()
        simulator.faults.stall()
        start = asyncio.get_running_loop().time()
        await peer.ws.close()
        assert asyncio.get_running_loop().time() - start > 1.9
        await asyncio.sleep(1)
        assert simulator.counters.open_sockets == 0


@virtual_time
async def test_data_alone_can_stall_while_pongs_go_on() -> None:
    async with Simulator(keepalive=2.0, **SLOW_CHAIN) as simulator, subscribed(simulator) as peer:
        await peer.data()
        simulator.faults.stall(data_only=True)
        await peer.catch_up()
        before = len(peer.rows)
        for _ in range(5):
            await peer.hear_until("pong")
        assert len(peer.rows) == before


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["json", "list", "binary", "type", "id", "error"])
async def test_a_garbage_frame_comes_between_good_ones(kind: str) -> None:
    async with Simulator(keepalive=None, **QUICK) as simulator, dial(simulator) as peer:
        await peer.initialise()
        simulator.faults.garbage(kind)
        frame = await peer.frame()
        assert frame.type is (aiohttp.WSMsgType.BINARY if kind == "binary" else aiohttp.WSMsgType.TEXT)
        if kind in ("type", "id", "error"):
            assert msgspec.json.decode(frame.data)["type"] in ("weather", "next", "error")
        else:
            with pytest.raises((msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError)):
                msgspec.json.decode(frame.data, type=dict)
        await peer.subscribe()
        assert await peer.data()


@pytest.mark.asyncio
async def test_an_oversize_message_breaks_a_client_with_a_limit_and_loses_nothing_for_one_without() -> None:
    async with (
        Simulator(**QUICK) as simulator,
        subscribed(simulator) as patient,
        subscribed(simulator, max_msg_size=1024 * 1024) as strict,
    ):
        await patient.data()
        await strict.data()
        simulator.faults.oversize(1024 * 1024)
        await strict.closed()
        assert strict.ws.close_code == 1009
        for _ in range(3):
            await patient.data()
        await settle(simulator, patient)
        assert simulator.ledger.verdict(TRADES, patient.rows).exact


@pytest.mark.asyncio
@pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])
async def test_live_operations_can_be_ended_with_an_error(subprotocol: str) -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator, subprotocol) as peer:
        await peer.data()
        simulator.faults.errors("points limit exceeded")
        assert "points limit exceeded" in str(await peer.hear_until("error"))
        before = len(peer.rows)
        await simulator.blocks(2)
        await peer.catch_up()
        assert len(peer.rows) == before


@pytest.mark.asyncio
async def test_the_next_dials_are_refused_as_asked_and_later_ones_are_not() -> None:
    async with Simulator(**QUICK) as simulator:
        simulator.faults.refuse_dials(2, 429, retry_after=5, body="Too Many Sessions")
        for _ in range(2):
            async with http() as session:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(simulator.endpoint, params={"token": simulator.token()})
            assert refused.value.status == 429
            assert refused.value.headers is not None
            assert refused.value.headers["Retry-After"] == "5"
        async with subscribed(simulator) as peer:
            assert await peer.data()
        assert simulator.counters["dials"] == 3
        assert [refusal.detail["status"] for refusal in simulator.counters.recent("refusals")] == [429, 429]


@pytest.mark.asyncio
@pytest.mark.parametrize(("how", "code"), [("connection_error", 4403), ("4401", 4401), ("4403", 4403)])
async def test_acks_are_refused_as_asked(how: Any, code: int) -> None:
    async with Simulator(**QUICK) as simulator:
        simulator.faults.refuse_acks(1, how)
        async with dial(simulator) as peer:
            await peer.say("connection_init")
            assert (await peer.closed()).code == code
        async with subscribed(simulator) as peer:
            assert await peer.data()


@virtual_time
async def test_an_ack_can_stay_out() -> None:
    async with Simulator(keepalive=None, **SLOW_CHAIN) as simulator, dial(simulator) as peer:
        simulator.faults.refuse_acks(how="silence")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await peer.initialise()


@pytest.mark.asyncio
async def test_revoking_leaves_open_sockets_and_refuses_new_ones() -> None:
    async with Simulator(**QUICK) as simulator:
        token = simulator.token()
        async with subscribed(simulator, token=token) as peer:
            simulator.faults.revoke(token)
            for _ in range(3):
                await peer.data()
            with pytest.raises(aiohttp.WSServerHandshakeError):
                async with dial(simulator, token=token):
                    pass


@pytest.mark.asyncio
async def test_a_token_can_expire_at_once() -> None:
    async with Simulator(on_expiry="close", **QUICK) as simulator:
        first, second = simulator.token(), simulator.token()
        async with subscribed(simulator, token=first) as ends, subscribed(simulator, token=second) as stays:
            simulator.faults.expire(1)
            assert (await ends.closed()).code == 4401
            assert await stays.data()
            simulator.faults.on_expiry("error")
            simulator.faults.expire(second)
            assert await stays.hear_until("error")
        assert (await ask(simulator, token=first))[0] == 401


@virtual_time
async def test_a_server_that_is_down_refuses_connections_and_comes_back_on_its_port() -> None:
    async with Simulator(**SLOW_CHAIN) as simulator, subscribed(simulator) as peer:
        await peer.data()
        endpoint = simulator.endpoint
        simulator.faults.down(30)
        assert (await peer.closed()).code == 1006
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(simulator)
        assert (await control(simulator, fault="resume"))[0] == 200  # what controls it stays up
        await asyncio.sleep(31)
        assert simulator.endpoint == endpoint
        assert (await ask(simulator))[0] == 200
        await settle(simulator)
        assert simulator.ledger.verdict(TRADES, peer.rows).lost > 20  # the chain went on


@virtual_time
async def test_every_answer_of_a_slow_server_is_late() -> None:
    async with Simulator(**SLOW_CHAIN) as simulator:
        simulator.faults.slow(4)
        loop = asyncio.get_running_loop()
        start = loop.time()
        await ask(simulator)
        assert loop.time() - start >= 4
        async with dial(simulator) as peer:
            assert loop.time() - start >= 8
            await peer.initialise()
            assert loop.time() - start >= 12


@pytest.mark.asyncio
async def test_queries_are_refused_as_asked() -> None:
    async with Simulator(**QUICK) as simulator:
        simulator.faults.refuse_queries(1, 402, body="No active billing period")
        assert await ask(simulator) == (402, "No active billing period")
        assert (await ask(simulator))[0] == 200
        assert (await ask(simulator, "query { EVM {"))[1]["errors"]
        assert (await ask(simulator, TRADES))[0] == 400
        assert (await ask(simulator, "", variables=[]))[0] == 400
        assert simulator.counters["queries"] == 5


@virtual_time
async def test_the_query_side_sees_a_row_later_than_the_stream() -> None:
    latest = "orderBy: {descending: Block_Number}, limit: {count: 1}"
    document = f"query {{ EVM(network: eth) {{ Blocks({latest}) {{ Block {{ Number }} }} }} }}"
    async with Simulator(**SLOW_CHAIN) as simulator:
        await simulator.blocks(12)
        simulator.pause()
        await simulator.drained()
        simulator.faults.query_lag(5)
        heads = []
        for _ in range(2):
            _, answer = await ask(simulator, document)
            heads.append(int(answer["data"]["EVM"]["Blocks"][0]["Block"]["Number"]))
            await asyncio.sleep(10)
        assert simulator.chain.head is not None
        assert heads[0] < heads[1] == simulator.chain.head.number
        simulator.faults.query_lag(3600)
        assert (await ask(simulator, document))[1] == {"data": {"EVM": {"Blocks": []}}}


@pytest.mark.asyncio
async def test_a_fork_delivers_heights_again_with_other_hashes() -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator) as peer:
        await simulator.blocks(4)
        simulator.faults.fork(2)
        await simulator.blocks(4)
        await settle(simulator, peer)
        hashes: dict[str, set[str]] = {}
        for _, row in peer.rows:
            hashes.setdefault(row["Block"]["Number"], set()).add(row["Block"]["Hash"])
        assert sorted(map(len, hashes.values()))[-2:] == [2, 2]
        assert simulator.ledger.verdict(TRADES, peer.rows).exact
        for depth in (0, -1, 10_000):
            with pytest.raises(ValueError, match="too short"):
                simulator.faults.fork(depth)


@pytest.mark.asyncio
async def test_a_behaviour_can_be_given_to_later_sockets_or_to_one_by_its_number() -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator) as first:
        assert (await control(simulator, fault="behave", behaviours=[{"max_rows": 1}, {}]))[0] == 200
        async with subscribed(simulator) as second, subscribed(simulator) as third:
            for _ in range(4):
                for peer in (first, second, third):
                    await peer.data()
            assert max(second.sizes) == 1 < min(max(first.sizes), max(third.sizes))
            simulator.faults.behave([{"max_rows": 1}], sockets=[1])
            await simulator.blocks()
            await first.catch_up()
            first.sizes.clear()
            for _ in range(4):
                await first.data()
            assert max(first.sizes) == 1


@pytest.mark.asyncio
async def test_the_control_endpoint_carries_out_every_fault_of_the_table_and_no_other() -> None:
    assert faults_module.__doc__ is not None
    for name in FAULTS:
        assert f"``{name}``" in faults_module.__doc__
        assert callable(getattr(Faults, name))
    async with Simulator(**QUICK) as simulator, subscribed(simulator) as peer:
        assert await control(simulator, fault="blocks", count=2) == (200, {"ok": True})
        assert await control(simulator, fault="pause") == (200, {"ok": True})
        assert await control(simulator, fault="drained") == (200, {"ok": True})
        assert (await control(simulator, fault="token"))[1]["token"].startswith("ory_at_")
        assert (await control(simulator, fault="close", code=1013, reason="now"))[0] == 200
        assert (await peer.closed()).code == 1013


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"fault": "earthquake"},
        {"fault": "_sockets"},
        {"fault": "close", "colour": "red"},
        {"fault": "close", "socket": 99},
        {"fault": "revoke", "token": 99},
        {"fault": "garbage", "kind": "plastic"},
        {"fault": "on_expiry", "what": "shout"},
        {"fault": "token_endpoint", "mode": "odd"},
        {"fault": "cap", "count": 1, "over": "odd"},
        {"fault": "behave", "behaviours": [{"colour": "red"}]},
        {"fault": "refuse_acks", "how": "odd"},
    ],
)
async def test_the_control_endpoint_says_what_is_wrong_with_a_request(body: dict[str, Any]) -> None:
    async with Simulator(**QUICK) as simulator:
        status, answer = await control(simulator, **body)
        assert status == 400
        assert answer["error"]
