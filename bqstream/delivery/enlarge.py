"""Hidden fields: added to a document so that its rows tell where they stand and which they are, and taken out again.

They are written into the user's text, each cube's as objects of their own beside what is selected (the service takes
one object under several aliases: blockchain/robinhood/robinhood-liquidity)::

    Transfers { Transfer { Amount } bqs_Block: Block { Hash Number } bqs_Transaction: Transaction { Hash } }

So no selection, fragment or variable of the user's is touched, and a row is freed of them by a few ``pop``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from .cursor import Cursor, CursorKind, Path
from .document import Document
from .identity import Identity, identity_of
from .shape import CubeShape, Shape

Key = tuple[str | int | None, ...]
_Tree = dict[str, Any]  # a field's name to the fields below it
# Roots whose every block shows its hash (schema/evm, cubes/solana, schema/tron): it tells two branches apart.
_HASHED = frozenset(("EVM", "Solana", "Tron"))
_HASH: Path = ("Block", "Hash")
_PARTS = frozenset((str, int, bool, type(None)))  # what a key may hold


@dataclass(frozen=True, slots=True)
class Reader:
    """How the rows of one cube are read; nothing here raises, whatever a row holds.

    Attributes:
        kind: what the cursor counts; ``at``: where a row has it, None where it has none.
        of, within: where a row has its key (see `Identity`); empty where it has none.
        branch: where it has its block's hash, which tells two blocks of one height apart; None where it has none.
        hidden: response keys that the user did not ask for.
    """

    kind: CursorKind | None = None
    at: Path | None = None
    of: tuple[Path, ...] = ()
    within: tuple[Path, ...] = ()
    branch: Path | None = None
    hidden: tuple[str, ...] = ()

    @property
    def by_content(self) -> Reader:
        """The same without the key, which has turned out to be none."""
        return replace(self, of=(), within=())

    def cursor(self, row: Any) -> Cursor | None:
        """Where the row stands; None where it does not say."""
        if self.kind is None or self.at is None:
            return None
        raw = _value(row, self.at)
        return _parsed(self.kind, raw) if type(raw) is str else Cursor.parse(self.kind, raw)

    def key(self, row: Any) -> Key | None:
        """The values of the row's key fields, in the table's order; None where it has no key."""
        of = _values(row, self.of)
        if not of or None in of:
            return None
        key = (*of, *_values(row, self.within))
        return key if _PARTS.issuperset(map(type, key)) else None

    def hash(self, row: Any) -> str | None:
        """The hash of the row's block; None where it does not say."""
        found = _value(row, self.branch) if self.branch else None
        return found if isinstance(found, str) else None

    def take_out(self, row: Any) -> None:
        """Leave the row, in place, as the user's own document would have brought it."""
        if isinstance(row, dict):
            for name in self.hidden:
                row.pop(name, None)


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A document with hidden fields, and how the rows that it brings are read.

    Attributes:
        text: what is sent in place of the user's own; it takes the same variables.
        readers: by the cube's response key, for every cube.
    """

    text: str
    readers: Mapping[str, Reader]

    def take_out(self, data: Any) -> None:
        """Take the hidden fields out of all rows of a payload's ``data``, in place."""
        if not isinstance(data, dict):
            return
        for root in data.values():
            for key, rows in root.items() if isinstance(root, dict) else ():
                reader = self.readers.get(key)
                if reader is not None and reader.hidden and isinstance(rows, list):
                    for row in rows:
                        reader.take_out(row)


Identities = Mapping[str, Identity | None]


def as_selected(shape: Shape, identities: Identities | None = None) -> dict[str, Reader]:
    """How rows of the user's own document are read: by what it selects itself."""
    known = _table(shape) if identities is None else identities
    return {cube.key: _reader(shape, cube, cube.fields, known) for cube in shape.cubes}


