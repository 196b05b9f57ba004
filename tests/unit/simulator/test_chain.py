from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bqstream.simulator.chain import Block, Chain
from bqstream.simulator.values import Cube, leaf

TRANSFERS = Cube("EVM", "eth", False, "Transfers")
RECEIVER = leaf("EVM", "Transfers", ("Transfer", "Receiver"))
AMOUNT = leaf("EVM", "Transfers", ("Transfer", "Amount"))
HASH = leaf("EVM", "Transfers", ("Transaction", "Hash"))


def mined(chain: Chain, blocks: int) -> list[Block]:
    return [chain.mine() for _ in range(blocks)]


def shown(block: Block) -> list[tuple[str, str, str]]:
    return [(row.get(HASH), row.get(RECEIVER), row.get(AMOUNT)) for row in block.rows(TRANSFERS)]


def test_the_same_seed_gives_the_same_chain_and_the_same_rows() -> None:
    one, other = mined(Chain(seed=7), 5), mined(Chain(seed=7), 5)
    assert one == other
    assert [shown(block) for block in one] == [shown(block) for block in other]


def test_another_seed_gives_another_chain() -> None:
    one, other = Chain(seed=1).mine(), Chain(seed=2).mine()
    assert one.hash != other.hash
    assert not set(shown(one)) & set(shown(other))


def test_blocks_follow_each_other_at_the_interval_in_whole_seconds() -> None:
    start = datetime(2026, 5, 1, 12, 0, 0, 900_000, tzinfo=UTC)
    blocks = mined(Chain(start=start, block_interval=0.4), 6)
    assert [block.number - blocks[0].number for block in blocks] == [0, 1, 2, 3, 4, 5]
    assert [block.time.second for block in blocks] == [0, 0, 0, 1, 1, 2]
    assert all(block.time.microsecond == 0 and block.time.tzinfo is UTC for block in blocks)
    assert [block.parent_hash for block in blocks[1:]] == [block.hash for block in blocks[:-1]]


def test_an_empty_chain_has_no_head_and_no_blocks() -> None:
    chain = Chain()
    assert chain.head is None
    assert list(chain.blocks()) == []


def test_a_fork_replaces_the_last_heights_by_another_branch() -> None:
    chain = Chain()
    old = mined(chain, 10)
    new = chain.fork(3)
    assert [block.number for block in new] == [block.number for block in old[-3:]]
    assert [block.time for block in new] == [block.time for block in old[-3:]]
    assert not {block.hash for block in new} & {block.hash for block in old}
    assert new[0].parent_hash == old[6].hash
    assert {block.branch for block in new} == {1}
    assert chain.head == new[-1]
    assert list(chain.blocks()) == old[:7] + new
    assert chain.mine().parent_hash == new[-1].hash


def test_a_fork_mines_some_transactions_again_and_others_anew() -> None:
    chain = Chain(transactions=20)
    mined(chain, 2)
    assert chain.head is not None
    old, new = shown(chain.head), shown(chain.fork(1)[0])
    again = set(old) & set(new)
    assert again
    assert set(old) - again
    assert set(new) - again


@pytest.mark.parametrize("depth", [0, 5, 6])
def test_a_fork_needs_a_block_to_stand_on(depth: int) -> None:
    chain = Chain()
    mined(chain, 5)
    with pytest.raises(ValueError, match="cannot fork"):
        chain.fork(depth)


def test_only_so_many_blocks_are_kept() -> None:
    chain = Chain(keep=4)
    blocks = mined(chain, 9)
    assert list(chain.blocks()) == blocks[-4:]
    assert list(chain.blocks(blocks[0].number, blocks[6].number)) == blocks[5:7]
    assert list(chain.blocks(blocks[-1].number + 1)) == []
    assert chain.fork(2)[0].number == blocks[-2].number


def test_every_row_of_a_transaction_comes_in_one_portion() -> None:
    emitted: set[int] = set()
    for block in mined(Chain(transactions=9, portions=4), 8):
        portions: dict[str, set[int]] = {}
        for row in block.rows(TRANSFERS):
            portions.setdefault(row.get(HASH), set()).add(block.portion_of(row))
        assert all(len(found) == 1 for found in portions.values())
        emitted |= {portion for found in portions.values() for portion in found}
    assert emitted == {0, 1, 2, 3}


def test_portions_are_emitted_in_shuffled_order() -> None:
    orders = {tuple(dict.fromkeys(block.content.emission)) for block in mined(Chain(), 20)}
    assert len(orders) > 2


def test_a_filter_is_learned_by_the_blocks_to_come_and_changes_none_that_is() -> None:
    chain = Chain()
    before = mined(chain, 3)
    kept = [shown(block) for block in before]
    for block in before:
        block.content.forget()
    chain.lessons.learn("a", [(TRANSFERS, ({RECEIVER.path: {"is": "0xfeed"}},))])
    assert [shown(block) for block in before] == kept
    rows = [row for block in mined(chain, 20) for row in shown(block)]
    wanted = [row for row in rows if row[1] == "0xfeed"]
    assert 0.25 < len(wanted) / len(rows) < 0.45
    assert len({row[0] for row in wanted}) == len(wanted), (
        "never two rows of one transaction by the same filter"
    )


def test_filters_of_one_cube_take_turns() -> None:
    chain = Chain()
    for name in range(30):
        chain.lessons.learn(str(name), [(TRANSFERS, ({RECEIVER.path: {"is": f"0x{name}"}},))])
    found = {row[1] for block in mined(chain, 20) for row in shown(block)}
    assert {f"0x{name}" for name in range(30)} <= found


def test_rows_of_a_block_are_the_same_after_they_were_forgotten() -> None:
    chain = Chain()
    block = chain.mine()
    first = shown(block)
    mined(chain, 40)
    assert shown(block) == first


@pytest.mark.parametrize(
    "wrong", [{"transactions": 0}, {"portions": 0}, {"keep": 0}, {"block_interval": 0.0}]
)
def test_a_chain_refuses_numbers_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Chain(**wrong)  # type: ignore[arg-type]
