"""What is particular to the engine over ``websockets``."""

from __future__ import annotations

import logging
import socket
from importlib.util import find_spec

import pytest

from bqstream.transport.base import DialError, Target
from bqstream.transport.websockets import WebsocketsEngine, _Connection

from .harness import server

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.asyncio]


async def test_tcp_keep_alive_is_on_and_small_frames_do_not_wait() -> None:
    async with server() as url:
        connection = await WebsocketsEngine().dial(Target(url=url, proxy=None))
        assert isinstance(connection, _Connection)
        tcp = connection._socket.transport.get_extra_info("socket")
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        await connection.close(timeout=10)


@pytest.mark.log_levels
@pytest.mark.parametrize(("level", "debug"), [(logging.INFO, False), (logging.DEBUG, True)])
async def test_the_library_formats_frames_only_where_debug_is_on(
    caplog: pytest.LogCaptureFixture, level: int, debug: bool
) -> None:
    caplog.set_level(level, "bqstream.transport.websockets")
    async with server() as url:
        connection = await WebsocketsEngine().dial(Target(url=url, proxy=None))
        assert isinstance(connection, _Connection)
        assert connection._socket.debug is debug
        await connection.close(timeout=10)


@pytest.mark.skipif(find_spec("python_socks") is not None, reason="its package is installed")
async def test_a_socks_proxy_without_its_package_is_named() -> None:
    with pytest.raises(DialError, match="python-socks") as caught:
        await WebsocketsEngine().dial(Target(url="ws://h/", proxy="socks5://127.0.0.1:1"))
    assert caught.value.permanent
