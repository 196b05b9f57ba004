"""Cells of a notebook, in a real kernel: one connects, one reads and is interrupted, one closes; and all of it again.

``pytest tests/integration/test_cells.py -n 0 -s`` prints the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import pytest_asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from bqstream.simulator import Simulator

from .harness import TRANSFERS, until

AGAIN = 10
LEEWAY = 4.0  # MiB that a process may grow by without anything being kept: pages of its allocator

SETTING_UP = """
import asyncio, gc, json, os, signal, time
import bqstream

def figures():
    gc.collect()
    with open("/proc/self/statm") as statm:
        memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    files = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]  # but for the one that listed them
    sockets = sum(name.startswith("socket:") for name in files)
    return {"tasks": len(asyncio.all_tasks()), "sockets": sockets, "fds": len(files), "MiB": round(memory, 1)}

told = lambda event: None
"""
CONNECTING = """
client = await bqstream.connect(
    bqstream.ClientCredentials("%(client_id)s", os.environ["SECRET"], token_url="%(token_url)s"),
    endpoint="%(endpoint)s",
    timeouts=bqstream.Timeouts(grace=0.5),
    on_event=lambda event: told(event),
)
"""
SUBSCRIBING = f"stream, rows = await client.subscribe('''{TRANSFERS}'''), []"
READING = """
async for row in stream.rows():
    rows.append(row)
    print("a row")
"""
READING_TO_THE_END = """
async with asyncio.timeout(20):
    while True:
        try:
            async with asyncio.timeout(0.3):
                rows.append(await anext(stream.rows()))
        except TimeoutError:
            if len(rows) >= %d and not stream.closing:
                break
"""
CLOSING = "await client.aclose()"


class Notebook:
    """A kernel, and what its cells gave."""

    def __init__(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> None:
        self.manager = manager
        self.client = client
        self.printed = asyncio.Event()

    def _heard(self, message: dict[str, Any]) -> None:
        self.outputs.append(message)
        if message["msg_type"] == "stream":
            self.printed.set()

    async def run(self, code: str) -> tuple[str, str]:
        """Run a cell to its end: what it printed, and the name of the error that ended it, if one did."""
        self.outputs: list[dict[str, Any]] = []
        reply = await self.client.execute_interactive(
            code, store_history=False, output_hook=self._heard, timeout=20
        )
        said = "".join(one["content"]["text"] for one in self.outputs if one["msg_type"] == "stream")
        return said, reply["content"].get("ename", "")

    async def done(self, code: str) -> str:
        """Run a cell that is to end well."""
        said, error = await self.run(code)
        assert not error, [one["content"] for one in self.outputs]
        return said

    async def asked(self, expression: str) -> Any:
        return json.loads(await self.done(f"print(json.dumps({expression}))"))

    async def interrupted(self, code: str) -> str:
        """Run a cell, interrupt it in the midst of what it does, and give the error by which it ended."""
        self.printed.clear()
        running = asyncio.create_task(self.run(code))
        await self.printed.wait()
        await self.manager.interrupt_kernel()
        return (await running)[1]

    async def opened(self, simulator: Simulator) -> None:
        """The first cells: a client, and a stream of it."""
        await self.done(SETTING_UP)
        await self.done(connecting(simulator))
        await self.done(SUBSCRIBING)

    async def assert_all_came(self, simulator: Simulator) -> None:
        """Stop the chain, read what is left, and see that each row has come once."""
        await self.done("while stream.closing: await asyncio.sleep(0.05)")  # which takes a chain that goes on
        simulator.pause()
        await simulator.drained()
        owed = simulator.ledger.verdict(TRANSFERS, []).emitted
        await self.done(READING_TO_THE_END % owed)
        verdict = simulator.ledger.verdict(TRANSFERS, await self.asked("rows"))
        assert verdict.exact, (verdict, await self.done("print(stream.gaps)"))
        figures = {name: getattr(verdict, name) for name in ("emitted", "delivered", "lost", "repeated")}
        print(", ".join(f"{value} {name}" for name, value in figures.items()))


def connecting(simulator: Simulator) -> str:
    return CONNECTING % {name: getattr(simulator, name) for name in ("client_id", "token_url", "endpoint")}


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Simulator]:
    async with Simulator(block_interval=0.05, transactions=3) as simulator:
        yield simulator


@pytest.fixture
def surroundings(service: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel finds: a secret, and nothing of its user's."""
    monkeypatch.setenv("SECRET", service.client_secret)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest_asyncio.fixture
