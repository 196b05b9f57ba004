from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from bqstream.credentials.exchange import (
    MAX_ANSWER,
    MAX_QUOTE,
    PassingError,
    RefusedError,
    Service,
    judge,
    parse_retry_after,
    post,
    read_token,
    redact,
)
from bqstream.endpoints import Endpoint, secret_forms
from bqstream.errors import PlanError

from .token_server import Answer, token_server

SECRET = "s3cr3t/+=%"
FORMS = secret_forms(SECRET, f"Bearer {SECRET}")
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC).timestamp()


def judged(status: int, body: str, **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(status, named, body.encode(), where="https://example.org/token", secrets=FORMS, now=NOW)


async def post_to(url: str, service: Service) -> dict[str, Any]:
    return await post(
        service, url, headers={"Authorization": f"Bearer {SECRET}"}, data={"a": SECRET}, secrets=FORMS
    )


def nothing_shows(error: BaseException) -> bool:
    """Whether the error shows no form of the secret, and nothing is chained to it that could."""
    assert error.__cause__ is None
    assert error.__context__ is None
    return not any(form in f"{error} {error!r} {error.args}" for form in FORMS)


def test_a_good_answer_is_its_json_object() -> None:
    assert judged(200, '{"access_token": "x", "errors": null}') == {"access_token": "x", "errors": None}


@pytest.mark.parametrize("body", ["", "[]", "null", "{", "<html>", '"text"', "\ud7ff{"])
def test_a_good_status_without_an_object_is_passing_and_nothing_of_it_is_quoted(body: str) -> None:
    with pytest.raises(PassingError, match="no JSON object") as caught:
        judged(200, body + "fresh-token")
    assert "fresh-token" not in str(caught.value)


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"])
@pytest.mark.parametrize("status", [400, 401])
def test_an_error_of_the_oauth_specification_is_a_refusal(status: int, code: str) -> None:
    with pytest.raises(RefusedError, match=f"HTTP {status}: {code}: no such client"):
        judged(status, f'{{"error": "{code}", "error_description": "no such client"}}')


@pytest.mark.parametrize("status", [401, 403])
def test_a_bare_401_or_403_is_a_refusal(status: int) -> None:
    with pytest.raises(RefusedError):
        judged(status, "go away")


def test_unauthorized_in_the_errors_of_a_good_status_is_a_refusal() -> None:
    with pytest.raises(RefusedError, match="Unauthorized"):
        judged(200, '{"errors": [{"message": "Unauthorized"}]}')


def test_other_errors_in_a_good_status_are_passing() -> None:
    with pytest.raises(PassingError, match="try later"):
        judged(200, '{"errors": [{"message": "try later"}]}')


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, ""),
        (403, "No active billing period"),
        (200, '{"errors": [{"message": "Points limit exceeded"}]}'),
        (400, '{"error": "No active billing period"}'),
    ],
)
def test_billing_is_a_plan_error_and_not_a_refusal(status: int, body: str) -> None:
    with pytest.raises(PlanError):
        judged(status, body)


@pytest.mark.parametrize("status", [408, 424, 425, 429, 500, 502, 503, 504, 599])
def test_what_passes_is_passing_and_not_lasting(status: int) -> None:
    with pytest.raises(PassingError) as caught:
        judged(status, "busy", Retry_After="7")
    assert caught.value.retry_after == 7
    assert not caught.value.lasting
    assert caught.value.rate_limited == (status == 429)


def test_too_many_sessions_is_a_rate_limit_whatever_the_status() -> None:
    with pytest.raises(PassingError) as caught:
        judged(503, "Too Many Sessions")
    assert caught.value.rate_limited


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error"])
def test_a_passing_error_of_the_oauth_specification_is_no_refusal(code: str) -> None:
    with pytest.raises(PassingError):
        judged(400, f'{{"error": "{code}"}}')


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 405, 410])
def test_a_wrong_address_is_lasting(status: int) -> None:
    with pytest.raises(PassingError) as caught:
        judged(status, "<html>")
    assert caught.value.lasting


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [400, 401, 402, 404, 500])
@pytest.mark.parametrize(
    "body", ["you sent {}", '{{"error": "{}"}}', '{{"error": "invalid_client", "error_description": "{}"}}']
)
def test_a_secret_that_the_server_echoes_is_masked(status: int, form: str, body: str) -> None:
    escaped = form.replace("\\", "\\\\").replace('"', '\\"')
    with pytest.raises((PassingError, RefusedError, PlanError)) as caught:
        judged(status, body.format(escaped))
    assert nothing_shows(caught.value)
    assert "***" in str(caught.value)


