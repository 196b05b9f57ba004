from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.protocol import Action, Kind, Verdict, classify_close, classify_errors, classify_upgrade

NOW = 1_700_000_000.0


def traits(verdict: Verdict) -> set[str]:
    """Everything that a verdict asks for, in words."""
    flags = {flag for flag in ("once", "few", "slow", "cap", "switch") if getattr(verdict, flag)}
    return {verdict.action.value, verdict.kind.value, *flags, *({"floor"} if verdict.floor == 5 else ())}


def str_of(value: object) -> str:
    """The same name for a test in every process, though a set has its members in any order."""
    return repr(sorted(value) if isinstance(value, set) else value)


REFRESH = {"refresh", "token"}
RETRY = {"retry", "connection"}
FATAL = {"end client", "connection"}
PLAN = {"end client", "plan"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, RETRY),
        (1001, RETRY),
        (1002, {*RETRY, "switch", "once"}),
        (1003, FATAL),
        (1004, FATAL),
        (1005, RETRY),
        (1006, RETRY),
        (1007, FATAL),
        (1008, {*REFRESH, "once"}),
        (1009, FATAL),
        (1010, FATAL),
        (1011, RETRY),
        (1012, RETRY),
        (1013, {*RETRY, "slow"}),
        (1014, RETRY),
        (1015, FATAL),
        (1016, FATAL),
        (1999, FATAL),
        (3000, REFRESH),
        (3003, REFRESH),
        (3999, RETRY),
        (4004, {*RETRY, "few"}),
        (4005, {*RETRY, "few"}),
        (4400, FATAL),
        (4401, REFRESH),
        (4403, REFRESH),
        (4406, {*RETRY, "switch", "once"}),
        (4408, RETRY),
        (4409, FATAL),
        (4429, {*RETRY, "floor"}),
        (4499, RETRY),
        (4500, {*RETRY, "few"}),
        (4504, RETRY),
        (4999, RETRY),
    ],
)
def test_every_close_code_has_its_verdict(code: int, expected: set[str]) -> None:
    """The table of close codes."""
    verdict = classify_close(code, "", acked=True)
    assert traits(verdict) == expected
    assert verdict.code == code
    assert str(code) in verdict.why


def test_a_normal_close_before_the_ack_may_mean_the_token() -> None:
    """Close codes: 1000."""
    assert traits(classify_close(1000, "", acked=False)) == {"refresh", "connection", "once"}


def test_1009_names_the_size_limit() -> None:
    """Close codes: 1009."""
    assert "max_message_bytes" in classify_close(1009, "", acked=True).why


def test_1011_after_a_connection_error_means_the_token() -> None:
    """Close codes: 1011."""
    assert traits(classify_close(1011, "", acked=False, connection_error=True)) == REFRESH


def test_1013_is_never_the_end() -> None:
    """Close codes: 1013."""
    verdict = classify_close(1013, "client is not consuming messages fast enough", acked=True)
    assert traits(verdict) == {*RETRY, "slow"}


def test_4401_after_an_early_subscribe_is_our_bug() -> None:
    """Close codes: 4401."""
    assert traits(classify_close(4401, "Unauthorized", acked=False, subscribed_before_ack=True)) == FATAL
    assert traits(classify_close(4401, "Unauthorized", acked=False)) == REFRESH


@pytest.mark.parametrize("reason", ["Too many initialisation requests", "too many initialization requests"])
def test_4429_about_initialisation_is_our_bug(reason: str) -> None:
    """Close codes: 4429."""
    assert traits(classify_close(4429, reason, acked=True)) == FATAL
    assert traits(classify_close(4429, "Too many requests", acked=True)) == {*RETRY, "floor"}


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Syntax Error: Unexpected Name", {"end operation", "document"}),
        ('Syntax Error: Unexpected Name "Unauthorized".', {"end operation", "document"}),
        ("Internal server error", {*RETRY, "few"}),
    ],
)
def test_4500_blames_a_document_only_where_it_names_its_syntax(reason: str, expected: set[str]) -> None:
    """Item 22."""
    assert traits(classify_close(4500, reason, acked=True, unanswered=True)) == expected


@pytest.mark.parametrize(
    ("reason", "acked", "expected"),
    [
        ("4400: Connection initialization failed", False, {*REFRESH, "once"}),
        (
            '{"server_error_msg":"4400: Connection initialization failed: Could not verify JWT: JWTExpired"}',
            False,
            REFRESH,
        ),
        ("4400: bad message", True, FATAL),
        ("4403: forbidden", True, REFRESH),
        ("4406: not acceptable", False, {*RETRY, "switch", "once"}),
        ("at 10:4400: nothing", True, RETRY),
    ],
)
def test_a_code_inside_the_reason_counts(reason: str, acked: bool, expected: set[str]) -> None:
    """Divergences: Hasura closes with 1000 and puts its code into the reason."""
    assert traits(classify_close(1000, reason, acked=acked)) - {"once"} == expected - {"once"}
    assert traits(classify_close(1000, reason, acked=acked)) >= expected - {"once"}


