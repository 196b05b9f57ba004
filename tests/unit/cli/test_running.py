from __future__ import annotations

import asyncio
import os
import signal

import pytest

from bqstream import errors
from bqstream.cli.running import exit_code, run, run_until


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MissingCredentials("none"), 3),
        (errors.CredentialsRefused("no"), 3),
        (errors.TokenRefused("no"), 3),
        (errors.PlanError("no"), 3),
        (errors.UsageError("no"), 2),
        (errors.DocumentRefused("no"), 2),
        (errors.SinkFailed("no"), 5),
        (errors.SinkUnavailable("no"), 5),
        (errors.SinkLocked("no"), 6),
        (errors.OperationFailed("no"), 1),
        (errors.ConnectionGivenUp("no"), 1),
        (errors.BufferOverflow("no"), 1),
    ],
)
def test_each_error_has_the_exit_code_of_what_a_user_would_mend(
    error: errors.BqstreamError, code: int
) -> None:
    assert exit_code(error) == code


@pytest.mark.asyncio
async def test_work_that_ends_by_itself_names_no_signal() -> None:
    assert await run_until(asyncio.sleep(0), 60) is None


@pytest.mark.asyncio
async def test_time_running_out_cancels_the_work_and_names_no_signal() -> None:
    work = asyncio.ensure_future(asyncio.Event().wait())

    async def wait() -> None:
        await work

    assert await run_until(wait(), 0.001) is None
    assert work.cancelled()


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_work_and_is_named(number: signal.Signals) -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            cleaned = True

    assert await run_until(work()) == number
    assert cleaned
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_a_time_out_and_a_cancellation_of_the_works_own_pass_through() -> None:
    async def times_out() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await run_until(times_out(), 60)
    outer = asyncio.ensure_future(run_until(asyncio.sleep(3600)))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer


def test_an_error_is_told_in_one_line_and_sets_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    async def fails() -> int:
        raise errors.PlanError("points used up")

    with pytest.raises(SystemExit) as left:
        run(fails())
    assert left.value.code == 3
    assert capsys.readouterr().err == "bqstream: points used up\n"
