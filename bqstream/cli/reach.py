"""One request without a token to an address: whether it can be reached, how not, and what the time is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp

from .findings import Cause


@dataclass(frozen=True, slots=True)
class Reached:
    """An answer.

    ``took``   seconds until it came.
    ``ahead``  how many seconds its clock is ahead of ours, to about one; None where it does not tell the time.
    """

    host: str
    took: float
    ahead: float | None


class Unreached(Exception):
    """No answer; ``cause`` says at which step."""

    def __init__(self, cause: Cause, why: str) -> None:
        super().__init__(why)
        self.cause = cause


async def reach(
    url: str, http: aiohttp.ClientSession, *, timeout: float, wall: Callable[[], float]
) -> Reached:
    """Ask for ``url``, through the proxies that the session takes; any status is an answer. Raises Unreached."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    where = f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    before = wall()
    try:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with http.get(url, allow_redirects=False, timeout=limit) as response:
            took = wall() - before
            return Reached(host, took, _ahead(response.headers.get("Date"), before + took / 2))
    except TimeoutError:
        failure = Unreached("unreachable", f"{where} does not answer within {timeout:g} s")
    except (aiohttp.ClientError, OSError) as error:
        cause = _cause(error)
        failure = Unreached(cause, _WORDS[cause].format(host=host, where=where, name=type(error).__name__))
    raise failure  # out here, so that it leads to no exception of the library's


_WORDS: dict[Cause, str] = {
    "dns": "there is no address for the name {host}",
    "tls": "{where} shows a certificate that is not trusted, or speaks no TLS ({name})",
    "closed-port": "{where} refuses connections",
    "unreachable": "{where} cannot be reached ({name})",
}


def _cause(error: Exception) -> Cause:
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns"
    refused = isinstance(getattr(error, "os_error", error), ConnectionRefusedError)
    return "closed-port" if refused else "unreachable"


def _ahead(date: str | None, ours: float) -> float | None:
    try:
        # A date has whole seconds (RFC 9110 section 5.6.7), so that it is half a second old on average.
        return parsedate_to_datetime(date).timestamp() + 0.5 - ours if date else None
    except ValueError:
        return None
