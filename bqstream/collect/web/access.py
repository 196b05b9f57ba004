"""Who may look: the token, the session that a browser gets for it, the names that this server answers to."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web

SESSION = 7 * 24 * 3600.0
# Failures that one address may have in a minute, and the number of addresses that are remembered.
FAILURES, WINDOW, ADDRESSES = 5, 60.0, 1024
_LOCAL = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether what listens at ``host`` is reached from this machine alone."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


class Access:
    """The answers to: is this request's Host ours, and may it see data?

    Without a token everybody may who gets here, which is why such a server is bound to loopback alone. A session is a
    date and a signature under a key made of the token: it outlives a restart of the collector and ends with the token.

    Args:
        token: what is asked for; None: nothing.
        host: what the server is bound to.
        names: other names that it is reached by.
    """

    def __init__(
        self,
        token: str | None,
        host: str,
        names: Iterable[str] = (),
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = _digest(token) if token is not None else None
        self._loopback = is_loopback(host)
        self._names = {name.lower() for name in (*names, *([] if _any(host) else [host]))}
        self._any = _any(host)
        self._wall = wall
        self._monotonic = monotonic
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def open(self) -> bool:
        """Whether no token is asked for."""
        return self._key is None

    def answers_to(self, host: str | None, port: int | None) -> bool:
        """Whether a request with this Host header is meant for this server, and no other site's name was pointed at it
        (DNS rebinding). A wildcard address is reached by any address: those are not names. Behind another server or a
        published port the port is not ours, so that it is compared on loopback alone."""
        name, asked = _split(host)
        if self._loopback and name in _LOCAL:
            return (asked or 80) == port
        return name in self._names or (self._any and (name == "localhost" or _address(name) is not None))

    def bearer(self, request: web.BaseRequest) -> bool:
        """Whether the request bears the token. A wrong one counts as a failure."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.takes(given.strip(), request.remote)

    def takes(self, given: str, address: str | None) -> bool:
        """Whether ``given`` is the token; never while ``address`` has failed too often."""
        if self._key is None:
            return True
        if self.wait(address):
            return False
        if hmac.compare_digest(_digest(given), self._key):
            return True
        failures = self._failures.setdefault(address or "", [])
        failures.append(self._monotonic())
        self._failures.move_to_end(address or "")
        while len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)
        return False

    def wait(self, address: str | None) -> float:
        """For how many seconds ``address`` will not be listened to; 0 for none."""
        now = self._monotonic()
        failures = self._failures.get(address or "", [])
        failures[:] = [at for at in failures if at > now - WINDOW]
        return failures[-FAILURES] + WINDOW - now if len(failures) >= FAILURES else 0.0

    def new_session(self) -> str:
        """The value of a session's cookie."""
        head = f"{self._wall() + SESSION:.0f}.{secrets.token_urlsafe(16)}"
        return f"{head}.{self._sign(head)}"

    def session(self, cookie: str | None) -> bool:
        """Whether this cookie is one of ours, and not too old."""
        head, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(errors="surrogatepass"), self._sign(head).encode()):
            return False
        return float(head.partition(".")[0]) > self._wall()

    def _sign(self, head: str) -> str:
        assert self._key is not None
        return hmac.new(
            self._key, f"session {head}".encode(errors="surrogatepass"), hashlib.sha256
        ).hexdigest()


def same_origin(request: web.BaseRequest) -> bool:
    """Whether a form was sent by a page of this server: browsers say where each comes from. The scheme may differ,
    where another server in front of this one speaks TLS."""
    _, _, origin = request.headers.get("Origin", "").partition("//")
    return bool(origin) and _split(origin) == _split(request.headers.get("Host"))


def _split(host: str | None) -> tuple[str, int | None]:
    """The name and the port of a Host header; a name that is none is empty."""
    try:
        parts = urlsplit(f"//{host or ''}")
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None


def _any(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_unspecified


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()  # a header may hold any byte
