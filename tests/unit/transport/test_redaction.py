from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bqstream.transport.redaction import MASK, RedactingLogger, Redactor, redact

from .harness import shown

TOKEN = "ory_at_Zx81-QpLm_77vYwT.sK3nR0aBcDeF"
visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60)
ways = st.sampled_from(
    [
        lambda token: token,
        lambda token: quote(token, safe=""),
        lambda token: json.dumps(token)[1:-1],
        lambda token: repr(json.dumps(token))[2:-2],
        lambda token: token.encode().hex(" "),
        lambda token: base64.b64encode(token.encode()).decode()[: len(token) * 8 // 6],
        lambda token: base64.urlsafe_b64encode(token.encode()).decode()[: len(token) * 8 // 6],
    ]
)


@example(token="0000000'", way=lambda token: repr(json.dumps(token))[2:-2], start=0, length=8, around="")
@given(token=visible, way=ways, start=st.integers(0, 80), length=st.integers(0, 300), around=st.text())
def test_no_form_of_a_token_cut_anywhere_shows_eight_characters(
    token: str, way: Callable[[str], str], start: int, length: int, around: str
) -> None:
    form = way(token)
    assert not shown(form, redact(around + form[start : start + length] + around, [token]))


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:"])
def test_a_token_within_base64_is_found_wherever_it_starts(before: bytes) -> None:
    encoded = base64.b64encode(before + TOKEN.encode()).decode()
    hidden = redact(f"Basic realm {encoded}", [TOKEN])
    assert len(hidden.removeprefix("Basic realm ").replace(MASK, "")) <= 4 + len(before) * 8 // 6


def test_what_is_no_secret_stays_as_it_is() -> None:
    text = "GET /graphql HTTP/1.1 Unauthorized; Syntax Error: Unexpected token: }; ory_at_ is how they start"
    assert redact(text, [TOKEN]) == text


def test_a_secret_of_fewer_than_eight_characters_is_hidden_as_a_whole() -> None:
    assert redact("pin 1234 and 12345", ["1234"]) == f"pin {MASK} and {MASK}5"


def test_an_empty_secret_hides_nothing() -> None:
    assert redact("abc", [""]) == "abc"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("GET /graphql?a=1&token=unknown-to-us&b=2", f"GET /graphql?a=1&token={MASK}&b=2"),
        ("> Authorization: Bearer unknown", f"> Authorization: {MASK}"),
        ("> Proxy-Authorization: Basic dTpw", f"> Proxy-Authorization: {MASK}"),
        ('{"Authorization": "Bearer unknown"}', f'{{"Authorization": "{MASK}"}}'),
    ],
)
def test_what_stands_where_tokens_stand_is_hidden_though_nobody_knows_it(text: str, hidden: str) -> None:
    assert redact(text, []) == hidden


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> RedactingLogger:
    caplog.set_level(1, "tests.redacted")
    return RedactingLogger(logging.getLogger("tests.redacted"), Redactor([TOKEN]))


def test_a_record_holds_no_secret_in_message_arguments_exception_or_extras(
    logger: RedactingLogger, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError(TOKEN)
    logger.debug(f"in the message {TOKEN}")
    logger.log(5, "in %s arguments %d", TOKEN, 2, extra={"request": TOKEN})
    logger.error("as a value", exc_info=error)
    logger.error("as a tuple", exc_info=(ValueError, error, None))
    try:
        raise KeyError(TOKEN) from error
    except KeyError:
        logger.exception("in an exception and its cause")
    nested = logging.LoggerAdapter(logger, {"websocket": TOKEN})  # as the websockets library does
    nested.info("through another adapter %s", TOKEN[4:20])
    for record in caplog.records:
        assert not shown(TOKEN, f"{logging.Formatter().format(record)} {vars(record)}")
    assert [record.levelno for record in caplog.records] == [10, 5, 40, 40, 40, 20]
    assert caplog.records[1].getMessage() == f"in {MASK} arguments 2"
    assert "Traceback" in caplog.records[4].getMessage()
    assert {record.module for record in caplog.records} == {"test_redaction"}
    assert not shown(TOKEN, repr(logger))


def test_a_level_that_is_off_costs_nothing(logger: RedactingLogger, caplog: pytest.LogCaptureFixture) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AssertionError("rendered for nobody")

    caplog.set_level(logging.INFO, "tests.redacted")
    assert not logger.isEnabledFor(logging.DEBUG)
    logger.debug("%s", Unprintable())
    assert not caplog.records
    assert "_fragments" not in vars(logger._redact)
