from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from bqstream.credentials import HeldToken, Keeper, Service, StaticToken, Token
from bqstream.credentials.exchange import PassingError
from bqstream.credentials.keeper import MIN_LIFE, SLICE
from bqstream.endpoints import Endpoint
from bqstream.errors import (
    BqstreamError,
    ConnectionGivenUp,
    CredentialsRefused,
    PlanError,
    TokenRefused,
    UsageError,
)
from tests.virtual_time import suspend, virtual_clock, virtual_time


class Early(Random):
    """Jitter at its largest: a refresh comes 10 % of the margin earlier, a wait is halved."""

    def random(self) -> float:
        return 1.0


class Late(Random):
    """No jitter."""

    def random(self) -> float:
        return 0.0


class Script:
    """Credentials whose fetches go as scripted: a token's lifetime, or an error; the last step goes on for ever."""

    renewable = True

    def __init__(self, *steps: float | Exception | None, takes: float = 0.0) -> None:
        self.steps = list(steps)
        self.takes = takes
        self.at: list[float] = []  # when each fetch began
        self.in_flight = 0
        self.most_in_flight = 0

    async def fetch(self, service: Service) -> Token:
        self.at.append(asyncio.get_running_loop().time())
        number = len(self.at)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.in_flight -= 1
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return Token(f"token-{number}", step)


def make(credentials: Any, *, random: Random | None = None, **callbacks: Any) -> Keeper:
    service = Service(http=None, endpoint=Endpoint.parse("eu"), clock=virtual_clock())  # type: ignore[arg-type]
    return Keeper(credentials, service, random=random or Late(), **callbacks)


@asynccontextmanager
async def running(keeper: Keeper) -> AsyncIterator[Keeper]:
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        assert not task.done(), "run() ends only by cancellation"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def failing(retry_after: float | None = None, **more: bool) -> PassingError:
    return PassingError("the endpoint is away", retry_after=retry_after, **more)


@virtual_time
async def test_the_first_token_is_fetched_without_being_asked_for() -> None:
    script = Script(3600)
    async with running(make(script)):
        await asyncio.sleep(1)
        assert script.at == [0]


@virtual_time
async def test_current_waits_until_run_has_begun() -> None:
    keeper = make(Script(3600))
    waiting = asyncio.create_task(keeper.current())
    await asyncio.sleep(100)
    assert not waiting.done()
    async with running(keeper):
        held = await waiting
    assert (held.token.value, held.generation) == ("token-1", 1)
    assert held.fetched_monotonic == 100


@pytest.mark.parametrize(
    ("lifetime", "random", "due"),
    [
        (3, Late(), 1.35),
        (3, Early(), 1.185),
        (100, Late(), 45),
        (500, Late(), 225),
        (3600, Late(), 3300),
        (3600, Early(), 3270),
        (17999, Late(), 17699),
    ],
)
def test_a_token_is_refreshed_a_margin_and_a_jitter_before_it_expires(
    lifetime: float, random: Random, due: float
) -> None:
    @virtual_time
    async def refresh() -> None:
        script = Script(lifetime)
        async with running(make(script, random=random)) as keeper:
            held = await keeper.newer(await keeper.current())
            assert held.generation == 2
            assert script.at == pytest.approx([0, due])

    refresh()


@virtual_time
async def test_tokens_of_seconds_are_always_usable_for_an_hour() -> None:
    script = Script(3, takes=0.3)
    async with running(make(script, random=Random(7))) as keeper:
        await keeper.current()
        for second in range(3600):
            held = await keeper.current()
            assert held.remaining(virtual_clock()) > 0.5, second
            await asyncio.sleep(1)


@virtual_time
async def test_a_thousand_callers_make_one_request() -> None:
    script = Script(3600, takes=2)
    async with running(make(script)) as keeper:
        held = await asyncio.gather(*(keeper.current() for _ in range(1000)))
    assert len(script.at) == 1
    assert len({id(one) for one in held}) == 1


@virtual_time
async def test_the_lifetime_counts_from_before_the_request() -> None:
    async with running(make(Script(10, takes=2))) as keeper:
        held = await keeper.current()
        assert held.remaining(virtual_clock()) == 8


@virtual_time
async def test_a_cancelled_waiter_cancels_no_fetch() -> None:
    script = Script(3600, takes=2)
    async with running(make(script)) as keeper:
        waiters = [asyncio.create_task(keeper.current()) for _ in range(3)]
        await asyncio.sleep(1)
        waiters[0].cancel()
        await asyncio.wait(waiters)
        assert waiters[0].cancelled()
        assert waiters[1].result() is waiters[2].result()
        assert script.at == [0]


