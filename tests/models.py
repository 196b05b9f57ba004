"""Modules of models as tests use them: imported, checked by mypy, and what they decode compared with the dict form."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from bqstream.delivery.decoding import Decode, decoder


def imported(path: Path) -> ModuleType:
    """The module in that file, as a program would import it."""
    name = f"models_{path.stem}"
    module = ModuleType(name)
    sys.modules[name] = module  # where msgspec looks names up
    try:
        # Not by a loader, which would take a file that is written anew within a second for the one before.
        exec(compile(path.read_text(encoding="utf-8"), path, "exec", dont_inherit=True), vars(module))
    finally:
        del sys.modules[name]
    return module


def decoding(path: Path) -> Callable[[Any], Any]:
    """What makes the module's ``Data`` of a payload's data, as a subscription does."""
    whole: Any = imported(path).Data
    decode: Decode = decoder(None, whole)
    return lambda data: decode(msgspec.json.encode({"data": data})).data


def checked(folder: Path) -> str:
    """What `mypy --strict` says of all modules in a folder."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", folder / ".mypy", "."],
        cwd=folder,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout + ran.stderr


def untyped(source: str) -> set[str]:
    """Which names of the source text stand for anything, or for an object of any fields."""
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return names & {"Any", "dict", "Dict", "Mapping", "object", "TypedDict"}


def structs_in(source: str) -> int:
    return sum(isinstance(node, ast.ClassDef) for node in ast.parse(source).body)


def differences(value: Any, typed: Any, at: str = "$") -> Iterator[str]:
    """Where a typed value does not say the same as the JSON value."""
    if isinstance(typed, msgspec.Struct):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is {typed!r}"
            return
        names = dict(zip(typed.__struct_encode_fields__, typed.__struct_fields__, strict=True))
        for key, inner in value.items():
            if key in names:
                yield from differences(inner, getattr(typed, names[key]), f"{at}.{key}")
            else:
                yield f"{at}.{key}: is lost"
        yield from (
            f"{at}.{key}: is made up"
            for key in names.keys() - value.keys()
            if getattr(typed, names[key]) is not None
        )
    elif isinstance(value, list):
        if not isinstance(typed, list) or len(value) != len(typed):
            yield f"{at}: {value!r} is {typed!r}"
            return
        for index, (one, other) in enumerate(zip(value, typed, strict=True)):
            yield from differences(one, other, f"{at}[{index}]")
    elif not _same(value, typed):
        yield f"{at}: {value!r} is {typed!r}"


def _same(value: Any, typed: Any) -> bool:
    match typed:
        case Decimal():
            return not isinstance(value, bool) and typed == Decimal(
                value if isinstance(value, str) else repr(value)
            )
        case datetime():
            return isinstance(value, str) and typed == datetime.fromisoformat(value)
        case msgspec.Raw():
            return bool(msgspec.json.decode(typed) == value)
    return bool(typed == value) and isinstance(typed, bool) is isinstance(value, bool)
