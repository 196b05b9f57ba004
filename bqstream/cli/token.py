"""``bqstream token``: what the credentials in the environment are, and what token they give."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from .access import Access, access_of, fetch
from .asking import Options, duration, use_token_url
from .running import run, tell

_ask = Options("TOKEN")


def token(
    *,
    endpoint: Annotated[str | None, _ask.endpoint] = None,
    token_url: Annotated[str | None, _ask.token_url] = None,
    short_term: Annotated[
        float | None,
        _ask.option(
            "--short-term",
            help="Exchange it for a short-term token that lives so long: 30s, 5m, 1h.",
            read=duration,
            metavar="TIME",
        ),
    ] = None,
    reveal: Annotated[
        bool, _ask.option("--reveal", help="Print the token itself, and nothing else.")
    ] = False,
    as_json: Annotated[
        bool, _ask.option("--json", help="One JSON object; the token is in it with --reveal alone.")
    ] = False,
) -> None:
    """Get a token with the credentials found, and tell their kind, their scope and when it expires.

    The token itself is shown with --reveal alone: it then goes to standard output, for another program, and what is to
    be said of it to standard error. When a static token expires nobody knows; bqstream doctor says whether it works.

    ```
    bqstream token
    bqstream token --json
    bqstream token --short-term 1h --reveal | some-program
    ```

    Exit codes: 0 there is a token, 1 no answer, 2 wrong usage, 3 no credentials, or refused ones.
    """
    run(_token(endpoint, token_url, short_term, reveal, as_json))


async def _token(
    endpoint: str | None, token_url: str | None, short_term: float | None, reveal: bool, as_json: bool
) -> int:
    import aiohttp

    from ..credentials import Credentials, ShortTermToken, from_environment
    from ..endpoints import Endpoint

    use_token_url(token_url)
    credentials: Credentials = from_environment()
    if short_term is not None:
        credentials = ShortTermToken(credentials, expires_in=short_term)
    where = Endpoint.parse(endpoint or os.environ.get("BITQUERY_ENDPOINT") or "eu")
    async with aiohttp.ClientSession(trust_env=True) as http:
        got = await fetch(credentials, where, http)
    told = _told(access_of(credentials), got.expires_in)
    if as_json:
        print(json.dumps(told | ({"token": got.value} if reveal else {})))
        return 0
    lines = [f"{name.replace('_', ' '):<12}{text}" for name, text in _words(told).items()]
    if reveal:
        tell("\n".join(lines[:-1]))
        print(got.value)
    else:
        print("\n".join(lines))
    return 0


def _told(access: Access, lifetime: float | None) -> dict[str, Any]:
    at = None if lifetime is None else datetime.now(UTC) + timedelta(seconds=lifetime)
    return {
        "kind": access.kind,
        "source": access.source,
        "token_url": access.token_url,
        "scope": access.scope,
        "expires_in": lifetime,
        "expires_at": at and at.isoformat(timespec="seconds"),
    }


def _words(told: dict[str, Any]) -> dict[str, str]:
    lifetime = told["expires_in"]
    expires = "not known" if lifetime is None else f"{told['expires_at']}, in {_long(lifetime)}"
    return {
        "kind": told["kind"],
        "source": told["source"],
        **{name: told[name] for name in ("token_url", "scope") if told[name]},
        "expires": expires,
        "token": "in hand, and hidden; --reveal shows it",
    }


def _long(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes >= 5 else f"{whole} s"
