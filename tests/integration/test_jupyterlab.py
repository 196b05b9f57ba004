"""The first of the example notebooks in JupyterLab, and the live view in Notebook 7: a real server and kernel, Debian's
chromium, and the simulator.

Skipped where there is no chromium; BQSTREAM_CHROMIUM names one that is somewhere else. BQSTREAM_SCREENSHOTS names a
folder for pictures of what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from bqstream.simulator import Simulator

from .harness import TRANSFERS, until
from .jupyter import NAME, Notebook, of_cells, serving
from .test_examples import ROOT

CHROMIUM = os.environ.get("BQSTREAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("BQSTREAM_SCREENSHOTS")
TTL = 15.0  # seconds that the simulator's tokens live: longer than a hand-over takes with the usual grace
LARGEST = (
    40_000  # bytes of the notebook's file with all its outputs, of which the still picture is some 10,000
)
SOON = 30_000.0  # milliseconds: a server, a kernel and a browser share the machine with other tests
CELLS = (
    "import bqstream\nfrom bqstream.notebook import watch",
    f'TRANSFERS = """{TRANSFERS}"""',
    "client = await bqstream.connect(timeouts=bqstream.Timeouts(grace=0.5))\n"
    "stream = await client.subscribe(TRANSFERS)",
    "watch(stream)",
)
FIRST = ROOT / "examples" / "notebooks" / "first_stream.ipynb"
pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Root has no sandbox in containers, and the only page that is opened is ours.
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        expect.set_options(timeout=SOON)
        try:
            yield running
        finally:
            expect.set_options(timeout=5_000)  # as it was
            await running.close()


@contextlib.asynccontextmanager
async def opened(
    application: str, browser: Browser, folder: Path, text: str
) -> AsyncIterator[tuple[Notebook, Simulator, str]]:
    """The notebook at a URL, with all its cells run, and the simulator that its kernel is a client of."""
    async with Simulator(block_interval=0.5, transactions=4, token_ttl=TTL) as simulator:
        environment = {
            "BITQUERY_ENDPOINT": simulator.endpoint,
            "BITQUERY_TOKEN_URL": simulator.token_url,
            "BITQUERY_CLIENT_ID": simulator.client_id,
            "BITQUERY_CLIENT_SECRET": simulator.client_secret,
        }
        async with serving(application, folder, text, environment) as url:
            notebook = Notebook(await browser.new_page(viewport={"width": 1280, "height": 1400}))
            await notebook.open(url)
            await notebook.run("notebook:run-all-cells")
            await expect(notebook.part("state")).to_have_text("live")
            yield notebook, simulator, url


async def picture(notebook: Notebook, name: str) -> None:
    """Save what is seen, where that is asked for."""
    if SCREENSHOTS:
        await notebook.view.or_(notebook.page.locator("[data-bqstream-still]")).first.evaluate(
            "part => part.scrollIntoView()"
        )
        await notebook.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


async def saved(notebook: Notebook, folder: Path) -> str:
    """The file, once a still picture is in it."""
    path = folder / "work" / NAME
    async with asyncio.timeout(30):
        while "data:image/svg+xml" not in (text := path.read_text(encoding="utf-8")):
            await notebook.run("docmanager:save")
            await asyncio.sleep(0.2)
    return text


def links(simulator: Simulator) -> int:
    """How many are open."""
    return sum(record.closed is None for record in simulator.counters.sockets)


async def test_rows_hand_overs_pauses_and_gaps_are_seen_live_in_jupyterlab(
    browser: Browser, tmp_path: Path
) -> None:
    async with opened("lab", browser, tmp_path, FIRST.read_text(encoding="utf-8")) as (
        notebook,
        simulator,
        url,
    ):
        view, page, part = notebook.view, notebook.page, notebook.part
        await expect(part("rows").locator("tbody tr")).to_have_count(10)
        for chart in ("rates", "lags", "points"):
            await expect(part(chart).locator("canvas")).to_be_visible()

        # The cell has ended, the stream goes on.
        await expect(part("events")).to_contain_text("handed over by overlap")
        await expect(part("handovers")).not_to_have_text("0")
        await expect(view.locator(".handover-mark").first).to_be_attached()
        await expect(part("viewed")).to_have_text("0")  # it waits for the cell that may read next
        await expect(part("read")).to_have_text("nobody reads")
        await picture(notebook, "lab-light")

        await part("column").select_option("Block_Number")
        await expect(part("points").locator(".u-value").nth(1)).to_have_text(re.compile("21,?0|21M"))
        await part("column").select_option("Trade_Buy_Amount")

        await part("pause").click()
        await expect(part("state")).to_have_text("paused")
        await until(lambda: links(simulator) == 0)
        await expect(part("gaps").locator("li").first).to_contain_text("paused")
        await picture(notebook, "lab-paused")
        await part("pause").click()
        await expect(part("state")).not_to_have_text("paused")
        await notebook.run("apputils:change-theme", theme="JupyterLab Dark")
        await expect(view).to_have_attribute("data-theme", "dark")
        await expect(part("gaps").locator("li").first).to_contain_text("closed:")
        await picture(notebook, "lab-dark")

        # The cell again: another view takes the place of the first.
        await page.locator(".jp-CodeCell").filter(has_text="watch(stream)").locator(".jp-InputPrompt").click()
        await notebook.run("notebook:run-cell")
        await expect(part("since")).to_have_text(re.compile(r"watched for [0-5]\.\d s"))
        await expect(view).to_have_count(1)
        await expect(part("rows").locator("tbody tr")).to_have_count(10)
        await expect(part("rates").locator("canvas")).to_be_visible()
        assert notebook.complaints == []

        text = await saved(notebook, tmp_path)
        assert len(text) < LARGEST
        assert "ory_at_" not in text
        assert simulator.client_secret not in text

        # Whoever comes back to a notebook that lives finds the view.
        await notebook.open(url)
        await expect(part("since")).to_have_text(re.compile("watched for"))
        await expect(view).to_have_count(1)

        # Without its kernel nothing is left behind, and the still picture stands where the view was.
        await notebook.run("kernelmenu:shutdown")
        await until(lambda: links(simulator) == 0)
        await page.goto(url)
        still = page.locator("[data-bqstream-still]")
        await expect(still).to_contain_text("rows a second")
        await expect(still.locator("img")).to_be_visible()
        await expect(still.locator("tbody tr")).to_have_count(8)
        await expect(
            page.locator(".jp-Notebook").get_by_text(re.compile("widget:|widget\\.\\.\\."))
        ).to_be_hidden()
        await picture(notebook, "lab-saved")


async def test_the_view_is_live_in_notebook_7(browser: Browser, tmp_path: Path) -> None:
    async with opened("notebook", browser, tmp_path, of_cells(CELLS)) as (notebook, _, _):
        await expect(notebook.part("rows").locator("tbody tr")).to_have_count(10)
        await expect(notebook.part("points").locator("canvas")).to_be_visible()
        await expect(notebook.part("viewed")).not_to_have_text("0")  # nobody has ever read
        await picture(notebook, "notebook-light")
        assert len(await saved(notebook, tmp_path)) < LARGEST
        assert notebook.complaints == []