def enlarge(document: Document, shape: Shape, identities: Identities | None = None) -> Enlarged | None:
    """Add the cursor and the key fields that ``document`` does not select, to every cube whose rows stay the same.

    None where there is nothing to add. Only cubes of facts without limits of their own are added to (see
    `CubeShape.doubt`): a fact is a record, whatever is shown of it (graphql/capabilities/query_fact_records), but a
    field more makes other groups of an aggregate (graphql/metrics). A field that the user selected is read where it
    is. ``identities`` are by response key; left out, the table's.
    """
    known = _table(shape) if identities is None else identities
    prefix = free_prefix(document.text)
    readers: dict[str, Reader] = {}
    added: dict[int, str] = {}  # by the place in the text
    for cube in shape.cubes:
        missing = (
            [] if cube.doubt else [path for path in _wanted(shape, cube, known) if path not in cube.fields]
        )
        hidden = {path: (f"{prefix}{path[0]}", *path[1:]) for path in missing}
        readers[cube.key] = _reader(shape, cube, {**cube.fields, **hidden}, known)
        if missing:
            added[_closing_brace(cube)] = selection(missing, prefix)
    if not added:
        return None
    text = document.text
    for place in sorted(added, reverse=True):
        text = f"{text[:place]} {added[place]} {text[place:]}"
    return Enlarged(text, readers)


def free_prefix(text: str) -> str:
    """What the names that are added to a document begin with: no name in ``text`` does."""
    prefix = "bqs_"
    while prefix in text:
        prefix = f"b{prefix}"
    return prefix


def _table(shape: Shape) -> Identities:
    return {cube.key: identity_of(shape.root, cube.name, mempool=cube.mempool) for cube in shape.cubes}


def _wanted(shape: Shape, cube: CubeShape, identities: Identities) -> list[Path]:
    """The paths that a row should have: none of the block's in the mempool."""
    identity = identities.get(cube.key)
    wanted = list(identity.fields) if identity else []
    if cube.cursor and not cube.mempool:
        wanted.append(cube.cursor.field)
        if shape.root in _HASHED:
            wanted.append(_HASH)
    return list(dict.fromkeys(wanted))


def _reader(shape: Shape, cube: CubeShape, at: Mapping[Path, Path], identities: Identities) -> Reader:
    """The best cursor that stands somewhere in a row, and the key where all of its fields do."""
    cursor = cube.cursor if cube.cursor and cube.cursor.field in at else cube.selected
    identity = None if cube.doubt else identities.get(cube.key)
    if identity is not None and not all(path in at for path in identity.fields):
        identity = None
    hidden = {path[0] for path in at.values() if path not in cube.fields.values()}
    return Reader(
        kind=cursor.kind if cursor else None,
        at=(cursor.at or at[cursor.field]) if cursor else None,
        of=tuple(at[path] for path in identity.of) if identity else (),
        within=tuple(at[path] for path in identity.within) if identity else (),
        branch=at.get(_HASH) if shape.root in _HASHED else None,
        hidden=tuple(sorted(hidden)),
    )


def _closing_brace(cube: CubeShape) -> int:
    """Where fields can be added: no comment can swallow them there."""
    selections = cube.nodes[0].selection_set
    assert selections is not None
    assert selections.loc is not None
    return selections.loc.end - 1


def selection(paths: Iterable[Path], prefix: str = "") -> str:
    """The paths, written as what is selected; with a ``prefix``, each object of theirs as an object of its own."""
    tree: _Tree = {}
    for path in paths:
        below = tree
        for name in path:
            below = below.setdefault(name, {})
    return " ".join(
        (f"{prefix}{name}: " if prefix else "") + _selection(name, below) for name, below in tree.items()
    )


def _selection(name: str, below: _Tree) -> str:
    inner = " ".join(_selection(*one) for one in below.items())
    return f"{name} {{ {inner} }}" if inner else name


@lru_cache(maxsize=1024)
def _parsed(kind: CursorKind, raw: str) -> Cursor | None:
    """Rows of a block show the same."""
    return Cursor.parse(kind, raw)


def _values(row: Any, paths: Iterable[Path]) -> list[Any]:
    """What a row has at each path; it is called for every row, so that it calls nothing itself."""
    found = []
    for path in paths:
        value = row
        try:
            for name in path:
                value = value[name]
        except (KeyError, TypeError, IndexError):  # it is not there, or what it would be in is no object
            value = None
        found.append(value)
    return found


def _value(row: Any, path: Path) -> Any:
    return _values(row, (path,))[0]
