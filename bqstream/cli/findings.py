"""What an examination finds: values, with the cause of each fault and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from .running import ACCESS, FAILED

Check = Literal[
    "document", "credentials", "address", "exchange", "clock", "reachable", "handshake", "acknowledged",
    "subscribe", "first row", "keep-alive", "plan",
]  # fmt: skip
Cause = Literal[
    "document", "no-credentials", "bad-credentials", "credentials-refused", "token-refused", "plan", "plaintext",
    "wrong-address", "token-endpoint", "dns", "closed-port", "tls", "unreachable", "clock", "rate-limit",
    "server-fails", "subprotocol", "no-ack", "connection", "operation", "ended", "needs-filter", "dead-socket",
    "over-cap", "query-only", "filter", "chain-stalled", "quiet-cube", "silent",
]  # fmt: skip
CAUSES: tuple[Cause, ...] = get_args(Cause)

_ACCESS: frozenset[Cause] = frozenset(
    ("no-credentials", "bad-credentials", "credentials-refused", "token-refused", "plan", "over-cap")
)

ADVICE: dict[Cause, str] = {
    "document": "mend the document; the message names the place",
    "no-credentials": "set BITQUERY_TOKEN, or BITQUERY_CLIENT_ID and BITQUERY_CLIENT_SECRET, each also as …_FILE",
    "bad-credentials": "what the variables hold is no token or secret: look for white space, quotes, or a word such as "
    "Bearer",
    "credentials-refused": "compare client id and secret with Bitquery's Applications page, or make a new application",
    "token-refused": "the token is expired, revoked, or of another account: generate a new one on Bitquery's "
    "Applications page",
    "plan": "it is the plan, not the network: look at billing and points on your account page",
    "plaintext": "write https:// or wss:// in place of http:// or ws://",
    "wrong-address": "nothing of the service answers there: leave the endpoint out, or give eu, us, asia or its URL",
    "token-endpoint": "look at BITQUERY_TOKEN_URL, or leave it out; if it is right, try again in a minute",
    "dns": "the name is not known: look for a typing error, and at this machine's DNS",
    "closed-port": "nothing listens there: look at host and port, and at firewalls",
    "tls": "the certificate is not trusted: where a proxy or a CA of your own stands between, name its certificates in "
    "SSL_CERT_FILE; else do not go on",
    "unreachable": "look at the network, at HTTPS_PROXY and NO_PROXY, and at firewalls",
    "clock": "set this machine's clock, by NTP say: since= and gaps are asked for by time",
    "rate-limit": "too many requests or sessions: wait a minute, and share one client among subscriptions",
    "server-fails": "it is the service: try again in a minute, or another region with --endpoint us",
    "subprotocol": "the server speaks neither graphql-transport-ws nor graphql-ws: look at the endpoint",
    "no-ack": "what stands there takes sockets and does not answer: look at the endpoint, and at proxies between",
    "connection": "try again in a minute; if it stays, look at proxies between, and at the endpoint",
    "operation": "the message is the service's own: look for it in its pages, start/errors",
    "ended": "the service ended the subscription by itself: look whether its cube streams",
    "needs-filter": "the service closed with 1013: such a cube needs a filter (where:), or sends more than is read; "
    "filter more, or select fewer fields",
    "dead-socket": "bqstream reconnects by itself, but something between lets sockets die: look at proxies, VPNs and "
    "NAT time-outs",
    "over-cap": "more subscriptions run than the plan allows: end others, also those of a program that was not "
    "stopped, or take a larger plan",
    "query-only": "this cube answers queries and never streams: poll it with a query, or subscribe the cube whose rows "
    "change it (BalanceUpdates in place of Balances)",
    "filter": "loosen the filter until rows come: look at the network, at the case of addresses, and at the units of "
    "amounts; if such rows are rare, wait longer with --within 5m",
    "chain-stalled": "there is nothing to send: wait, or look at Bitquery's status page",
    "quiet-cube": "such rows are rare: wait longer with --within 5m",
    "silent": "look, in this order, at the plan's cap on subscriptions, at the filter, and whether the cube streams",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: what was looked at, what was seen, and where that is a fault its cause."""

    check: Check
    says: str
    cause: Cause | None = None

    @property
    def good(self) -> bool:
        return self.cause is None

    @property
    def advice(self) -> str | None:
        """What to do; None where there is nothing to be done."""
        return None if self.cause is None else ADVICE[self.cause]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "check": self.check,
            "good": self.good,
            "says": self.says,
            "cause": self.cause,
            "advice": self.advice,
        }


def exit_code_of(findings: list[Finding]) -> int:
    """0: healthy, 3: credentials or plan, 1: any other fault."""
    causes = {finding.cause for finding in findings if finding.cause is not None}
    if not causes:
        return 0
    return ACCESS if causes & _ACCESS else FAILED
