from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from bqstream._version import __version__
from bqstream.transport.base import DialError, Engine, Target, UpgradeRefused
from tests.virtual_time import virtual_time

from .harness import chain, client_tls, running, server, server_tls, shown, tcp_server

pytestmark = pytest.mark.usefixtures("nothing_left")
MODERN, LEGACY = "graphql-transport-ws", "graphql-ws"
TOKEN = "ory_at_Zx81-QpLm_77vYwT.sK3nR0aBcDeF"


def test_a_target_shows_neither_its_url_nor_its_headers() -> None:
    target = Target(
        url=f"wss://h/?token={TOKEN}", headers={"Authorization": f"Bearer {TOKEN}"}, secrets=(TOKEN,)
    )
    assert not shown(TOKEN, repr(target))


@pytest.mark.asyncio
async def test_url_headers_and_user_agent_reach_the_server(engine: Engine) -> None:
    requests: list[Request] = []

    def note(peer: ServerConnection, request: Request) -> None:
        requests.append(request)

    async with (
        server(process_request=note) as url,
        running(engine, f"{url}?token={TOKEN}", headers={"Authorization": f"Bearer {TOKEN}"}),
    ):
        (request,) = requests
    assert request.path == f"/graphql?token={TOKEN}"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["User-Agent"] == f"bqstream/{__version__}"


@pytest.mark.asyncio
@pytest.mark.parametrize("chosen", [MODERN, LEGACY])
async def test_the_subprotocol_is_the_one_that_the_server_chose(engine: Engine, chosen: str) -> None:
    async with (
        server(subprotocols=[chosen]) as url,
        running(engine, url, subprotocols=(MODERN, LEGACY)) as client,
    ):
        assert client.connection.subprotocol == chosen


@pytest.mark.asyncio
async def test_a_server_that_names_no_subprotocol_gives_none(engine: Engine) -> None:
    def choose_none(peer: ServerConnection, offered: object) -> None:
        return None

    async with (
        server(subprotocols=[MODERN], select_subprotocol=choose_none) as url,
        running(engine, url, subprotocols=(MODERN, LEGACY)) as client,
    ):
        assert client.connection.subprotocol is None


@pytest.mark.asyncio
async def test_a_subprotocol_that_was_not_offered_is_refused_for_good_and_nothing_is_sent(
    engine: Engine,
) -> None:
    received: list[object] = []
    over = asyncio.Event()

    async def handler(peer: ServerConnection) -> None:
        try:
            async for frame in peer:
                received.append(frame)
        finally:
            over.set()

    def answer(peer: ServerConnection, request: Request, response: Response) -> None:
        response.headers["Sec-WebSocket-Protocol"] = "soap"

    async with server(handler, process_response=answer) as url:
        with pytest.raises(DialError, match="soap") as caught:
            await engine.dial(Target(url=url, subprotocols=(MODERN, LEGACY), proxy=None))
        await over.wait()
    assert caught.value.permanent
    assert received == []


def refusing(status: int, headers: dict[str, str], body: bytes) -> Response:
    return Response(status, "Refused", Headers({**headers, "Content-Length": str(len(body))}), body)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, {"WWW-Authenticate": "Bearer"}, b"Unauthorized"),
        (402, {}, b"No active billing period"),
        (429, {"Retry-After": "7"}, b'{"error": "Too Many Sessions"}'),
        (503, {}, b""),
        (200, {}, b"not a WebSocket"),
    ],
)
async def test_a_refused_upgrade_says_status_headers_and_body(
    engine: Engine, status: int, headers: dict[str, str], body: bytes
) -> None:
    def refuse(peer: ServerConnection, request: Request) -> Response:
        return refusing(status, headers, body)

    async with server(process_request=refuse) as url:
        with pytest.raises(UpgradeRefused, match=f"HTTP {status}") as caught:
            await engine.dial(Target(url=url, proxy=None))
    refusal = caught.value
    assert (refusal.status, refusal.body) == (status, body.decode())
    assert {name: refusal.headers[name.lower()] for name in headers} == headers


@pytest.mark.asyncio
async def test_a_refusal_that_says_too_much_or_no_text_is_cut_and_readable(engine: Engine) -> None:
    def refuse(peer: ServerConnection, request: Request) -> Response:
        return refusing(400, {}, b"\xff" + b"x" * 500_000)

    async with server(process_request=refuse) as url:
        with pytest.raises(UpgradeRefused) as caught:
            await engine.dial(Target(url=url, proxy=None))
    assert caught.value.body.startswith("\ufffdxxx")
    assert len(caught.value.body) <= 4096


