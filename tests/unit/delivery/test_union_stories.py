"""Ways in which rows were once lost or repeated without a word, each as it happened."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from bqstream.clock import Clock
from bqstream.config import Buffer
from bqstream.delivery.document import Document
from bqstream.delivery.marks import windows_of
from bqstream.delivery.plan import Plan
from bqstream.delivery.stream import Stream

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


def mined(block: int, number: int, root: str = "") -> bytes:
    """A message with one row of its own."""
    at = {"Number": str(block), "Hash": f"0xb{block}", "Time": "2023-11-14T22:13:20Z"}
    row: dict[str, Any] = {
        "Block": at,
        "Transaction": {"Hash": f"0x{number}"},
        "Log": {"Index": 1},
        "Call": {"Index": 1},
    }
    row["Transfer"] = {"Amount": "1", "Index": 1, "Type": "token"}
    return json.dumps(
        {"data": {"EVM": {**({"__typename": root} if root else {}), "Transfers": [row]}}}
    ).encode()


def stream_of(selection: str, buffer: Buffer | None = None) -> Stream:
    document = Document.parse(f"subscription {{ EVM {{ {selection} }} }}")
    stream = Stream(
        buffer or Buffer(),
        Clock(monotonic=lambda: 0.0, wall=lambda: 1_700_000_000.0),
        on_gap=lambda gap: None,
        on_parked=lambda resumed: None,
        on_ready=lambda: None,
        on_room=lambda: None,
        plan=Plan.make(document),
        cubes=document.cubes,
        lag=1.0,
    )
    stream.joined(1, 0.0, grace=1.0, served=1_700_000_000.0)
    return stream


ROW = """Transfers { Block { Number Hash Time } Transaction { Hash } Log { Index } Call { Index }
    Transfer { Amount Index Type } }"""


def test_a_root_that_says_of_what_type_it_is_crosses_row_by_row() -> None:
    stream = stream_of(f"__typename {ROW}")
    fed = [mined(100 + number // 3, number, "EVM") for number in range(30)]
    stream.payloads(1, fed[:3], 1.0)
    stream.joined(2, 2.0, grace=1.0, served=1_700_000_002.0)
    for number, raw in enumerate(fed[3:20]):
        stream.payloads(1, [raw], 3.0 + number)
        stream.payloads(2, [raw], 3.5 + number)
    assert stream.cross(2, 25.0).proven
    stream.payloads(2, fed[20:], 26.0)
    taken = [stream.take() for _ in range(stream.waiting_messages)]
    assert [message.raw for message in taken if message is not None] == fed
    assert next(iter(taken)).data["EVM"]["__typename"] == "EVM"  # type: ignore[union-attr]
    assert [len(list(message.rows())) for message in taken if message is not None] == [1] * 30


def test_a_checkpoint_of_a_reader_that_is_far_behind_takes_no_block_for_whole() -> None:
    stream = stream_of(ROW, Buffer(bytes=40_000))
    fed = iter([mined(100 + number // 40, number) for number in range(1000)])

    def fill() -> None:
        while stream.waiting_bytes < 39_000:
            stream.payloads(1, [next(fed)], 1.0)

    fill()
    for _ in range(215):
        message = stream.take()
        fill()
    assert message is not None
    block = int(message.data["EVM"]["Transfers"][0]["Block"]["Number"])
    (window,) = windows_of(message.checkpoint).values()
    assert window.low is None or window.low.value <= block


def test_a_message_that_cannot_be_read_is_not_lost_while_rows_are_counted() -> None:
    stream = stream_of(ROW)
    stream.joined(2, 2.0, grace=1.0, served=1_700_000_002.0)
    broken = b'{"data":{"EVM":{"Transfers":[{"Block":'
    stream.payloads(1, [broken], 3.0)
    taken = stream.take()
    assert taken is not None
    assert taken.raw == broken
