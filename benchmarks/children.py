"""A process of its own for what is measured by the process: its memory, and what others have left in it."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Child:
    """A function that runs in a fresh process, which shares nothing with this one; ``port`` is what both talk over."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.port, there = context.Pipe()
        self._process = context.Process(target=function, args=(there, *arguments), daemon=True)
        self._process.start()
        there.close()  # so that the end of the child is the end of the pipe

    def memory(self) -> float:
        """Its resident memory now, in MB; what it shares with other processes counts in part."""
        assert self._process.pid is not None
        for line in Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise LookupError("this system does not tell")

    def ask(self, what: Any) -> Any:
        self.port.send(what)
        return self.port.recv()

    def end(self) -> None:
        self._process.terminate()
        self._process.join()


@contextlib.contextmanager
def child(function: Callable[..., Any], *arguments: Any) -> Iterator[Child]:
    """``function(port, *arguments)`` in a process of its own, which is there until the block is left."""
    running = Child(function, arguments)
    try:
        yield running
    finally:
        running.end()


def has_proc() -> bool:
    """Whether the system tells how much memory a process has (Linux)."""
    return Path("/proc/self/smaps_rollup").exists()


__all__ = ["Child", "Connection", "child", "has_proc"]