@pytest.mark.asyncio
async def test_a_header_that_comes_twice_is_joined(engine: Engine) -> None:
    def refuse(peer: ServerConnection, request: Request) -> Response:
        headers = [("WWW-Authenticate", "Basic"), ("Content-Length", "0"), ("WWW-Authenticate", "Bearer")]
        return Response(401, "Unauthorized", Headers(headers), b"")

    async with server(process_request=refuse) as url:
        with pytest.raises(UpgradeRefused) as caught:
            await engine.dial(Target(url=url, proxy=None))
    assert caught.value.headers["www-authenticate"] == "Basic, Bearer"


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_not_followed(engine: Engine, status: int) -> None:
    dialled: list[str] = []

    def note(peer: ServerConnection, request: Request) -> None:
        dialled.append(request.path)

    async with server(process_request=note) as elsewhere:

        def redirect(peer: ServerConnection, request: Request) -> Response:
            return refusing(status, {"Location": f"{elsewhere}?{request.path.partition('?')[2]}"}, b"")

        async with server(process_request=redirect) as url:
            with pytest.raises(UpgradeRefused) as caught:
                await engine.dial(Target(url=f"{url}?token={TOKEN}", secrets=(TOKEN,), proxy=None))
    assert caught.value.status == status
    assert caught.value.headers["location"].startswith(elsewhere)
    assert not shown(TOKEN, str(vars(caught.value)))
    assert dialled == []


@pytest.mark.asyncio
async def test_a_certificate_of_a_known_authority_is_accepted(engine: Engine) -> None:
    async with server(ssl=server_tls()) as url, running(engine, url, tls=client_tls()) as client:
        client.connection.send(b"hello")
        assert await client.next() == b"hello"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "tls"),
    [("127.0.0.1", None), ("elsewhere.example", client_tls())],
    ids=["unknown authority", "wrong host name"],
)
async def test_a_certificate_that_does_not_verify_is_refused_for_good(
    engine: Engine, name: str, tls: ssl.SSLContext | None
) -> None:
    async with server(ssl=server_tls(name)) as url:
        with pytest.raises(DialError, match="certificate") as caught:
            await engine.dial(Target(url=url, tls=tls, proxy=None))
    assert caught.value.permanent


@pytest.mark.asyncio
async def test_a_context_for_tls_does_not_matter_to_a_plain_url(engine: Engine) -> None:
    async with server() as url, running(engine, url, tls=client_tls()) as client:
        client.connection.send(b"hello")
        assert await client.next() == b"hello"


@pytest.mark.asyncio
async def test_a_server_without_tls_may_be_tried_again(engine: Engine) -> None:
    async with server() as url:
        with pytest.raises(DialError) as caught:
            await engine.dial(Target(url=url.replace("ws:", "wss:"), proxy=None))
    assert not caught.value.permanent


@pytest.mark.asyncio
async def test_a_closed_port_may_be_tried_again(engine: Engine) -> None:
    async with server() as url:
        pass
    with pytest.raises(DialError, match="no connection") as caught:
        await engine.dial(Target(url=url, proxy=None))
    assert not caught.value.permanent


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 101 Yes\r\n\r\n"])
async def test_a_server_that_does_not_speak_websocket_may_be_tried_again(
    engine: Engine, answer: bytes
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with tcp_server(handler) as port:
        with pytest.raises(DialError) as caught:
            await engine.dial(Target(url=f"ws://127.0.0.1:{port}/", proxy=None))
    assert not caught.value.permanent


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://h/{}",
        "ws://",
        "ws://h:{}/",
        "ws://[::1/{}",
        "wss://h/#{}",
        "ws://u@h/{}",
        "ws://h:99999/{}",
    ],
)
async def test_an_address_that_is_none_is_refused_for_good_and_not_shown(engine: Engine, url: str) -> None:
    with pytest.raises(DialError) as caught:
        await engine.dial(Target(url=url.format(TOKEN), proxy=None))
    assert caught.value.permanent
    for error in chain(caught.value):
        assert not shown(TOKEN, repr(error) + str(vars(error)))


@virtual_time
async def test_a_server_that_never_answers_is_given_up_in_time(engine: Engine) -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with tcp_server(handler) as port:
        started = asyncio.get_running_loop().time()
        with pytest.raises(DialError, match="within 60 s") as caught:
            await engine.dial(Target(url=f"ws://127.0.0.1:{port}/", timeout=60, proxy=None))
        assert asyncio.get_running_loop().time() - started == pytest.approx(60)
        assert not caught.value.permanent
        await gone.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_cancelled_dial_leaves_no_socket(engine: Engine, scheme: str) -> None:
    dialled, gone = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        dialled.set()
        with suppress(ConnectionResetError):  # how a socket goes away on which something was still unread
            await reader.read()
        gone.set()

    async with tcp_server(handler) as port:
        dial = asyncio.create_task(engine.dial(Target(url=f"{scheme}://127.0.0.1:{port}/", proxy=None)))
        await dialled.wait()
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        await gone.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(12))
async def test_a_dial_cancelled_at_any_turn_of_the_loop_leaves_nothing(engine: Engine, turns: int) -> None:
    async with server(ssl=server_tls()) as url:
        dial = asyncio.create_task(engine.dial(Target(url=url, tls=client_tls(), proxy=None)))
        for _ in range(turns):
            await asyncio.sleep(0)
        dial.cancel()
        try:
            connection = await dial
        except asyncio.CancelledError:
            pass
        else:
            await connection.close(timeout=5)
