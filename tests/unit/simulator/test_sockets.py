from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from bqstream.simulator import Behaviour, Simulator

from ...virtual_time import virtual_time
from .peer import LEGACY, MODERN, QUERY, QUICK, TRADES, dial, settle, subscribed

both = pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])
SLOW_CHAIN: dict[str, Any] = {"block_interval": 1.0, "seed": 7}


@pytest.mark.asyncio
@both
async def test_every_row_of_a_subscription_is_in_the_ledger_exactly_once(subprotocol: str) -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator, subprotocol) as peer:
        for _ in range(12):
            await peer.data()
        await settle(simulator, peer)
        verdict = simulator.ledger.verdict(TRADES, peer.rows)
        assert verdict.exact
        assert verdict.delivered == len(peer.rows) > 12


@pytest.mark.asyncio
@both
async def test_a_sign_of_life_comes_before_the_ack(subprotocol: str) -> None:
    async with Simulator(**QUICK) as simulator, dial(simulator, subprotocol) as peer:
        await peer.say("connection_init")
        kinds = [(await peer.hear())["type"] for _ in range(2)]
        assert kinds == ["pong" if subprotocol == MODERN else "ka", "connection_ack"]


@virtual_time
async def test_signs_of_life_go_on_at_their_interval() -> None:
    async with Simulator(keepalive=4.0, **SLOW_CHAIN) as simulator, dial(simulator) as peer:
        await peer.initialise()
        start = asyncio.get_running_loop().time()
        for _ in range(5):
            await peer.hear_until("pong")
        assert 16 <= asyncio.get_running_loop().time() - start <= 21


@virtual_time
async def test_signs_of_life_can_be_left_out() -> None:
    async with Simulator(keepalive=None, **SLOW_CHAIN) as simulator, dial(simulator) as peer:
        await peer.say("connection_init")
        assert (await peer.hear())["type"] == "connection_ack"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await peer.hear()


@pytest.mark.asyncio
@pytest.mark.parametrize("place", ["header", "query", "init"])
async def test_a_token_is_taken_only_from_where_the_server_looks_for_it(place: str) -> None:
    async with Simulator(token_in=(place,), **QUICK) as simulator:
        for offered in ("header", "query", "init"):
            payload = {"token": simulator.token()} if offered == "init" else None
            if offered == place:
                async with dial(simulator, place=offered) as peer:
                    assert (await peer.initialise(payload))["type"] == "connection_ack"
            elif place == "init":
                async with dial(simulator, place=offered) as peer:
                    await peer.say("connection_init")
                    assert (await peer.closed()).code == 4403
            else:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    async with dial(simulator, place=offered):
                        pass
                assert refused.value.status == 401


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "payload",
    [{"Authorization": "Bearer {}"}, {"token": "{}"}, {"headers": {"authorization": "Bearer {}"}}],
)
async def test_a_token_in_the_payload_of_the_init_may_have_any_usual_name(payload: Any) -> None:
    async with Simulator(token_in=("init",), **QUICK) as simulator, dial(simulator, place="init") as peer:
        token = simulator.token()

        def filled(value: Any) -> Any:
            return (
                {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value.format(token)
            )

        assert (await peer.initialise(filled(payload)))["type"] == "connection_ack"


@pytest.mark.asyncio
@both
@pytest.mark.parametrize("refusal", ["4401", "4403"])
async def test_a_bad_token_can_be_refused_by_a_close_code(subprotocol: str, refusal: str) -> None:
    async with (
        Simulator(refusal=refusal, **QUICK) as simulator,
        dial(simulator, subprotocol, token="ory_at_bad") as peer,
    ):
        await peer.say("connection_init")
        assert (await peer.closed()).code == int(refusal)


@pytest.mark.asyncio
@both
async def test_a_bad_token_can_be_refused_by_a_connection_error_and_a_close(subprotocol: str) -> None:
    async with (
        Simulator(refusal="connection_error", **QUICK) as simulator,
        dial(simulator, subprotocol, token="ory_at_bad") as peer,
    ):
        assert (await peer.initialise())["payload"] == {"message": "Unauthorized"}
        assert (await peer.closed()).code == (4403 if subprotocol == MODERN else 1011)


@pytest.mark.asyncio
@both
async def test_a_bad_token_can_be_refused_on_each_operation(subprotocol: str) -> None:
    async with (
        Simulator(refusal="operation", **QUICK) as simulator,
        subscribed(simulator, subprotocol, token="ory_at_bad") as peer,
    ):
        errors = (await peer.hear_until("error"))["payload"]
        assert (errors if subprotocol == MODERN else errors["errors"]) == [{"message": "Unauthorized"}]
        assert simulator.ledger.fingerprints == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([{"type": "connection_init"}, {"type": "connection_init"}], 4429),
        ([{"type": "connection_init", "payload": []}], 4400),
        ([{"type": "subscribe", "id": "1", "payload": {"query": TRADES}}], 4401),
        (
            [
                {"type": "connection_init"},
                *[{"type": "subscribe", "id": "1", "payload": {"query": TRADES}}] * 2,
            ],
            4409,
        ),
        ([{"type": "connection_init"}, {"type": "subscribe", "id": 1, "payload": {"query": TRADES}}], 4400),
        ([{"type": "connection_init"}, {"type": "subscribe", "id": "1", "payload": {}}], 4400),
        ([{"type": "connection_init"}, {"type": "connection_terminate"}], 4400),
        ([{"type": "connection_init"}, {"type": "weather"}], 4400),
        ([{}], 4400),
    ],
)
async def test_a_breach_of_graphql_transport_ws_is_closed_with_its_code(
    said: list[dict[str, Any]], code: int
) -> None:
    async with Simulator(**QUICK) as simulator, dial(simulator) as peer:
        for message in said:
            await peer.ws.send_json(message)
        assert (await peer.closed()).code == code