def test_a_code_inside_the_reason_of_another_private_code_is_mere_text() -> None:
    assert classify_close(4408, "4400: x", acked=True).code == 4408


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Unauthorized", REFRESH),
        ("token expired", REFRESH),
        ("No active billing period", PLAN),
        ("points limit exceeded", PLAN),
        ("Too Many Sessions", {*RETRY, "floor"}),
        ("too many concurrent subscriptions", {"retry", "plan", "floor", "cap"}),
    ],
)
@pytest.mark.parametrize("code", [1000, 1011, 4400, 4500, 4999])
def test_words_in_a_close_reason_win_over_its_code(code: int, reason: str, expected: set[str]) -> None:
    """Refusals: "Unauthorized" in any close reason; the service's words."""
    assert traits(classify_close(code, reason, acked=True)) == expected


def test_where_word_and_code_both_mean_the_token_the_code_says_how_often() -> None:
    """Close codes: 1008, AUTH once."""
    assert traits(classify_close(1008, "Unauthorized", acked=True)) == {*REFRESH, "once"}
    assert traits(classify_upgrade(403, {}, "Unauthorized")) == {*REFRESH, "once"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, {*RETRY, "few"}),
        (302, FATAL),
        (400, FATAL),
        (401, REFRESH),
        (402, PLAN),
        (403, {*REFRESH, "once"}),
        (404, FATAL),
        (405, FATAL),
        (408, RETRY),
        (424, {*RETRY, "floor"}),
        (426, FATAL),
        (429, {*RETRY, "floor"}),
        (500, {*RETRY, "floor"}),
        (502, {*RETRY, "floor"}),
        (503, {*RETRY, "floor"}),
        (504, {*RETRY, "floor"}),
        (599, {*RETRY, "floor"}),
    ],
)
def test_every_status_at_the_upgrade_has_its_verdict(status: int, expected: set[str]) -> None:
    """HTTP at upgrade."""
    verdict = classify_upgrade(status, {}, "")
    assert traits(verdict) == expected
    assert verdict.code == status
    assert f"HTTP {status}" in verdict.why


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, "Unauthorized", REFRESH),
        (500, '{"error":"Unauthorized"}', REFRESH),
        (403, "No active billing period", PLAN),
        (429, "points limit exceeded", PLAN),
        (402, "Unauthorized: no plan", PLAN),
        (429, "Unauthorized", {*RETRY, "floor"}),
        (403, "Too Many Sessions", {*RETRY, "floor"}),
        (200, "too many concurrent subscriptions", {"retry", "plan", "floor", "cap"}),
        (400, "temporarily blocked due to a high number of long-running queries", {*RETRY, "floor"}),
    ],
)
def test_words_in_a_body_tell_more_than_the_status(status: int, body: str, expected: set[str]) -> None:
    """Refusals: "Unauthorized" in any HTTP body; a bill and a rate limit are no matter of tokens."""
    assert traits(classify_upgrade(status, {}, body)) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("999999999", 3600.0),
        ("9" * 5000, 3600.0),
        (formatdate(NOW + 10**8, usegmt=True), 3600.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_obeyed_as_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """HTTP at upgrade: Retry-After (RFC 9110 section 10.2.3), bounded."""
    verdict = classify_upgrade(429, {"retry-after": value}, "", now=lambda: NOW)
    assert verdict.retry_after == seconds
    assert verdict.floor == 5


def test_a_retry_date_without_a_zone_is_utc_wherever_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP at upgrade: Retry-After."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XXX-9")
        time.tzset()
        verdict = classify_upgrade(
            503, {"retry-after": "Tue, 14 Nov 2023 22:13:50 -0000"}, "", now=lambda: NOW
        )
    time.tzset()
    assert verdict.retry_after == 30


