"""A chain that is made up: blocks, forks, and the rows that every cube finds in them.

Nothing is stored of a row but its seed. A value is made when a document asks for it, from the bits of its row and its
field, so the same block holds the same rows for every document, network cubes included. What chance alone would never
bring (one address, one program) comes from `Lessons`: the filters that documents asked for. A block keeps those known
when it was mined and about a third of its rows follow one of them each, so its content never changes afterwards.
No clock and no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from .lessons import Lessons, Rules, satisfy
from .values import Cube, Leaf, mix, salt

_FIRST = 21_000_000
_REMEMBERED = 16  # blocks whose rows are kept once made; older ones are made anew for each query


class Row:
    """One row of a cube, or one element of a list in it; values are made on demand and kept."""

    __slots__ = ("_cells", "_common", "_rules", "block", "ordinal", "seeds", "transaction")

    def __init__(
        self,
        block: Block,
        seeds: tuple[int, int, int],
        transaction: int,
        ordinal: int,
        rules: Rules | None = None,
        common: dict[Leaf, Any] | None = None,
    ) -> None:
        self.block = block
        self.seeds = seeds  # of the block, the transaction, the row
        self.transaction = transaction
        self.ordinal = ordinal  # in the block and its cube, or in the list
        self._rules = rules
        self._cells: dict[Leaf, Any] = {}
        self._common = self._cells if common is None else common  # what all rows of the block say of it

    def get(self, leaf: Leaf) -> Any:
        cells = self._cells if leaf.scope else self._common
        if leaf in cells:
            return cells[leaf]
        bits = mix(self.seeds[leaf.scope] ^ leaf.salt)
        value = leaf.kind(self, leaf, bits)
        rules = self._rules
        if leaf.objects:
            value = self._elements(leaf, value, bits)
        elif rules is not None and leaf.path in rules:
            value = satisfy(value, rules[leaf.path], bits, self.block.time)
        cells[leaf] = value
        return value

    def _elements(self, leaf: Leaf, count: int, bits: int) -> list[Row]:
        given: dict[int, Rules] = {}
        depth = len(leaf.path)
        for path, rule in (self._rules or {}).items():
            if path[:depth] == leaf.path and path[depth : depth + 1] and path[depth].startswith("#"):
                given.setdefault(int(path[depth][1:]), {})[path[:depth] + path[depth + 1 :]] = rule
            elif path == leaf.path and "length" in rule:
                count = satisfy(count, rule["length"], bits, self.block.time)
        count = max(count, 1 + max(given, default=-1))
        seeds = [mix(bits + n) for n in range(count)]
        return [Row(self.block, (s, s, s), self.transaction, n, given.get(n)) for n, s in enumerate(seeds)]


class Content:
    """What a block holds, fixed when it was mined."""

    __slots__ = ("_rows", "_seeds", "_shared", "emission", "lessons", "pace", "profiles", "transactions")

    def __init__(self, seed: int, shared: int, pace: int, portions: int, lessons: Lessons) -> None:
        self._seeds = seed
        self._shared = (
            shared  # of the height: transactions that are mined again on another branch come from it
        )
        self.pace = pace
        self.lessons = lessons
        self.profiles = lessons.profiles
        spread = pace // 2
        self.transactions = pace - spread + mix(shared) % (2 * spread + 1)
        # Whole transactions go to one portion; portions are emitted in shuffled order.
        order = sorted(range(portions), key=lambda portion: mix(seed + portion))
        self.emission = [order[n * portions // self.transactions] for n in range(self.transactions)] or [0]
        self._rows: dict[Cube, tuple[Row, ...]] | None = {}

    def rows(self, block: Block, cube: Cube) -> tuple[Row, ...]:
        kept = self._rows
        if kept is None:
            return tuple(self._make(block, cube))
        if cube not in kept:
            kept[cube] = tuple(self._make(block, cube))
        return kept[cube]

    def forget(self) -> None:
        """Keep no rows from now on: they are made anew when asked for."""
        self._rows = None

    def _make(self, block: Block, cube: Cube) -> Iterator[Row]:
        network = salt(cube.root, cube.network, cube.mempool)
        own = mix(self._seeds ^ network)
        if cube.name in ("Blocks", ""):
            yield Row(block, (own, own, own), 0, 0)
            return
        name = salt(cube.name)
        common: dict[Leaf, Any] = {}
        ordinal = 0
        for transaction in range(self.transactions):
            # Every second transaction is found again, as it was, in a block that replaces this one.
            source = self._shared if transaction % 2 else self._seeds
            of_transaction = mix(mix(source + transaction) ^ network)
            bits = mix(of_transaction ^ name)
            for place in range(1 if cube.name == "Transactions" else 1 + bits % 3):
                seed = mix(bits + place)
                rules = self._rules(block, cube, ordinal, seed)
                yield Row(block, (own, of_transaction, seed), transaction, ordinal, rules, common)
                ordinal += 1

    def _rules(self, block: Block, cube: Cube, ordinal: int, seed: int) -> Rules | None:
        """Every third row follows a learned filter, in turn: never two rows of one transaction the same filter."""
        known = self.profiles.get(cube)
        if not known or ordinal % 3:
            return None
        profile = known[(block.number * max(self.pace * 2 // 3, 1) + ordinal // 3) % len(known)]
        return profile[seed % len(profile)]


@dataclass(frozen=True, slots=True)
class Block:
    """``time`` in UTC, whole seconds; ``portions`` are numbered in the order in which they are emitted."""

    number: int
    time: datetime
    hash: str
    parent_hash: str
    branch: int
    portions: int
    content: Content = field(repr=False, compare=False)

    def rows(self, cube: Cube) -> tuple[Row, ...]:
        return self.content.rows(self, cube)

    def bare(self) -> Row:
        """A row that knows no more than its block."""
        return Row(self, (0, 0, 0), 0, 0)

    def portion_of(self, row: Row) -> int:
        return self.content.emission[row.transaction]


class Chain:
    """A trunk of blocks, every ``block_interval`` seconds from ``start`` (UTC; a fixed day where left out).

    The same arguments, the same calls and the same documents asked for give the same chain. ``transactions`` is the
    mean in a block (a cube has one to three rows for each), ``keep`` how many blocks a query can reach. Along a trunk
    no block is before its parent; one that is mined again by a fork has the time of the one it replaces.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        start: datetime | None = None,
        block_interval: float = 1.0,
        transactions: int = 8,
        portions: int = 3,
        keep: int = 10_000,
    ) -> None:
        if transactions < 1 or portions < 1 or keep < 1 or block_interval <= 0:
            raise ValueError("transactions, portions, keep and block_interval must be positive")
        self._seed = seed
        self._start = (start or datetime(2026, 1, 1, tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
        self._interval = block_interval
        self._transactions = transactions
        self._portions = portions
        self._keep = keep
        self._trunk: dict[int, Block] = {}
        self._first = _FIRST
        self._branch = 0
        self._recent: deque[Block] = deque()
        self.lessons = Lessons()
        self.head: Block | None = None

    def mine(self, at: datetime | None = None) -> Block:
        """Append the next block to the trunk: of the second ``at``, or by the interval where that is left out."""
        number = self.head.number + 1 if self.head else _FIRST
        time = at or self._start + timedelta(seconds=(number - _FIRST) * self._interval)
        time = time.astimezone(UTC).replace(microsecond=0)
        if self.head is not None:
            time = max(time, self.head.time)
        parent = self.head.hash if self.head else "0x" + "0" * 64
        self.head = self._trunk[number] = block = self._block(number, parent, time)
        if len(self._trunk) > self._keep:
            del self._trunk[self._first]
            self._first += 1
        return block

    def fork(self, depth: int) -> list[Block]:
        """Replace the last ``depth`` blocks by as many of another branch; these, oldest first.

        Raises ValueError unless a block is left to fork from.
        """
        if not 0 < depth < len(self._trunk):
            raise ValueError(f"cannot fork {depth} deep: the chain is {len(self._trunk)} blocks long")
        assert self.head is not None
        last = self.head.number
        times = [self._trunk[number].time for number in range(last - depth + 1, last + 1)]
        self._branch += 1
        self.head = self._trunk[last - depth]
        return [self.mine(time) for time in times]

    @property
    def numbers(self) -> range:
        """The numbers of the blocks of the trunk that are kept."""
        return range(self._first, self.head.number + 1 if self.head else self._first)

    def block(self, number: int) -> Block:
        """The block of the trunk with one of the ``numbers``."""
        return self._trunk[number]

    def blocks(self, first: int | None = None, last: int | None = None) -> Iterator[Block]:
        """Blocks of the trunk by number, both ends included, oldest first, as far as they are kept."""
        kept = self.numbers
        low = kept.start if first is None else max(first, kept.start)
        high = kept.stop if last is None else min(last + 1, kept.stop)
        for number in range(low, high):
            yield self._trunk[number]

    def _block(self, number: int, parent: str, time: datetime) -> Block:
        named = f"{self._seed}/{self._branch}/{number}/{parent}".encode()
        digest = blake2b(named, digest_size=32).digest()
        own, shared = int.from_bytes(digest[:8], "big"), salt(self._seed, number)
        content = Content(own, shared, self._transactions, self._portions, self.lessons)
        block = Block(number, time, "0x" + digest.hex(), parent, self._branch, self._portions, content)
        self._recent.append(block)
        if len(self._recent) > _REMEMBERED:
            self._recent.popleft().content.forget()
        return block