@pytest.mark.asyncio
async def test_the_older_subprotocol_answers_nonsense_with_an_error_and_stays_open() -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator, LEGACY) as peer:
        await peer.ws.send_str("{")
        await peer.say("weather", id="7")
        assert "id" not in await peer.hear_until("error")
        assert (await peer.hear_until("error"))["id"] == "7"
        assert (await peer.data())["id"] == "1"
        await peer.say("connection_terminate")
        assert (await peer.closed()).code == 1000


@pytest.mark.asyncio
async def test_an_unknown_subprotocol_is_closed_with_4406() -> None:
    async with Simulator(subprotocols=(LEGACY,), **QUICK) as simulator, dial(simulator) as peer:
        assert (await peer.closed()).code == 4406


@virtual_time
async def test_a_socket_without_an_init_is_closed_with_4408() -> None:
    async with Simulator(init_timeout=3.0, **SLOW_CHAIN) as simulator, dial(simulator) as peer:
        assert (await peer.closed()).code == 4408
        async with dial(simulator) as second:
            await second.initialise()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    await second.closed()


@pytest.mark.asyncio
async def test_a_ping_is_answered_with_its_payload_before_the_ack() -> None:
    async with Simulator(keepalive=None, **QUICK) as simulator, dial(simulator) as peer:
        await peer.say("ping", payload={"n": 1})
        assert await peer.hear() == {"type": "pong", "payload": {"n": 1}}
        await peer.ws.ping(b"rfc 6455")
        await peer.initialise()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["stop", "complete"])
async def test_the_older_subprotocol_ends_nothing_before_the_close(kind: str) -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator, LEGACY) as peer:
        await peer.say(kind, id="1")
        await peer.catch_up()
        for _ in range(5):
            assert (await peer.data())["id"] == "1"


@pytest.mark.asyncio
@both
async def test_an_end_that_is_honoured_ends_the_operation(subprotocol: str) -> None:
    async with Simulator(honour_stop=True, **QUICK) as simulator, subscribed(simulator, subprotocol) as peer:
        await peer.data()
        await peer.say("complete" if subprotocol == MODERN else "stop", id="1")
        await peer.catch_up()
        before = len(peer.rows)
        await simulator.blocks(2)
        await peer.catch_up()
        assert len(peer.rows) == before


@pytest.mark.asyncio
async def test_a_complete_can_be_ignored_as_the_service_may() -> None:
    async with Simulator(honour_complete=False, **QUICK) as simulator, subscribed(simulator) as peer:
        await peer.say("complete", id="1")
        await peer.catch_up()
        assert (await peer.data())["id"] == "1"


@pytest.mark.asyncio
@both
async def test_a_query_over_a_socket_is_answered_once_and_completed(subprotocol: str) -> None:
    async with Simulator(**QUICK) as simulator, dial(simulator, subprotocol) as peer:
        await peer.initialise()
        await simulator.blocks(2)
        await peer.subscribe(QUERY)
        assert (await peer.data())["payload"]["data"]["EVM"]["DEXTrades"]
        assert await peer.hear_until("complete") == {"type": "complete", "id": "1"}