@virtual_time
async def test_newer_gives_the_first_token_after_the_one_in_hand() -> None:
    async with running(make(Script(100))) as keeper:
        first = await keeper.current()
        second = await keeper.newer(first)
        assert second.generation == 2
        assert await keeper.newer(first) is second
        assert await keeper.current() is second


@virtual_time
async def test_newer_waits_for_ever_where_the_token_is_static() -> None:
    async with running(make(StaticToken("static"))) as keeper:
        newer = asyncio.create_task(keeper.newer(await keeper.current()))
        await asyncio.sleep(1_000_000)
        assert not newer.done()
        newer.cancel()
        await asyncio.wait([newer])


@pytest.mark.parametrize("asleep", [3400, 10_000])
def test_a_suspend_is_noticed_within_a_slice(asleep: float) -> None:
    @virtual_time
    async def wake() -> None:
        script = Script(3600)
        async with running(make(script)) as keeper:
            await keeper.current()
            await asyncio.sleep(100)
            suspend(asleep)
            await asyncio.sleep(SLICE)
            assert len(script.at) == 2
            assert (await keeper.current()).generation == 2

    wake()


@virtual_time
async def test_a_token_that_expired_during_a_suspend_is_not_given_and_is_fetched_at_once() -> None:
    script = Script(3600)
    async with running(make(script)) as keeper:
        await keeper.current()
        await asyncio.sleep(100)
        suspend(3600)
        held = await keeper.current()
        assert held.generation == 2
        assert script.at == [0, 100]


@virtual_time
async def test_a_wall_clock_that_is_set_back_delays_no_refresh() -> None:
    script = Script(3600)
    async with running(make(script)) as keeper:
        await keeper.current()
        suspend(-100_000)
        await asyncio.sleep(3301)
        assert script.at == [0, 3300]


@virtual_time
async def test_a_failing_endpoint_is_asked_again_backed_off_while_the_token_still_serves() -> None:
    failures: list[tuple[str, float, int]] = []
    script = Script(100, failing(), failing(), failing(), failing(), failing(), 100)
    keeper = make(script, on_failed=lambda *failure: failures.append(failure))
    async with running(keeper):
        first = await keeper.current()
        await asyncio.sleep(70)
        assert await keeper.current() is first
        second = await keeper.newer(first)
    assert script.at == pytest.approx([0, 45, 46, 48, 52, 60, 76])
    assert failures == [("the endpoint is away", 2.0**n, n + 1) for n in range(5)]
    assert second.generation == 2


@virtual_time
async def test_a_token_serves_until_its_own_expiry_and_not_longer() -> None:
    script = Script(100, failing())
    async with running(make(script)) as keeper:
        first = await keeper.current()
        await asyncio.sleep(99.9)
        assert await keeper.current() is first
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(keeper.current())
        await asyncio.sleep(1000)
        assert not waiting.done()
        script.steps = [100]
        assert (await waiting).generation == 2


@virtual_time
async def test_the_backoff_is_jittered_and_never_longer_than_a_minute() -> None:
    script = Script(failing())
    async with running(make(script, random=Random(1))):
        await asyncio.sleep(1000)
    waits = [after - before for before, after in pairwise(script.at)]
    for n, wait in enumerate(waits):
        assert min(60, 2**n) / 2 <= wait <= min(60, 2**n)
    assert len({round(wait, 6) for wait in waits}) == len(waits) > 10


@virtual_time
async def test_retry_after_wins_over_the_backoff() -> None:
    script = Script(failing(90), failing(), failing(0), 100)
    async with running(make(script)) as keeper:
        await keeper.current()
    assert script.at == [0, 90, 92, 93]


@virtual_time
async def test_a_rate_limit_is_backed_off_from_five_seconds() -> None:
    script = Script(failing(rate_limited=True))
    async with running(make(script)):
        await asyncio.sleep(200)
    assert script.at == [0, 5, 15, 35, 75, 135, 195]


@virtual_time
async def test_a_wait_after_a_failure_is_over_when_a_suspend_outlasted_it() -> None:
    script = Script(failing(600), 100)
    async with running(make(script)) as keeper:
        await asyncio.sleep(20)
        suspend(600)
        await keeper.current()
    assert script.at == [0, 30]


