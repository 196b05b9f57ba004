"""Whatever happens to a keeper, in whatever order, its promises hold."""

from __future__ import annotations

import asyncio
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from bqstream.credentials import HeldToken, Keeper, Service, Token
from bqstream.credentials.exchange import PassingError
from bqstream.endpoints import Endpoint
from tests.virtual_time import suspend, virtual_clock, virtual_time


class Moody:
    """A token endpoint that works or fails as it is told, and never serves two at once."""

    renewable = True

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self.works = True
        self.busy = False
        self.fetches = 0

    async def fetch(self, service: Service) -> Token:
        assert not self.busy, "two fetches at once"
        self.busy = True
        self.fetches += 1
        try:
            await asyncio.sleep(0.1)
        finally:
            self.busy = False
        if not self.works:
            raise PassingError("away")
        return Token(f"token-{self.fetches}", self.lifetime)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 2)),  # lifetimes
        st.tuples(st.just("suspend"), st.floats(-2, 2)),
        st.tuples(
            st.sampled_from(["refuse", "refuse old", "worked", "fail", "mend", "ask", "give up asking"]),
            st.none(),
        ),
    ),
    max_size=30,
)


class Play:
    """A keeper, what was seen of it, and the moves that a session and the world can make."""

    def __init__(self, lifetime: float, seed: int) -> None:
        self.clock = virtual_clock()
        self.endpoint = Moody(lifetime)
        service = Service(http=None, endpoint=Endpoint.parse("eu"), clock=self.clock)  # type: ignore[arg-type]
        self.keeper = Keeper(self.endpoint, service, random=Random(seed))
        self.seen: list[HeldToken] = []
        self.refused: set[int] = set()
        self.asking: list[asyncio.Task[None]] = []

    async def ask(self) -> None:
        held = await self.keeper.current()
        assert held.remaining(self.clock) > 0, "an expired token was given"
        assert held.generation not in self.refused, "a refused token was given"
        assert not self.seen or held.generation >= self.seen[-1].generation, "an older token was given"
        self.seen.append(held)

    def move(self, name: str) -> None:
        match name:
            case "refuse" if self.seen:
                self.keeper.refused(self.seen[-1], "401")
                self.refused.add(self.seen[-1].generation)
            case "refuse old" if self.seen:
                self.keeper.refused(self.seen[0], "401")
                self.refused.add(self.seen[0].generation)
            case "worked" if self.seen:
                self.keeper.worked(self.seen[-1])
            case "fail" | "mend":
                self.endpoint.works = name == "mend"
            case "ask":
                self.asking.append(asyncio.create_task(self.ask()))
            case "give up asking" if self.asking:
                self.asking.pop().cancel()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([3.0, 60.0, 3600.0]), st.integers(0, 99), steps)
def test_no_expired_no_refused_and_no_older_token_is_given_and_one_comes_in_the_end(
    lifetime: float, seed: int, moves: list[tuple[str, float | None]]
) -> None:
    @virtual_time
    async def play() -> None:
        game = Play(lifetime, seed)
        running = asyncio.create_task(game.keeper.run())
        for name, share in moves:
            if name == "wait":
                await asyncio.sleep(lifetime * (share or 0))
            elif name == "suspend":
                suspend(lifetime * (share or 0))
            else:
                game.move(name)
                await asyncio.sleep(0)
        game.endpoint.works = True
        # The longest that anything is waited for: a minute's back-off for the endpoint, another for refusals.
        async with asyncio.timeout(130):
            await game.ask()
            await asyncio.gather(*game.asking, return_exceptions=False)
        waited = game.clock.monotonic()
        assert game.endpoint.fetches <= 5 + len(moves) + waited / (0.3 * lifetime) + waited / 0.5
        running.cancel()
        await asyncio.wait([running, *game.asking])

    play()
