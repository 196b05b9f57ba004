from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bqstream.clock import Clock
from bqstream.credentials import ClientCredentials, ShortTermToken, StaticToken, Token
from bqstream.credentials.exchange import PassingError
from bqstream.errors import CredentialsRefused, PlanError, TokenRefused, UsageError

from .token_server import Answer, TokenServer, token_server


class Hands:
    """Two clocks, set by hand."""

    monotonic = 0.0
    wall = 1_700_000_000.0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.monotonic, wall=lambda: self.wall)


def access(number: int, expires_in: float = 600) -> Answer:
    return Answer({"access_token": f"access-{number}", "expires_in": expires_in})


def short(number: int, **more: Any) -> Answer:
    return Answer({"token": f"short-{number}"} | more)


def secure(server: TokenServer, **options: Any) -> ShortTermToken:
    parent = ClientCredentials("id", "s3cr3t", token_url=f"{server.url}/oauth2/token")
    return ShortTermToken(parent, **options)


def paths(server: TokenServer) -> list[str]:
    return [asked.path for asked in server.asked]


@pytest.mark.asyncio
async def test_an_access_token_is_exchanged_at_the_clients_endpoint() -> None:
    async with token_server(access(1), short(1)) as server:
        token = await secure(server, expires_in=5).fetch(server.service())
        exchange = server.asked[1]
    assert token == Token("short-1", 5)
    assert (exchange.method, exchange.path) == ("POST", "/graphql")
    assert exchange.headers["Authorization"] == "Bearer access-1"
    assert exchange.headers["Content-Type"] == "application/json"
    assert msgspec.json.decode(exchange.body) == {"expires_in": 5}


@pytest.mark.asyncio
async def test_the_address_of_the_exchange_may_be_given() -> None:
    async with token_server(access(1), short(1)) as server:
        await secure(server, url=f"{server.url}/elsewhere").fetch(server.service())
        assert paths(server) == ["/oauth2/token", "/elsewhere"]


@pytest.mark.asyncio
async def test_a_lifetime_in_the_answer_wins_over_the_one_that_was_asked_for() -> None:
    async with token_server(access(1), short(1, expires_in=90)) as server:
        assert (await secure(server).fetch(server.service())).expires_in == 90


@pytest.mark.parametrize("clock", ["monotonic", "wall"])
@pytest.mark.asyncio
async def test_the_parents_token_is_kept_until_it_expires_on_either_clock(clock: str) -> None:
    hands = Hands()
    async with token_server(access(1), short(1), short(2), access(2), short(3)) as server:
        credentials, service = secure(server), server.service(clock=hands.clock())
        await credentials.fetch(service)
        setattr(hands, clock, getattr(hands, clock) + 599)
        await credentials.fetch(service)
        setattr(hands, clock, getattr(hands, clock) + 1)
        await credentials.fetch(service)
        assert paths(server) == ["/oauth2/token", "/graphql", "/graphql", "/oauth2/token", "/graphql"]
        assert server.asked[-1].headers["Authorization"] == "Bearer access-2"


@pytest.mark.asyncio
async def test_many_fetches_at_once_ask_for_the_parents_token_once() -> None:
    gate = asyncio.Event()
    held = Answer({"access_token": "access-1", "expires_in": 600}, hold=gate.wait)
    async with token_server(held, short(1)) as server:
        credentials, service = secure(server), server.service()
        fetches = [asyncio.ensure_future(credentials.fetch(service)) for _ in range(20)]
        await server.arrived.wait()
        gate.set()
        await asyncio.gather(*fetches)
        assert paths(server).count("/oauth2/token") == 1


@pytest.mark.asyncio
async def test_a_cancelled_fetch_leaves_the_others_in_peace() -> None:
    gate = asyncio.Event()
    held = Answer({"access_token": "access-1", "expires_in": 600}, hold=gate.wait)
    async with token_server(held, access(2), short(1)) as server:
        credentials, service = secure(server), server.service()
        first = asyncio.ensure_future(credentials.fetch(service))
        await server.arrived.wait()
        second = asyncio.ensure_future(credentials.fetch(service))
        first.cancel()
        assert (await second).value == "short-1"
        assert first.cancelled()
        gate.set()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.asyncio
async def test_a_refused_exchange_fetches_the_parents_token_anew_once(status: int) -> None:
    async with token_server(access(1), Answer(status=status), access(2), short(1)) as server:
        credentials, service = secure(server), server.service()
        assert (await credentials.fetch(service)).value == "short-1"
        assert server.asked[-1].headers["Authorization"] == "Bearer access-2"
        await credentials.fetch(service)
        assert paths(server)[4:] == ["/graphql"]  # the new parent's token is the one that is kept


@pytest.mark.asyncio
async def test_a_fresh_parents_token_that_is_refused_too_means_refused_credentials() -> None:
    echo = Answer({"error": "not access-2"}, status=401)
    async with token_server(access(1), Answer(status=401), access(2), echo) as server:
        with pytest.raises(CredentialsRefused, match=r"not \*\*\*") as caught:
            await secure(server).fetch(server.service())
        assert len(server.asked) == 4
    assert caught.value.__context__ is None
    assert "access-2" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_static_parent_that_is_refused_means_a_new_one_must_be_generated() -> None:
    async with token_server(Answer(status=401)) as server:
        with pytest.raises(TokenRefused, match="generate a new one"):
            await ShortTermToken(StaticToken("long-lived")).fetch(server.service())
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=402, text=""), PlanError),
        (Answer(status=503, text=""), PassingError),
        (Answer({"errors": [{"message": "later"}]}), PassingError),
        (Answer({"access_token": "wrong key"}), PassingError),
        (Answer(status=302, headers={"Location": "/"}), PassingError),
    ],
)
@pytest.mark.asyncio
async def test_an_exchange_fails_like_any_token_request(answer: Answer, error: type[Exception]) -> None:
    async with token_server(access(1), answer) as server:
        with pytest.raises(error):
            await secure(server).fetch(server.service())
        assert len(server.asked) == 2


def test_the_parent_may_be_whatever_credentials_may_be() -> None:
    async def give() -> Token:
        return Token("x")

    assert ShortTermToken("text").parent == StaticToken("text")  # type: ignore[arg-type]
    assert ShortTermToken(give).parent.renewable  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="address"):
        ShortTermToken("eu")  # type: ignore[arg-type]


def test_one_value_serves_several_loops_one_after_the_other() -> None:
    async def give() -> Token:
        await asyncio.sleep(0)
        return Token("parent")

    async def fetch(credentials: ShortTermToken) -> None:
        async with token_server(short(1)) as server:
            service = server.service()
            await asyncio.gather(credentials.fetch(service), credentials.fetch(service))

    credentials = ShortTermToken(give)  # type: ignore[arg-type]
    asyncio.run(fetch(credentials))
    asyncio.run(fetch(credentials))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ShortTermToken("x", expires_in=0),  # type: ignore[arg-type]
        lambda: ShortTermToken("x", expires_in=True),  # type: ignore[arg-type]
        lambda: ShortTermToken("x", expires_in=float("inf")),  # type: ignore[arg-type]
        lambda: ShortTermToken("x", url="https://x@example.org"),  # type: ignore[arg-type]
    ],
)
def test_a_short_term_token_that_makes_no_sense_is_refused_at_birth(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()
