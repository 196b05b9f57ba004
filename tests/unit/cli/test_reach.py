from __future__ import annotations

import socket
import time

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from bqstream.cli.reach import Unreached, reach

from ..credentials.token_server import Answer, token_server


class NoName(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise OSError(socket.EAI_NONAME, "not known")

    async def close(self) -> None:
        return None


@pytest.mark.asyncio
async def test_a_name_without_an_address_is_told_from_a_port_that_nobody_listens_at() -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoName())) as http:
        for url, cause in (
            ("https://name.example/graphql", "dns"),
            ("http://127.0.0.1:1/graphql", "closed-port"),
        ):
            with pytest.raises(Unreached) as told:
                await reach(url, http, timeout=5, wall=time.time)
            assert told.value.cause == cause
            assert told.value.__cause__ is told.value.__context__ is None


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 301, 404, 500])
async def test_any_status_is_an_answer_and_its_date_is_compared(status: int) -> None:
    date = {"Date": "Thu, 01 Jan 2026 00:00:30 GMT"}
    async with (
        token_server(Answer({}, status=status, headers=date)) as server,
        aiohttp.ClientSession() as http,
    ):
        reached = await reach(server.url, http, timeout=5, wall=lambda: 1_767_225_600.0)
    assert reached.host == "127.0.0.1"
    assert reached.ahead == 30.5
