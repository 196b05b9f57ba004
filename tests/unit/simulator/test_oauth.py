from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import msgspec
import pytest

from bqstream.simulator import Simulator
from bqstream.simulator.oauth import Tokens

from ...virtual_time import virtual_time
from .peer import QUICK, ask, http

GRANT = {"grant_type": "client_credentials"}


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(client_id, secret)}


async def request(
    simulator: Simulator, form: Any, headers: dict[str, str] | None = None, **how: Any
) -> tuple[int, dict[str, Any], dict[str, str]]:
    async with (
        http() as session,
        session.post(simulator.token_url, data=form, headers=headers or {}, **how) as response,
    ):
        return response.status, msgspec.json.decode(await response.read()), dict(response.headers)


async def exchange(simulator: Simulator, bearer: str, expires_in: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with (
        http() as session,
        session.post(simulator.endpoint, json={"expires_in": expires_in}, headers=headers) as response,
    ):
        text = await response.read()
        return response.status, msgspec.json.decode(text) if text.startswith(b"{") else text.decode()


async def access_token(simulator: Simulator) -> str:
    _, answer, _ = await request(simulator, GRANT, basic(simulator.client_id, simulator.client_secret))
    return str(answer["access_token"])


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["basic", "form"])
async def test_client_credentials_are_answered_as_the_service_answers_them(way: str) -> None:
    async with Simulator(**QUICK) as simulator:
        secret = {"client_id": simulator.client_id, "client_secret": simulator.client_secret}
        if way == "basic":
            status, answer, headers = await request(simulator, GRANT, basic(*secret.values()))
        else:
            status, answer, headers = await request(simulator, {**GRANT, **secret, "scope": "api"})
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert answer["access_token"].startswith("ory_at_")
        assert {**answer, "access_token": ""} == {
            "access_token": "",
            "expires_in": 17999,
            "scope": "api",
            "token_type": "bearer",
        }
        assert (await ask(simulator, token=answer["access_token"]))[0] == 200
        assert simulator.counters["token_requests"] == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("encode", [str, quote_plus])
async def test_basic_credentials_are_taken_with_and_without_form_encoding(encode: Any) -> None:
    async with Simulator(client_id="an id", client_secret="100%+&:", **QUICK) as simulator:
        status, _, _ = await request(simulator, GRANT, basic(encode("an id"), encode("100%+&:")))
        assert status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "somebody"}, 401, "invalid_client"),
        ({"client_secret": None}, 401, "invalid_client"),
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"scope": "everything"}, 400, "invalid_scope"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_error_of_the_rfc(
    form: dict[str, str | None], status: int, error: str
) -> None:
    async with Simulator(**QUICK) as simulator:
        right = {**GRANT, "client_id": simulator.client_id, "client_secret": simulator.client_secret}
        sent = {name: value for name, value in {**right, **form}.items() if value is not None}
        found, answer, headers = await request(simulator, sent)
        assert (found, answer["error"]) == (status, error)
        assert ("WWW-Authenticate" in headers) == (status == 401)
        assert simulator.counters["refusals"] == 1


@pytest.mark.asyncio
async def test_what_is_not_one_plain_form_is_an_invalid_request() -> None:
    async with Simulator(**QUICK) as simulator:
        right = {"client_id": simulator.client_id, "client_secret": simulator.client_secret}
        both = await request(simulator, {**GRANT, **right}, basic(*right.values()))
        repeated = await request(simulator, [*GRANT.items(), *GRANT.items()], basic(*right.values()))
        as_json = await request(simulator, None, basic(*right.values()), json=GRANT)
        for status, answer, _ in (both, repeated, as_json):
            assert (status, answer["error"]) == (400, "invalid_request")
        garbled = await request(simulator, GRANT, {"Authorization": "Basic ???"})
        assert (garbled[0], garbled[1]["error"]) == (401, "invalid_client")


