from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.endpoints import TOKEN_URL, Endpoint, check_token_in, check_token_url, place_token, secret_forms
from bqstream.errors import UsageError

SECRET = "ory_at_s3cr3t/+=value"
EU = Endpoint.parse("eu")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu", "streaming.bitquery.io"),
        ("us", "us.streaming.bitquery.io"),
        ("asia", "asia.streaming.bitquery.io"),
        (" US\n", "us.streaming.bitquery.io"),
    ],
)
def test_a_region_names_both_addresses(region: str, host: str) -> None:
    assert Endpoint.parse(region) == Endpoint(http=f"https://{host}/graphql", ws=f"wss://{host}/graphql")


@pytest.mark.parametrize("given", ["https", "wss", "HTTPS"])
def test_either_address_gives_the_other_and_keeps_port_path_and_query(given: str) -> None:
    endpoint = Endpoint.parse(f"{given}://example.org:8443/eap?region=x")
    assert endpoint.http == "https://example.org:8443/eap?region=x"
    assert endpoint.ws == "wss://example.org:8443/eap?region=x"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "LOCALHOST"])
@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_plaintext_to_this_machine_is_fine(scheme: str, host: str) -> None:
    endpoint = Endpoint.parse(f"{scheme}://{host}:8080/graphql")
    assert endpoint.http.startswith("http://")
    assert endpoint.ws.startswith("ws://")


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "10.0.0.1",
        "0.0.0.0",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "128.0.0.1",
        "127.1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_plaintext_to_elsewhere_is_refused_and_says_what_to_do(scheme: str, host: str) -> None:
    url = f"{scheme}://{host}/graphql"
    with pytest.raises(UsageError, match=f"use {scheme}s://, or allow_plaintext=True"):
        Endpoint.parse(url)
    assert Endpoint.parse(url, allow_plaintext=True).http == f"http://{host}/graphql"


@pytest.mark.parametrize("allow_plaintext", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET.replace('/', '')}@example.org/graphql",
        f"https://{SECRET.replace('/', '')}@example.org/graphql",
        f"wss://example.org/graphql?token={SECRET}",
        f"wss://example.org/graphql?a=1&TOKEN={SECRET}",
        f"wss://example.org/graphql?t%6Fken={SECRET}",
        f"https://example.org/?access_token={SECRET}",
        f"https://example.org/graphql#{SECRET}",
        f"ftp://example.org/{SECRET}",
        f"https://exa mple.org/{SECRET}",
        f"https://example.org\\@evil.org/{SECRET}",
        f"https://example.org:99999/{SECRET}",
        f"https://[::1/{SECRET}",
        f"https:///{SECRET}",
        SECRET,
        "",
    ],
)
def test_what_is_no_clean_url_is_refused_without_being_shown(url: str, allow_plaintext: bool) -> None:
    for check in (Endpoint.parse, check_token_url):
        with pytest.raises(UsageError) as caught:
            check(url, allow_plaintext=allow_plaintext)
        assert "s3cr3t" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_something_else_than_text_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not NoneType"):
        Endpoint.parse(None)  # type: ignore[arg-type]


def test_a_token_url_is_http_and_kept_as_it_is() -> None:
    assert check_token_url(TOKEN_URL) == "https://oauth2.bitquery.io/oauth2/token"
    assert check_token_url("http://127.0.0.1:9/t") == "http://127.0.0.1:9/t"
    for url in ("wss://example.org/token", "http://example.org/token"):
        with pytest.raises(UsageError):
            check_token_url(url)


def test_the_header_bears_the_token_and_the_url_stays_clean() -> None:
    placement = place_token(EU, SECRET, ("header",))
    assert placement.url == EU.ws
    assert placement.headers == {"Authorization": f"Bearer {SECRET}"}
    assert placement.init_payload is None


def test_the_query_bears_the_token_percent_encoded_beside_other_parameters() -> None:
    endpoint = Endpoint.parse("wss://example.org/graphql?a=1&b=%2B")
    placement = place_token(endpoint, SECRET, ("query",))
    assert placement.url == "wss://example.org/graphql?a=1&b=%2B&token=ory_at_s3cr3t%2F%2B%3Dvalue"
    assert placement.headers == {}


def test_the_init_payload_bears_the_token_where_asked() -> None:
    placement = place_token(EU, SECRET, ("header", "query", "init"))
    assert placement.init_payload == {"Authorization": f"Bearer {SECRET}"}
    assert placement.headers
    assert "?token=" in placement.url


def test_the_repr_of_a_placement_shows_no_form_of_the_token() -> None:
    placement = place_token(EU, SECRET, ("header", "query", "init"))
    assert not any(form in repr(placement) for form in placement.secrets)


visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


@given(visible)
def test_whatever_the_token_the_query_gives_it_back_and_every_place_is_among_the_secrets(token: str) -> None:
    placement = place_token(EU, token, ("header", "query", "init"))
    query = urlsplit(placement.url).query
    assert parse_qsl(query) == [("token", token)]
    assert query.removeprefix("token=") in placement.secrets
    assert placement.headers["Authorization"] in placement.secrets
    assert token in placement.secrets


def test_secret_forms_come_longest_first_so_that_no_mask_leaves_a_rest() -> None:
    forms = secret_forms("a/b", "Bearer a/b")
    assert [len(form) for form in forms] == sorted((len(form) for form in forms), reverse=True)
    assert {"a/b", "a%2Fb", "a%2fb", "Bearer a/b", "Bearer+a%2Fb", "Bearer%20a%2Fb"} <= set(forms)
    assert 'q\\"' in secret_forms('q"')
    assert secret_forms("") == ()


@pytest.mark.parametrize(
    "token_in", [(), "header", ("cookie",), ("header", "header"), None, (1,), ([],), {"header"}]
)
def test_a_token_in_that_makes_no_sense_is_refused(token_in: Any) -> None:
    with pytest.raises(UsageError, match='"header", "query" and "init"'):
        place_token(EU, SECRET, token_in)


def test_a_list_of_places_is_taken_as_a_tuple() -> None:
    assert check_token_in(["query", "header"]) == ("query", "header")
