"""Ways in which rows were once lost or repeated without a word, each as it happened."""

from __future__ import annotations

from collections import Counter

from bqstream.config import Buffer

from .chain_world import FIRST, ChainWorld, Row


def subscribed_within_a_block() -> ChainWorld:
    """The block began three seconds before; three of its rows have come."""
    world = ChainWorld(1)
    world.advance(3.0)
    world.open()
    world.publish(3)
    world.advance(3.0)
    return world


def more_than_is_kept() -> ChainWorld:
    """Three hundred blocks were delivered, of which history holds a few."""
    world = ChainWorld(1, buffer=Buffer(bytes=4000))
    world.open()
    for _ in range(300):
        world.publish(1)
        world.mine()
        world.advance(1.0)
    return world


def test_a_gap_that_follows_another_has_no_end_of_that_ones() -> None:
    """A hand-over's old link drops while a slow reader is still given what was held back, then the new one."""
    world = ChainWorld(1, query_lag=0.0, buffer=Buffer(messages=2))
    world.open()
    world.publish(1)
    world.mine()
    world.advance(5.0)
    world.lose(1)
    world.open()
    world.reading = False
    for _ in range(9):
        world.publish(1)
        world.mine()
        world.advance(1.0)
    world.open()
    world.publish(1)
    world.bring(3, 1)
    world.mine()
    world.advance(0.5)
    world.lose(2)
    world.lose(3)
    for _ in range(3):
        world.publish(1)
        world.mine()
        world.advance(1.0)
    world.open()
    world.settle()
    world.check()


def test_a_block_that_began_before_the_subscription_goes_on_in_an_outage_soon_after() -> None:
    world = subscribed_within_a_block()
    world.lose(1)
    world.publish(2)
    world.advance(1.0)
    world.open()
    world.settle()
    world.check()


def test_a_block_that_began_before_the_subscription_goes_on_between_two_processes() -> None:
    world = subscribed_within_a_block()
    world.commit()
    world.links.clear()
    world.publish(2)
    world.mine()
    for _ in range(3):
        world.publish(1)
        world.mine()
        world.advance(3.0)
    world.restart()
    world.settle()
    world.check()


def test_a_drop_while_a_message_that_may_be_cut_is_looked_into_is_asked_for_from_its_own_beginning() -> None:
    world = ChainWorld(1)
    world.open()
    world.publish(3)
    world.advance(2.0)
    world.mine()
    world.publish(800)
    world.bring(1, 800)
    assert world.stream.closing
    world.lose(1)
    late = [Row(FIRST, number, 7, world.now) for number in (900, 901)]
    world.chain[0].rows += late
    world.emitted += late
    world.advance(0.5)
    world.open()
    world.settle()
    world.check()


def test_more_than_is_kept_is_not_asked_for_again_but_named() -> None:
    world = more_than_is_kept()
    world.lose(1)
    world.advance(1.0)
    world.open()
    world.settle()
    emitted = Counter(world.owed(row) for row in world.emitted)
    assert not world.delivered - emitted
    assert not emitted - world.delivered
    assert [gap.closed for gap in world.stream.gaps] == [False, True]


def test_a_checkpoint_of_a_stream_of_which_not_all_is_kept_leads_to_no_repeats() -> None:
    world = more_than_is_kept()
    world.commit()
    world.restart()
    world.settle()
    world.check()


def test_a_reader_that_falls_behind_a_minute_can_take_a_checkpoint_of_what_it_is_done_with() -> None:
    world = ChainWorld(1)
    world.reading = False
    world.open()
    for wait in (40, 160, 1):
        world.publish(1)
        world.bring(1, 1)
        world.mine()
        world.advance(wait)
    world.stream.take()
    world.stream.take()
    assert [len(mark.beyond) for mark in world.stream.safe().cubes.values()] == [1]


def test_a_key_that_turned_out_to_be_none_is_none_for_the_next_process_too() -> None:
    world = ChainWorld(1)
    world.open()
    for _ in range(5):
        world.publish(2)
        world.advance(2.0)
        world.mine()
    union = world.stream._merge.union
    assert union is not None
    union.counting.avoid("Transfers")
    world.commit()
    world.restart()
    world.settle()
    world.check()