@virtual_time
async def test_what_a_callable_raises_is_passing_and_its_words_are_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: list[str] = []
    script = Script(RuntimeError("s3cr3t"), 100)
    with caplog.at_level(logging.DEBUG):
        async with running(make(script, on_failed=lambda why, *_: failures.append(why))) as keeper:
            await keeper.current()
    assert failures == ["RuntimeError in the credentials"]
    assert "s3cr3t" not in caplog.text


FATAL = [CredentialsRefused("no"), PlanError("no"), TokenRefused("no"), UsageError("no")]


@pytest.mark.parametrize("error", FATAL, ids=lambda error: type(error).__name__)
def test_an_error_that_cannot_be_mended_is_raised_to_every_waiter_and_later_callers(
    error: BqstreamError,
) -> None:
    @virtual_time
    async def wait() -> None:
        script = Script(error, takes=1)
        async with running(make(script)) as keeper:
            results = await asyncio.gather(*(keeper.current() for _ in range(3)), return_exceptions=True)
            assert [type(result) for result in results] == [type(error)] * 3
            await asyncio.sleep(1000)
            with pytest.raises(type(error), match="no"):
                await keeper.current()
            assert script.at == [0]

    wait()


@virtual_time
async def test_an_error_at_a_refresh_is_raised_to_those_who_wait_for_a_newer_token() -> None:
    async with running(make(Script(100, CredentialsRefused("no")))) as keeper:
        held = await keeper.current()
        with pytest.raises(CredentialsRefused):
            await keeper.newer(held)
        assert virtual_clock().monotonic() == pytest.approx(45)


@virtual_time
async def test_a_raised_error_does_not_carry_the_frames_of_the_fetch() -> None:
    async with running(make(Script(CredentialsRefused("no")))) as keeper:
        with pytest.raises(CredentialsRefused) as caught:
            await keeper.current()
        names = [entry.name for entry in caught.traceback]
        assert "fetch" not in names


@virtual_time
async def test_what_looks_like_a_wrong_address_is_an_error_when_it_never_worked() -> None:
    async with running(make(Script(failing(lasting=True)))) as keeper:
        with pytest.raises(UsageError, match="never worked") as caught:
            await keeper.current()
        assert caught.value.__cause__ is None


@virtual_time
async def test_what_looks_like_a_wrong_address_is_passing_when_it_has_worked() -> None:
    script = Script(100, failing(lasting=True), 100)
    async with running(make(script)) as keeper:
        assert (await keeper.newer(await keeper.current())).generation == 2
    assert script.at == pytest.approx([0, 45, 46])


@virtual_time
async def test_a_refused_token_is_fetched_anew_once_at_once() -> None:
    script = Script(3600)
    async with running(make(script)) as keeper:
        held = await keeper.current()
        await asyncio.sleep(10)
        keeper.refused(held, "HTTP 401")
        anew = await keeper.current()
    assert anew.generation == 2
    assert script.at == [0, 10]


