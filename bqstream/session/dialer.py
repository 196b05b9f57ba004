"""From a token to an open connection and the machine that speaks its subprotocol."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..credentials.token import HeldToken
from ..endpoints import Endpoint, TokenPlace, place_token
from ..protocol.machine import Machine
from ..protocol.negotiation import SUBPROTOCOLS, Alone, machine_for, negotiate
from ..protocol.verdicts import Action, Kind, Verdict, classify_upgrade
from ..transport.base import Connection, DialError, Engine, Target, UpgradeRefused

Subprotocol = Literal["auto", "graphql-transport-ws", "graphql-ws"]


class DialRefused(Exception):
    """A dial came to nothing; ``verdict`` says what helps."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.why)
        self.verdict = verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How to dial, whatever the token. A proxy's URL may hold its password, so ``repr`` does not show it."""

    tls: ssl.SSLContext | None = None
    proxy: str | bool | None = field(default=True, repr=False)
    compression: bool = False
    max_message_bytes: int = 64 * 1024 * 1024
    timeout: float = 10.0


class Dialer:
    """Builds URL and token anew for every dial, and remembers which subprotocols the server takes."""

    def __init__(
        self,
        engine: Engine,
        endpoint: Endpoint,
        token_in: tuple[TokenPlace, ...],
        subprotocol: Subprotocol,
        network: Network,
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._token_in = token_in
        self._network = network
        self._known: tuple[str, ...] = SUBPROTOCOLS if subprotocol == "auto" else (subprotocol,)
        self._offer: tuple[str, ...] = self._known
        self._refused: set[str] = set()

    async def dial(self, held: HeldToken) -> tuple[Connection, Machine, Mapping[str, Any] | None]:
        """Open a connection with ``held``; also gives the payload for ``connection_init``. Raises DialRefused.

        A server that names no subprotocol although two were offered is dialled once for each alone (protocol.md,
        item 3), since its silence does not say which it speaks.
        """
        offers: list[tuple[str, ...]] = [self._offer]
        while True:
            offer = offers.pop(0)
            connection, init = await self._open(held, offer)
            spoken = negotiate(offer, connection.subprotocol)
            if isinstance(spoken, str) and (connection.subprotocol or not offers):
                if len(offer) == 1:
                    self._offer = offer  # what was found out one by one need not be found out again
                return connection, machine_for(spoken), init
            connection.abort()
            if isinstance(spoken, Verdict):
                raise DialRefused(spoken)
            if isinstance(spoken, Alone):
                offers = [(alone,) for alone in spoken.subprotocols]

    async def _open(
        self, held: HeldToken, offer: tuple[str, ...]
    ) -> tuple[Connection, Mapping[str, Any] | None]:
        placement = place_token(self._endpoint, held.token.value, self._token_in)
        network = self._network
        target = Target(
            url=placement.url,
            headers=placement.headers,
            secrets=placement.secrets,
            subprotocols=offer,
            tls=network.tls,
            proxy=network.proxy,
            compression=network.compression,
            max_message_bytes=network.max_message_bytes,
            timeout=network.timeout,
        )
        try:
            return await self._engine.dial(target), placement.init_payload
        except UpgradeRefused as refused:
            verdict = classify_upgrade(refused.status, refused.headers, refused.body)
        except DialError as error:
            action = Action.END_CLIENT if error.permanent else Action.RETRY
            verdict = Verdict(action=action, kind=Kind.CONNECTION, why=str(error))
        raise DialRefused(verdict) from None

    def switch(self, refused: str) -> bool:
        """The server does not speak this subprotocol: use the other one from now on. False where there is none."""
        self._refused.add(refused)
        left = tuple(subprotocol for subprotocol in self._known if subprotocol not in self._refused)
        if not left:
            self._refused.clear()
        self._offer = left or self._known
        return bool(left)
