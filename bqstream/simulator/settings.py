"""What a simulator is told when it is made; faults change some of it while it runs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

MODERN = "graphql-transport-ws"
LEGACY = "graphql-ws"

Refusal = Literal["401", "4401", "4403", "connection_error", "operation"]
OnExpiry = Literal["nothing", "close", "error", "silence"]
OverCap = Literal["silent", "error"]


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one socket carries its data. Sockets take the behaviours in turn, by their number.

    ``lag``       seconds that data comes late, while acks, pongs and keep-alives do not.
    ``reorder``   the portions of a block come in another order, all at the block's end.
    ``cut``       a block's rows are cut into messages of 1 to so many rows a cube, at the block's end.
    ``shuffle``   the rows of a portion come in another order.
    ``max_rows``  a message is cut short at so many rows a cube, and the rest is not sent: the service's own limit
                  is 800 unless the cube sets one itself, which then holds alone (subscriptions/subscription). The
                  ledger still counts what was left out.
    """

    lag: float = 0.0
    reorder: bool = False
    cut: int | None = None
    shuffle: bool = False
    max_rows: int | None = 800


@dataclass(kw_only=True)
class Settings:
    """The options of a simulator; times are in seconds.

    ``block_interval``, ``seed``, ``portions``, ``transactions``: the chain. A seed gives the same chain.
    ``keepalive``        between two ``pong`` / ``ka``; the first is sent before the ack. ``None``: none at all.
    ``token_ttl``        lifetime of an access token. A short-term token lives as long as its request says.
    ``subprotocols``     what the server speaks; another offer is closed with 4406.
    ``token_in``         where a socket's token is looked for: "header", "query", "init".
    ``refusal``          of a bad token on a socket: at the handshake, by a close code, by ``connection_error``, or
                         by an ``error`` on each operation.
    ``on_expiry``        what a socket does when its token expires: the service's pages do not say.
    ``honour_complete``  whether ``complete`` ends an operation (graphql-transport-ws).
    ``honour_stop``      whether ``stop`` and ``complete`` end one (graphql-ws): the service's does not
                         (subscriptions/examples).
    ``init_timeout``     until ``connection_init`` has come; then 4408.
    ``syntax_error``     "error" on the operation, or "close" with 4500, as the reference server does.
    ``cap``, ``over_cap``  subscriptions the plan allows, and what happens to one too many (plans/rate-limits).
    ``query_lag``        how much later the query side sees a row than the stream.
    ``query_partial``    whether a query sees what has come of a block before it is whole.
    ``row_cap``          rows of a cube in one query's answer (graphql/limits).
    ``realtime_window``  how far before the head the realtime dataset, which is a query's own, begins; None: with the
                         chain. What is older is left out in silence (graphql/dataset/realtime).
    ``archive_lag``      how far before the head the archive dataset ends (graphql/dataset/archive).
    ``reprice``          how much of itself a JSON float differs by, at most, when it is queried: 0.01 is one in a
                         hundred. It is the same in every query.
    ``queue_messages``, ``queue_bytes``  what may wait for one socket's reader before it is shed with 1013.
    ``send_buffer``      bytes in the operating system's send buffer, so that a slow reader shows sooner.
    ``compression``      whether permessage-deflate is taken (RFC 7692).
    ``slow``             added to each answer: handshake, ack, token, query.
    ``behaviours``       which sockets take in turn, from the socket ``first`` on; ``chosen`` goes before it.
    """

    seed: int = 0
    block_interval: float = 1.0
    portions: int = 3
    transactions: int = 8
    keepalive: float | None = 5.0
    token_ttl: float = 17_999
    subprotocols: tuple[str, ...] = (MODERN, LEGACY)
    token_in: tuple[str, ...] = ("header", "query")
    refusal: Refusal = "401"
    on_expiry: OnExpiry = "nothing"
    honour_complete: bool = True
    honour_stop: bool = False
    init_timeout: float = 10.0
    syntax_error: Literal["error", "close"] = "error"
    cap: int | None = None
    over_cap: OverCap = "silent"
    query_lag: float = 0.0
    query_partial: bool = False
    row_cap: int = 25_000
    realtime_window: float | None = None
    archive_lag: float = 0.0
    reprice: float = 0.0
    queue_messages: int = 65_536
    queue_bytes: int = 64 * 1024 * 1024
    send_buffer: int | None = None
    compression: bool = False
    slow: float = 0.0
    behaviours: tuple[Behaviour, ...] = (Behaviour(),)
    client_id: str = "simulator"
    client_secret: str = field(default_factory=secrets.token_urlsafe, repr=False)

    chosen: dict[int, Behaviour] = field(default_factory=dict)
    first: int = 1

    def behaviour(self, socket: int) -> Behaviour:
        """The behaviour of the socket with this number: its own, or its turn's from the socket ``first`` on."""
        turn = self.behaviours[(socket - self.first) % len(self.behaviours)]
        return self.chosen.get(socket, turn)
