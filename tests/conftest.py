"""What every test shares: a seed that is printed when a test fails, and a simulator to run against."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, TypeVar

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from bqstream.simulator import Simulator

pytest_plugins = ["tests.secrecy", "tests.postgresql_server"]
SEED = int(os.environ.get("BQSTREAM_TEST_SEED") or random.SystemRandom().randrange(2**32))
os.environ["BQSTREAM_TEST_SEED"] = str(SEED)  # the processes of pytest-xdist share it
CI = os.environ.get("CI") == "true"
MOST_WORKERS = 16
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_xdist_auto_num_workers() -> int:
    """Two a core, since most tests wait for something."""
    return min(2 * (os.cpu_count() or 1), MOST_WORKERS)


@pytest.fixture(autouse=True)
def seed() -> int:
    """The session's seed; ``random`` starts every test from it, and ``BQSTREAM_TEST_SEED`` sets it."""
    random.seed(SEED)
    return SEED


@pytest_asyncio.fixture
async def simulator(seed: int) -> AsyncIterator[Simulator]:
    """A service of one test's own: quick blocks, tokens that outlive the test."""
    from bqstream.simulator import Simulator

    async with Simulator(seed=seed, block_interval=0.05) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("seed", f"BQSTREAM_TEST_SEED={SEED} runs this again"))
    return _no_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _no_skip(report)


def _no_skip(report: Report) -> Report:
    """With ``CI=true`` nothing may be left out, such as the tests against a server that is not installed.

    Only the documented subscriptions may be missing, which are not the project's (tests/documents.py).
    """
    allowed = hasattr(report, "wasxfail") or "BQSTREAM_DOCUMENTS" in str(report.longrepr)
    if CI and report.skipped and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true forbids: {report.longrepr}"
    return report
