from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from bqstream.transport.base import DialError, Engine, Target

from .harness import chain, client_tls, running, server, server_tls, shown, tcp_server

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.asyncio]
PASSWORD = "kE9-proxy-Pass_71xQ"


class Proxy:
    """An HTTP proxy that knows CONNECT alone (RFC 9110 section 9.3.6), and notes what it was asked."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.requests: list[str] = []
        self.refusal = refusal

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        if self.refusal:
            writer.write(self.refusal)
            await writer.drain()
            return
        host, _, port = request.split()[1].rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        finally:
            back.transport.abort()

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except ConnectionError:
            sink.transport.abort()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_proxy_that_is_given_carries_the_connection(engine: Engine, tls: bool) -> None:
    proxy = Proxy()
    options: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    async with (
        tcp_server(proxy) as port,
        server(**options) as url,
        running(engine, url, tls=client_tls(), proxy=f"http://user:{PASSWORD}@127.0.0.1:{port}") as client,
    ):
        client.connection.send(b"hello")
        assert await client.next() == b"hello"
        await client.connection.close(timeout=10)
    (request,) = proxy.requests
    assert request.startswith(f"CONNECT {url.split('/')[2]} ")
    assert base64.b64encode(f"user:{PASSWORD}".encode()).decode() in request


async def test_a_certificate_is_verified_behind_a_proxy_too(engine: Engine) -> None:
    async with tcp_server(Proxy()) as port, server(ssl=server_tls("elsewhere.example")) as url:
        with pytest.raises(DialError, match="certificate") as caught:
            await engine.dial(Target(url=url, tls=client_tls(), proxy=f"http://127.0.0.1:{port}"))
    assert caught.value.permanent


async def test_the_environment_names_the_proxy_unless_told_otherwise(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    async with tcp_server(proxy) as port, server(ssl=server_tls()) as url:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with running(engine, url, tls=client_tls(), proxy=None):
            assert proxy.requests == []
        async with running(engine, url, tls=client_tls(), proxy=False):
            assert proxy.requests == []
        async with running(engine, url, tls=client_tls(), proxy=True):
            assert len(proxy.requests) == 1
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with running(engine, url, tls=client_tls(), proxy=True):
            assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("refusal", "permanent"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", False),
        (b"no HTTP at all\r\n\r\n", False),
    ],
    ids=["407", "502", "garbage"],
)
async def test_a_proxys_refusal_says_whether_another_try_helps(
    engine: Engine, refusal: bytes, permanent: bool
) -> None:
    async with tcp_server(Proxy(refusal)) as port:
        with pytest.raises(DialError, match="proxy") as caught:
            await engine.dial(Target(url="ws://h/", proxy=f"http://user:{PASSWORD}@127.0.0.1:{port}"))
    assert caught.value.permanent == permanent
    for error in chain(caught.value):
        assert not shown(PASSWORD, repr(error) + str(vars(error)))


@pytest.mark.parametrize("address", ["ftp://user:{}@h", "http://{}@h:1", "http://u:{}@h:99999", "http://"])
async def test_a_proxys_address_that_is_none_is_refused_for_good_and_not_shown(
    engine: Engine, address: str
) -> None:
    with pytest.raises(DialError) as caught:
        await engine.dial(Target(url="ws://127.0.0.1:1/", proxy=address.format(PASSWORD)))
    assert caught.value.permanent
    for error in chain(caught.value):
        assert not shown(PASSWORD, repr(error) + str(vars(error)))
