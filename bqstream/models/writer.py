"""Types as the source text of a Python module of msgspec structs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence

from . import naming
from .kinds import Attribute, Struct, Type
from .model import Model

_Path = tuple[str, ...]
_SCALAR = '''
Scalar = str | int | float | bool | None
"""A value of which nothing was known but that it is one."""
'''


def module(model: Model, *, origin: str) -> str:
    """The source text of a module that has the class ``Data``; ``origin`` says what it was made from."""
    structs = [*Type(struct=model.data).structs]
    attributes = {
        struct.path: naming.attributes([one.key for one in struct.attributes]) for struct in structs
    }
    known = {name for names in attributes.values() for name in names.values()}
    names = naming.classes(_words(structs), known) | {(): naming.WHOLE}
    bodies = [_class(struct, names, attributes[struct.path]) for struct in structs]
    return "".join((_heading(model, origin, attributes), _imports(structs), *bodies))


def _words(structs: Sequence[Struct]) -> dict[_Path, str]:
    """The structs' paths, each with a word behind its last key where that alone would be no name for it."""
    words: dict[_Path, str] = {}
    for struct in structs:
        for one in struct.attributes:
            path = (*struct.path, one.key)
            if any(True for _ in one.type.structs):
                words[path] = "" if len(path) > 2 else "Row" if one.type.items else "Data"
    return words


def _heading(model: Model, origin: str, attributes: Mapping[_Path, Mapping[str, str]]) -> str:
    (root, *_) = model.data.attributes
    cubes = root.type.struct.attributes if root.type.struct else ()
    rows = [cube for cube in cubes if cube.type.items and cube.type.items.struct]
    keys = ", ".join(cube.key for cube in rows)
    lines = [
        f'"""What a subscription to {root.key} brings{f": {keys}" if keys else ""}.',
        "",
        *_wrapped(f"Written by `bqstream types` from {origin}."),
        "",
        "    async with client.subscribe(document, type=Data) as stream:",
        "        async for message in stream:",
    ]
    at = f"message.data.{attributes[()][root.key]}"
    if rows:
        at = f"{at}.{attributes[(root.key,)][rows[0].key]}"
        lines += [f"            for row in {at}:", "                ..."]
    else:
        lines.append(f"            {at}")
    return "\n".join([*lines, '"""', ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text.replace("\\", "/").replace('"', "'"), 110)


def _imports(structs: Sequence[Struct]) -> str:
    types = [one.type for struct in structs for one in struct.attributes]
    used = {scalar for one in types for scalar in _scalars(one)}
    renamed = any(
        name != key for s in structs for key, name in naming.attributes([a.key for a in s.attributes]).items()
    )
    own = ["Raw"] * ("Raw" in used) + ["Struct"] + ["field"] * renamed
    standard = ["from datetime import datetime"] * ("datetime" in used)
    standard += ["from decimal import Decimal"] * ("Decimal" in used)
    blocks = ["\n".join(standard)] * bool(standard) + [f"from msgspec import {', '.join(own)}"]
    scalar = _SCALAR if any(_has_open(one) for one in types) else ""
    return "\n" + "\n\n".join(blocks) + "\n" + scalar


def _class(struct: Struct, names: Mapping[_Path, str], attributes: Mapping[str, str]) -> str:
    lines = [f"class {names[struct.path]}(Struct, frozen=True, kw_only=True, gc=False):"]
    for one in struct.attributes:
        name = attributes[one.key]
        default = _default(one) if one.optional else ""
        value = default
        if name != one.key:
            value = f"field({f'default={default}, ' if default else ''}name={json.dumps(one.key)})"
        lines.append(f"    {name}: {_text(one.type, names)}{value and f' = {value}'}")
    return "\n\n" + "\n".join(lines if struct.attributes else [*lines, "    pass"]) + "\n"


def _text(type_: Type, names: Mapping[_Path, str]) -> str:
    parts = [f"list[{_text(type_.items, names)}]"] if type_.items else []
    parts += [names[type_.struct.path]] if type_.struct else []
    parts += ["Scalar"] if type_.is_open else type_.ordered
    return " | ".join(parts + ["None"] * (type_.null and not type_.is_open and "Raw" not in type_.scalars))


def _default(one: Attribute) -> str:
    """Of one that may be absent. Raw holds the JSON of a null, and cannot stand beside None."""
    return 'Raw(b"null")' if "Raw" in one.type.scalars else "None"


def _scalars(type_: Type) -> frozenset[str]:
    return type_.scalars | (_scalars(type_.items) if type_.items else frozenset())


def _has_open(type_: Type) -> bool:
    return type_.is_open or (type_.items is not None and _has_open(type_.items))
