"""Every engine runs through the whole of this folder: a new one is one line in ``ENGINES``."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio

from bqstream.transport.base import Engine
from bqstream.transport.websockets import WebsocketsEngine


class EngineFactory(Protocol):
    def __call__(self, *, outbox_bytes: int = ...) -> Engine: ...


ENGINES: dict[str, EngineFactory] = {"websockets": WebsocketsEngine}


@pytest.fixture(params=ENGINES)
def make_engine(request: pytest.FixtureRequest) -> EngineFactory:
    return ENGINES[request.param]


@pytest.fixture
def engine(make_engine: EngineFactory) -> Engine:
    return make_engine()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine that runs the tests is none of theirs."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest_asyncio.fixture
async def nothing_left() -> AsyncIterator[None]:
    """After the test no task runs on, and what is collected gives no ResourceWarning (an error here)."""
    gc.freeze()  # collect only what the test made, which is much quicker
    yield
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    gc.collect()
    assert not left
