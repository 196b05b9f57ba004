"""The live view in JupyterLab and Notebook 7: a real server and kernel, Debian's chromium, and the simulator.

Skipped where there is no chromium; BQSTREAM_CHROMIUM names one that is somewhere else. BQSTREAM_SCREENSHOTS names a
folder for pictures of what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from bqstream.simulator import Simulator

from .harness import TRANSFERS, until

CHROMIUM = os.environ.get("BQSTREAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("BQSTREAM_SCREENSHOTS")
TOKEN = "what the notebook server asks for"
TTL = 8.0  # seconds that the simulator's tokens live
LARGEST = 40_000  # bytes of the notebook's file, still picture and all
CELLS = (
    f'DOCUMENT = """{TRANSFERS}"""',
    "import bqstream\nfrom bqstream.notebook import watch\n\nclient = await bqstream.connect(timeouts=bqstream.Timeouts(grace=0.5))",
    "stream = await client.subscribe(DOCUMENT)",
    "watch(stream)",
    "rows = []\nasync for row in stream.rows():\n    rows.append(row)\n    if len(rows) == 10:\n        break\nlen(rows)",
)
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


def notebook(*cells: str) -> dict[str, Any]:
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(cells)
        ],
    }


@contextlib.asynccontextmanager
async def jupyter(application: str, folder: Path, simulator: Simulator) -> AsyncIterator[str]:
    """A server of ``application``, "lab" or "notebook", with the notebook stream.ipynb; gives its URL."""
    work, home = folder / "work", folder / "home"
    work.mkdir()
    home.mkdir()
    (work / "stream.ipynb").write_text(json.dumps(notebook(*CELLS)), encoding="utf-8")
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")  # of other hosts
    environment = {
        **os.environ,
        **{name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")},
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "BITQUERY_ENDPOINT": simulator.endpoint,
        "BITQUERY_TOKEN_URL": simulator.token_url,
        "BITQUERY_CLIENT_ID": simulator.client_id,
        "BITQUERY_CLIENT_SECRET": simulator.client_secret,
    }
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={work}", "--expose-app-in-browser"]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "jupyter", application, *options, env=environment, stdout=log, stderr=log, cwd=work
        )
        try:
            await until(lambda: _url(home / "runtime") or process.returncode is not None, within=60)
            assert process.returncode is None, (folder / "log").read_text(encoding="utf-8")
            yield _url(home / "runtime")
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _url(runtime: Path) -> str:
    """Where the server listens; empty before it does. The file that says so is there before it is written."""
    for path in runtime.glob("jpserver-*.json"):
        with contextlib.suppress(ValueError):
            return str(json.loads(path.read_text(encoding="utf-8"))["url"])
    return ""