@pytest.mark.asyncio
@both
async def test_a_refused_document_ends_that_operation_alone(subprotocol: str) -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator, subprotocol) as peer:
        await peer.subscribe("subscription { EVM {", "2")
        message = await peer.hear_until("error")
        errors = message["payload"] if subprotocol == MODERN else message["payload"]["errors"]
        assert message["id"] == "2"
        assert errors[0]["message"].startswith("Syntax Error")
        assert (await peer.data())["id"] == "1"


@pytest.mark.asyncio
async def test_a_syntax_error_can_close_the_socket_as_the_reference_server_does() -> None:
    async with Simulator(syntax_error="close", **QUICK) as simulator, subscribed(simulator) as peer:
        await peer.subscribe("subscription { EVM {", "2")
        closed = await peer.closed()
        assert closed.code == 4500
        assert closed.reason.startswith("Syntax Error")


@pytest.mark.asyncio
@both
async def test_a_subscription_over_the_cap_connects_and_stays_silent(subprotocol: str) -> None:
    async with Simulator(cap=1, **QUICK) as simulator, dial(simulator, subprotocol) as second:
        async with subscribed(simulator, subprotocol) as first:
            await first.data()
            await second.initialise()
            await second.subscribe()
            await first.data()
            await simulator.blocks(2)
            await second.catch_up()
            assert second.rows == []
        async with subscribed(simulator, subprotocol) as third:  # the first socket's close made room
            assert await third.data()


@pytest.mark.asyncio
async def test_a_subscription_over_the_cap_can_be_told_so() -> None:
    async with Simulator(cap=1, over_cap="error", **QUICK) as simulator, subscribed(simulator) as peer:
        await peer.subscribe(TRADES, "2")
        message = await peer.hear_until("error")
        assert message["id"] == "2"
        assert message["payload"][0]["message"] == "too many concurrent subscriptions"


@pytest.mark.asyncio
async def test_a_reader_that_is_too_slow_is_shed_with_1013() -> None:
    async with (
        Simulator(transactions=2000, queue_bytes=200_000, send_buffer=4096, **QUICK) as simulator,
        subscribed(simulator, max_msg_size=0) as peer,
    ):
        while not simulator.counters["shed"]:
            await simulator.blocks()
        closed = await peer.closed()
        assert (closed.code, closed.reason) == (1013, "client is not consuming messages fast enough")


@virtual_time
async def test_by_default_an_expired_token_changes_nothing_on_an_open_socket_and_is_on_record() -> None:
    async with Simulator(token_ttl=5, **SLOW_CHAIN) as simulator:
        token = await _access_token(simulator)
        async with subscribed(simulator, token=token) as peer:
            await peer.data()
            (record,) = simulator.counters.sockets
            assert not record.served_past_expiry
            await asyncio.sleep(6)
            await peer.data()
            await settle(simulator, peer)
            assert record.served_past_expiry
            assert simulator.ledger.verdict(TRADES, peer.rows).exact
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with dial(simulator, token=token):
                pass


@virtual_time
async def test_expiry_can_close_the_socket() -> None:
    async with Simulator(token_ttl=5, on_expiry="close", **SLOW_CHAIN) as simulator:
        async with subscribed(simulator, token=await _access_token(simulator)) as peer:
            closed = await peer.closed()
        assert (closed.code, closed.reason) == (4401, "Unauthorized")
        assert not simulator.counters.sockets[0].served_past_expiry


@virtual_time
async def test_expiry_can_end_operations_and_leave_the_socket() -> None:
    async with (
        Simulator(token_ttl=5, on_expiry="error", **SLOW_CHAIN) as simulator,
        subscribed(simulator, token=await _access_token(simulator)) as peer,
    ):
        assert (await peer.hear_until("error"))["payload"] == [{"message": "Unauthorized"}]
        assert (await peer.hear())["type"] == "pong"


@virtual_time
async def test_expiry_can_silence_data_while_keep_alives_go_on() -> None:
    async with (
        Simulator(token_ttl=5, on_expiry="silence", **SLOW_CHAIN) as simulator,
        subscribed(simulator, token=await _access_token(simulator)) as peer,
    ):
        await asyncio.sleep(6)
        await peer.catch_up()
        before = len(peer.rows)
        await asyncio.sleep(20)
        await peer.catch_up()
        assert len(peer.rows) == before > 0
        assert (await peer.hear())["type"] == "pong"


async def _access_token(simulator: Simulator) -> str:
    form = {"client_id": simulator.client_id, "client_secret": simulator.client_secret}
    async with (
        aiohttp.ClientSession() as session,
        session.post(simulator.token_url, data={"grant_type": "client_credentials", **form}) as response,
    ):
        return str((await response.json())["access_token"])