def test_an_unknown_token_in_an_error_is_masked_by_its_length() -> None:
    with pytest.raises(RefusedError) as caught:
        judged(401, "bad: ory_at_AAAABBBBCCCCDDDDEEEEFFFF")
    assert "AAAABBBB" not in str(caught.value)


def test_a_quoted_answer_is_bounded() -> None:
    with pytest.raises(PassingError) as caught:
        judged(500, "no " * 5000)
    assert len(str(caught.value)) < MAX_QUOTE + 80
    assert len(redact("no " * 5000, ())) == MAX_QUOTE + 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("99999999999999999999", 3600),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Wed, 01 May 2024 12:01:00", 60),
        ("Wed, 99 May 2024 12:01:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"access_token": None},
        {"access_token": 7, "expires_in": 60},
        {"access_token": "fresh-token", "expires_in": 0},
        {"access_token": "fresh-token", "expires_in": -1},
        {"access_token": "fresh-token", "expires_in": True},
        {"access_token": "fresh-token", "expires_in": "soon"},
        {"access_token": "fresh-token", "expires_in": 1e999},
        {"access_token": "fresh-token\n", "expires_in": 60},
        {"access_token": "", "expires_in": 60},
    ],
)
def test_a_malformed_token_is_passing_and_not_shown(answer: dict[str, Any]) -> None:
    with pytest.raises(PassingError) as caught:
        read_token(answer, "access_token", default_lifetime=None)
    assert nothing_shows(caught.value)
    assert "fresh-token" not in str(caught.value)


@pytest.mark.parametrize(("given", "lifetime"), [(17999, 17999), ("60", 60), (0.5, 0.5), (None, None)])
def test_a_lifetime_is_a_number_or_digits_or_absent(given: Any, lifetime: float | None) -> None:
    assert read_token({"t": "x", "expires_in": given}, "t", default_lifetime=5).expires_in == lifetime
    assert read_token({"t": "x"}, "t", default_lifetime=5).expires_in == 5


@pytest.mark.asyncio
async def test_a_redirect_is_not_followed() -> None:
    async with token_server(Answer(status=307, headers={"Location": "/elsewhere"})) as server:
        with pytest.raises(PassingError, match="not followed") as caught:
            await post_to(f"{server.url}/token", server.service())
        assert [asked.path for asked in server.asked] == ["/token"]
        assert caught.value.lasting


@pytest.mark.asyncio
async def test_a_refused_connection_is_passing_and_shows_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/token"
        async with aiohttp.ClientSession() as http:
            with pytest.raises(PassingError, match="cannot be reached") as caught:
                await post_to(url, Service(http=http, endpoint=Endpoint.parse(url)))
    assert nothing_shows(caught.value)


@pytest.mark.asyncio
async def test_an_answer_that_does_not_come_in_time_is_passing() -> None:
    forever = asyncio.Event()
    async with token_server(Answer(hold=forever.wait)) as server:
        with pytest.raises(PassingError, match=r"within 0\.05 s") as caught:
            await post_to(f"{server.url}/token", server.service(timeout=0.05))
        forever.set()
    assert nothing_shows(caught.value)


@pytest.mark.asyncio
async def test_an_answer_that_is_too_long_is_passing() -> None:
    async with token_server(Answer(text="x" * (MAX_ANSWER + 1))) as server:
        with pytest.raises(PassingError, match="more than"):
            await post_to(f"{server.url}/token", server.service())


@pytest.mark.asyncio
async def test_a_connection_that_drops_in_the_middle_is_passing() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"token": "')
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(drop, "127.0.0.1", 0)
    async with listener, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/token"
        with pytest.raises(PassingError, match="cannot be reached") as caught:
            await post_to(url, Service(http=http, endpoint=Endpoint.parse(url)))
    assert nothing_shows(caught.value)


@pytest.mark.asyncio
async def test_a_certificate_that_does_not_verify_is_lasting() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        port = runner.addresses[0][1]
        url = f"https://127.0.0.1:{port}/token"
        async with aiohttp.ClientSession() as http:
            with pytest.raises(PassingError, match="certificate") as caught:
                await post_to(url, Service(http=http, endpoint=Endpoint.parse(url)))
        assert caught.value.lasting
        assert nothing_shows(caught.value)
    finally:
        await runner.cleanup()