@virtual_time
async def test_a_fresh_token_that_is_refused_again_is_fetched_backed_off() -> None:
    failures: list[tuple[str, float, int]] = []
    script = Script(3600)
    async with running(make(script, on_failed=lambda *failure: failures.append(failure))) as keeper:
        for _ in range(9):
            keeper.refused(await keeper.current(), "HTTP 401")
        await keeper.current()
    assert script.at == [0, 0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert failures[0] == ("the service refused a fresh token: HTTP 401", 1, 2)


@virtual_time
async def test_a_token_that_worked_makes_the_next_refusal_the_first_again() -> None:
    script = Script(3600)
    async with running(make(script)) as keeper:
        keeper.refused(await keeper.current(), "401")
        held = await keeper.current()
        keeper.worked(held)
        keeper.refused(held, "401")
        await keeper.current()
    assert script.at == [0, 0, 0]


@virtual_time
async def test_a_static_token_outlives_a_sign_that_may_mean_something_else() -> None:
    keeper = make(StaticToken("static"))
    async with running(keeper):
        held = await keeper.current()
        keeper.refused(held, "closed before connection_ack", sure=False)
        assert await keeper.current() is held
        keeper.refused(held, "HTTP 401")
        with pytest.raises(TokenRefused):
            await keeper.current()


@virtual_time
async def test_a_token_that_worked_until_it_was_replaced_counts_as_well() -> None:
    script = Script(3600)
    async with running(make(script)) as keeper:
        keeper.refused(await keeper.current(), "401")
        second = await keeper.current()
        third = await keeper.newer(second)
        keeper.worked(second)  # told when its link was handed over
        keeper.refused(third, "401")
        await keeper.current()
        assert script.at[-1] == asyncio.get_running_loop().time()


@virtual_time
async def test_an_older_token_that_worked_or_is_refused_changes_nothing() -> None:
    script = Script(3600)
    async with running(make(script)) as keeper:
        first = await keeper.current()
        keeper.refused(first, "401")
        second = await keeper.current()
        keeper.refused(first, "401 again")
        keeper.worked(first)
        assert await keeper.current() is second
        keeper.refused(second, "401")
        keeper.refused(second, "401 on another link")
        await keeper.current()
    assert script.at == [
        0,
        0,
        1,
    ]  # backed off: the old token's "worked" did not count, nor the repeated refusal


@virtual_time
async def test_a_refusal_while_the_refresh_is_in_flight_makes_no_second_request() -> None:
    script = Script(100, takes=5)
    async with running(make(script)) as keeper:
        held = await keeper.current()
        await asyncio.sleep(43)
        assert script.in_flight == 1
        keeper.refused(held, "401")
        assert (await keeper.current()).generation == 2
        await asyncio.sleep(1)
        assert script.at == pytest.approx([0, 45])
        assert script.most_in_flight == 1


@virtual_time
async def test_a_refused_static_token_says_to_generate_a_new_one() -> None:
    async with running(make(StaticToken("static-s3cr3t"))) as keeper:
        held = await keeper.current()
        newer = asyncio.create_task(keeper.newer(held))
        await asyncio.sleep(0)
        keeper.refused(held, "HTTP 401 for Bearer static-s3cr3t")
        for waiting in (newer, keeper.current()):
            with pytest.raises(TokenRefused, match="generate a new one") as caught:
                await waiting
            assert "s3cr3t" not in str(caught.value)


@virtual_time
async def test_the_words_of_a_refusal_are_shown_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with running(make(Script(60), on_failed=lambda why, *_: failures.append(why))) as keeper:
            for _ in range(2):
                held = await keeper.current()
                keeper.refused(held, f"Unauthorized: {held.token.value}")
            await keeper.current()
    assert failures == ["the service refused a fresh token: Unauthorized: ***"]
    assert "token-" not in caplog.text


@virtual_time
async def test_every_new_token_is_told_and_a_callback_that_fails_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[HeldToken] = []

    def tell(held: HeldToken) -> None:
        told.append(held)
        raise RuntimeError("a user's mistake")

    async with running(make(Script(100), on_refreshed=tell)) as keeper:
        await keeper.newer(await keeper.current())
    assert [held.generation for held in told] == [1, 2]
    assert "a callback of the keeper failed" in caplog.text


@virtual_time
async def test_an_endpoint_that_repeats_a_dying_token_is_not_hammered() -> None:
    born = virtual_clock().monotonic()
    asked = []

    class Repeating:
        renewable = True

        async def fetch(self, service: Service) -> Token:
            asked.append(virtual_clock().monotonic())
            return Token("same", max(60 - (asked[-1] - born), 0.001))

    async with running(make(Repeating())):
        await asyncio.sleep(60)
    assert len(asked) < 20
    assert all(after - before >= MIN_LIFE - 1e-6 for before, after in pairwise(asked))


@virtual_time
async def test_whoever_waits_when_run_is_cancelled_is_told() -> None:
    keeper = make(Script(failing()))
    async with running(keeper):
        waiting = asyncio.create_task(keeper.current())
        await asyncio.sleep(1)
    for waiter in (waiting, keeper.current()):
        with pytest.raises(ConnectionGivenUp, match="closed"):
            await waiter


@virtual_time
async def test_cancelling_run_in_the_middle_of_a_fetch_drops_the_fetch() -> None:
    script = Script(100, takes=10)
    async with running(make(script)):
        await asyncio.sleep(1)
        assert script.in_flight == 1
    assert script.in_flight == 0


def test_a_keeper_may_be_made_outside_a_loop() -> None:
    service = Service(http=None, endpoint=Endpoint.parse("eu"))  # type: ignore[arg-type]
    keeper = Keeper(StaticToken("static"), service)

    async def use() -> HeldToken:
        async with running(keeper):
            return await keeper.current()

    assert asyncio.run(use()).token.value == "static"
