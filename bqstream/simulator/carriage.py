"""How a block's rows are laid into messages: pure functions, one behaviour in, messages out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Set
from typing import Any

import msgspec

from .chain import Block
from .settings import Behaviour

_encode = msgspec.json.Encoder().encode
Data = dict[str, Any]


class Portion:
    """What one document gets of one portion of a block, encoded once for all that take it as it is."""

    __slots__ = ("_limited", "_payloads", "block", "data")

    def __init__(self, block: Block, data: Data, limited: Set[str] = frozenset()) -> None:
        self.block = block
        self.data = data
        self._limited = limited
        self._payloads: dict[int | None, bytes] = {}

    def payload(self, max_rows: int | None) -> bytes:
        """The payload of a message, with at most so many rows of a cube whose document sets no limit."""
        found = self._payloads.get(max_rows)
        if found is None:
            found = self._payloads[max_rows] = encode(clipped(self.data, max_rows, self._limited))
        return found


def encode(data: Data) -> bytes:
    """A payload of the GraphQL response format, encoded."""
    return _encode({"data": data})


def each_cube(data: Data, change: Callable[[str, list[Any]], list[Any]]) -> Data:
    """The same data with each cube's rows, by its key, changed."""
    return {
        root: {key: change(key, rows) if isinstance(rows, list) else rows for key, rows in cubes.items()}
        if isinstance(cubes, dict)
        else cubes
        for root, cubes in data.items()
    }


def clipped(data: Data, max_rows: int | None, limited: Set[str] = frozenset()) -> Data:
    """The data cut short at ``max_rows`` a cube, but for those that the document itself has ``limited``."""
    if max_rows is None:
        return data
    return each_cube(data, lambda key, rows: rows if key in limited else rows[:max_rows])


def alters(behaviour: Behaviour) -> bool:
    """Whether a block must be held to its end before its messages can be made."""
    return behaviour.reorder or behaviour.shuffle or behaviour.cut is not None


def messages(
    behaviour: Behaviour, seed: str, portions: list[Data], limited: Set[str] = frozenset()
) -> Iterator[Data]:
    """The messages that carry these portions of one block, the same for the same seed."""
    chance = random.Random(seed)
    portions = list(portions)
    if behaviour.reorder and len(portions) > 1:
        portions = [*portions[1:], portions[0]]
        chance.shuffle(portions)
    if behaviour.shuffle:
        portions = [each_cube(data, lambda key, rows: chance.sample(rows, len(rows))) for data in portions]
    if behaviour.cut is not None:
        portions = list(_recut(portions, behaviour.cut, chance))
    for data in portions:
        yield clipped(data, behaviour.max_rows, limited)


def _recut(portions: list[Data], most: int, chance: random.Random) -> Iterator[Data]:
    """All rows of the portions, in order, in messages of 1 to ``most`` rows a cube."""
    if not all(isinstance(cubes, dict) and _lists(cubes) for data in portions for cubes in data.values()):
        yield from portions  # scalars have no rows to cut
        return
    whole = _joined(portions)
    longest = max((len(rows) for cubes in whole.values() for rows in cubes.values()), default=0)
    start = 0
    while start < longest:
        end = start + chance.randint(1, most)
        yield {root: {key: rows[start:end] for key, rows in cubes.items()} for root, cubes in whole.items()}
        start = end


def _lists(cubes: dict[str, Any]) -> bool:
    return all(isinstance(rows, list) for rows in cubes.values())


def _joined(portions: list[Data]) -> dict[str, dict[str, list[Any]]]:
    whole: dict[str, dict[str, list[Any]]] = {}
    for data in portions:
        for root, cubes in data.items():
            for key, rows in cubes.items():
                whole.setdefault(root, {}).setdefault(key, []).extend(rows)
    return whole
