"""The promise as a property: each row exactly once and in order, or the hole is named."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .world import GRACE, World


class Handovers(RuleBasedStateMachine):
    """One service, up to two sources at once, any number in sequence; every lag is below the grace."""

    world: World

    @initialize(
        seed=st.integers(0, 2**32), cubes=st.sampled_from([1, 2]), kinds=st.sampled_from([1, 2, 4, 50, 10**9])
    )
    def begin(self, seed: int, cubes: int, kinds: int) -> None:
        self.world = World(seed, cubes, kinds)
        self.world.join()

    @rule(count=st.integers(1, 12))
    def publish(self, count: int) -> None:
        self.world.publish(count)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 2.5, GRACE, 2 * GRACE]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(newest=st.booleans(), count=st.integers(1, 8))
    def bring(self, newest: bool, count: int) -> None:
        if self.world.lines:
            pick = max if newest else min
            self.world.bring(pick(self.world.lines), count)

    @precondition(lambda self: len(self.world.lines) < 2)
    @rule(live=st.booleans())
    def join(self, live: bool) -> None:
        self.world.join(live)

    @rule()
    def go_live(self) -> None:
        self.world.go_live()

    @precondition(lambda self: len(self.world.lines) == 2)
    @rule()
    def cross_when_crossed(self) -> None:
        if self.world.crossed():
            heard = self.world.lines[self.world.newest].brought
            assert self.world.cross().proven or not heard

    @precondition(lambda self: len(self.world.lines) == 2)
    @rule()
    def cross_by_force(self) -> None:
        self.world.cross()

    @precondition(lambda self: self.world.lines)
    @rule(newest=st.booleans())
    def lose(self, newest: bool) -> None:
        self.world.lose((max if newest else min)(self.world.lines))

    @precondition(lambda self: self.world.lines)
    @rule(newest=st.booleans())
    def fall_silent(self, newest: bool) -> None:
        self.world.fall_silent((max if newest else min)(self.world.lines))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check()


TestHandovers = Handovers.TestCase
TestHandovers.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("kinds", [1, 3, 50, 10**9])
@pytest.mark.parametrize("seed", range(25))
def test_a_stream_that_crosses_only_when_it_may_is_exact_and_names_no_gap(seed: int, kinds: int) -> None:
    world = World(seed, cubes=1 + seed % 2, kinds=kinds)
    world.join()
    crossings = 0
    for _ in range(6):
        for _ in range(world.random.randint(1, 8)):
            world.publish(world.random.randint(0, 6))
            world.advance(world.random.random())
        world.join(live=False)
        world.advance(world.random.random())
        world.go_live()
        for _ in range(120):
            heard = world.lines[world.newest].brought
            if heard and world.crossed():
                assert world.cross().proven
                crossings += 1
                break
            world.publish(world.random.choice([0, 0, 1, 3]))
            world.advance(world.random.random())
        else:
            # Rows that are all equal cross in a pause alone.
            assert kinds == 1
            world.advance(3 * GRACE)
            if world.crossed():
                world.cross()
                crossings += 1
            else:
                world.lose(world.newest)
    world.settle()
    world.check()
    assert world.stream.gaps == ()
    assert crossings or kinds == 1