@virtual_time
async def test_data_can_lag_while_pongs_do_not() -> None:
    async with (
        Simulator(behaviours=(Behaviour(), Behaviour(lag=2.5)), keepalive=None, **SLOW_CHAIN) as simulator,
        subscribed(simulator) as prompt,
        subscribed(simulator) as late,
    ):
        loop = asyncio.get_running_loop()
        await prompt.data()
        start = loop.time()
        await late.say("ping")
        assert (await late.hear_until("pong"))["type"] == "pong"
        assert loop.time() - start < 0.5
        await settle(simulator, prompt, late)  # waits for what lags, too
        assert loop.time() - start >= 2
        assert late.rows == prompt.rows[-len(late.rows) :] != []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(reorder=True), Behaviour(cut=2), Behaviour(shuffle=True), Behaviour(lag=0.01, cut=3)],
)
async def test_sockets_can_carry_the_same_rows_in_other_messages(behaviour: Behaviour) -> None:
    async with (
        Simulator(behaviours=(Behaviour(), behaviour), transactions=20, **QUICK) as simulator,
        dial(simulator) as plain,
        dial(simulator) as other,
    ):
        simulator.pause()
        await simulator.drained()
        for peer in (plain, other):
            await peer.initialise()
            await peer.subscribe()
            await peer.catch_up()
        simulator.resume()
        await simulator.blocks(5)
        await settle(simulator, plain, other)
        for peer in (plain, other):
            assert simulator.ledger.verdict(TRADES, peer.rows).exact
        assert (plain.rows != other.rows) == (behaviour.reorder or behaviour.shuffle)
        assert (plain.sizes != other.sizes) == (behaviour.reorder or behaviour.cut is not None)


@pytest.mark.asyncio
async def test_a_message_cut_short_leaves_rows_out_and_the_ledger_knows() -> None:
    async with (
        Simulator(behaviours=(Behaviour(max_rows=2),), **QUICK) as simulator,
        subscribed(simulator) as peer,
    ):
        for _ in range(6):
            assert len((await peer.data())["payload"]["data"]["EVM"]["DEXTrades"]) <= 2
        await settle(simulator, peer)
        verdict = simulator.ledger.verdict(TRADES, peer.rows)
        assert verdict.lost > 0
        assert not verdict.foreign
        assert not verdict.repeated


@pytest.mark.asyncio
async def test_two_thousand_operations_on_one_socket_all_get_their_rows() -> None:
    async with Simulator(block_interval=0.5) as simulator, dial(simulator) as peer:
        await peer.initialise()
        for number in range(2000):
            await peer.subscribe(TRADES, f"operation-{number}")
        heard: set[str] = set()
        while len(heard) < 2000:
            heard.add((await peer.data())["id"])
        assert simulator.counters["subscribes"] == 2000


@pytest.mark.asyncio
async def test_a_closed_socket_is_on_record_with_its_code() -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator) as peer:
        await peer.data()
        assert simulator.counters.open_sockets == 1
        simulator.faults.close(4499, "as asked")
        assert (await peer.closed()).code == 4499
    (record,) = simulator.counters.sockets
    assert simulator.counters.open_sockets == 0
    assert record.messages > 0
    assert record.close_code == 4499
    assert record.token == 1
    assert record.subprotocol == MODERN


@pytest.mark.asyncio
@pytest.mark.parametrize("cube", ["Balances", "Holders", "Uncles"])
async def test_a_cube_that_is_for_queries_alone_is_accepted_and_never_sends(cube: str) -> None:
    document = TRADES.replace("DEXTrades", cube)
    async with Simulator(**QUICK) as simulator, subscribed(simulator, document=document) as peer:
        await peer.catch_up()
        await simulator.blocks(3)
        await peer.catch_up()
        assert peer.rows == []
        assert simulator.ledger.fingerprints == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("root", "cube"), [("Solana", "Instructions"), ("Trading", "Pairs")])
async def test_a_cube_that_needs_a_filter_is_shed_without_one(root: str, cube: str) -> None:
    def document(where: str) -> str:
        return f"subscription {{ {root} {{ {cube}{where} {{ Block {{ Time }} }} }} }}"

    where = '(where: {Block: {Time: {since: "2020-01-01T00:00:00Z"}}})'
    async with Simulator(**QUICK) as simulator:
        async with subscribed(simulator, document=document(where)) as peer:
            assert await peer.data()
        async with subscribed(simulator, document=document("")) as peer:
            assert (await peer.closed()).code == 1013
