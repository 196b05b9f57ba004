from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from bqstream.credentials import (
    CallableCredentials,
    ClientCredentials,
    Credentials,
    EnvironmentCredentials,
    Service,
    ShortTermToken,
    StaticToken,
    Token,
    as_credentials,
    from_environment,
)
from bqstream.credentials.exchange import PassingError
from bqstream.endpoints import Endpoint
from bqstream.errors import CredentialsRefused, MissingCredentials, PlanError, UsageError

from .token_server import Answer, token_server

GRANTED = Answer({"access_token": "ory_at_1", "expires_in": 17999, "scope": "api", "token_type": "bearer"})
SECRET = "s3cr3t"
NO_SERVICE: Service = Service(http=None, endpoint=Endpoint.parse("eu"))  # type: ignore[arg-type]


def client(url: str, **options: Any) -> ClientCredentials:
    return ClientCredentials("my-id", SECRET, token_url=f"{url}/token", **options)


@pytest.mark.parametrize(
    "credentials",
    [
        StaticToken(SECRET),
        ClientCredentials(SECRET, SECRET),
        ShortTermToken(ClientCredentials(SECRET, SECRET)),
        ShortTermToken(StaticToken(SECRET)),
        EnvironmentCredentials({"BITQUERY_TOKEN": SECRET}),
        Token(SECRET),
    ],
)
def test_no_repr_shows_a_secret(credentials: object) -> None:
    assert SECRET not in f"{credentials!r} {credentials}"


@pytest.mark.parametrize(
    "credentials", [StaticToken("x"), ClientCredentials("i", "s"), ShortTermToken(StaticToken("x"))]
)
def test_credentials_are_frozen(credentials: Any) -> None:
    name = next(iter(credentials.__dataclass_fields__))
    with pytest.raises(AttributeError):
        setattr(credentials, name, "other")


@pytest.mark.asyncio
async def test_a_static_token_never_expires_and_is_not_renewable() -> None:
    credentials = StaticToken("ory_at_static")
    assert await credentials.fetch(NO_SERVICE) == Token("ory_at_static", None)
    assert not credentials.renewable


@pytest.mark.parametrize(
    "value",
    [
        "https://streaming.bitquery.io/graphql",
        "wss://example.org",
        "streaming.bitquery.io/graphql",
        "eu",
        "US",
        " asia ",
    ],
)
@pytest.mark.parametrize("make", [as_credentials, StaticToken])
def test_an_address_given_as_credentials_is_an_error_that_says_so(
    make: Callable[[str], object], value: str
) -> None:
    with pytest.raises(UsageError, match="address, not a token: give it as endpoint="):
        make(value)


@pytest.mark.parametrize("value", ["", "two words", "Bearer x", "line\n", "ключ"])
def test_text_that_can_be_no_token_is_an_error_that_does_not_show_it(value: str) -> None:
    with pytest.raises(UsageError, match="visible ASCII") as caught:
        as_credentials(value)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StaticToken(None),  # type: ignore[arg-type]
        lambda: Token(3),  # type: ignore[arg-type]
        lambda: Token("x", expires_in="3600"),  # type: ignore[arg-type]
        lambda: ClientCredentials(3, 4),  # type: ignore[arg-type]
    ],
)
def test_values_of_another_kind_are_usage_errors(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"string|number of seconds"):
        make()


@pytest.mark.asyncio
async def test_client_credentials_go_by_basic_authorization_form_encoded_first() -> None:
    async with token_server(GRANTED) as server:
        credentials = ClientCredentials("id:ü", "a b&%", token_url=f"{server.url}/token")
        token = await credentials.fetch(server.service())
        asked = server.asked[0]
    assert token == Token("ory_at_1", 17999)
    assert (asked.method, asked.path) == ("POST", "/token")
    assert base64.b64decode(asked.headers["Authorization"].removeprefix("Basic ")) == b"id%3A%C3%BC:a+b%26%25"
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(asked.body.decode())) == {"grant_type": "client_credentials", "scope": "api"}


