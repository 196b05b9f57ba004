"""One request to a token endpoint, and what its answers mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ..clock import Clock
from ..endpoints import Endpoint
from ..errors import PlanError, UsageError
from .token import Token

MAX_ANSWER: Final = 1024 * 1024  # bytes
MAX_QUOTE: Final = 200  # characters of an answer that an error may show
MAX_RETRY_AFTER: Final = 3600.0  # seconds

_LONG_WORD = re.compile(r"[\w.~+/=%-]{24,}")
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_PLAN = ("no active billing period", "points limit exceeded")  # start/errors
_PASSING_ERRORS = ("server_error", "temporarily_unavailable")  # RFC 6749 section 4.1.2.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a fetch needs of its client.

    ``http``     the session to send through; whoever made it closes it.
    ``timeout``  seconds for one request, from dial to the answer's last byte.
    """

    http: aiohttp.ClientSession = field(repr=False)
    endpoint: Endpoint
    timeout: float = 30.0
    allow_plaintext: bool = False
    clock: Clock = field(default_factory=Clock, repr=False)


class PassingError(Exception):
    """No token this time, but another try may bring one. Inside credentials/ only: the keeper retries.

    ``retry_after``   what the server asked for, in seconds; it wins over any back-off.
    ``rate_limited``  start the back-off at 5 s (plans/rate-limits).
    ``lasting``       looks like a wrong address or setting: hopeless, unless it has worked before.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        rate_limited: bool = False,
        lasting: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.rate_limited = rate_limited
        self.lasting = lasting


class RefusedError(Exception):
    """The endpoint refused what it was shown: 401, 403, or an error of RFC 6749 section 5.2.

    Inside credentials/ only: each provider says what it means.
    """


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """Mask the secrets, and whatever is long enough to be one; then cut to ``MAX_QUOTE`` characters."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(_LONG_WORD.sub("***", text).split())
    return _bounded(text)


async def post(
    service: Service,
    url: str,
    *,
    headers: Mapping[str, str],
    data: Mapping[str, str] | bytes,
    secrets: tuple[str, ...],
) -> dict[str, Any]:
    """Send one POST and give the JSON object of a good answer.

    Redirects are not followed: they would carry the secret elsewhere. Raises RefusedError, PlanError or
    PassingError, none of which shows a secret nor has a cause. Cancelling drops the request.
    """
    where = _where(url)
    try:
        async with service.http.post(
            url,
            headers={"Accept": "application/json", **headers},
            data=data,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=service.timeout),
        ) as response:
            body = await _read(response, where)
            return judge(
                response.status,
                response.headers,
                body,
                where=where,
                secrets=secrets,
                now=service.clock.wall(),
            )
    except TimeoutError:
        failure = PassingError(f"{where} did not answer within {service.timeout:g} s")
    except aiohttp.ClientConnectorCertificateError:
        failure = PassingError(f"{where} shows a certificate that does not verify", lasting=True)
    except (aiohttp.ClientError, OSError) as error:
        failure = PassingError(
            f"{where} cannot be reached: {type(error).__name__}: {redact(str(error), secrets)}"
        )
    # Raised out here so that it has no context: the engine's error may hold what was sent.
    raise failure


def judge(
    status: int, headers: Mapping[str, str], body: bytes, *, where: str, secrets: tuple[str, ...], now: float
) -> dict[str, Any]:
    """Tell what an answer means; ``now`` is the wall clock's time. Gives and raises what ``post`` does."""
    answer = _json_object(body)
    said = _said(answer, body, secrets)
    if status == 402 or any(sign in said.lower() for sign in _PLAN):
        raise PlanError(f"{where} answered HTTP {status}: {said or 'no active billing period'}")
    if 200 <= status < 300:
        # A good answer holds the token itself, so nothing of it is quoted.
        if answer is None:
            raise PassingError(f"{where} answered HTTP {status} with something that is no JSON object")
        if not answer.get("errors"):
            return answer
        status = 401 if "unauthorized" in said.lower() else 502
    message = f"{where} answered HTTP {status}" + (f": {said}" if said else "")
    code = answer.get("error") if answer else None
    if status in (401, 403) or (status == 400 and isinstance(code, str) and code not in _PASSING_ERRORS):
        raise RefusedError(message)
    if 300 <= status < 400:
        message = (
            f"{where} answered HTTP {status}, a redirect; it is not followed, since it would carry the secret"
        )
    raise PassingError(
        message,
        retry_after=parse_retry_after(headers.get("Retry-After"), now),
        rate_limited=status == 429 or "too many sessions" in said.lower(),
        lasting=300 <= status < 500 and status not in (408, 424, 425, 429),
    )


def read_token(answer: Mapping[str, Any], key: str, *, default_lifetime: float | None) -> Token:
    """Read a token out of a good answer; the values of a malformed one are never shown."""
    value, lifetime = answer.get(key), answer.get("expires_in", default_lifetime)
    if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit():
        lifetime = int(lifetime)
    if not isinstance(value, str) or not (lifetime is None or is_lifetime(lifetime)):
        raise PassingError(f'the answer of the token endpoint holds no "{key}" with a lifetime', lasting=True)
    try:
        return Token(value, lifetime)
    except UsageError:
        pass
    raise PassingError(f'the "{key}" in the answer of the token endpoint is no token')


def is_lifetime(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a ``Retry-After`` header: a number or a date (RFC 9110 section 10.2.3).

    An hour at most; ``None`` for what is neither.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), MAX_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    # A date without a zone is GMT (RFC 9110 section 5.6.7).
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


async def _read(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise PassingError(f"{where} answered with more than {MAX_ANSWER} bytes")
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _said(answer: dict[str, Any] | None, body: bytes, secrets: tuple[str, ...]) -> str:
    """What the server said went wrong, redacted; empty for an answer that says nothing of the kind."""
    if answer is None:
        return redact(body.decode(errors="replace"), secrets)
    code, description = answer.get("error"), answer.get("error_description")
    words = []
    if isinstance(code, str):
        words.append(code if _ERROR_CODE.fullmatch(code) and code not in secrets else redact(code, secrets))
    if isinstance(description, str):
        words.append(redact(description, secrets))
    errors = answer.get("errors")
    for error in errors if isinstance(errors, list) else [errors]:
        text = error.get("message") if isinstance(error, dict) else error
        if isinstance(text, str):
            words.append(redact(text, secrets))
    return _bounded(": ".join(words))


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_QUOTE else text[:MAX_QUOTE] + "…"


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
