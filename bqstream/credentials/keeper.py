"""The keeper: one token held at a time, and a new one in hand before it expires."""

from __future__ import annotations

import asyncio
import logging
import math
import random as randomness
from collections.abc import Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from ..clock import Clock
from ..endpoints import secret_forms
from ..errors import BqstreamError, ConnectionGivenUp, TokenRefused, UsageError
from .exchange import PassingError, Service, redact
from .providers import GENERATE, Credentials
from .token import HeldToken

MAX_MARGIN: Final = 300.0  # seconds before expiry at which a token is refreshed, at most …
MARGIN_SHARE: Final = (
    0.55  # … and as a share of its lifetime, so that a token of seconds leaves both links the same time
)
JITTER: Final = (
    0.1  # the share of the margin by which a refresh may come earlier, so that a fleet spreads out
)
SLICE: Final = 15.0  # seconds that are slept at once: a suspend or a clock that was set is noticed this soon
SOON: Final = 0.001  # seconds: a wait that is shorter is over
MIN_LIFE: Final = (
    0.25  # seconds between two fetches at least, lest an endpoint that repeats itself be hammered
)

_log = logging.getLogger("bqstream.credentials")
_usual = wait_exponential(multiplier=1, max=60)
_rate_limited = wait_exponential(multiplier=5, max=60)  # plans/rate-limits


