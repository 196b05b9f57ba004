"""What one subscription's document means for its delivery, worked out once before it is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypedDict

import msgspec

from ..errors import UsageError
from .ask import Answer, Asker
from .backfill import Ask, Backfill, Window
from .cursor import Cursor
from .document import Document
from .enlarge import Enlarged, Reader, as_selected, enlarge
from .identity import Identity, identity_of
from .rows import Payload
from .shape import CubeShape, Shape, shape_of

Dataset = Literal["realtime", "combined", "archive"]
Identities = Mapping[str, Sequence[str]] | Literal[False] | None
# A message carries no more of a cube unless the document says so (subscriptions/subscription).
MOST_ROWS = 800


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a message must hold to hold ``MOST_ROWS`` rows of a cube, told without decoding it: so many bytes, and so
    often a field's name."""

    size: int
    name: bytes


@dataclass(frozen=True)
class Plan:
    """How the rows of one document are read, merged and asked for again.

    Attributes:
        text: what is sent: the user's own document, or that with hidden fields.
        readers: by the cube's response key, for every cube.
        merged: the cubes that are merged row by row; the others by position, for the reason ``other``.
        unclosable: of those, the ones whose gaps cannot be closed, and why.
        dataset: where rows are asked for that the realtime dataset does not hold any more.
    """

    document: Document
    shape: Shape
    text: str
    variables: Mapping[str, Any] | None
    readers: Mapping[str, Reader]
    merged: tuple[str, ...]
    unclosable: Mapping[str, str]
    other: str | None
    dataset: Dataset = "realtime"
    _identities: Mapping[str, Identity | None] = field(default_factory=dict)
    _measures: Mapping[str, _Measure] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        document: Document,
        variables: Mapping[str, Any] | None = None,
        *,
        backfill: bool = True,
        dataset: Dataset = "realtime",
        identity: Identities = None,
        hidden: bool = True,
    ) -> Plan:
        """Plan ``document``; without ``hidden`` fields where the service has refused them.

        Raises UsageError for an ``identity`` of a cube that the document does not have.
        """
        shape = shape_of(document, variables)
        keys = _identities(shape, identity)
        enlarged: Enlarged | None = enlarge(document, shape, keys) if hidden else None
        readers = enlarged.readers if enlarged else as_selected(shape, keys)
        merged = tuple(cube.key for cube in shape.cubes if _told_by_row(cube, readers[cube.key]))
        unclosable = {
            cube.key: reason
            for cube in shape.cubes
            if cube.key in merged and (reason := _reason(cube, readers[cube.key], backfill))
        }
        others = [cube.doubt for cube in shape.cubes if cube.key not in merged]
        return cls(
            document=document,
            shape=shape,
            text=enlarged.text if enlarged else document.text,
            variables=variables,
            readers=readers,
            merged=merged,
            unclosable=unclosable,
            other=next(filter(None, others), None) or (_WHERE if others or not merged else None),
            dataset=dataset,
            _identities=keys,
            _measures={
                key: _measure(shape.cubes, key, readers[key]) for key in merged if key not in unclosable
            },
        )

    @property
    def hides(self) -> bool:
        """Whether rows come with fields that the user did not ask for."""
        return self.text is not self.document.text

    @cached_property
    def told(self) -> Mapping[str, Reader]:
        """The readers of the cubes that are merged row by row."""
        return {key: self.readers[key] for key in self.merged}

    # ------------------------------------------------------------------ payloads

    @cached_property
    def least_full(self) -> float:
        """The least size of a payload that may hold as many rows of a cube as the service sends at most."""
        return min((measure.size for measure in self._measures.values()), default=math.inf)

    def full(self, raw: bytes) -> list[str]:
        """Cubes of which ``raw`` may hold as many rows as the service sends at most."""
        return [
            key
            for key, measure in self._measures.items()
            if len(raw) >= measure.size and raw.count(measure.name) >= MOST_ROWS
        ]

    @cached_property
    def selected(self) -> Any:
        """The type of a payload's ``data`` without hidden fields: each object that the user selected is whole, and
        hidden ones stand beside them."""
        cubes: dict[str, Any] = {"__typename": Any}
        for cube in self.shape.cubes:
            row: Any = TypedDict("row", dict.fromkeys(cube.selected_keys, Any), total=False)  # type: ignore[misc]
            cubes[cube.key] = list[row | None] | None if self.readers[cube.key].hidden else Any
        under: Any = TypedDict("under", cubes, total=False)  # type: ignore[misc]
        roots = {"__typename": Any, self.shape.key: under | None}
        return TypedDict("data", roots, total=False)  # type: ignore[operator]

    def shown(self, raw: bytes) -> bytes:
        """A payload as the user's own document would have brought it, byte for byte but for hidden fields."""
        if not self.hides:
            return raw
        hidden = {key: reader.hidden for key, reader in self.readers.items() if reader.hidden}

        def less(key: str, row: msgspec.Raw) -> msgspec.Raw:
            if key not in hidden:
                return row
            try:
                fields = _fields.decode(row)
            except msgspec.MsgspecError:
                return row
            for name in hidden[key]:
                fields.pop(name, None)
            return msgspec.Raw(msgspec.json.encode(fields))

        payload = Payload(raw)
        return raw if payload.shapeless or not payload.cubes else payload.changed(less)

    def strip(self, data: Any) -> None:
        """Take the hidden fields out of a payload's decoded ``data``, in place."""
        Enlarged(self.text, self.readers).take_out(data)

    def payload(self, rows: Mapping[str, Iterable[msgspec.Raw]]) -> bytes:
        """A payload that holds these rows, and the key of every other cube."""
        cubes = {cube.key: list(rows.get(cube.key, ())) for cube in self.shape.cubes}
        return msgspec.json.encode({"data": {self.shape.key: cubes}})

    # ------------------------------------------------------------------ queries

    def backfill(
        self,
        windows: Mapping[str, Window],
        *,
        now: float,
        begin: float,
        below: Callable[[str, Cursor, Cursor], None],
    ) -> Backfill:
        """The machine that closes these windows."""
        return Backfill(
            windows,
            self.readers,
            now=now,
            begin=begin,
            floor=True,
            older=self.dataset != "realtime",
            by_time=[cube.key for cube in self.shape.cubes if cube.upserts],
            below=below,
        )

    def request(self, ask: Ask) -> bytes:
        """The query that ``ask`` stands for, as the JSON text of a request."""
        asker = self._older if ask.older else self._asker
        return asker.request(ask.ranges, floor=ask.floor)

    def read(self, ask: Ask, data: bytes | msgspec.Raw) -> dict[str, Answer]:
        """The answer to it. Raises ValueError where ``data`` is none."""
        return self._asker.read(data, ask.ranges)

    @cached_property
    def _asker(self) -> Asker:
        return Asker(self.document, self.text, self.variables, identities=self._identities)

    @cached_property
    def _older(self) -> Asker:
        return Asker(
            self.document, self.text, self.variables, identities=self._identities, dataset=self.dataset
        )


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Tree = dict[str, Any]  # a field's name to the fields below it
_HASH = 33  # bytes that a block's hash has more than one at the least: 32 in base58, and quotes
_WHERE = "its rows do not say where they stand"


