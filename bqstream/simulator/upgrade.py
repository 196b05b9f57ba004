"""The handshake: who may open a socket, and on which subprotocol."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from aiohttp import web

from . import wire
from .counters import SocketRecord
from .oauth import IssuedToken, bearer
from .sockets import CLOSING_HANDSHAKE, Service, Socket

_LARGEST_MESSAGE = 16 * 1024 * 1024


@dataclass(kw_only=True)
class HttpFault:
    """``left`` requests are refused with this answer; ``message``: with that of a GraphQL error, and no data."""

    left: int = 0
    status: int = 503
    retry_after: float | None = None
    body: str = ""
    message: str | None = None

    def take(self) -> web.Response | None:
        """The refusal of one request, while some are left."""
        if not self.left:
            return None
        self.left -= 1
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
        if self.message is not None:
            errors = {"errors": [{"message": self.message}]}
            return web.json_response(errors, status=self.status, headers=headers)
        return web.Response(status=self.status, text=self.body, headers=headers)


def presented(request: web.Request, token_in: tuple[str, ...]) -> str | None:
    """The token of a request, from where this server looks: the header first, then ``?token=``."""
    value = bearer(request) if "header" in token_in else None
    return value or (request.query.get("token") if "query" in token_in else None) or None


class Upgrades:
    """Turns upgrade requests into sockets; ``next`` is the next one's number."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.next = 1
        self.fault = HttpFault()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET`` on the endpoint: serve a socket to its end, or refuse it."""
        service, settings = self._service, self._service.settings
        service.counters.record("dials")
        await asyncio.sleep(settings.slow)
        refused = self.fault.take()
        value = presented(request, settings.token_in)
        token = service.tokens.valid(value)
        may_come_later = value is None and "init" in settings.token_in
        if refused is None and token is None and settings.refusal == "401" and not may_come_later:
            refused = web.Response(status=401, text="Unauthorized", headers={"WWW-Authenticate": "Bearer"})
        if refused is not None:
            service.counters.record("refusals", of="dials", status=refused.status)
            return refused
        ws = web.WebSocketResponse(
            timeout=CLOSING_HANDSHAKE,
            protocols=settings.subprotocols,
            compress=settings.compression,
            autoping=False,
            autoclose=False,
            max_msg_size=_LARGEST_MESSAGE,
        )
        await ws.prepare(request)
        dialect = wire.DIALECTS.get(ws.ws_protocol or "")
        if dialect is None:
            service.counters.record("refusals", of="subprotocol")
            await ws.close(code=4406, message=b"Subprotocol not acceptable")
        else:
            await self._serve(request, ws, token, dialect)
        return ws

    async def _serve(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        token: IssuedToken | None,
        dialect: wire.Dialect,
    ) -> None:
        service = self._service
        record = SocketRecord(self.next, None, dialect.name, asyncio.get_running_loop().time())
        service.counters.sockets.append(record)
        self.next += 1
        if service.settings.send_buffer is not None and request.transport is not None:
            raw = request.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, service.settings.send_buffer)
        opened = Socket(service, ws, request, token, dialect, record)
        service.open[opened.number] = opened
        try:
            await opened.run()
        finally:
            del service.open[opened.number]
