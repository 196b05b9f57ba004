"""What can be made to go wrong, in code (``simulator.faults.close(1013)``) or over the control endpoint.

``POST`` the control URL a JSON object: ``fault`` names a row of this table, the other keys are its arguments.
``socket`` is a socket's number (from 1, in the order of opening) and means all open ones where it is left out.
``token`` is a token's number or value, and means all but the static ones where it is left out. Times are seconds.

======================  ==================================================================================
fault                   arguments and effect
======================  ==================================================================================
``close``               ``code=1012, reason="", socket``: a closing handshake with this code.
``abort``               ``socket``: TCP reset, no close frame.
``stall``               ``socket, data_only=false``: silence on an open connection; with ``data_only`` the
                        keep-alives and answers go on and only data stops.
``garbage``             ``kind, socket``: a frame no client expects: ``json`` (cut short), ``list``,
                        ``binary``, ``type`` or ``id`` (unknown ones), ``error`` (without an id).
``oversize``            ``size=2097152, socket``: the next data message is longer by so many spaces.
``errors``              ``message, socket``: every live operation ends with an ``error``.
``refuse_dials``        ``count=1, status=503, retry_after, body=""``: the next upgrades are refused.
``refuse_queries``      ``count=1, status, retry_after, body="", message``: the next queries over HTTP are, with 503;
                        with a ``message``, by a GraphQL error of that text and no data, with 200 unless
                        ``status`` says otherwise (``"points limit exceeded"``, ``"no table can query …"``,
                        ``"temporarily blocked due to a high number of long-running queries"``).
``refuse_acks``         ``count=1, how="connection_error"`` or ``"4401"``, ``"4403"``, ``"silence"``.
``token_endpoint``      ``mode``: ``"refuse"`` (with ``status=429, retry_after, error``), ``"slow"`` (by
                        ``seconds``), ``"down"`` (connection dropped), ``"ok"``; for ``count`` requests,
                        or until it is changed.
``revoke``              ``token``: the token is refused from now on; open sockets stay (authorization/websocket).
``expire``              ``token``: its time is over now; open sockets do what ``on_expiry`` says.
``on_expiry``           ``what``: ``"nothing"``, ``"close"`` (4401), ``"error"`` (on operations), ``"silence"``.
``down``                ``seconds``: no listener, all connections reset; then the same port again.
``slow``                ``seconds``: added to each answer (handshake, ack, token, query); 0 ends it.
``cap``                 ``count, over="silent"`` or ``"error"``: the plan's cap on subscriptions; null: none.
``query_lag``           ``seconds``: how much later the query side sees a row.
``fork``                ``depth``: the last blocks are mined again on another branch.
``behave``              ``behaviours, sockets``: a list of objects with ``lag``, ``reorder``, ``cut``,
                        ``shuffle``, ``max_rows``, which the sockets from now on take in turn; with
                        ``sockets`` (a list of numbers) those sockets take them, open or not.
``pause``, ``resume``   the chain stands still after the current block, and goes on.
======================  ==================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from aiohttp import WSMsgType

from .oauth import OAuth, TokenFault
from .queries import Queries
from .settings import Behaviour, OnExpiry, OverCap
from .sockets import Operation, Service, Socket
from .upgrade import HttpFault, Upgrades
from .wire import GARBAGE

FAULTS = (
    *(
        "abort",
        "behave",
        "cap",
        "close",
        "down",
        "errors",
        "expire",
        "fork",
        "garbage",
        "on_expiry",
        "oversize",
    ),
    *(
        "pause",
        "query_lag",
        "refuse_acks",
        "refuse_dials",
        "refuse_queries",
        "resume",
        "revoke",
        "slow",
        "stall",
    ),
    "token_endpoint",
)


class Faults:
    """One method for each row of the module's table. Call them from the loop's thread; none waits.

    Raises, each of them:
        LookupError: there is no such socket or token.
        ValueError: an argument is not one of those that the table names.
    """

    def __init__(
        self,
        service: Service,
        upgrades: Upgrades,
        queries: Queries,
        oauth: OAuth,
        take_down: Callable[[float], None],
    ) -> None:
        self._service = service
        self._settings = service.settings
        self._upgrades = upgrades
        self._queries = queries
        self._oauth = oauth
        self._take_down = take_down

    def close(self, code: int = 1012, reason: str = "", socket: int | None = None) -> None:
        for opened in self._sockets(socket):
            opened.close(code, reason)

    def abort(self, socket: int | None = None) -> None:
        for opened in self._sockets(socket):
            opened.abort()

    def stall(self, socket: int | None = None, data_only: bool = False) -> None:
        for opened in self._sockets(socket):
            if data_only:
                opened.outbox.stop_data()
            else:
                opened.stall()

    def garbage(self, kind: str, socket: int | None = None) -> None:
        if kind not in GARBAGE:
            raise ValueError(f"kind is one of {', '.join(GARBAGE)}")
        opcode = WSMsgType.BINARY if kind == "binary" else WSMsgType.TEXT
        for opened in self._sockets(socket):
            opened.outbox.urgent(GARBAGE[kind], opcode)

    def oversize(self, size: int = 2 * 1024 * 1024, socket: int | None = None) -> None:
        for opened in self._sockets(socket):
            opened.outbox.pad(size)

    def errors(self, message: str = "Internal error", socket: int | None = None) -> None:
        for opened in self._sockets(socket):
            for name, operation in list(opened.operations.items()):
                if isinstance(operation, Operation):
                    opened.fail(name, [{"message": message}])

    def refuse_dials(
        self, count: int = 1, status: int = 503, retry_after: float | None = None, body: str = ""
    ) -> None:
        self._upgrades.fault = HttpFault(left=count, status=status, retry_after=retry_after, body=body)

    def refuse_queries(
        self,
        count: int = 1,
        status: int | None = None,
        retry_after: float | None = None,
        body: str = "",
        message: str | None = None,
    ) -> None:
        if body and message is not None:
            raise ValueError("give a body or a message")
        usual = 503 if message is None else 200
        self._queries.fault = HttpFault(
            left=count, status=status or usual, retry_after=retry_after, body=body, message=message
        )

    def refuse_acks(
        self, count: int = 1, how: Literal["connection_error", "4401", "4403", "silence"] = "connection_error"
    ) -> None:
        if how not in ("connection_error", "4401", "4403", "silence"):
            raise ValueError("how is connection_error, 4401, 4403 or silence")
        self._service.refuse_acks, self._service.refuse_acks_how = count, how

    def token_endpoint(
        self,
        mode: Literal["ok", "down", "slow", "refuse"],
        count: int | None = None,
        status: int = 429,
        retry_after: float | None = None,
        error: str = "temporarily_unavailable",
        seconds: float = 0.0,
    ) -> None:
        if mode not in ("ok", "down", "slow", "refuse"):
            raise ValueError("mode is ok, down, slow or refuse")
        fault = TokenFault(
            mode=mode, left=count, status=status, retry_after=retry_after, error=error, seconds=seconds
        )
        self._oauth.fault = fault

    def revoke(self, token: int | str | None = None) -> None:
        for issued in self._service.tokens.chosen(token):
            issued.revoked = True

    def expire(self, token: int | str | None = None) -> None:
        now = asyncio.get_running_loop().time()
        for issued in self._service.tokens.chosen(token):
            if not issued.expired:
                issued.expires_at = now
                for opened in self._sockets(None):
                    if opened.token is issued:
                        opened.token_expired()

    def on_expiry(self, what: OnExpiry) -> None:
        if what not in ("nothing", "close", "error", "silence"):
            raise ValueError("what is nothing, close, error or silence")
        self._settings.on_expiry = what

    def down(self, seconds: float) -> None:
        self._take_down(seconds)

    def slow(self, seconds: float) -> None:
        self._settings.slow = seconds

    def cap(self, count: int | None, over: OverCap = "silent") -> None:
        if over not in ("silent", "error"):
            raise ValueError("over is silent or error")
        self._settings.cap, self._settings.over_cap = count, over

    def query_lag(self, seconds: float) -> None:
        self._settings.query_lag = seconds

    def fork(self, depth: int) -> None:
        self._service.emitter.fork(depth)

    def behave(
        self, behaviours: Sequence[Behaviour | Mapping[str, Any]], sockets: Iterable[int] | None = None
    ) -> None:
        """Without behaviours: as usual. An open socket without data in hand changes at its next block."""
        turns = [one if isinstance(one, Behaviour) else Behaviour(**one) for one in behaviours] or [
            Behaviour()
        ]
        if sockets is None:
            self._settings.behaviours, self._settings.first = tuple(turns), self._upgrades.next
            return
        for place, number in enumerate(sockets):
            behaviour = self._settings.chosen[number] = turns[place % len(turns)]
            if (opened := self._service.open.get(number)) is not None:
                opened.behaviour, opened.outbox.lag = behaviour, behaviour.lag

    def pause(self) -> None:
        self._service.emitter.pause()

    def resume(self) -> None:
        self._service.emitter.resume()

    def _sockets(self, number: int | None) -> list[Socket]:
        if number is None:
            return list(self._service.open.values())
        if number not in self._service.open:
            raise LookupError(f"socket {number} is not open")
        return [self._service.open[number]]