@pytest.mark.asyncio
async def test_client_credentials_go_as_form_fields_where_asked() -> None:
    async with token_server(GRANTED) as server:
        await client(server.url, auth="form", scope="").fetch(server.service())
        asked = server.asked[0]
    assert "Authorization" not in asked.headers
    assert dict(parse_qsl(asked.body.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "my-id",
        "client_secret": SECRET,
    }


@pytest.mark.asyncio
async def test_the_token_url_comes_from_the_environment_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with token_server(GRANTED) as server:
        monkeypatch.setenv("BITQUERY_TOKEN_URL", f"{server.url}/from-environment")
        await ClientCredentials("i", "s").fetch(server.service())
        assert server.asked[0].path == "/from-environment"


@pytest.mark.asyncio
async def test_a_plaintext_token_url_is_refused_before_anything_is_sent() -> None:
    async with token_server(GRANTED) as server:
        credentials = ClientCredentials("i", "s", token_url="http://example.org/token")
        with pytest.raises(UsageError, match="allow_plaintext=True"):
            await credentials.fetch(server.service())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClientCredentials("", "s"),
        lambda: ClientCredentials("i", ""),
        lambda: ClientCredentials("i", "s", auth="digest"),  # type: ignore[arg-type]
        lambda: ClientCredentials("i", "s", token_url="oauth2.bitquery.io"),
        lambda: ClientCredentials("i", "s", token_url="https://u:p@example.org"),
    ],
)
def test_client_credentials_that_make_no_sense_are_refused_at_birth(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("auth", ["basic", "form"])
@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.asyncio
async def test_refused_client_credentials_are_refused_at_once_without_a_secret(
    status: int, auth: str
) -> None:
    basic = base64.b64encode(f"my-id:{SECRET}".encode()).decode()
    echo = {"error": "invalid_client", "error_description": f"not {SECRET} nor {basic}"}
    async with token_server(Answer(echo, status=status)) as server:
        with pytest.raises(CredentialsRefused, match="invalid_client") as caught:
            await client(server.url, auth=auth).fetch(server.service())
    assert SECRET not in str(caught.value)
    assert basic not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.asyncio
async def test_billing_is_a_plan_error() -> None:
    async with token_server(Answer(status=402, text="No active billing period")) as server:
        with pytest.raises(PlanError, match="No active billing period"):
            await client(server.url).fetch(server.service())


@pytest.mark.asyncio
async def test_a_busy_token_endpoint_is_passing_and_says_when_to_come_again() -> None:
    async with token_server(Answer(status=503, headers={"Retry-After": "11"}, text="")) as server:
        with pytest.raises(PassingError) as caught:
            await client(server.url).fetch(server.service())
    assert caught.value.retry_after == 11


@pytest.mark.asyncio
async def test_a_callable_is_called_at_every_fetch() -> None:
    calls = iter([Token("first", 5), Token("second", 5)])

    async def give() -> Token:
        return next(calls)

    credentials = as_credentials(give)
    assert isinstance(credentials, CallableCredentials)
    assert credentials.renewable
    assert [(await credentials.fetch(NO_SERVICE)).value for _ in range(2)] == ["first", "second"]


@pytest.mark.asyncio
async def test_a_callable_that_is_not_async_or_gives_no_token_is_a_usage_error() -> None:
    async def text() -> str:
        return SECRET

    for function in (lambda: Token("x"), text):
        with pytest.raises(UsageError, match="callable given as credentials must") as caught:
            await as_credentials(function).fetch(NO_SERVICE)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", [7, ClientCredentials, Token("x"), b"token", object()])
def test_anything_else_given_as_credentials_is_a_usage_error(value: object) -> None:
    with pytest.raises(UsageError):
        as_credentials(value)


def test_credentials_are_taken_as_they_are() -> None:
    credentials = ClientCredentials("i", "s")
    assert as_credentials(credentials) is credentials
    assert isinstance(credentials, Credentials)
    assert as_credentials("text") == StaticToken("text")


def test_no_credentials_means_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.delenv(f"BITQUERY_{name}", raising=False)
        monkeypatch.delenv(f"BITQUERY_{name}_FILE", raising=False)
    with pytest.raises(MissingCredentials, match="set BITQUERY_TOKEN, or BITQUERY_CLIENT_ID and"):
        as_credentials(None)
    monkeypatch.setenv("BITQUERY_TOKEN", SECRET)
    assert isinstance(as_credentials(None), EnvironmentCredentials)


@pytest.mark.parametrize(("given", "missing"), [("ID", "SECRET"), ("SECRET", "ID")])
def test_half_a_pair_says_what_is_missing(given: str, missing: str) -> None:
    with pytest.raises(MissingCredentials, match=f"set BITQUERY_CLIENT_{missing} "):
        from_environment({f"BITQUERY_CLIENT_{given}": "x", f"BITQUERY_CLIENT_{missing}": ""})


def test_a_variable_that_is_given_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="both set"):
        from_environment({"BITQUERY_TOKEN": "x", "BITQUERY_TOKEN_FILE": "y"})


