"""The search for secrets finds what it should, so that it cannot pass for want of looking."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from bqstream import Client, ClientCredentials, StaticToken, Token
from bqstream.endpoints import Endpoint, Placement, place_token
from bqstream.errors import ConnectionGivenUp, TokenRefused
from bqstream.events import Connected, HandedOver, Refused, moment
from bqstream.query import Queries
from bqstream.simulator import Simulator
from tests.integration.harness import Events, client_for, reading, until
from tests.secrecy import Watch
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.shows_secrets
pytest_plugins = ["pytester"]
TOKEN = 'ory_at_9fK2+vQ7/xLm0Zt"c4Wb=='
CLIENT, SECRET = "app: 17", "pZ8!wn3Ry%Tq5:uJ1"


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch() as watching:
        Token(TOKEN)
        ClientCredentials(CLIENT, SECRET)
        assert watching.leaks() == []
        yield watching


SHOWN: dict[str, str] = {
    "plain": TOKEN,
    "in a URL": f"wss://h/graphql?token={quote(TOKEN, safe='')}&x=1",
    "in a URL, lower case": quote(TOKEN, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "in JSON": json.dumps({"Authorization": f"Bearer {TOKEN}"}),
    "in a repr": repr([TOKEN + "'"]),
    "a fragment": f"… {TOKEN[9:17]} …",
    "its last eight characters": TOKEN[-8:],
    "a client secret": SECRET,
    "a client secret in a form": f"grant_type=x&client_secret={quote(SECRET, safe='')}",
    "Basic": base64.b64encode(f"{quote(CLIENT)}:{quote(SECRET, safe='')}".encode()).decode(),
    "a piece of Basic": base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()[14:24],
}


@pytest.mark.parametrize("how", SHOWN)
def test_a_secret_is_found_however_it_is_written(watch: Watch, how: str) -> None:
    watch.text("somewhere", f"something said {SHOWN[how]}")
    assert len(watch.leaks()) == 1


@pytest.mark.parametrize(
    "text",
    [
        TOKEN[:14],
        TOKEN[10:17],
        "client_secret",
        "Bearer ory_at_",
        "x" * 100,
        base64.b64encode(CLIENT.encode()).decode(),
    ],
)
def test_what_shows_no_secret_is_let_pass(watch: Watch, text: str) -> None:
    watch.text("somewhere", text)
    assert watch.leaks() == []


def a_log_of_no_level_that_goes_nowhere() -> None:
    logger = logging.getLogger("somebody.quiet")
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)
    logger.log(1, "a token: %s", TOKEN)


def an_argument_of_a_log() -> None:
    logging.getLogger("aiohttp.client").debug("%.3s", TOKEN)


def an_extra_of_a_log() -> None:
    logging.getLogger("gql").debug("nothing", extra={"headers": {"Authorization": TOKEN}})


def the_exception_of_a_log() -> None:
    try:
        raise ValueError(SHOWN["in a URL"])
    except ValueError:
        logging.getLogger("asyncio").exception("it failed")


def an_error() -> None:
    TokenRefused(f"refused: {TOKEN}")


def the_cause_of_an_error() -> None:
    try:
        raise ConnectionGivenUp("the service is away") from KeyError(TOKEN)
    except ConnectionGivenUp:
        pass


def the_context_of_an_error() -> None:
    try:
        try:
            raise KeyError(TOKEN)
        except KeyError:
            raise ConnectionGivenUp("the service is away") from None
    except ConnectionGivenUp:
        pass


def an_attribute_of_an_error() -> None:
    error = TokenRefused("refused")
    error.request = {"headers": TOKEN}  # type: ignore[attr-defined]


def an_event() -> None:
    Refused(at=moment(0), what="token", why=f"it is {TOKEN}")


def a_foreign_exception_out_of_bqstream() -> None:
    with pytest.raises(ValueError):
        place_token(Endpoint.parse("eu"), _Lone(TOKEN), ("query",))


class _Lone(str):
    def encode(self, *_: str) -> bytes:
        raise ValueError(str(self))


@pytest.mark.parametrize(
    "leak",
    [
        a_log_of_no_level_that_goes_nowhere,
        an_argument_of_a_log,
        an_extra_of_a_log,
        the_exception_of_a_log,
        an_error,
        the_cause_of_an_error,
        the_context_of_an_error,
        an_attribute_of_an_error,
        an_event,
        a_foreign_exception_out_of_bqstream,
    ],
)
def test_a_planted_leak_is_found(watch: Watch, leak: Callable[[], None]) -> None:
    leak()
    gc.collect()
    assert watch.leaks()


def test_a_repr_that_shows_a_secret_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Placement, "__repr__", lambda self: f"<Placement {self.url}>")
    with Watch() as watch:
        place_token(Endpoint.parse("eu"), TOKEN, ("query",))
        assert [leak.partition(":")[0] for leak in watch.leaks()] == ["the repr of a Placement"]


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_what_a_child_process_prints_is_searched(watch: Watch, stream: str) -> None:
    code = f"import sys; f = sys.{stream}; f.write({TOKEN[:12]!r}); f.flush(); f.write({TOKEN[12:]!r})"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await process.communicate()
    assert len(watch.leaks()) == 1


@pytest.mark.asyncio
async def test_a_clients_life_is_looked_at_and_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(block_interval=0.02) as simulator:
        with Watch() as watch:
            async with client_for(simulator) as client:
                await client.execute(
                    "{ EVM(network: eth) { Blocks(limit: {count: 1}) { Block { Number } } } }"
                )
            origins = {origin for origin, _ in watch._texts}
            assert {
                "the log of bqstream",
                "the log of bqstream.credentials",
                "the repr of a HeldToken",
            } <= origins
            assert len(watch._known) == 2  # the client's secret and the token that it was given
            assert watch.leaks() == []

            async def telltale(self: Any, request: bytes, token: str) -> Any:
                logging.getLogger("bqstream").debug("asking with %s", token)
                return msgspec.Raw(b"null")

            monkeypatch.setattr(Queries, "_post", telltale)
            async with client_for(simulator) as client:
                await client.execute("{ __typename }")
            assert len(watch.leaks()) == 1


@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "graphql-ws"])
@virtual_time
async def test_handovers_and_refusals_show_nothing_even_with_asyncio_in_debug_mode(subprotocol: str) -> None:
    """In debug mode asyncio logs the ``repr`` of whatever it runs for longer than it should; here, of everything."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = -1
    options = {"subprotocol": subprotocol, "token_in": ("header", "query", "init")}
    seen = Events()
    async with Simulator(block_interval=0.1, token_ttl=4) as simulator:
        with Watch() as watch:
            async with client_for(simulator, on_event=seen.append, **options) as client, reading(client):
                await until(lambda: len(seen.of(HandedOver)) == 1)
                simulator.faults.revoke()
                simulator.faults.refuse_acks(1, "connection_error")
                simulator.faults.close(4401, "Unauthorized")
                await until(lambda: len(seen.of(Connected)) == 3)
                simulator.faults.refuse_dials(1, 401, body="Unauthorized")
                simulator.faults.errors("Unauthorized")
                simulator.faults.abort()
                await until(lambda: len(seen.of(Connected)) == 4)
            assert len([text for origin, text in watch._texts if text.startswith("Executing <")]) > 100
            assert watch.secrets >= 4
            assert watch.leaks() == []


@pytest.mark.parametrize("ours", [StaticToken(TOKEN), ClientCredentials(CLIENT, SECRET)])
def test_the_secrets_of_credentials_are_known(watch: Watch, ours: Any) -> None:
    client = Client(ours)
    watch.text("a slip", f"{client!r} {vars(client)!r}")
    assert watch.leaks() == []


def test_the_guilty_test_is_the_one_that_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parents[2]), *filter(None, sys.path)]))
    pytester.makepyfile(
        """
        import logging, pytest
        from bqstream import Token

        TOKEN = Token("s" + "9fK2vQ7xLm0Zt" * 2)

        def test_innocent():
            logging.debug("%r", TOKEN)

        def test_guilty():
            logging.log(1, TOKEN.value[5:13])

        def test_printing():
            print(TOKEN.value)

        @pytest.mark.shows_secrets
        def test_on_purpose():
            print(TOKEN.value)
        """
    )
    result = pytester.runpytest_subprocess("-p", "tests.secrecy", "--strict-markers", "-W", "error")
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_guilty*", "*a secret is shown*", "the log of root: *"]
    )
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_printing*"])
    result.stdout.no_fnmatch_line("*ERROR at teardown of test_innocent*")
