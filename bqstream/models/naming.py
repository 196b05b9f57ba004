"""Names for Python: of attributes by their response keys, of classes by the way to them."""

from __future__ import annotations

import builtins
import keyword
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

Path = tuple[str, ...]
WHOLE = "Data"  # the class of the whole data
# What a module of models uses itself; a class body in which such a name is an attribute would not see it any more.
_USED = frozenset(
    ("Decimal", "Raw", "Scalar", "Struct", "bool", "datetime", "field", "float", "int", "list", "str", WHOLE)
)
_TAKEN = _USED | frozenset(dir(builtins)) | frozenset(keyword.kwlist)


def attributes(keys: Sequence[str]) -> dict[str, str]:
    """By each response key of one object, in their order, the attribute's name: the key itself where it can be."""
    names: dict[str, str] = {}
    taken = {key for key in keys if _plain(key) == key}
    for key in keys:
        name = _plain(key)
        while name != key and name in taken:
            name += "_"
        taken.add(name)
        names[key] = name
    return names


def _plain(key: str) -> str:
    if key.startswith("__"):  # a class body would take it for a private name
        bare = key.strip("_")
        key = bare if bare.isidentifier() else f"field_{bare}"
    return f"{key}_" if keyword.iskeyword(key) or key in _USED else key


def classes(paths: Mapping[Path, str], attributes: Iterable[str]) -> dict[Path, str]:
    """A class name for each path of response keys: its last two, or its last one and a word where there is one, and as
    many more as tell it from the others.

    ``attributes`` are all those of the module: a class of such a name could not be told from the attribute within a
    class body.
    """
    lengths = {path: 1 if word else 2 for path, word in paths.items()}
    while longer := [path for path in _clashing(paths, lengths) if lengths[path] < len(path)]:
        for path in longer:
            lengths[path] += 1
    names: dict[Path, str] = {}
    used = {*_TAKEN, *attributes}
    for path, word in paths.items():
        name = _joined(path, lengths[path], word)
        while name in used:
            name += "_"
        used.add(name)
        names[path] = name
    return names


def _clashing(paths: Mapping[Path, str], lengths: Mapping[Path, int]) -> list[Path]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, word in paths.items():
        groups[_joined(path, lengths[path], word)].append(path)
    return [path for group in groups.values() if len(group) > 1 for path in group]


def _joined(path: Path, length: int, word: str) -> str:
    keys = path[len(path) - length :]
    name = "".join(part[:1].upper() + part[1:] for key in keys for part in key.split("_")) + word
    return name if name.isidentifier() else f"_{name}"
