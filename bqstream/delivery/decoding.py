"""Payloads decoded for the user: past hidden fields, and straight into a type of the user's own where one is given.

A field that the type does not name is passed over, which costs a fraction of decoding it and taking it out again.
pydantic is not imported here: who has a model of its, has it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect

from ..errors import UsageError
from ..message import Content
from .plan import Plan

Decode = Callable[[bytes], Content]

_anything: Decode = msgspec.json.Decoder(Content[Any]).decode


def decoder(plan: Plan | None, into: Any = None) -> Decode:
    """What decodes the payloads of a document; ``into`` is the type of their ``data``, None for dicts and lists.

    It raises one of ``UNREADABLE`` for what is no JSON or no such type. Raises UsageError for a type that cannot be
    decoded into.
    """
    hides = plan is not None and plan.hides
    if into is None:
        return _past_hidden(plan) if plan is not None and hides else _anything
    if isinstance(into, str) or not isinstance(into, Hashable):
        raise UsageError(
            f"type={into!r}: give a class, such as a msgspec Struct, a dataclass, a TypedDict or a pydantic model"
        )
    validates = hasattr(into, "__pydantic_validator__")
    typed = _validated(into) if validates else _typed(into)
    if plan is None or not hides or (not validates and _passes_over(into, plan)):
        return typed
    return lambda raw: typed(plan.shown(raw))


@lru_cache(maxsize=256)
def _typed(into: Any) -> Decode:
    try:
        decode: Decode = msgspec.json.Decoder(Content[into]).decode
        fits = _is_object(inspect.type_info(into))
        said = (
            "data is an object with the root field in it: give a msgspec Struct, a dataclass, a TypedDict or a "
            "pydantic model, or no type, and make another library's models of the dicts"
        )
    except (TypeError, NameError) as error:
        fits, said = False, str(error)
    if not fits:
        raise UsageError(f"type={getattr(into, '__name__', into)}: {said}")
    return decode


@lru_cache(maxsize=256)
def _validated(into: Any) -> Decode:
    """Into a pydantic model, or a dataclass of its, straight from the bytes of ``data``."""
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    try:
        if getattr(into, "__pydantic_root_model__", False):
            raise TypeError("data is an object with the root field in it: give a model of fields")
        validate = into.__pydantic_validator__.validate_json
    except (PydanticUserError, TypeError, NameError) as error:  # a type of a field is not there, as it may be
        raise UsageError(f"type={into.__name__}: {error}") from None

    def decode(raw: bytes) -> Content:
        apart = _apart(raw)
        data = bytes(apart.data)
        if data == b"null":  # beside errors
            return Content(None, apart.errors, apart.extensions)
        try:
            return Content(validate(data), apart.errors, apart.extensions)
        except ValidationError as error:
            raise msgspec.ValidationError(_said(error.errors(include_url=False))) from None

    return decode


class _Apart(msgspec.Struct):
    """A payload whose data is left as it is."""

    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: Any = None
    extensions: Any = None


_apart = msgspec.json.Decoder(_Apart).decode


def _said(errors: Sequence[Any]) -> str:
    """The first thing that is wrong, and where, in the words in which msgspec says it."""
    first = errors[0]
    at = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first['msg']} - at `$.data{at}`{more}"


def _is_object(node: inspect.Type) -> bool:
    if isinstance(node, inspect.UnionType):
        return any(map(_is_object, node.types))
    objects = inspect.StructType | inspect.DataclassType | inspect.TypedDictType | inspect.DictType
    return isinstance(node, objects | inspect.AnyType) and not getattr(node, "array_like", False)


def _past_hidden(plan: Plan) -> Decode:
    selected = _typed(plan.selected)

    def decode(raw: bytes) -> Content:
        try:
            return selected(raw)
        except msgspec.ValidationError:  # rows that are no list of objects
            content = _anything(raw)
            plan.strip(content.data)
            return content

    return decode


def _passes_over(into: Any, plan: Plan) -> bool:
    """Whether no hidden field can get into what is decoded, nor break it: each row is of a type that names its fields
    and lets others be."""
    return all(
        _names_its_own(inspect.type_info(into), (plan.shape.key, key))
        for key, reader in plan.readers.items()
        if reader.hidden
    )


def _names_its_own(node: inspect.Type, path: tuple[str, ...]) -> bool:
    match node:
        case inspect.UnionType(kinds):
            return all(_names_its_own(kind, path) for kind in kinds)
        case inspect.NoneType():
            return True
        case inspect.ListType(item) | inspect.VarTupleType(item) | inspect.CollectionType(item):
            return not path and _names_its_own(item, path)
        case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType():
            if getattr(node, "forbid_unknown_fields", False) or getattr(node, "array_like", False):
                return False
            if not path:
                return True
            found = [field for field in node.fields if field.encode_name == path[0]]
            return all(_names_its_own(field.type, path[1:]) for field in found)
    return False