@virtual_time
async def test_an_access_token_is_refused_once_its_time_is_over() -> None:
    async with Simulator(token_ttl=60, **{**QUICK, "block_interval": 1}) as simulator:
        token = await access_token(simulator)
        await asyncio.sleep(59)
        assert (await ask(simulator, token=token))[0] == 200
        await asyncio.sleep(2)
        assert await ask(simulator, token=token) == (401, "Unauthorized")


@virtual_time
async def test_a_short_term_token_lives_as_long_as_was_asked_and_says_nothing_of_it() -> None:
    async with Simulator(block_interval=1) as simulator:
        status, answer = await exchange(simulator, await access_token(simulator), 10)
        assert (status, list(answer)) == (200, ["token"])
        assert (await ask(simulator, token=answer["token"]))[0] == 200
        await asyncio.sleep(11)
        assert (await ask(simulator, token=answer["token"]))[0] == 401


@pytest.mark.asyncio
async def test_an_exchange_needs_a_valid_access_token_and_a_positive_time() -> None:
    async with Simulator(**QUICK) as simulator:
        token = await access_token(simulator)
        assert await exchange(simulator, "ory_at_unknown", 60) == (401, "Unauthorized")
        for wrong in (0, -1, "60", True, None):
            assert (await exchange(simulator, token, wrong))[0] == 400
        _, answer = await exchange(simulator, simulator.token(), 60)
        assert (await exchange(simulator, answer["token"], 60))[
            0
        ] == 401  # a short-term token has no children
        assert simulator.counters["exchanges"] == 8


@pytest.mark.asyncio
async def test_revoking_an_access_token_ends_the_tokens_made_from_it_and_no_static_one() -> None:
    async with Simulator(**QUICK) as simulator:
        static, access = simulator.token(), await access_token(simulator)
        _, answer = await exchange(simulator, access, 60)
        simulator.faults.revoke(access)
        assert (await ask(simulator, token=answer["token"]))[0] == 401
        assert (await exchange(simulator, access, 60))[0] == 401
        simulator.faults.revoke()
        assert (await ask(simulator, token=static))[0] == 200
        with pytest.raises(LookupError):
            simulator.faults.revoke("ory_at_unknown")


@pytest.mark.asyncio
async def test_the_token_endpoint_can_be_refused_for_so_many_requests() -> None:
    async with Simulator(**QUICK) as simulator:
        right = basic(simulator.client_id, simulator.client_secret)
        simulator.faults.token_endpoint("refuse", count=2, status=429, retry_after=7)
        for _ in range(2):
            status, _, headers = await request(simulator, GRANT, right)
            assert (status, headers["Retry-After"]) == (429, "7")
        assert (await request(simulator, GRANT, right))[0] == 200
        simulator.faults.token_endpoint("refuse", status=400, error="invalid_grant")
        assert (await request(simulator, GRANT, right))[1]["error"] == "invalid_grant"


@pytest.mark.asyncio
async def test_a_token_endpoint_that_is_down_drops_the_connection() -> None:
    async with Simulator(**QUICK) as simulator:
        simulator.faults.token_endpoint("down")
        with pytest.raises(aiohttp.ClientConnectionError):
            await request(simulator, GRANT, basic(simulator.client_id, simulator.client_secret))
        simulator.faults.token_endpoint("ok")
        assert await access_token(simulator)


@virtual_time
async def test_a_slow_token_endpoint_answers_late() -> None:
    async with Simulator(block_interval=1) as simulator:
        simulator.faults.token_endpoint("slow", seconds=25)
        before = asyncio.get_running_loop().time()
        await access_token(simulator)
        assert asyncio.get_running_loop().time() - before >= 25


@pytest.mark.asyncio
async def test_no_token_is_shown_by_a_repr_or_the_counters() -> None:
    async with Simulator(**QUICK) as simulator:
        access = await access_token(simulator)
        _, answer = await exchange(simulator, access, 60)
        async with http() as session, session.get(simulator.control_url) as response:
            shown = await response.text() + repr(Tokens().issue("short", 1)) + repr(simulator.settings)
        for secret in (access, answer["token"], simulator.client_secret, "ory_at_"):
            assert secret not in shown
