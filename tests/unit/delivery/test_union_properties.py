"""The promise as a property: whatever links and queries bring, in whatever order, each row is delivered once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bqstream.config import Buffer

from .chain_world import LAG, ChainWorld


class Links(RuleBasedStateMachine):
    """Up to two links at once, any number in sequence; no order is kept, and every lag is below the grace."""

    world: ChainWorld

    @initialize(
        seed=st.integers(0, 2**32),
        document=st.sampled_from(["keyed", "alike"]),
        kinds=st.sampled_from([1, 2, 50]),
        query_lag=st.sampled_from([0.0, 1.0, 4.0]),
        small=st.booleans(),
    )
    def begin(self, seed: int, document: str, kinds: int, query_lag: float, small: bool) -> None:
        buffer = Buffer(messages=8) if small else Buffer()
        self.world = ChainWorld(seed, document, kinds=kinds, query_lag=query_lag, buffer=buffer)
        self.world.open()

    @rule(count=st.integers(1, 12), mined=st.booleans())
    def publish(self, count: int, mined: bool) -> None:
        self.world.publish(count)
        if mined:
            self.world.mine()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, LAG, 2 * LAG, 20.0]), blocks=st.booleans())
    def advance(self, seconds: float, blocks: bool) -> None:
        for _ in range(4):
            if blocks:
                self.world.publish(1)
                self.world.mine()
            self.world.advance(seconds / 4)

    @rule(newest=st.booleans(), count=st.integers(1, 8))
    def bring(self, newest: bool, count: int) -> None:
        if self.world.links:
            self.world.bring((max if newest else min)(self.world.links), count)

    @precondition(lambda self: len(self.world.links) < 2)
    @rule(live=st.booleans())
    def open(self, live: bool) -> None:
        self.world.open(live)

    @rule()
    def go_live(self) -> None:
        self.world.go_live()

    @precondition(lambda self: len(self.world.links) == 2)
    @rule(forced=st.booleans())
    def cross(self, forced: bool) -> None:
        if forced or self.world.crossed():
            self.world.cross()

    @precondition(lambda self: self.world.links)
    @rule(newest=st.booleans())
    def lose(self, newest: bool) -> None:
        self.world.lose((max if newest else min)(self.world.links))

    @precondition(lambda self: self.world.links)
    @rule()
    def pause(self) -> None:
        self.world.pause()

    @precondition(lambda self: self.world.links)
    @rule(newest=st.booleans())
    def fall_silent(self, newest: bool) -> None:
        self.world.fall_silent((max if newest else min)(self.world.links))

    @rule(reading=st.booleans())
    def the_reader(self, reading: bool) -> None:
        self.world.reading = reading
        self.world.read()

    @rule()
    def commit(self) -> None:
        self.world.commit()

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def park(self) -> None:
        self.world.stream.park(self.world.now)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check()


TestLinks = Links.TestCase
TestLinks.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.soak
def test_the_same_at_length() -> None:
    many = settings(
        max_examples=3000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Links, settings=many)  # which asserts