@pytest.mark.asyncio
async def test_a_token_of_the_environment_is_static() -> None:
    credentials = from_environment({"BITQUERY_TOKEN": " ory_at_x\n", "BITQUERY_CLIENT_ID": "i"})
    assert not credentials.renewable
    assert await credentials.fetch(NO_SERVICE) == Token("ory_at_x", None)


@pytest.mark.asyncio
async def test_a_token_file_is_read_again_at_every_fetch(tmp_path: Path) -> None:
    file = tmp_path / "token"
    credentials = from_environment({"BITQUERY_TOKEN_FILE": str(file)})
    assert credentials.renewable
    for value in ("first", "second"):
        file.write_text(f"{value}\n")
        assert (await credentials.fetch(NO_SERVICE)).value == value


@pytest.mark.asyncio
async def test_a_client_secret_file_is_read_again_at_every_fetch(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    async with token_server(GRANTED) as server:
        credentials = from_environment(
            {
                "BITQUERY_CLIENT_ID": "i",
                "BITQUERY_CLIENT_SECRET_FILE": str(file),
                "BITQUERY_TOKEN_URL": f"{server.url}/t",
            }
        )
        for value in ("first", "second"):
            file.write_text(value)
            await credentials.fetch(server.service())
        sent = [base64.b64decode(asked.headers["Authorization"][6:]).decode() for asked in server.asked]
    assert sent == ["i:first", "i:second"]


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_read_is_lasting_and_shows_nothing_of_it(tmp_path: Path) -> None:
    undecodable, empty = tmp_path / "undecodable", tmp_path / "empty"
    undecodable.write_bytes(b"s3cr3t\xff")
    empty.write_text(" \n")
    for path, why in (
        (tmp_path / "none", "No such file"),
        (undecodable, "UnicodeDecodeError"),
        (empty, "empty"),
    ):
        with pytest.raises(
            PassingError, match=f"BITQUERY_TOKEN_FILE names cannot be read: .*{why}"
        ) as caught:
            await from_environment({"BITQUERY_TOKEN_FILE": str(path)}).fetch(NO_SERVICE)
        assert caught.value.lasting
        assert caught.value.__context__ is None
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "sources"),
    [
        ({"BITQUERY_TOKEN": SECRET, "BITQUERY_CLIENT_ID": "i"}, ("BITQUERY_TOKEN",)),
        ({"BITQUERY_TOKEN_FILE": "/t"}, ("BITQUERY_TOKEN_FILE",)),
        (
            {"BITQUERY_CLIENT_ID": "i", "BITQUERY_CLIENT_SECRET_FILE": "/s"},
            ("BITQUERY_CLIENT_ID", "BITQUERY_CLIENT_SECRET_FILE"),
        ),
    ],
)
def test_the_environments_credentials_say_which_variables_count(
    environ: dict[str, str], sources: tuple[str, ...]
) -> None:
    assert from_environment(environ).sources == sources