class Keeper:
    """Holds the current token, refreshes it before expiry, and replaces it when the service refuses it.

    ``run`` is the one task that fetches, however many wait. Expiry is kept on both clocks, and the earlier
    counts. While the token endpoint fails, the current token serves until its own expiry and fetching goes
    on, backed off. ``on_refreshed(held)`` is called with every new token, ``on_failed(why, wait_s, attempt)``
    before every wait for another try; ``why`` holds no secret.
    """

    def __init__(
        self,
        credentials: Credentials,
        service: Service,
        *,
        clock: Clock | None = None,
        on_refreshed: Callable[[HeldToken], object] | None = None,
        on_failed: Callable[[str, float, int], object] | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        self._credentials = credentials
        self._service = service
        self._clock = clock or service.clock
        self._on_refreshed = on_refreshed
        self._on_failed = on_failed
        self._random = random or randomness.Random()
        self._held: HeldToken | None = None
        self._generation = 0
        self._refresh_at = 0.0  # seconds of remaining life
        self._refusals = 0  # of fresh tokens, in a row
        self._refused = 0  # the generation of the last of them
        self._not_before = -math.inf  # on the monotonic clock
        self._fatal: BqstreamError | None = None
        self._changed: asyncio.Event | None = None
        self._woken: asyncio.Event | None = None

    @property
    def held(self) -> HeldToken | None:
        """The token in hand, expired or not; None where there is none yet, or the last one was refused."""
        return self._held

    async def current(self) -> HeldToken:
        """The token to use now; waits until there is one that has not expired.

        Raises CredentialsRefused, TokenRefused, PlanError, UsageError, or ConnectionGivenUp once ``run`` was
        cancelled. Cancelling the wait cancels no fetch.
        """
        return await self._newer_than(-1)

    async def newer(self, than: HeldToken) -> HeldToken:
        """The first usable token fetched after ``than``; waits for ever if none is. Raises as ``current``."""
        return await self._newer_than(than.generation)

    async def _newer_than(self, generation: int) -> HeldToken:
        while True:
            if self._fatal is not None:
                # The traceback goes: its frames hold secrets, and it would grow with every waiter.
                raise self._fatal.with_traceback(None)
            held = self._held
            if held is not None and held.generation > generation:
                if held.remaining(self._clock) > 0:
                    return held
                self._wake()  # it expired while the machine slept
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()

    def refused(self, held: HeldToken, why: str, *, sure: bool = True) -> None:
        """The service refused this token: drop it and fetch anew, the first time at once, then backed off.

        Ignored for a token that was replaced or refused already, and for a static one where the service did not
        say that it is the token (``sure``). ``why`` is shown, with the token taken out.
        """
        if self._held is None or held.generation != self._generation:
            return
        if not (sure or self._credentials.renewable):
            return
        self._held = None
        self._refusals, self._refused = self._refusals + 1, held.generation
        why = redact(why, secret_forms(held.token.value))
        if not self._credentials.renewable:
            self._end(
                TokenRefused(f"the service refused the token ({why}), and it is a static one: {GENERATE}")
            )
            return
        if self._refusals > 1:
            wait = self._spaced(_usual, self._refusals - 1)
            self._not_before = self._clock.monotonic() + wait
            self._failed(f"the service refused a fresh token: {why}", wait, self._refusals)
        self._wake()

    def worked(self, held: HeldToken) -> None:
        """The service took this token: the next refusal is the first again, unless a later one was refused."""
        if held.generation > self._refused:
            self._refusals = 0

    async def run(self) -> None:
        """Fetch and refresh until cancelled; call it once, in a task of its own.

        An error that trying again cannot mend is raised to those who wait in ``current`` or ``newer``.
        """
        retrying = AsyncRetrying(
            sleep=self._sleep,
            wait=self._wait,
            retry=retry_if_exception(_is_passing),
            before_sleep=self._report,
            reraise=True,
        )
        try:
            while self._fatal is None:
                await self._until_due()
                if self._fatal is None:
                    try:
                        self._take(await retrying(self._fetch))
                    except BqstreamError as error:
                        self._end(error)
            await asyncio.get_running_loop().create_future()
        finally:
            self._end(ConnectionGivenUp("the client is closed: no token is fetched any more"))

    async def _until_due(self) -> None:
        """Wait until a token is wanted; wakes at least every ``SLICE`` seconds to look at both clocks."""
        self._woken = woken = asyncio.Event()
        while self._fatal is None and (wait := self._due_in()) > SOON:
            woken.clear()
            try:
                async with asyncio.timeout(min(wait, SLICE) if wait < math.inf else None):
                    await woken.wait()
            except TimeoutError:
                pass

    def _due_in(self) -> float:
        now = self._clock.monotonic()
        if self._held is None:
            return self._not_before - now
        rested = MIN_LIFE - (now - self._held.fetched_monotonic)
        return max(self._held.remaining(self._clock) - self._refresh_at, rested)

    async def _fetch(self) -> HeldToken:
        # The lifetime counts from before the question: early is safe, late is not.
        monotonic, wall = self._clock.monotonic(), self._clock.wall()
        try:
            token = await self._credentials.fetch(self._service)
        except PassingError as error:
            if not error.lasting or self._generation > 0:
                raise
            hopeless = str(error)
        else:
            return HeldToken(token, self._generation + 1, monotonic, wall)
        raise UsageError(f"{hopeless} (it never worked: check the address and the settings)")

    def _take(self, held: HeldToken) -> None:
        lifetime = held.token.expires_in
        margin = 0.0 if lifetime is None else min(MAX_MARGIN, MARGIN_SHARE * lifetime)
        self._refresh_at = margin * (1 + JITTER * self._random.random())
        self._held, self._generation, self._not_before = held, held.generation, -math.inf
        _log.info(
            "token %d is in hand, %s",
            held.generation,
            "it lives on" if lifetime is None else f"{lifetime:g} s",
        )
        self._tell()
        if self._on_refreshed is not None:
            _guarded(self._on_refreshed, held)

    def _end(self, error: BqstreamError) -> None:
        if self._fatal is None:
            self._fatal = error
            self._held = None
            self._wake()
            self._tell()

    def _wait(self, state: RetryCallState) -> float:
        """How long to wait after a failed fetch: what the server asked for wins."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, PassingError):
            if error.retry_after is not None:
                return max(error.retry_after, 1.0)
            if error.rate_limited:
                return self._spaced(_rate_limited, state.attempt_number)
        return self._spaced(_usual, state.attempt_number)

    def _spaced(self, strategy: wait_exponential, attempt: int) -> float:
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        return strategy(state) * (1 - 0.5 * self._random.random())

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        # Of what a user's own callable raised only the type: its words may hold a secret.
        why = str(error) if isinstance(error, PassingError) else f"{type(error).__name__} in the credentials"
        self._failed(why, wait, state.attempt_number)

    def _failed(self, why: str, wait: float, attempt: int) -> None:
        _log.warning("no token: %s; attempt %d, the next in %.1f s", why, attempt, wait)
        if self._on_failed is not None:
            _guarded(self._on_failed, why, wait, attempt)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the seconds have passed on either clock, looking every ``SLICE`` seconds."""
        monotonic, wall = self._clock.monotonic(), self._clock.wall()
        while (left := seconds - max(self._clock.monotonic() - monotonic, self._clock.wall() - wall)) > SOON:  # noqa: ASYNC110
            await asyncio.sleep(min(left, SLICE))

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, BqstreamError)


def _guarded(callback: Callable[..., object], *args: object) -> None:
    # Somebody else's callable must not end the one task that fetches.
    try:
        callback(*args)
    except Exception:  # noqa: BLE001
        _log.exception("a callback of the keeper failed")
