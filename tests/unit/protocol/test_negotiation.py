from __future__ import annotations

import pytest

from bqstream.protocol import (
    LEGACY,
    MODERN,
    SUBPROTOCOLS,
    Action,
    Alone,
    Kind,
    Verdict,
    machine_for,
    negotiate,
)


def test_the_modern_subprotocol_is_offered_first() -> None:
    """Item 1."""
    assert SUBPROTOCOLS == ("graphql-transport-ws", "graphql-ws")


@pytest.mark.parametrize("chosen", SUBPROTOCOLS)
def test_what_the_server_chose_is_spoken(chosen: str) -> None:
    """Item 1."""
    assert negotiate(SUBPROTOCOLS, chosen) == chosen
    assert machine_for(chosen).subprotocol == chosen


@pytest.mark.parametrize("offered", SUBPROTOCOLS)
@pytest.mark.parametrize("silence", [None, ""])
def test_silence_means_the_only_one_that_was_offered(offered: str, silence: str | None) -> None:
    """Item 3."""
    assert negotiate((offered,), silence) == offered


def test_silence_after_two_offers_asks_for_redials_with_one_at_a_time() -> None:
    """Item 3."""
    assert negotiate(SUBPROTOCOLS, None) == Alone((MODERN, LEGACY))


@pytest.mark.parametrize(
    ("offered", "chosen"), [((MODERN,), LEGACY), (SUBPROTOCOLS, "mqtt"), ((LEGACY,), "Graphql-WS")]
)
def test_a_subprotocol_that_was_never_offered_is_the_end(offered: tuple[str, ...], chosen: str) -> None:
    """Item 4."""
    verdict = negotiate(offered, chosen)
    assert isinstance(verdict, Verdict)
    assert (verdict.action, verdict.kind) == (Action.END_CLIENT, Kind.CONNECTION)
    assert chosen in verdict.why


def test_every_connection_has_a_machine_of_its_own() -> None:
    assert machine_for(MODERN) is not machine_for(MODERN)


def test_an_unknown_subprotocol_has_no_machine() -> None:
    with pytest.raises(KeyError):
        machine_for("mqtt")
