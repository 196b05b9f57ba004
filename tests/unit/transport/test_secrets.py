"""Nothing that an engine logs or raises shows a token, or eight characters of one."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from urllib.parse import quote

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from bqstream.endpoints import Endpoint, place_token
from bqstream.transport.base import DialError, Engine, Target

from .harness import Running, chain, client_tls, server, server_tls, shown, tcp_server

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.asyncio]
TOKENS = {
    "opaque": "ory_at_Zx81-QpLm_77vYwT.sK3nR0aBcDeF",
    "with special characters": "aB+/9=%\"\\q'Zk~12xx.PPqq$&;,7Yt#mN",
    "long": "".join(chr(33 + (i * i + 7 * i) % 94) for i in range(900)),
}


@pytest.fixture(params=TOKENS)
def token(request: pytest.FixtureRequest) -> str:
    return TOKENS[request.param]


def target_for(url: str, token: str, tls: ssl.SSLContext | None = None) -> Target:
    """The token at once in all the places that it can take."""
    placed = place_token(Endpoint.parse(url), token, ("header", "query", "init"))
    return Target(url=placed.url, headers=placed.headers, secrets=placed.secrets, tls=tls, proxy=None)


def unsafe(token: str) -> Callable[[str], set[str]]:
    forms = {token, quote(token, safe=""), json.dumps(token)[1:-1], repr(token)[1:-1]}
    return lambda text: {piece for form in forms for piece in shown(form, text)}


class Log(logging.Handler):
    """Keeps all that a handler could write of a record, its attributes included."""

    def __init__(self) -> None:
        super().__init__(1)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {vars(record)}")


@pytest.fixture
def everything_logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    root, log = logging.getLogger(), Log()
    monkeypatch.setattr(root, "handlers", [*root.handlers, log])
    monkeypatch.setattr(root, "level", 1)
    root.manager._clear_cache()  # type: ignore[attr-defined]
    return log.lines


async def test_a_whole_life_logged_at_level_one_shows_no_token(
    engine: Engine, token: str, everything_logged: list[str]
) -> None:
    async def tell_it_back(peer: ServerConnection) -> None:
        init = await peer.recv()
        await peer.send(init)
        await peer.send(token)
        await peer.send(token.encode())
        await peer.send(b"\xff" + token.encode())
        await peer.send([token[:11], token[11:20], token[20:]])
        await peer.send("x" * 40 + token + "x" * 5000)
        await peer.close(4401, f"Unauthorized: {token[:40]}")

    async with server(tell_it_back) as url:
        client = Running(await engine.dial(target_for(url, token)))
        client.connection.send(json.dumps({"type": "connection_init", "payload": {"token": token}}).encode())
        await client.connection.ping()
        closed = await client.closed()
        assert len(client.left()) == 6
    assert closed.code == 4401
    assert closed.reason.startswith("Unauthorized")
    assert not unsafe(token)(closed.reason)
    text = "\n".join(everything_logged)
    for logged in ("GET /graphql?", "Authorization", "connection_init", "Unauthorized", "xxxx"):
        assert logged in text
    assert not unsafe(token)(text)


async def test_no_failure_to_dial_shows_a_token_however_deep_one_looks(
    engine: Engine, token: str, everything_logged: list[str]
) -> None:
    def refuse(peer: ServerConnection, request: Request) -> Response:
        body = f"Unauthorized: {request.path} {request.headers['Authorization']}".encode()
        length = str(len(body))
        return Response(401, "No", Headers({"Content-Length": length, "X-Path": request.path}), body)

    def choose(peer: ServerConnection, request: Request, response: Response) -> None:
        response.headers["Sec-WebSocket-Protocol"] = "".join(c for c in token if c.isalnum() or c in "_.-")

    async def tell_it_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        await writer.drain()

    failures: list[DialError] = []

    async def fail(url: str, tls: ssl.SSLContext | None = None) -> None:
        with pytest.raises(DialError) as caught:
            await engine.dial(target_for(url, token, tls))
        failures.append(caught.value)

    async with server(process_request=refuse) as url:
        await fail(url)
        await fail(url.replace("ws:", "wss:"))
    await fail(url)
    async with server(process_response=choose) as url:
        await fail(url)
    async with server(ssl=server_tls("elsewhere.example")) as url:
        await fail(url)
        await fail(url, client_tls())
    async with tcp_server(tell_it_back) as port:
        await fail(f"ws://127.0.0.1:{port}/graphql")

    assert len(failures) == 7
    for failure in failures:
        errors = list(chain(failure))
        assert errors == [failure]  # nothing of the library's hangs on it
        assert not unsafe(token)(f"{failure} {failure!r} {vars(failure)}")
    assert "Unauthorized" in vars(failures[0])["body"]
    assert not unsafe(token)("\n".join(everything_logged))
