"""One query over HTTP, against a server that gives scripted answers."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bqstream import (
    Backoff,
    Client,
    ConnectionGivenUp,
    DocumentRefused,
    OperationFailed,
    PlanError,
    Timeouts,
    Token,
    TokenRefused,
)
from tests.virtual_time import virtual_clock, virtual_time

QUERY = "{ EVM { Blocks { Hash } } }"
DATA = {"EVM": {"Blocks": [{"Hash": "0x1"}]}}
TOKEN = "a-token-that-nobody-may-see"
HANG_UP = "hang up"


class Script:
    """What the server answers, in order; the last answer goes on for ever. ``asked_at`` in the loop's time."""

    def __init__(self, *answers: web.Response | str) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []
        self.fetched = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked_at.append(asyncio.get_running_loop().time())
        await request.read()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def token(self) -> Token:
        self.fetched += 1
        return Token(TOKEN)


def json(value: Any, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)


@contextlib.asynccontextmanager
async def asking(script: Script) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_post("/graphql", script.answer)
    async with TestServer(app) as server:
        client = Client(
            script.token,
            endpoint=str(server.make_url("/graphql")),
            timeouts=Timeouts(query=30),
            backoff=Backoff(initial=1, jitter=0),
        )
        client._clock = virtual_clock()
        async with client:
            yield client


@virtual_time
async def test_data_beside_errors_is_neither_lost_nor_given_as_if_it_were_whole() -> None:
    script = Script(json({"data": {"EVM": None}, "errors": [{"message": "a cube failed"}]}))
    async with asking(script) as client:
        with pytest.raises(OperationFailed, match="a cube failed") as caught:
            await client.execute(QUERY)
    assert caught.value.data == {"EVM": None}
    assert caught.value.errors == ({"message": "a cube failed"},)
    assert len(script.asked_at) == 1


@pytest.mark.parametrize("status", [200, 400])
@virtual_time
async def test_a_refused_document_is_an_error_of_its_own_whatever_the_status(status: int) -> None:
    script = Script(json({"errors": [{"message": 'Cannot query field "Blcks"'}]}, status))
    async with asking(script) as client:
        with pytest.raises(DocumentRefused, match="Blcks"):
            await client.execute(QUERY)


@pytest.mark.parametrize(
    "odd", [HANG_UP, web.Response(text="<html>"), json([1]), json({}), json({"data": None})]
)
@virtual_time
async def test_what_is_no_answer_is_asked_again_with_a_longer_wait_each_time(odd: web.Response | str) -> None:
    script = Script(odd, odd, odd, json({"data": DATA}))
    async with asking(script) as client:
        assert await client.execute(QUERY) == DATA
    waits = [round(b - a, 2) for a, b in zip(script.asked_at, script.asked_at[1:], strict=False)]
    assert waits == [1, 2, 4]


@virtual_time
async def test_a_rate_limit_is_waited_out_from_five_seconds_on_and_retry_after_wins() -> None:
    limit = web.Response(status=429)
    asked_for = web.Response(status=429, headers={"Retry-After": "7"})
    script = Script(limit, limit, asked_for, json({"data": DATA}))
    async with asking(script) as client:
        assert await client.execute(QUERY) == DATA
    first, second, third = (
        round(b - a, 6) for a, b in zip(script.asked_at, script.asked_at[1:], strict=False)
    )
    assert 5 <= first <= 5.6
    assert 10 <= second <= 11.1
    assert 7 <= third <= 7.1


@virtual_time
async def test_a_server_that_stays_down_is_given_up_in_time_with_the_last_reason() -> None:
    script = Script(HANG_UP)
    async with asking(script) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionGivenUp, match=r"within 30 s.*could not be sent"):
            await client.execute(QUERY)
        assert asyncio.get_running_loop().time() - started == pytest.approx(30, abs=0.1)
    assert len(script.asked_at) < 10


@virtual_time
async def test_a_token_that_is_always_refused_ends_the_query_after_three() -> None:
    script = Script(web.Response(status=401, text=f"no such key: {TOKEN}"))
    async with asking(script) as client:
        with pytest.raises(TokenRefused) as caught:
            await client.execute(QUERY)
    assert script.fetched == len(script.asked_at) == 3
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "echo",
    [
        json({"errors": [{"message": f"bad input {TOKEN}"}]}),
        json({"data": DATA, "errors": [{"message": TOKEN}]}),
    ],
)
@virtual_time
async def test_an_error_that_repeats_the_token_is_shown_without_it(echo: web.Response) -> None:
    async with asking(Script(echo)) as client:
        with pytest.raises(OperationFailed) as caught:
            await client.execute(QUERY)
    assert TOKEN not in f"{caught.value} {caught.value.errors}"
    # As a crash reporter shows it, with what every function had in hand.
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert TOKEN not in "".join(shown.format())


@virtual_time
async def test_an_unpaid_bill_is_told_at_once() -> None:
    script = Script(web.Response(status=402, text="No active billing period"))
    async with asking(script) as client:
        with pytest.raises(PlanError, match="billing"):
            await client.execute(QUERY)
    assert len(script.asked_at) == 1


@virtual_time
async def test_a_redirect_is_not_followed_with_the_token() -> None:
    script = Script(web.Response(status=307, headers={"Location": "/graphql"}))
    async with asking(script) as client:
        with pytest.raises(ConnectionGivenUp, match="307"):
            await client.execute(QUERY)
    assert len(script.asked_at) == 1


@virtual_time
async def test_closing_the_client_ends_a_query_that_waits() -> None:
    script = Script(web.Response(status=503))
    async with asking(script) as client:
        waiting = asyncio.create_task(client.execute(QUERY))
        await asyncio.sleep(1)
        await client.aclose()
        with pytest.raises(ConnectionGivenUp):
            await waiting
