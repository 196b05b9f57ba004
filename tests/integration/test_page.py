"""The collector's page in a browser: a real client and collector against the simulator, and Debian's chromium.

Skipped where there is no chromium; BQSTREAM_CHROMIUM names one that is somewhere else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from bqstream import Timeouts
from bqstream.collect.web import serve

from .collecting import watching
from .harness import until

CHROMIUM = os.environ.get("BQSTREAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "what the page asks for"
SOON = 1000.0  # milliseconds: within so many the page tells of what happened
pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Root has no sandbox in containers, and the only page that is opened is ours.
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield running
        finally:
            await running.close()


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page, and what its console complains of."""
    page = await browser.new_page(**options)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    try:
        yield page, complaints
    finally:
        await page.close()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


async def test_rates_rows_hand_overs_and_gaps_are_seen_within_a_second(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        watching(tmp_path, {"timeouts": Timeouts(grace=0.5)}, token_ttl=10) as watched,
        serve(watched.monitor) as url,
        opened(browser, url) as (page, complaints),
    ):
        await expect(page.locator("#subscriptions tbody th")).to_have_text("Transfers")
        await expect(page.locator("#rate")).not_to_have_text("0.0")
        await expect(page.locator("#rates canvas")).to_be_visible()
        await expect(page.locator("#last tbody tr")).to_have_count(20)

        await until(lambda: watched.client.status().rotations)
        await expect(page.locator("#handovers")).not_to_have_text("0", timeout=SOON)
        await expect(page.locator("#events")).to_contain_text("handed over by overlap", timeout=SOON)
        await expect(page.locator(".handover-mark").first).to_be_attached(timeout=SOON)

        watched.simulator.settings.token_ttl = 3600
        watched.simulator.faults.abort()
        await until(lambda: watched.monitor.picture().gaps)
        await expect(page.locator("#gaps li").first).to_contain_text("Transfers: lost", timeout=SOON)
        await expect(page.locator("rect[class^=gap-]").first).to_be_attached(timeout=SOON)
        await expect(page.locator(".lost-mark").first).to_be_attached(timeout=SOON)
        assert complaints == []


async def test_the_page_recovers_when_the_collector_is_restarted_under_it(
    browser: Browser, tmp_path: Path
) -> None:
    async with watching(tmp_path) as watched, contextlib.AsyncExitStack() as stack:
        first = contextlib.AsyncExitStack()
        url = await first.enter_async_context(serve(watched.monitor))
        page, complaints = await stack.enter_async_context(opened(browser, url))
        await expect(page.locator("#state")).to_have_text("live")
        assert complaints == []
        await first.aclose()
        await expect(page.locator("#gone")).to_be_visible()
        await expect(page.locator("#state")).to_have_text("collector gone, trying again")
        rows = watched.collector.status().rows
        await until(lambda: watched.collector.status().rows > rows)
        await stack.enter_async_context(serve(watched.monitor, "127.0.0.1", port_of(url)))
        await expect(page.locator("#state")).to_have_text("live", timeout=10_000)
        await expect(page.locator("#gone")).to_be_hidden()
        shown = await page.inner_text("#rows")
        await expect(page.locator("#rows")).not_to_have_text(shown)


async def test_beyond_loopback_it_asks_for_the_token_and_remembers_who_gave_it(
    browser: Browser, tmp_path: Path
) -> None:
    async with watching(tmp_path) as watched:
        async with serve(watched.monitor, "0.0.0.0", 0, TOKEN) as bound:
            url = f"http://127.0.0.1:{port_of(bound)}/"
            page = await browser.new_page()
            await page.goto(url)
            await page.get_by_label("Token of this page").fill("wrong")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_have_text("That is not the token.")
            await expect(page.locator("#tiles")).to_have_count(0)
            await page.get_by_label("Token of this page").fill(TOKEN)
            await page.get_by_role("button").click()
            await expect(page.locator("#state")).to_have_text("live")
            (cookie,) = await page.context.cookies()
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
            assert TOKEN not in cookie["value"]
            assert await page.evaluate("document.cookie") == ""
        await expect(page.locator("#gone")).to_be_visible()
        async with serve(watched.monitor, "0.0.0.0", port_of(bound), TOKEN):
            await expect(page.locator("#state")).to_have_text("live", timeout=10_000)
        async with serve(watched.monitor, "0.0.0.0", port_of(bound), "another token"):
            await expect(page.get_by_label("Token of this page")).to_be_visible(timeout=10_000)
        await page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_in_both_schemes_and_is_used_by_keyboard(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    async with (
        watching(tmp_path) as watched,
        serve(watched.monitor) as url,
        opened(browser, url, **phone) as (page, complaints),
    ):
        await expect(page.locator("#last tbody tr")).to_have_count(20)
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        await page.get_by_label("15 min").first.focus()
        await page.keyboard.press("ArrowLeft")
        await expect(page.get_by_label("5 min").first).to_be_checked()
        assert complaints == []
