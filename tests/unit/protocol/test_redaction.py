from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.protocol import redact, shown

SECRET = "ory_at_Zm9v.YmFy-baz_42"
OPAQUE = "Zm9vYmFyYmF6cXV4MTIzNDU2"


@pytest.mark.parametrize(
    "text",
    [
        "wss://streaming.bitquery.io/graphql?token={}",
        "https://x/?a=1&access_token={}&b=2",
        "https://x/?next=%2Fgraphql%3Ftoken%3D{}",
        "Authorization: Bearer {}",
        "authorization: {}",
        "bearer {}",
        '{{"token":"{}"}}',
        '{{"access_token" : "{}"}}',
        '{{\\"token\\":\\"{}\\"}}',
        "client_secret={}",
        "token {} is not valid",
        "invalid token: {}",
        "token='{}'",
        "wss://user:{}@host/graphql",
    ],
)
@pytest.mark.parametrize("secret", [SECRET, OPAQUE])
def test_what_looks_like_a_token_is_hidden(text: str, secret: str) -> None:
    assert secret not in redact(text.format(secret))
    assert secret[:12] not in shown(text.format(secret))


@pytest.mark.parametrize(
    "text", [SECRET, "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", f"got {SECRET}, expected none"]
)
def test_a_bare_token_is_known_by_its_beginning(text: str) -> None:
    assert "at_Z" not in redact(text)
    assert "c2ln" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "Unauthorized",
        "token expired",
        "Cannot query field 'token' on type 'EVM'",
        "Syntax Error: Unexpected token }",
        "",
    ],
)
def test_words_about_tokens_stay_readable(text: str) -> None:
    assert redact(text) == text


def test_what_is_shown_is_one_short_printable_line() -> None:
    text = shown("one\r\n\x1b[31mtwo\x00 " + "x" * 10_000)
    assert text.startswith("one [31mtwo x")
    assert len(text) == 200
    assert text.isprintable()


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_token_in_any_text_is_never_shown(before: str, after: str) -> None:
    assert SECRET not in shown(f"{before} token={SECRET} {after}")
    assert SECRET not in shown(f"{before} Bearer {SECRET} {after}")
    assert len(shown(before)) <= 200


@pytest.mark.parametrize(
    "unit", ["//:", "token", "token\\", "bearer ", "eyJ.", "ory_at_", "authorization : ", "/a:"]
)
@pytest.mark.timeout(10)
def test_redacting_a_long_hostile_text_takes_no_long_time(unit: str) -> None:
    redact(unit * (300_000 // len(unit)))
