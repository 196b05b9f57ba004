from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import aiohttp
import aiohttp.web
import pytest
import pytest_asyncio
from yarl import URL

from bqstream import UsageError, assets, events
from bqstream.collect import web
from bqstream.collect.monitor import Monitor
from bqstream.collect.web import feed as feeding
from bqstream.collect.web import serve
from bqstream.collect.web.access import FAILURES
from tests.integration.harness import until
from tests.unit.collect.stand_in import AT, StandInClient, StandInCollector

pytestmark = pytest.mark.asyncio
TOKEN = "a page's own token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Scene:
    """An open server without a token (``here``) and one with (``away``), and a browser that keeps cookies."""

    monitor: Monitor
    collector: StandInCollector
    here: URL
    away: URL
    browser: aiohttp.ClientSession

    async def get(self, url: URL, **headers: str) -> aiohttp.ClientResponse:
        answer = await self.browser.get(url, headers=headers, allow_redirects=False)
        await answer.read()
        return answer

    async def login(self, token: str, **headers: str) -> aiohttp.ClientResponse:
        headers = {"Origin": str(self.away.origin())} | headers
        answer = await self.browser.post(
            self.away / "login", data={"token": token}, headers=headers, allow_redirects=False
        )
        await answer.read()
        return answer


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    monitor, collector = Monitor(), StandInCollector(rows=1234, sink="sqlite:secret-place.db")
    monitor.watch(StandInClient(1), [collector])
    async with (
        serve(monitor) as here,
        serve(monitor, "0.0.0.0", 0, TOKEN, names=["named.example"]) as away,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        reached = URL(away).with_host("127.0.0.1")
        yield Scene(monitor, collector, URL(here), reached, browser)


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Server-sent events, as (kind, data)."""
    kind = ""
    async for raw in answer.content:
        field, _, value = raw.decode().strip().partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            yield kind, json.loads(value)


# -------------------------------------------------------------------- probes


async def test_it_lives_whatever_becomes_of_the_collector(scene: Scene) -> None:
    scene.collector.set(state="failed", overdue=True)
    answer = await scene.get(scene.here / "healthz")
    assert (answer.status, await answer.text()) == (200, "ok\n")


async def test_it_is_ready_while_every_collector_is_subscribed_and_no_commit_is_overdue(scene: Scene) -> None:
    async def ready() -> tuple[int, Any]:
        answer = await scene.get(scene.here / "readyz")
        return answer.status, await answer.json()

    assert await ready() == (200, {"subscribed": "ok", "committed": "ok"})
    scene.collector.set(overdue=True)
    assert await ready() == (503, {"subscribed": "ok", "committed": "failed"})
    scene.collector.set(overdue=False, operation=None)
    assert await ready() == (503, {"subscribed": "failed", "committed": "ok"})
    scene.monitor.watch(StandInClient(), [])
    assert await ready() == (503, {"subscribed": "failed", "committed": "ok"})


async def test_probes_need_no_token_and_no_name(scene: Scene) -> None:
    for path in ("healthz", "readyz"):
        assert (await scene.get(scene.away / path, Host="10.1.2.3:8080")).status == 200
        assert (await scene.get(scene.here / path, Host="whatever.example")).status == 200


# -------------------------------------------------------------------- who is let in


async def test_beyond_loopback_it_is_not_served_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "", "10.0.0.7", "collector.example"):
        with pytest.raises(UsageError, match="BQSTREAM_COLLECT_HTTP_TOKEN_FILE"):
            async with serve(Monitor(), host):
                pass
    with pytest.raises(UsageError, match="empty"):
        async with serve(Monitor(), "127.0.0.1", 0, " \n"):
            pass


async def test_a_port_that_is_taken_is_told(scene: Scene) -> None:
    with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{scene.here.port}"):
        async with serve(scene.monitor, "127.0.0.1", scene.here.port or 0):
            pass


async def test_on_loopback_all_is_open(scene: Scene) -> None:
    for path in ("", "metrics", "app.js"):
        assert (await scene.get(scene.here / path)).status == 200
    assert (await scene.get(scene.here / "login")).headers["Location"] == "."


async def test_elsewhere_data_needs_the_token(scene: Scene) -> None:
    for path in ("metrics", "events"):
        answer = await scene.get(scene.away / path)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bqstream"')
        assert "1234" not in await answer.text()
    answer = await scene.get(scene.away)
    assert (answer.status, answer.headers["Location"]) == (303, "login")
    assert 'type="password"' in await (await scene.get(scene.away / "login")).text()


async def test_a_bearer_of_the_token_sees_data_by_whatever_name(scene: Scene) -> None:
    answer = await scene.get(scene.away / "metrics", **BEARER, Host="collector:9000")
    assert answer.status == 200
    assert 'bqstream_rows_total{subscription="trades"} 1234.0' in await answer.text()
    assert "secret-place" not in await answer.text()
    assert (await scene.get(scene.away / "metrics", Authorization="Bearer wrong")).status == 401
    assert (await scene.get(scene.away / "metrics", Authorization=f"Basic {TOKEN}")).status == 401


async def test_a_login_sets_a_session_that_is_not_the_token(scene: Scene) -> None:
    answer = await scene.login(f" {TOKEN} ")
    assert (answer.status, answer.headers["Location"]) == (303, ".")
    cookie = answer.headers["Set-Cookie"]
    assert TOKEN not in cookie
    assert cookie.startswith(f"bqstream_{scene.away.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert (await scene.get(scene.away)).status == 200
    assert "trades" in await (await scene.get(scene.away / "metrics")).text()


async def test_behind_tls_the_session_is_for_tls_alone(scene: Scene) -> None:
    answer = await scene.login(TOKEN, Host="named.example", Origin="https://named.example")
    assert (answer.status, "Secure" in answer.headers["Set-Cookie"].split("; ")) == (303, True)


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1:1"])
async def test_a_login_from_another_site_is_refused(scene: Scene, origin: str) -> None:
    answer = await scene.login(TOKEN, Origin=origin)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_wrong_tokens_are_told_and_then_throttled(scene: Scene) -> None:
    for _ in range(FAILURES - 1):
        answer = await scene.login("wrong")
        assert answer.status == 401
        assert "That is not the token." in await answer.text()
    assert (await scene.login("wrong")).status == 429
    answer = await scene.login(TOKEN)
    assert answer.status == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert (await scene.get(scene.away / "metrics", **BEARER)).status == 429


async def test_a_host_that_is_not_ours_is_refused(scene: Scene) -> None:
    for path in ("", "events", "metrics", "login", "app.js"):
        answer = await scene.get(scene.here / path, Host="rebound.example")
        assert answer.status == 421
        assert (await scene.get(scene.away / path, Host="rebound.example")).status == 421
    assert (await scene.get(scene.away / "login", Host="named.example")).status == 200


# -------------------------------------------------------------------- what is sent


async def test_every_answer_forbids_what_the_page_does_not_need(scene: Scene) -> None:
    for path in ("", "metrics", "healthz", "app.js", "nowhere"):
        headers = (await scene.get(scene.here / path)).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        )
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "bqstream"


async def test_the_page_runs_no_inline_script_and_names_no_other_host() -> None:
    folder = resources.files(web) / "assets"
    for name in ("index.html", "login.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|https?:", text)
    own = [(folder / name).read_text(encoding="utf-8") for name in ("app.js", "style.css")]
    for text in (*own, assets.read("drawing.js"), assets.read("drawing.css")):
        assert not re.search(r"https?:|innerHTML|eval\(", text.replace("http://www.w3.org/2000/svg", ""))
    assert "Leon Sorokin" in assets.read("uPlot.LICENSE")


async def test_events_are_a_picture_and_then_changes(scene: Scene) -> None:
    scene.collector.last_rows = [("trades", {"Block_Number": 2**60, "Empty": None, "Long": "x" * 500})]
    async with scene.browser.get(scene.here / "events") as answer:
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        stream = events_of(answer)
        kind, picture = await anext(stream)
        assert kind == "picture"
        assert picture["collectors"][0]["status"]["name"] == "trades"
        ((table, cells),) = picture["rows"]
        assert table == "trades"
        assert cells[:2] == [["Block_Number", str(2**60)], ["Empty", None]]
        assert len(cells[2][1]) == 200
        scene.monitor.event(events.SlowConsumer(at=AT, link=7))
        scene.monitor.sample()
        kind, change = await anext(stream)
        assert kind == "change"
        assert {"at", "events", "shed"} <= set(change)
        assert {"rows", "tokens", "started"}.isdisjoint(change)
        assert change["events"][0]["text"] == "slow consumer: link 7 was closed with 1013"


async def test_a_page_that_does_not_keep_up_is_cut_off_and_the_others_are_not() -> None:
    feed = feeding.Feed(Monitor())
    application = aiohttp.web.Application()
    application.router.add_get("/events", feed.handle)
    runner = aiohttp.web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        slow, out = await asyncio.open_connection("127.0.0.1", port, limit=1)
        out.write(b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: len(feed._readers) == 1)
        async with (
            aiohttp.ClientSession(read_bufsize=2**24) as browser,
            browser.get(f"http://127.0.0.1:{port}/events") as answer,
        ):
            quick = events_of(answer)
            await anext(quick)
            for number in range(1000):
                feed._send(json.dumps(str(number) + "x" * 2**18))
                assert str((await anext(quick))[1]).startswith(f"{number}x")
                if len(feed._readers) == 1:
                    break
            assert 0 < number < 999
        async with asyncio.timeout(5):
            await slow.read(-1)  # what was under way, and then the end
        out.close()
        await out.wait_closed()
    finally:
        await runner.cleanup()


async def test_only_so_many_pages_are_open_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "READERS", 1)
    async with scene.browser.get(scene.here / "events"):
        assert (await scene.get(scene.here / "events")).status == 503


async def test_a_bug_of_the_page_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(picture: object) -> dict[str, Any]:
        raise RuntimeError("a bug")

    async with (
        aiohttp.ClientSession() as browser,
        serve(Monitor()) as url,
        browser.get(f"{url}events") as answer,
    ):
        await anext(events_of(answer))
        monkeypatch.setattr(feeding, "shown", fails)
        await until(lambda: "please report it" in caplog.text)
        async with browser.get(f"{url}healthz") as answer:
            assert answer.status == 200


async def test_leaving_ends_every_page() -> None:
    monitor = Monitor()
    async with aiohttp.ClientSession() as browser:
        async with serve(monitor) as url:
            answer = await browser.get(f"{url}events")
            stream = events_of(answer)
            await anext(stream)
        assert {kind async for kind, _ in stream} <= {"change"}