def _told_by_row(cube: CubeShape, reader: Reader) -> bool:
    return cube.records and (reader.kind is not None or bool(reader.of))


def _reason(cube: CubeShape, reader: Reader, backfill: bool) -> str | None:
    if cube.reason is None and reader.kind is None:
        return _WHERE
    return cube.reason or (None if backfill else 'backfill is "off"')


def _measure(cubes: Sequence[CubeShape], key: str, reader: Reader) -> _Measure:
    cube = next(cube for cube in cubes if cube.key == key)
    names = {at[0] for at in cube.fields.values()} | set(reader.hidden)
    told: _Tree = {name: {} for name in names}
    for path in filter(
        None, (reader.at, reader.branch, *reader.of)
    ):  # a row that lacks one is not told by row
        below = told
        for name in path:
            below = below.setdefault(name, {})
    size = _least(told) + (_HASH if reader.branch else 0)
    return _Measure(MOST_ROWS * size, f'"{max(names, key=len)}"'.encode())


def _least(fields: _Tree) -> int:
    """How many bytes an object of these fields has at the least."""
    return 1 + sum(len(name) + 4 + (_least(below) if below else 1) for name, below in fields.items())


def _identities(shape: Shape, asked: Identities) -> dict[str, Identity | None]:
    known = {cube.key: identity_of(shape.root, cube.name, mempool=cube.mempool) for cube in shape.cubes}
    if asked is False:
        return dict.fromkeys(known)
    if asked is not None and not isinstance(asked, Mapping):
        raise UsageError(f"identity={asked!r}: give key fields by cube, or False for none")
    for name, paths in (asked or {}).items():
        keys = [cube.key for cube in shape.cubes if name in (cube.key, cube.name)]
        if not keys:
            raise UsageError(
                f"identity: the document has no cube {name!r}; it has {', '.join(known) or 'none'}"
            )
        if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
            raise UsageError(
                f'identity={{"{name}": …}}: give the key fields\' paths, such as ["Transaction.Hash"]'
            )
        for key in keys:
            known[key] = Identity((), tuple(tuple(path.replace("_", ".").split(".")) for path in paths))
    return known