async def notebook(surroundings: None, tmp_path: Path) -> AsyncIterator[Notebook]:
    manager = AsyncKernelManager()
    with (tmp_path / "stderr").open("w") as stderr:
        await manager.start_kernel(stderr=stderr)
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=30)
            yield Notebook(manager, client)
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)
    said = (tmp_path / "stderr").read_text()
    assert "bqstream" not in said, said
    assert "Traceback" not in said, said


def same(first: dict[str, Any], last: dict[str, Any]) -> None:
    print(", ".join(f"{name} {first[name]} → {last[name]}" for name in first))
    assert last["MiB"] <= first["MiB"] + LEEWAY
    assert all(last[name] <= first[name] for name in first if name != "MiB"), (first, last)


@pytest.mark.asyncio
async def test_a_reading_cell_that_is_interrupted_ten_times_more_leaves_what_the_first_left_and_no_row_is_lost(
    notebook: Notebook, service: Simulator
) -> None:
    await notebook.done(SETTING_UP)
    await notebook.done(connecting(service))
    before = await notebook.asked("figures()")
    await notebook.done(SUBSCRIBING)
    assert await notebook.interrupted(READING) == "CancelledError"
    first = await notebook.asked("figures()")
    for _ in range(AGAIN):
        assert await notebook.interrupted(READING) == "CancelledError"
    same(first, await notebook.asked("figures()"))
    blocking = 'print("it blocks the loop", flush=True); time.sleep(20)'
    assert await notebook.interrupted(blocking) == "KeyboardInterrupt"
    assert await notebook.asked("len(stream.gaps)") == 0
    await notebook.assert_all_came(service)
    await notebook.done(CLOSING)
    after = await notebook.asked("figures()")
    assert after["tasks"] < before["tasks"]
    assert after["sockets"] <= before["sockets"]
    assert service.counters.open_sockets == 0


@pytest.mark.asyncio
async def test_all_cells_may_be_run_again_ten_times_though_the_last_one_never_is(
    notebook: Notebook, service: Simulator
) -> None:
    await notebook.done(SETTING_UP)
    figures = []
    for _ in range(AGAIN + 1):
        await notebook.done(connecting(service))
        await notebook.done(SUBSCRIBING)
        await notebook.interrupted(READING)
        figures.append(await notebook.asked("figures()"))
    with contextlib.suppress(TimeoutError):  # a client that was let go takes a moment to close
        async with asyncio.timeout(10):
            while {**figures[-1], "MiB": 0} != {**figures[0], "MiB": 0}:
                figures.append(await notebook.asked("figures()"))
    same(figures[0], figures[-1])
    await notebook.done(CLOSING)
    await until(lambda: service.counters.open_sockets == 0)


@pytest.mark.parametrize("now", [False, True], ids=["shut down", "killed"])
@pytest.mark.asyncio
async def test_a_kernel_that_goes_leaves_no_process_and_no_socket(
    now: bool, notebook: Notebook, service: Simulator
) -> None:
    await notebook.opened(service)
    await notebook.done(
        "async def read():\n    async for row in stream.rows(): rows.append(row)\nreading = asyncio.create_task(read())"
    )
    pid = await notebook.asked("os.getpid()")
    os.kill(pid, 0)
    assert service.counters.open_sockets == 1
    await notebook.manager.shutdown_kernel(now=now)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await until(lambda: service.counters.open_sockets == 0)


@pytest.mark.asyncio
@pytest.mark.usefixtures("surroundings")
async def test_the_three_cells_of_a_saved_notebook_run_and_leave_nothing(service: Simulator) -> None:
    cells = (
        SETTING_UP + connecting(service),
        SUBSCRIBING
        + "\nasync for row in stream.rows():\n    rows.append(row)\n    if len(rows) == 20:\n        break\nstream",
        CLOSING + "\nclient",
    )
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]  # type: ignore[no-untyped-call]
    page = nbformat.v4.new_notebook(cells=made)  # type: ignore[no-untyped-call]
    await NotebookClient(page, timeout=20, kernel_name="python3").async_execute()
    shown = [
        output["data"]["text/html"]
        for cell in page.cells
        for output in cell.outputs
        if output["output_type"] == "execute_result"
    ]
    assert ["open" in shown[0], "closed" in shown[1]] == [True, True]
    assert service.counters.open_sockets == 0
