"""One seed, one run: everything that a run takes from outside itself is taken from the seed and the loop's time.

What leaks otherwise: chance that is not seeded (tokens, masks, jitter), the wall clock (the chain's first block, HTTP's
``Date``, aiohttp's idea of how old a connection is), and the order of sets of objects, which follows their addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, tzinfo
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from anyio._backends import _asyncio as anyio_asyncio

import bqstream.credentials.keeper
import bqstream.simulator.server
from tests.memory_network import MemoryLoop, in_memory
from tests.virtual_time import WALL_AT_START

T = TypeVar("T")


class _Ordered(dict[Any, None]):
    """A set that is gone through in the order in which it was filled."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class _WallClock(datetime):
    """``datetime`` whose ``now`` is the loop's time, on the wall clock that the client reads (`virtual_clock`)."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.fromtimestamp(WALL_AT_START + _loop_time(), tz)


def _date() -> str:
    return format_datetime(_WallClock.now(UTC), usegmt=True)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Everything inside follows ``seed``, on a `MemoryLoop`."""
    begin = anyio_asyncio.CancelScope.__init__

    def ordered(scope: Any, *args: Any, **options: Any) -> None:
        begin(scope, *args, **options)
        if hasattr(scope, "_child_scopes"):  # cancelled in this order
            scope._child_scopes, scope._tasks = _Ordered(), _Ordered()

    bits = random.Random(f"{seed} secrets")

    def token_bytes(count: int | None = None) -> bytes:
        return bits.randbytes(32 if count is None else count)

    jitter = random.Random(f"{seed} jitter")
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        random.seed(seed)
        for owner, name, value in (
            (secrets, "token_bytes", token_bytes),
            (bqstream.credentials.keeper, "randomness", SimpleNamespace(Random=lambda: jitter)),
            (bqstream.simulator.server, "datetime", _WallClock),
            (anyio_asyncio.CancelScope, "__init__", ordered),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch("aiohttp.web_response.rfc822_formatted_time", _date))
        stack.enter_context(mock.patch("aiohttp.connector.monotonic", _loop_time))
        stack.enter_context(in_memory())
        yield


def run_seeded(seed: int, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` on a `MemoryLoop` of its own, the same way every time."""
    with seeded(seed), asyncio.Runner(loop_factory=MemoryLoop) as runner:
        return runner.run(main())
