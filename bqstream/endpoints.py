"""Where the service is, and where a token goes on the way there."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, urlsplit, urlunsplit

from .errors import UsageError

REGIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "eu": "https://streaming.bitquery.io/graphql",
        "us": "https://us.streaming.bitquery.io/graphql",
        "asia": "https://asia.streaming.bitquery.io/graphql",
    }
)
TOKEN_URL: Final = "https://oauth2.bitquery.io/oauth2/token"  # noqa: S105

TokenPlace = Literal["header", "query", "init"]
TokenIn = tuple[TokenPlace, ...]
TOKEN_PLACES: Final[tuple[TokenPlace, ...]] = ("header", "query", "init")

_SECURE = {"http": "https", "ws": "wss"}
_TO_WS = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_TO_HTTP = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_SECRET_PARAMETERS = frozenset(
    {"token", "access_token", "apikey", "api_key", "authorization", "client_secret"}
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The service's two addresses: ``http`` for queries and token exchanges, ``ws`` for subscriptions.

    Made by ``Endpoint.parse``; neither URL holds a secret.
    """

    http: str
    ws: str

    @classmethod
    def parse(cls, value: str, *, allow_plaintext: bool = False) -> Endpoint:
        """Take "eu", "us" or "asia" (start/endpoints), or an http(s) or ws(s) URL; the other is derived.

        Raises UsageError for anything else, for a URL with a secret in it, and, unless ``allow_plaintext``,
        for plain http or ws to anything but this machine.
        """
        if not isinstance(value, str):
            raise UsageError(f"an endpoint is a string, not {type(value).__name__}: {_ENDPOINT_FORMS}")
        url = REGIONS.get(value.strip().lower(), value.strip())
        parts = _checked(url, f"an endpoint is {_ENDPOINT_FORMS}", _TO_WS, allow_plaintext)
        return cls(
            http=urlunsplit(parts._replace(scheme=_TO_HTTP[parts.scheme])),
            ws=urlunsplit(parts._replace(scheme=_TO_WS[parts.scheme])),
        )


_ENDPOINT_FORMS = '"eu", "us", "asia", or a URL that starts with https:// or wss://'


def check_token_url(value: str, *, allow_plaintext: bool = False) -> str:
    """Give the URL of a token endpoint back when a secret may be sent there; else raise UsageError."""
    parts = _checked(value.strip(), "a token URL starts with https://", ("http", "https"), allow_plaintext)
    return urlunsplit(parts)


def _checked(
    url: str, expected: str, schemes: Mapping[str, str] | tuple[str, ...], allow_plaintext: bool
) -> SplitResult:
    # No message shows the value: it may be a token in the wrong place, or hold one.
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = SplitResult("", "", "", "", ""), None, None
    if (
        parts.scheme not in schemes
        or not host
        or port == 0
        or not url.isprintable()
        or set(url) & set(' \\"<>')
    ):
        raise UsageError(expected)
    if "@" in parts.netloc:
        raise UsageError("a URL must not hold a user or a password: give the secret as credentials")
    if any(name.lower() in _SECRET_PARAMETERS for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise UsageError(
            "a URL must not hold a token: take the parameter out and give the token as credentials"
        )
    if parts.fragment:
        raise UsageError("a URL of the service has no fragment (#…): RFC 6455 section 3")
    if parts.scheme in _SECURE and not allow_plaintext and not is_loopback(host):
        raise UsageError(
            f"plain {parts.scheme}:// would show the token to everybody on the way to {host}: "
            f"use {_SECURE[parts.scheme]}://, or allow_plaintext=True where the network itself is trusted"
        )
    return parts


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine: ``localhost``, or an address of it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Placement:
    """A token put in its places. Every field may bear it, so ``repr`` shows none.

    ``init_payload``  the payload of ``connection_init``, or ``None`` for none.
    ``secrets``       every form in which the token may show up, longest first, for a filter of logs.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    init_payload: Mapping[str, str] | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def check_token_in(value: object) -> TokenIn:
    """Give ``token_in`` back when it names at least one place, each once; else raise UsageError."""
    known = isinstance(value, tuple | list) and all(place in TOKEN_PLACES for place in value)
    if not isinstance(value, tuple | list) or not known or not value or len(set(value)) < len(value):
        raise UsageError('token_in is a tuple of one or more of "header", "query" and "init", each once')
    return tuple(value)


def place_token(endpoint: Endpoint, token_value: str, token_in: TokenIn) -> Placement:
    """Say what to dial so that the token is in every place that ``token_in`` names.

    "header" is ``Authorization: Bearer`` (the OAuth guide); "query" is ``?token=``, percent-encoded, beside
    the URL's own parameters (authorization/websocket); "init" is the payload of ``connection_init``.
    """
    places = check_token_in(token_in)
    bearer = f"Bearer {token_value}"
    url = endpoint.ws
    if "query" in places:
        joint = "&" if urlsplit(url).query else "?"
        url = f"{url}{joint}token={quote(token_value, safe='')}"
    return Placement(
        url=url,
        headers={"Authorization": bearer} if "header" in places else {},
        init_payload={"Authorization": bearer} if "init" in places else None,
        secrets=secret_forms(token_value, bearer),
    )


def secret_forms(*secrets: str) -> tuple[str, ...]:
    """Every form in which the secrets may show up in a log or an answer, longest first.

    Besides the plain one: percent-encoded as URL libraries do it, and escaped as in JSON.
    """
    forms = set()
    for secret in secrets:
        encoded = quote(secret, safe="")
        lower = "".join(
            f"%{part[:2].lower()}{part[2:]}" if i else part for i, part in enumerate(encoded.split("%"))
        )
        forms |= {secret, encoded, lower, quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]}
    return tuple(sorted(forms - {""}, key=lambda form: (-len(form), form)))
