"""A notebook in a browser: a real Jupyter server and kernel, all of whose files are in one folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page

from .harness import until

TOKEN = "what-the-notebook-server-asks-for"
NAME = "stream.ipynb"
_READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
_EXECUTE = "([command, options]) => void window.jupyterapp.commands.execute(command, options)"


def of_cells(cells: Sequence[str]) -> str:
    """A notebook's file that was never run."""
    return json.dumps(
        {
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
    )


@contextlib.asynccontextmanager
async def serving(
    application: str, folder: Path, text: str, environment: Mapping[str, str]
) -> AsyncIterator[str]:
    """A server of ``application``, "lab" or "notebook", on loopback; gives the URL of the notebook with ``text``."""
    work, home = folder / "work", folder / "home"
    work.mkdir()
    (work / NAME).write_text(text, encoding="utf-8")
    if application == "lab":  # it would ask other hosts for news
        quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    home.mkdir(exist_ok=True)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    command = [
        *(sys.executable, "-m", "jupyter", application),
        *("--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0", "--expose-app-in-browser"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={work}"),
    ]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **environment, **{name: str(home / path) for name, path in folders.items()}},
            stdout=log,
            stderr=log,
            cwd=work,
        )
        try:
            await until(lambda: _url(home / "runtime") or process.returncode is not None, within=60)
            assert process.returncode is None, (folder / "log").read_text(encoding="utf-8")
            path = f"lab/tree/{NAME}" if application == "lab" else f"notebooks/{NAME}"
            yield f"{_url(home / 'runtime')}{path}?token={TOKEN}"
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


class Notebook:
    """The page of a notebook with a live view; ``complaints`` are the errors that its console has."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.view = page.locator(".bqstream-view")
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, url: str) -> None:
        """Until its kernel is idle."""
        await self.page.goto(url)
        await self.page.wait_for_function(_READY)
        self.complaints.clear()  # those of an application that starts are its own

    async def run(self, command: str, **options: Any) -> None:
        """Have the application do something, which goes on when this returns."""
        await self.page.evaluate(_EXECUTE, [command, options])

    def part(self, name: str) -> Locator:
        """A part of the view."""
        return self.view.locator(f"#{name}")
