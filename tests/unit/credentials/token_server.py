"""A token endpoint on 127.0.0.1 that gives scripted answers and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from bqstream.clock import Clock
from bqstream.credentials import Service
from bqstream.endpoints import Endpoint


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """``json`` or ``text``; ``hold`` is awaited before it is sent."""

    json: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    hold: Callable[[], Awaitable[object]] | None = None


class TokenServer:
    """Answers in the order of ``answers``; the last one goes on for ever."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http
        self.answers: list[Answer] = []
        self.asked: list[Asked] = []
        self.arrived = asyncio.Event()

    def service(self, *, timeout: float = 30.0, clock: Clock | None = None) -> Service:
        return Service(
            http=self.http,
            endpoint=Endpoint.parse(f"{self.url}/graphql"),
            timeout=timeout,
            clock=clock or Clock(),
        )

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(Asked(request.method, request.path, dict(request.headers), await request.read()))
        self.arrived.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.hold is not None:
            await answer.hold()
        if answer.text is not None:
            return web.Response(status=answer.status, headers=answer.headers, text=answer.text)
        return web.json_response(answer.json, status=answer.status, headers=answer.headers)


@asynccontextmanager
async def token_server(*answers: Answer) -> AsyncIterator[TokenServer]:
    app = web.Application()
    async with aiohttp.ClientSession() as http:
        server = TokenServer("", http)
        server.answers.extend(answers)
        app.router.add_route("*", "/{path:.*}", server.answer)
        async with TestServer(app, host="127.0.0.1") as running:
            server.url = str(running.make_url("")).rstrip("/")
            yield server
