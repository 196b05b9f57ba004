"""The client against a server that nobody here wrote: Strawberry on aiohttp, over both subprotocols.

What is asserted is what the protocol's documents say, so that client and simulator cannot share a misreading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gql
import pytest
import pytest_asyncio
from aiohttp import web

from bqstream import Client, StaticToken, Token
from bqstream.config import Timeouts
from bqstream.errors import ConnectionGivenUp, DocumentRefused, OperationFailed, TokenRefused, UsageError
from bqstream.events import Connected, Lost, Refused, Stalled
from bqstream.message import Message
from bqstream.subscription import Subscription as Stream
from tests.integration.harness import Events, until
from tests.integration.strawberry_server import STAGE, TOKEN, TOKENS_ALLOWED, Server, serving
from tests.virtual_time import virtual_time

MODERN, LEGACY = "graphql-transport-ws", "graphql-ws"
UNICODE = 'żółw 🐢 \u0000 \u2028 \\ " 東京 \U0010ffff'


@pytest.fixture(autouse=True)
def no_tracebacks_of_strawberry(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "strawberry")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture(params=[MODERN, LEGACY])
def subprotocol(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest_asyncio.fixture
async def client(server: Server, subprotocol: Any) -> AsyncIterator[Client]:
    async with server.client(subprotocol=subprotocol) as opened:
        yield opened


async def messages(client: Client, document: Any, *args: Any, **options: Any) -> list[Message]:
    async with client.subscribe(document, *args, **options) as stream:
        return [message async for message in stream]


async def first(stream: Stream) -> Any:
    return (await anext(stream)).data


def long_document(field: str) -> str:
    """No syntax error to the client; one to this server, which counts tokens."""
    return f"subscription {{ {field} {'@include(if: true) ' * TOKENS_ALLOWED} }}"


# ---------------------------------------------------------------------- next, and the shapes of data


@pytest.mark.asyncio
async def test_a_scalar_root_streams_and_ends_with_complete(client: Client) -> None:
    got = await messages(client, "subscription { count(to: 5) }")
    assert [message.data for message in got] == [{"count": number} for number in range(5)]
    assert [list(message.rows()) for message in got] == [[{"count": number}] for number in range(5)]
    assert not any(message.errors or message.extensions or message.replayed for message in got)


@pytest.mark.asyncio
async def test_a_list_root_streams(client: Client) -> None:
    got = await messages(client, "subscription { lists(to: 3) }")
    assert [message.data["lists"] for message in got] == [[], ["1.0"], ["2.0", "2.1"]]
    assert [len(list(message.rows())) for message in got] == [1, 1, 1]


@pytest.mark.asyncio
async def test_an_object_root_streams(client: Client) -> None:
    assert [m.data for m in await messages(client, "subscription { halves { whole } }")] == [
        {"halves": {"whole": 1}},
        {"halves": {"whole": 2}},
    ]


@pytest.mark.asyncio
async def test_unicode_goes_there_and_back_in_documents_and_variables(client: Client) -> None:
    (message,) = await messages(
        client, "subscription ($text: String!) { echo(text: $text) }", {"text": UNICODE}
    )
    assert message.data == {"echo": UNICODE}
    (message,) = await messages(client, 'subscription { echo(text: "東京 🐢") }')
    assert message.data == {"echo": "東京 🐢"}


@pytest.mark.asyncio
async def test_variables_operation_names_files_and_gql_documents_arrive(
    client: Client, tmp_path: Path
) -> None:
    document = """
      subscription One($to: Int!) { count(to: $to) }
      subscription Other($text: String! = "default", $times: Int) { echo(text: $text, times: $times) }
    """
    assert len(await messages(client, document, {"to": 2}, operation_name="One")) == 2
    got = await messages(client, document, {"times": 3}, operation_name="Other")
    assert [message.data["echo"] for message in got] == ["default"] * 3
    path = tmp_path / "count.graphql"
    path.write_text("subscription { count(to: 2) }", encoding="utf-8")
    assert len(await messages(client, path)) == 2
    request = gql.gql("subscription ($to: Int!) { count(to: $to) }")
    assert len(await messages(client, request, {"to": 2})) == 2
    if hasattr(request, "variable_values"):  # gql 4: a request bears its own
        request.variable_values = {"to": 3}
        assert len(await messages(client, request)) == 3
        assert len(await messages(client, request, {"to": 1})) == 1


@pytest.mark.asyncio
async def test_many_subscriptions_share_one_link_and_none_gets_what_is_anothers(
    client: Client, server: Server
) -> None:
    async def echoes(number: int) -> list[Any]:
        text = f"subscription ($text: String!) {{ echo(text: $text, times: {number}) }}"
        return [m.data["echo"] for m in await messages(client, text, {"text": f"number {number}"})]

    got = await asyncio.gather(*map(echoes, range(40)))
    assert got == [[f"number {number}"] * number for number in range(40)]
    assert len(server.view.sockets) < 40


# ---------------------------------------------------------------------- errors


@pytest.mark.asyncio
async def test_errors_beside_data_are_partial_and_the_stream_goes_on(client: Client) -> None:
    got = await messages(client, "subscription { halves { whole broken } }")
    assert [message.data["halves"] for message in got] == [
        {"whole": 1, "broken": None},
        {"whole": 2, "broken": None},
    ]
    assert [error["message"] for message in got for error in message.errors] == ["this half is broken"] * 2
    assert got[0].errors[0]["path"] == ["halves", "broken"]


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ("subscription { nothing }", "nothing"),
        ("subscription { count }", "to"),
        ("subscription { count(to: 5) { inside } }", "selection"),
        ('subscription { count(to: "five") }', "five"),
    ],
)
@pytest.mark.asyncio
async def test_a_document_that_does_not_validate_is_refused_in_the_servers_words(
    client: Client, document: str, word: str
) -> None:
    with pytest.raises(DocumentRefused) as caught:
        await messages(client, document)
    assert word in str(caught.value)
    assert caught.value.errors
    assert word in caught.value.errors[0]["message"]
    assert (
        len(await messages(client, "subscription { count(to: 2) }")) == 2
    )  # the client is as good as before


@pytest.mark.asyncio
async def test_a_syntax_error_that_only_the_server_sees_ends_its_own_subscription_alone(
    client: Client, subprotocol: str
) -> None:
    """Strawberry closes the whole socket with 4400 on graphql-transport-ws; on graphql-ws it sends an error."""
    async with client.subscribe("subscription { held }") as neighbour:
        assert await first(neighbour) == {"held": 0}
        with pytest.raises(DocumentRefused, match="more than 200 tokens"):
            await messages(client, long_document("count(to: 1)"))
        if subprotocol == MODERN:
            assert await first(neighbour) == {"held": 0}
        STAGE.go.set()
        assert await first(neighbour) == {"held": 1}


@pytest.mark.asyncio
async def test_a_syntax_error_that_the_client_sees_costs_no_connection(
    client: Client, server: Server
) -> None:
    with pytest.raises(DocumentRefused, match="line 1, column 18"):
        await messages(client, "subscription { } }")
    with pytest.raises(DocumentRefused, match="execute"):
        await messages(client, "{ sum(a: 1) }")
    assert not server.view.dials


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.asyncio
async def test_a_resolver_that_raises_shows_as_errors_and_then_the_stream_ends(
    client: Client, after: int
) -> None:
    got = await messages(client, f"subscription {{ raising(after: {after}) }}")
    assert [message.data for message in got] == [*({"raising": n} for n in range(after)), None]
    assert got[-1].errors[0]["message"] == "the resolver gave up"
    assert list(got[-1].rows()) == []


@pytest.mark.asyncio
async def test_one_subscription_over_the_servers_limit_fails_alone(subprotocol: Any) -> None:
    async with (
        serving(max_subscriptions_per_connection=1) as server,
        server.client(subprotocol=subprotocol) as client,
        client.subscribe("subscription { held }") as neighbour,
    ):
        assert await first(neighbour) == {"held": 0}
        with pytest.raises(Exception, match="limit reached") as caught:
            await messages(client, "subscription { count(to: 1) }")
        assert type(caught.value).__module__ == "bqstream.errors"
        STAGE.go.set()
        assert await first(neighbour) == {"held": 1}
        assert neighbour.gaps == ()


# ---------------------------------------------------------------------- stopping


@pytest.mark.asyncio
async def test_leaving_a_subscription_stops_its_resolver_and_leaves_its_neighbour(
    client: Client, server: Server
) -> None:
    async with client.subscribe("subscription { held }") as stays:
        async with client.subscribe("subscription { held }") as goes:
            assert await first(goes) == {"held": 0}
        await until(lambda: STAGE.stopped == 1)
        assert await first(stays) == {"held": 0}
        STAGE.go.set()
        assert await first(stays) == {"held": 1}
        assert len(server.view.sockets) == 1
    await until(lambda: STAGE.stopped == 2)


@pytest.mark.asyncio
async def test_closing_the_client_ends_the_socket_with_1000_and_no_complaint(
    server: Server, subprotocol: Any
) -> None:
    client = await server.client(subprotocol=subprotocol).open()
    stream = await client.subscribe("subscription { held }")
    assert await first(stream) == {"held": 0}
    await client.aclose()
    assert [message async for message in stream] == []
    (socket,) = server.view.sockets
    await until(lambda: socket.closed)
    assert socket.close_code == 1000
    await until(lambda: STAGE.stopped == 1)


# ---------------------------------------------------------------------- the server closes


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4401, 4403, 4408, 4500, 4999])
@pytest.mark.asyncio
async def test_after_the_servers_close_the_stream_goes_on_over_a_new_link(
    server: Server, subprotocol: Any, code: int
) -> None:
    fetched: list[str] = []

    async def credentials() -> Token:
        fetched.append(TOKEN)
        return Token(TOKEN)

    seen = Events()
    async with (
        server.client(credentials, subprotocol=subprotocol, on_event=seen.append) as client,
        client.subscribe("subscription { held }") as stream,
    ):
        assert await first(stream) == {"held": 0}
        await server.view.sockets[-1].close(code=code, message=b"so long")
        assert await first(stream) == {"held": 0}
        STAGE.go.set()
        assert await first(stream) == {"held": 1}
        assert len(stream.gaps) == 1
        assert client.status().reconnects == 1
    (lost,) = seen.of(Lost)
    assert str(code) in lost.why
    assert len(fetched) == (2 if code in (3000, 4401, 4403) else 1)  # those mean the token, and no other does
    assert len(seen.of(Connected)) == 2


@pytest.mark.asyncio
async def test_a_server_that_restarts_is_found_again(server: Server, subprotocol: Any) -> None:
    seen = Events()
    async with (
        server.client(subprotocol=subprotocol, on_event=seen.append) as client,
        client.subscribe("subscription { held }") as stream,
    ):
        assert await first(stream) == {"held": 0}
        await server.stop()
        await until(lambda: len(seen.of(Lost)) > 0)
        await server.start()
        assert await first(stream) == {"held": 0}


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize("refusal", ["upgrade", "init"])
@pytest.mark.asyncio
async def test_a_static_token_that_is_refused_ends_with_an_error_that_says_what_to_do(
    server: Server, subprotocol: Any, refusal: str
) -> None:
    """HTTP 401 at the upgrade; 4403 (graphql-transport-ws) or ``connection_error`` and 1011 (graphql-ws)."""
    server.view.refusal = refusal
    async with server.client(StaticToken("a-bad-token-0001"), subprotocol=subprotocol) as client:
        with pytest.raises(TokenRefused, match="generate a new one") as caught:
            await messages(client, "subscription { count(to: 1) }")
    assert "bad-token" not in str(caught.value)
    assert len(server.view.dials) == 1


@pytest.mark.parametrize("refusal", ["upgrade", "init"])
@pytest.mark.asyncio
async def test_a_refused_token_is_fetched_anew_and_the_subscription_starts(
    server: Server, subprotocol: Any, refusal: str
) -> None:
    server.view.refusal = refusal
    fetched = iter(["an-old-token-0001", TOKEN])

    async def credentials() -> Token:
        return Token(next(fetched))

    seen = Events()
    async with server.client(credentials, subprotocol=subprotocol, on_event=seen.append) as client:
        assert len(await messages(client, "subscription { count(to: 3) }")) == 3
    assert server.view.dials == ["an-old-token-0001", TOKEN]
    assert [refused.what for refused in seen.of(Refused)] == ["token"]


@pytest.mark.asyncio
async def test_the_token_arrives_in_connection_params_where_it_is_asked_for(
    server: Server, subprotocol: Any
) -> None:
    server.view.refusal = "params"
    async with server.client(subprotocol=subprotocol, token_in=("init",)) as client:
        assert len(await messages(client, "subscription { count(to: 3) }")) == 3
    assert server.view.params == [{"Authorization": f"Bearer {TOKEN}"}]
    assert server.view.dials == [""]


@pytest.mark.asyncio
async def test_a_server_of_one_subprotocol_is_spoken_to_in_it(subprotocol: Any) -> None:
    seen = Events()
    async with serving(subscription_protocols=[subprotocol]) as server:
        async with server.client(on_event=seen.append) as client:
            assert len(await messages(client, "subscription { count(to: 3) }")) == 3
        other = LEGACY if subprotocol == MODERN else MODERN
        async with server.client(subprotocol=other) as client:
            with pytest.raises(ConnectionGivenUp):
                await messages(client, "subscription { count(to: 3) }")
    assert [connected.subprotocol for connected in seen.of(Connected)] == [subprotocol]


@pytest.mark.asyncio
async def test_of_both_subprotocols_the_newer_is_spoken(server: Server) -> None:
    seen = Events()
    async with server.client(on_event=seen.append) as client:
        await messages(client, "subscription { count(to: 1) }")
    assert [connected.subprotocol for connected in seen.of(Connected)] == [MODERN]


# ---------------------------------------------------------------------- signs of life


@pytest.mark.parametrize("beating", [True, False])
@virtual_time
async def test_a_silent_subscription_keeps_its_link_for_an_hour(beating: bool) -> None:
    """On graphql-transport-ws we ping; on graphql-ws ``ka`` or, without one, WebSocket pings show the life."""
    for spoken in (MODERN, LEGACY):
        seen = Events()
        async with (
            serving(keep_alive=beating) as server,
            server.client(
                subprotocol=spoken, on_event=seen.append, timeouts=Timeouts(idle=10), proxy=None
            ) as client,
            client.subscribe("subscription { held }") as stream,
        ):
            assert await first(stream) == {"held": 0}
            await asyncio.sleep(3600)
            STAGE.go.set()
            assert await first(stream) == {"held": 1}
            assert client.status().reconnects == 0
            if spoken == MODERN:
                assert 3600 / 10 <= server.view.pings <= 2 * 3600 / 10 + 1
            else:
                assert server.view.pings == 0
        assert not seen.of(Stalled)
        assert not seen.of(Lost)


@pytest.mark.asyncio
async def test_a_ping_of_the_server_is_answered_with_its_payload(server: Server) -> None:
    async with (
        server.client(subprotocol=MODERN) as client,
        client.subscribe("subscription { held }") as stream,
    ):
        assert await first(stream) == {"held": 0}
        for payload in ({"n": 1, "text": UNICODE}, None):
            await server.view.sockets[-1].send_json({"type": "ping", "payload": payload})
        await until(lambda: len(server.view.pongs) == 2)
        assert server.view.pongs == [{"n": 1, "text": UNICODE}, None]


FRAMES_THAT_MEAN_NOTHING = (
    '{"type":"next","id":"no such id","payload":{"data":{}}}',
    '{"type":"data","id":"77","payload":{"data":{}}}',
    '{"type":"complete","id":"77"}',
    '{"type":"error","payload":{"message":"of no operation"}}',
    '{"type":"start_ack","id":"1"}',
    '{"type":"ka"}',
    '{"type":"pong"}',
    '{"type":"connection_ack"}',
    '{"type":17,"id":[]}',
)


@pytest.mark.asyncio
async def test_frames_that_mean_nothing_are_ignored(server: Server, client: Client) -> None:
    async with client.subscribe("subscription { held }") as stream:
        assert await first(stream) == {"held": 0}
        for frame in FRAMES_THAT_MEAN_NOTHING:
            await server.view.sockets[-1].send_str(frame)
        STAGE.go.set()
        assert await first(stream) == {"held": 1}
        assert client.status().reconnects == 0


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda socket: socket.send_str("[]"), 4400),
        (lambda socket: socket.send_str('{"type"'), 4400),
        (lambda socket: socket.send_bytes(b'{"type":"pong"}'), 1003),
    ],
)
@pytest.mark.asyncio
async def test_a_frame_that_is_none_is_answered_by_a_close_and_a_new_link(
    server: Server, client: Client, send: Callable[[web.WebSocketResponse], Any], code: int
) -> None:
    async with client.subscribe("subscription { held }") as stream:
        assert await first(stream) == {"held": 0}
        socket = server.view.sockets[-1]
        await send(socket)
        assert await first(stream) == {"held": 0}
        await until(lambda: socket.closed)
        assert socket.close_code == code


# ---------------------------------------------------------------------- one query over HTTP


@pytest.mark.asyncio
async def test_a_query_is_executed_over_http(server: Server) -> None:
    async with server.client() as client:
        assert await client.execute("{ sum(a: 1, b: 2) }") == {"sum": 3}
        document = "query One { sum(a: 1) } query Other($b: Int!) { sum(a: 1, b: $b) }"
        assert await client.execute(document, {"b": 41}, operation_name="Other") == {"sum": 42}
        with pytest.raises(OperationFailed) as caught:
            await client.execute("{ half { whole broken } }")
        assert caught.value.data == {"half": {"whole": 1, "broken": None}}
        assert caught.value.errors
        with pytest.raises(DocumentRefused, match=r"execute\(\) takes|subscribe\(\) takes"):
            await client.execute("subscription { count(to: 1) }")
        with pytest.raises(UsageError):
            await client.execute("query ($b: Int!) { sum(a: 1, b: $b) }", {"b": object()})
    assert not server.view.sockets


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.asyncio
async def test_a_query_that_is_wrong_is_refused_whatever_the_status(server: Server, status: int) -> None:
    """GraphQL over HTTP, section 6.4: 200 with ``application/json``, 400 with its own media type."""
    server.view.status_of_refused_documents = status
    async with server.client() as client:
        with pytest.raises(DocumentRefused, match="nothing") as caught:
            await client.execute("{ nothing }")
        assert "nothing" in caught.value.errors[0]["message"]
        with pytest.raises(DocumentRefused, match="tokens"):
            await client.execute(long_document("sum(a: 1)").replace("subscription", "query"))


@pytest.mark.asyncio
async def test_a_query_with_a_refused_token_fetches_it_anew(server: Server) -> None:
    fetched = iter(["an-old-token-0001", TOKEN])

    async def credentials() -> Token:
        return Token(next(fetched))

    async with server.client(credentials) as client:
        assert await client.execute("{ sum(a: 1) }") == {"sum": 1}
    async with server.client("a-bad-token-0001") as client:
        with pytest.raises(TokenRefused):
            await client.execute("{ sum(a: 1) }")