def test_retry_after_means_nothing_where_a_new_token_helps() -> None:
    assert classify_upgrade(401, {"retry-after": "60"}, "").retry_after is None


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], {"end operation", "operation"}),
        ([{}], {"end operation", "operation"}),
        ([{"message": 5, "extensions": []}], {"end operation", "operation"}),
        ([{"message": "a resolver failed"}], {"end operation", "operation"}),
        ([{"message": "Unauthorized"}], REFRESH),
        ([{"message": "no", "extensions": {"code": "UNAUTHENTICATED"}}], REFRESH),
        ([{"message": "Permission denied", "errorType": "UnauthorizedException"}], REFRESH),
        ([{"message": "No active billing period"}], PLAN),
        ([{"message": "points limit exceeded"}], PLAN),
        ([{"message": "x", "extensions": {"code": "POINTS_LIMIT_EXCEEDED"}}], PLAN),
        ([{"message": "You have used all your API points"}], PLAN),
        ([{"message": "Your points are exhausted"}], PLAN),
        ([{"message": "too many concurrent subscriptions"}], {"retry", "plan", "floor", "cap"}),
        ([{"message": "Too Many Sessions"}], {*RETRY, "floor"}),
        (
            [{"message": "You are temporarily blocked due to a high number of long-running queries"}],
            {*RETRY, "floor"},
        ),
        ([{"message": "a resolver failed"}, {"message": "Unauthorized"}], REFRESH),
        ([{"message": "Unauthorized"}, {"message": "points limit exceeded"}], PLAN),
    ],
    ids=str_of,
)
def test_errors_have_their_verdict(errors: list[dict[str, Any]], expected: set[str]) -> None:
    """Refusals: what the service's error frames name."""
    assert traits(classify_errors(errors)) == expected


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Syntax Error: Expected Name, found <EOF>."},
        {"message": "Cannot query field 'points' on type 'EVM'."},
        {"message": 'Unknown argument "billing" on field "EVM.DEXTrades".'},
        {"message": "Variable '$unauthorized' of required type 'String!' was not provided."},
        {"message": "Field 'x' of type 'Y' must have a selection of subfields."},
        {"message": "Field 'x' doesn't exist on type 'Subscription'"},
        {"message": "Anonymous Subscription must select only one top level field."},
        {"message": "Int cannot represent non-integer value: 1.5"},
        {
            "message": "field 'x' not found in type: 'subscription_root'",
            "extensions": {"code": "validation-failed"},
        },
        {"message": "whatever", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}},
        {"message": "whatever", "extensions": {"code": "GRAPHQL_PARSE_FAILED"}},
    ],
    ids=lambda error: str(error["message"]),
)
def test_a_refused_document_is_known_even_where_it_quotes_words_of_the_table(error: dict[str, Any]) -> None:
    """Item 16, and the service's row "GraphQL errors on an operation: the document"."""
    assert traits(classify_errors([error])) == {"end operation", "document"}


def test_a_refused_document_does_not_hide_a_refused_token() -> None:
    assert (
        traits(classify_errors([{"message": "Cannot query field 'x'"}, {"message": "Unauthorized"}]))
        == REFRESH
    )


@pytest.mark.parametrize("errors", [[], [{"message": "go away"}], [{"message": "Unauthorized"}]])
def test_a_connection_error_means_the_token_unless_it_names_the_plan(errors: list[dict[str, Any]]) -> None:
    """Item 12."""
    assert traits(classify_errors(errors, connection_error=True)) == REFRESH
    assert traits(classify_errors([{"message": "billing"}], connection_error=True)) == PLAN


TOKEN = "ory_at_very-secret_value"


@pytest.mark.parametrize(
    "text", [f"?token={TOKEN}", f"Bearer {TOKEN}", TOKEN, f"Unauthorized: {TOKEN} is no token"]
)
def test_no_verdict_repeats_a_token_or_a_long_text(text: str) -> None:
    long = text + " x" * 5000
    for verdict in (
        classify_close(4999, long, acked=True),
        classify_upgrade(500, {}, long),
        classify_errors([{"message": long}]),
        classify_errors([{"message": long}] * 3, connection_error=True),
    ):
        assert "secret" not in repr(verdict)
        assert len(verdict.why) < 400


@given(
    code=st.integers(-1, 70_000),
    text=st.text(max_size=200),
    value=st.text(max_size=60),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_every_refusal_whatsoever_gets_a_verdict(
    code: int, text: str, value: str, flags: tuple[bool, bool, bool, bool]
) -> None:
    acked, connection_error, early, unanswered = flags
    closed = classify_close(
        code,
        text,
        acked=acked,
        connection_error=connection_error,
        subscribed_before_ack=early,
        unanswered=unanswered,
    )
    refused = classify_upgrade(code, {"retry-after": value}, text)
    for verdict in (closed, refused):
        assert isinstance(verdict.action, Action)
        assert isinstance(verdict.kind, Kind)
        assert verdict.why.isprintable()
        assert verdict.retry_after is None or 0 <= verdict.retry_after <= 3600
