"""The whole way of a token over real sockets, with every log there is switched on: nothing shows."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest

from bqstream.credentials import ClientCredentials, Keeper, ShortTermToken
from bqstream.endpoints import secret_forms
from bqstream.errors import CredentialsRefused

from .token_server import Answer, token_server

SECRET = "s3cr3t+/value"
ACCESS_1, ACCESS_2, SHORT_1, SHORT_2 = (f"ory_at_{name}" + "Ab0-_" * 8 for name in ("a1", "a2", "s1", "s2"))
BASIC = base64.b64encode(b"my-id:s3cr3t%2B%2Fvalue").decode()


@pytest.mark.parametrize("auth", ["basic", "form"])
@pytest.mark.asyncio
async def test_no_secret_reaches_a_log_an_error_or_a_callback(
    auth: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    echo = f"{SECRET} {BASIC} Bearer {ACCESS_1} {ACCESS_2} {SHORT_1}"
    script = (
        Answer({"access_token": ACCESS_1, "expires_in": 600}),
        Answer({"token": SHORT_1}),
        Answer({"error": echo}, status=403),  # the exchange, after short-1 was refused
        Answer({"access_token": ACCESS_2, "expires_in": 600}),
        Answer({"token": SHORT_2}),
        Answer({"error": "invalid_token", "error_description": echo}, status=401),
        Answer({"error": "invalid_client", "error_description": echo}, status=400),
    )
    caplog.set_level(1)
    asyncio.get_running_loop().set_debug(True)
    async with token_server(*script) as server:
        parent = ClientCredentials("my-id", SECRET, token_url=f"{server.url}/token", auth=auth)  # type: ignore[arg-type]
        keeper = Keeper(
            ShortTermToken(parent),
            server.service(),
            on_refreshed=lambda held: told.append(repr(held)),
            on_failed=lambda why, *_: told.append(why),
        )
        run = asyncio.create_task(keeper.run())
        first = await keeper.current()
        keeper.refused(first, f"Unauthorized ({first.token.value})")
        second = await keeper.newer(first)
        assert second.token.value == SHORT_2
        keeper.worked(second)
        keeper.refused(second, f"close 4401 for Bearer {second.token.value}")
        with pytest.raises(CredentialsRefused) as caught:
            await keeper.current()
        run.cancel()
        await asyncio.wait([run])
        assert len(server.asked) == 7
    logging.getLogger().debug("keeper %r service %r", keeper, server.service())
    shown = f"{caplog.text} {told} {caught.value!r} {keeper!r} {parent!r} {first!r}"
    for secret in (SECRET, BASIC, ACCESS_1, ACCESS_2, SHORT_1, SHORT_2):
        assert not [form for form in secret_forms(secret) if form in shown], secret
