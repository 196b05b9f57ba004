"""``bqstream token`` as a user runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .test_cli import Ended, bqstream, environment

if TYPE_CHECKING:
    from bqstream.simulator import Simulator


def tokens(simulator: Simulator) -> list[str]:
    return [token.value for token in simulator._tokens]


@pytest.mark.asyncio
async def test_it_tells_kind_scope_and_expiry_and_not_the_token(simulator: Simulator, tmp_path: Path) -> None:
    static = simulator.token()
    (tmp_path / "token").write_text(static)
    endpoint = simulator.endpoint
    ends = await asyncio.gather(
        bqstream("token", env=environment(simulator)),
        bqstream("token", "--short-term", "1h", env=environment(simulator)),
        bqstream("token", env=environment(BITQUERY_ENDPOINT=endpoint, BITQUERY_TOKEN=static)),
        bqstream(
            "token",
            "--short-term",
            "30s",
            env=environment(BITQUERY_ENDPOINT=endpoint, BITQUERY_TOKEN_FILE=str(tmp_path / "token")),
        ),
    )
    assert [end.code for end in ends] == [0, 0, 0, 0], ends
    told = [dict(line.split(None, 1) for line in end.out.splitlines() if "url" not in line) for end in ends]
    assert [one["kind"] for one in told] == [
        "client credentials",
        "short-term token by client credentials",
        "static token",
        "short-term token by static token",
    ]
    assert [one.get("scope") for one in told] == ["api", "api", None, None]
    assert [one["expires"].partition(", in ")[2] for one in told] == ["4 h 59 min", "1 h 0 min", "", "30 s"]
    assert told[0]["source"] == "BITQUERY_CLIENT_ID, BITQUERY_CLIENT_SECRET"
    assert told[3]["source"] == "BITQUERY_TOKEN_FILE"
    nobody_sees([static, simulator.client_secret, *tokens(simulator)], *ends)


def nobody_sees(secrets: list[str], *ends: Ended) -> None:
    assert not [secret for secret in secrets for end in ends if secret in end.out + end.err]


@pytest.mark.shows_secrets
@pytest.mark.asyncio
async def test_json_holds_the_token_with_reveal_alone(simulator: Simulator) -> None:
    end = await bqstream("token", "--json", env=environment(simulator))
    told = json.loads(end.out)
    assert list(told) == ["kind", "source", "token_url", "scope", "expires_in", "expires_at"]
    assert (told["kind"], told["scope"], told["expires_in"]) == ("client credentials", "api", 17_999)
    nobody_sees(tokens(simulator), end)
    end = await bqstream("token", "--json", "--reveal", env=environment(simulator))
    assert json.loads(end.out)["token"] in tokens(simulator)


@pytest.mark.shows_secrets
@pytest.mark.asyncio
async def test_reveal_prints_the_token_alone_and_the_rest_on_standard_error(simulator: Simulator) -> None:
    end = await bqstream("token", "--reveal", env=environment(simulator))
    assert (end.code, end.out.count("\n")) == (0, 1)
    assert end.out.strip() in tokens(simulator)
    assert "expires" in end.err
    nobody_sees(tokens(simulator), Ended(0, "", end.err))


@pytest.mark.asyncio
async def test_each_failure_has_the_exit_code_of_what_a_user_would_mend(simulator: Simulator) -> None:
    nobody = environment(BITQUERY_ENDPOINT=simulator.endpoint)
    wrong = environment(simulator, BITQUERY_CLIENT_SECRET="not-the-secret-at-all")
    closed = environment(simulator, BITQUERY_TOKEN_URL="http://127.0.0.1:1/token")
    ends = await asyncio.gather(
        bqstream("token", env=nobody),
        bqstream("token", env=wrong),
        bqstream("token", env=closed),
        bqstream("token", "--short-term", "soon", env=environment(simulator)),
    )
    assert [end.code for end in ends] == [3, 3, 1, 2], ends
    assert all(end.out == "" for end in ends)
    nobody_sees(["not-the-secret", simulator.client_secret], *ends)
