"""A sink in memory that fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bqstream import SinkLocked, SinkUnavailable
from bqstream.collect.commit import Commit, Stored


class Memory:
    """Keeps commits in a list, which several of these may share.

    ``before`` and ``after`` are called for each commit, with its number, before it counts and when it does: what they
    raise is raised. ``opening`` the same, when it is opened. ``hangs``: a commit waits for that.
    """

    name = "memory"
    flat = False

    def __init__(self, lock: Path, commits: list[Commit] | None = None) -> None:
        self.lock: Path | None = lock
        self.commits = commits if commits is not None else []
        self.before: Callable[[int], None] = lambda _: None
        self.after: Callable[[int], None] = lambda _: None
        self.opening: Callable[[], None] = lambda: None
        self.hangs: asyncio.Event | None = None
        self.tried: list[int] = []
        self.opened = self.closed = 0
        self.busy = False

    async def open(self, subscription: str) -> Stored | None:
        assert not self.busy, "one call at a time"
        self.opened += 1
        self.opening()
        own = [commit for commit in self.commits if commit.subscription == subscription]
        return Stored(own[-1].number, own[-1].state) if own else None

    async def commit(self, commit: Commit) -> None:
        assert not self.busy, "one call at a time"
        self.busy = True
        try:
            self.tried.append(commit.number)
            if self.hangs is not None:
                await self.hangs.wait()
            self.before(commit.number)
            if commit.number != len(self.commits) + 1:
                raise SinkLocked("another one has committed")
            self.commits.append(commit)
            self.after(commit.number)
        finally:
            self.busy = False

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def rows(self) -> list[Any]:
        """All that was added, less what was taken back."""
        kept: list[Any] = []
        for commit in self.commits:
            for step in commit.steps:
                if step.undo:
                    for row in step.nested:
                        kept.remove(row)
                else:
                    kept += step.nested
        return kept


class Down:
    """Raises for some calls: ``times`` of them, from call ``first`` on."""

    def __init__(self, times: int, first: int = 1, error: Exception | None = None) -> None:
        self._calls = 0
        self._first = first
        self._last = first + times - 1
        self._error = error or SinkUnavailable("it is down")

    def __call__(self, *_: Any) -> None:
        self._calls += 1
        if self._first <= self._calls <= self._last:
            raise self._error
