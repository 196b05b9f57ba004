"""``POST`` on the endpoint: queries over HTTP, and the exchange for a short-term token, which shares the address."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from . import wire
from .answers import Failure, Refusal, prepare
from .oauth import OAuth
from .sockets import Service
from .upgrade import HttpFault, presented


class Queries:
    """The query side: later than the stream by ``query_lag``, and at most ``row_cap`` rows long.

    A document that is refused, or asked for at a bad moment, is answered 200 with ``errors``, as GraphQL has it.
    """

    def __init__(self, service: Service, oauth: OAuth) -> None:
        self._service = service
        self._oauth = oauth
        self.fault = HttpFault()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a query or an exchange."""
        try:
            body = msgspec.json.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _errors("the body is not JSON", status=400)
        await asyncio.sleep(self._service.settings.slow)
        if isinstance(body, dict) and "query" not in body and "expires_in" in body:
            return await self._oauth.exchange(request, body["expires_in"])
        response = self.fault.take() or self._answer(request, body)
        self._service.counters.record("queries", status=response.status)
        if response.status >= 400:
            self._service.counters.record("refusals", of="queries", status=response.status)
        return response

    def _answer(self, request: web.Request, body: Any) -> web.Response:
        if self._service.tokens.valid(presented(request, ("header", "query"))) is None:
            return web.Response(status=401, text="Unauthorized", headers={"WWW-Authenticate": "Bearer"})
        message = {"id": "1", "payload": {"extensions": None, **body}} if isinstance(body, dict) else {}
        fields = wire.start_fields(message)
        if fields is None:
            return _errors("send a query, with variables and operationName if it has any", status=400)
        _, document, variables, name = fields
        try:
            prepared = prepare(document, variables, name)
            if prepared.kind != "query":
                return _errors("a subscription needs a WebSocket", status=400)
            answer = self._service.answer(prepared)
        except Failure as failure:
            return _json({"errors": failure.errors}, status=500)
        except Refusal as refusal:
            return _json({"errors": refusal.errors})
        return _json(answer)


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")


def _errors(message: str, *, status: int) -> web.Response:
    return _json({"errors": [{"message": message}]}, status)
