from __future__ import annotations

import pytest

from bqstream.collect.web.access import ADDRESSES, FAILURES, SESSION, WINDOW, Access, is_loopback

TOKEN = "a page's own token"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.7", False),
        ("collector.example", False),
    ],
)
def test_only_loopback_is_reached_from_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("bound", "host", "answers"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "LOCALHOST:8000", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "127.0.0.1:8001", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "evil.example:8000", False),
        ("127.0.0.1", "127.0.0.1.evil.example:8000", False),
        ("127.0.0.1", "10.0.0.7:8000", False),
        ("127.0.0.1", "named.example", True),
        ("0.0.0.0", "10.0.0.7:9999", True),
        ("0.0.0.0", "[fd00::7]", True),
        ("0.0.0.0", "named.example:443", True),
        ("0.0.0.0", "evil.example", False),
        ("10.0.0.7", "10.0.0.7:8000", True),
        ("10.0.0.7", "10.0.0.8:8000", False),
        ("10.0.0.7", "127.0.0.1:8000", False),
        ("127.0.0.1", None, False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "127.0.0.1:port", False),
        ("127.0.0.1", "[::1", False),
    ],
)
def test_a_server_answers_to_its_own_names_and_to_no_others(
    bound: str, host: str | None, answers: bool
) -> None:
    assert Access(None, bound, ["named.example"]).answers_to(host, 8000) is answers


def test_the_standard_port_is_left_out_by_browsers() -> None:
    assert Access(None, "127.0.0.1").answers_to("localhost", 80)


def test_an_address_that_fails_too_often_is_not_listened_to_for_a_while_even_if_it_is_right() -> None:
    now = [0.0]
    access = Access(TOKEN, "0.0.0.0", monotonic=lambda: now[0])
    for _ in range(FAILURES):
        assert not access.takes("wrong", "10.0.0.1")
    assert access.wait("10.0.0.1") == WINDOW
    assert not access.takes(TOKEN, "10.0.0.1")
    assert access.takes(TOKEN, "10.0.0.2")
    now[0] = WINDOW + 1
    assert access.takes(TOKEN, "10.0.0.1")


def test_no_more_addresses_are_remembered_than_a_bound() -> None:
    access = Access(TOKEN, "0.0.0.0")
    for number in range(ADDRESSES + 50):
        access.takes("wrong", str(number))
    assert len(access._failures) == ADDRESSES


def test_a_session_outlives_a_restart_and_ends_with_its_time_or_the_token() -> None:
    now = [1000.0]
    session = Access(TOKEN, "0.0.0.0", wall=lambda: now[0]).new_session()
    restarted = Access(TOKEN, "0.0.0.0", wall=lambda: now[0])
    assert restarted.session(session)
    assert not Access("another token", "0.0.0.0", wall=lambda: now[0]).session(session)
    now[0] += SESSION + 1
    assert not restarted.session(session)


def test_a_session_shows_no_token_and_none_is_like_another() -> None:
    access = Access(TOKEN, "0.0.0.0")
    assert TOKEN not in access.new_session()
    assert access.new_session() != access.new_session()


@pytest.mark.parametrize("forged", [None, "", ".", "..", "9999999999.a.b", "nan.x.", "ü.ü.ü"])
def test_what_this_server_did_not_sign_is_no_session(forged: str | None) -> None:
    assert not Access(TOKEN, "0.0.0.0").session(forged)


def test_bytes_that_are_no_text_are_neither_a_token_nor_a_session() -> None:
    access = Access("the token of the page", "0.0.0.0")
    assert not access.takes("\udcff", "192.0.2.1")
    assert not access.session("\udcff")
    assert not access.session(f"\udcff.{'0' * 64}")


def test_a_session_that_was_changed_is_none() -> None:
    access = Access(TOKEN, "0.0.0.0")
    expires, nonce, signature = access.new_session().split(".")
    assert not access.session(f"{float(expires) + 1:.0f}.{nonce}.{signature}")
