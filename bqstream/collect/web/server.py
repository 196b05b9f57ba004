"""The HTTP server of a collector's process, and who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib import resources

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from ... import assets
from ...errors import UsageError
from ..metrics import registry_of
from ..monitor import Monitor
from .access import SESSION, Access, is_loopback, same_origin
from .feed import Feed

_log = logging.getLogger("bqstream.collect.web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HEADERS = {
    # The page loads from here and nowhere else, and runs no script that stands in it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer", by which browsers send the form's Origin as "null" (Fetch, "append a request Origin header").
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "bqstream",  # and no version of anything
}
_OWN = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}
_SHARED = {
    "drawing.js": "text/javascript",
    "drawing.css": "text/css",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
}
_ASSETS = _OWN | _SHARED
# No data is in these: probes come without a token, and by whatever name the machine has for them.
_PROBES = ("/healthz", "/readyz")
_GUARDED = ("/", "/events", "/metrics")
_FORM = 4096  # bytes
_SHUTDOWN = 1.0


@contextlib.asynccontextmanager
async def serve(
    monitor: Monitor,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    *,
    names: Iterable[str] = (),
) -> AsyncIterator[str]:
    """Show ``monitor`` over HTTP for as long as the block runs; gives the URL. ``monitor.run()`` is the caller's.

    ``/`` is the page, ``/events`` what it lives on, ``/metrics`` is for Prometheus; ``/healthz`` answers while the
    process lives, ``/readyz`` while every collector is subscribed and no commit is overdue.

    Args:
        host, port: where to listen; 0 is any free port.
        token: asked for by all but the last two, as ``Authorization: Bearer`` or in a login form. None: everybody may
            see everything, which only loopback allows.
        names: names and addresses by which browsers reach the server, beside what it is bound to.

    Raises UsageError: there is no token and ``host`` is not loopback, the token is empty, or nothing can listen there.
    Leaving the block ends every connection, also when cancelled.
    """
    host = host or "0.0.0.0"
    if token is None and not is_loopback(host):
        raise UsageError(
            f"{host} is reached by other machines, which would see the collector's rows: set "
            "BQSTREAM_COLLECT_HTTP_TOKEN or BQSTREAM_COLLECT_HTTP_TOKEN_FILE, or listen on 127.0.0.1"
        )
    if token is not None and not token.strip():
        raise UsageError("the token for the collector's page is empty")
    feed = Feed(monitor)
    site = _Site(monitor, feed, Access(token.strip() if token else None, host, names))
    runner = web.AppRunner(site.application(), access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    feeding = asyncio.create_task(feed.run(), name="bqstream page")
    feeding.add_done_callback(_told)
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        site.port = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{site.port}/"
    finally:
        feeding.cancel()
        await asyncio.wait({feeding})
        feed.close()
        await runner.cleanup()


class _Site:
    def __init__(self, monitor: Monitor, feed: Feed, access: Access) -> None:
        self._monitor = monitor
        self._feed = feed
        self._access = access
        self._registry = registry_of(monitor)
        self._files = {
            name: (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
            for name in ("index.html", "login.html", *_OWN)
        } | {name: assets.read(name) for name in _SHARED}
        self.port = 0

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=_FORM)
        application.on_response_prepare.append(_add_headers)
        application.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/events", self._feed.handle),
                web.get("/login", self._form),
                web.post("/login", self._login),
                web.get("/", self._page),
                *(web.get(f"/{name}", self._asset) for name in _ASSETS),
            ]
        )
        return application

    # ------------------------------------------------------------------ who may see what

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        access = self._access
        if request.path in _PROBES or (not access.open and access.bearer(request)):
            return await handler(request)
        if not access.answers_to(request.headers.get("Host"), self.port):
            raise web.HTTPMisdirectedRequest(text="this server was not told that it goes by this name\n")
        if request.path in _GUARDED and not (
            access.open or access.session(request.cookies.get(self._cookie(request)))
        ):
            if wait := access.wait(request.remote):
                raise _too_many(wait)
            if request.path == "/":
                raise web.HTTPSeeOther("login")
            raise web.HTTPUnauthorized(
                text="a token is needed\n", headers={"WWW-Authenticate": 'Bearer realm="bqstream"'}
            )
        return await handler(request)

    def _cookie(self, request: web.Request) -> str:
        """A browser has the same cookies for all ports of a host: each collector's is named by its own."""
        return f"bqstream_{request.url.port}"

    async def _form(self, request: web.Request) -> web.Response:
        if self._access.open:
            raise web.HTTPSeeOther(".")
        return self._html("login.html")

    async def _login(self, request: web.Request) -> web.Response:
        if not same_origin(request):
            raise web.HTTPForbidden(text="this form was sent by another site\n")
        if self._access.open:
            raise web.HTTPSeeOther(".")
        given = (await request.post()).get("token", "")
        if not self._access.takes(given.strip() if isinstance(given, str) else "", request.remote):
            if wait := self._access.wait(request.remote):
                raise _too_many(wait)
            return self._html("login.html", status=401, said="That is not the token.")
        response = web.HTTPSeeOther(".")
        response.set_cookie(
            self._cookie(request),
            self._access.new_session(),
            max_age=int(SESSION),
            httponly=True,
            samesite="Strict",
            secure=request.headers["Origin"].startswith("https:"),
        )
        raise response

    # ------------------------------------------------------------------ what there is to see

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        collectors = self._monitor.picture().collectors
        checks = {
            "subscribed": bool(collectors) and all(one.subscribed for one in collectors),
            "committed": not any(one.status.overdue for one in collectors),
        }
        text = json.dumps({check: "ok" if good else "failed" for check, good in checks.items()})
        return web.Response(
            text=text + "\n", content_type="application/json", status=200 if all(checks.values()) else 503
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _page(self, request: web.Request) -> web.Response:
        return self._html("index.html")

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/")
        return web.Response(text=self._files[name], content_type=_ASSETS[name])

    def _html(self, name: str, *, status: int = 200, said: str = "") -> web.Response:
        text = self._files[name].replace("<!-- said -->", said)
        return web.Response(text=text, content_type="text/html", status=status)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _told(feeding: asyncio.Task[None]) -> None:
    """A bug of the page is no reason to stop collecting: pages get a picture whenever they ask anew."""
    if not feeding.cancelled() and (error := feeding.exception()) is not None:
        _log.error("the page is not kept up to date, by a bug; please report it", exc_info=error)


def _too_many(wait: float) -> web.HTTPTooManyRequests:
    return web.HTTPTooManyRequests(
        text="too many wrong tokens: try again later\n", headers={"Retry-After": f"{wait:.0f}"}
    )
