"""What a document brings, as types: what a schema says, else what a sample shows, else the service's habits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..delivery.document import Document
from ..errors import UsageError
from ..tables.scalars import Form, forms, guess, is_list
from ..tables.table import Kind
from .declared import Declarations, Declared
from .kinds import OPEN, Attribute, Scalar, Struct, Type, nullable
from .seen import Seen
from .selected import Selected, selected

_Names = tuple[str, ...]
_SCALARS: dict[Form, Scalar] = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_HELD: dict[Kind | None, Scalar] = {
    "text": "str",
    "integer": "int",
    "float": "float",
    "boolean": "bool",
    "json": "Raw",
}
_NEVER_NULL = frozenset(("count", "uniq"))
_CUBE = 2  # how deep the fields are that hold lists of rows (subscriptions/subscription)


@dataclass(frozen=True, slots=True)
class Model:
    """The types of one document.

    ``data``  the whole ``data``.
    ``open``  places, dotted, of which nothing is known but that they are scalars.
    """

    data: Struct
    open: tuple[str, ...]


def model_of(
    document: Document,
    *,
    schema: str | None = None,
    sample: Seen | None = None,
    decimals: bool = False,
) -> Model:
    """The types of what ``document`` brings.

    Args:
        schema: the service's schema, as GraphQL's schema language or the JSON of an introspection.
        sample: what the ``data`` of some payloads showed. Beside a schema it tells only of scalars that are not known
            by their name.
        decimals: numbers that may be wider than a double are decimals, not text.

    Raises UsageError: a schema that is none, that lacks a field, or that has scalars of which nothing is known;
    DocumentRefused.
    """
    try:
        declarations = Declarations(schema) if schema is not None else None
    except ValueError as error:
        raise UsageError(f"--schema: {error}") from None
    judge = _Judge(declarations, decimals)
    data = judge.struct(selected(document), (), (), sample, declarations.roots if declarations else ())
    if judge.unknown:
        names = ", ".join(f"{scalar} of {place}" for scalar, place in judge.unknown.items())
        raise UsageError(
            f"--schema: nothing is known of its scalars {names}: a sample would tell, of --rows 100 or so"
        )
    return Model(data, tuple(judge.open))


class _Judge:
    def __init__(self, declarations: Declarations | None, decimals: bool) -> None:
        self._declarations = declarations
        self._decimals = decimals
        self.open: list[str] = []
        self.unknown: dict[str, str] = {}  # scalars, each with the first place

    def struct(
        self,
        fields: Sequence[Selected],
        path: _Names,
        names: _Names,
        seen: Seen | None,
        types: Sequence[Any],
    ) -> Struct:
        """The object at ``path`` (response keys) and ``names`` (of fields), which has one of the schema's ``types``."""
        made = []
        for field in fields:
            here = (*path, field.key), (*names, field.name)
            found = seen.fields.get(field.key) if seen else None
            if self._declarations is not None:
                declared = self._declarations.of(field, types, here[0])
                type_, missing = self._declared(field, *here, found, declared), not declared.always
            else:
                type_, missing = self._shown(field, *here, found, len(names) + 1 == _CUBE), field.only
                missing = missing or (seen is not None and seen.absent(field.key))
            optional = missing or not field.sure
            made.append(Attribute(field.key, nullable(type_) if optional else type_, optional))
        return Struct(path, tuple(made))

    # ------------------------------------------------------------------ by a schema

    def _declared(
        self, field: Selected, path: _Names, names: _Names, seen: Seen | None, declared: Declared
    ) -> Type:
        inner = seen
        while inner is not None and inner.items is not None:
            inner = inner.items
        if field.fields is not None:
            made = Type(struct=self.struct(field.fields, path, names, inner, declared.types))
        else:
            found = [
                self._held(kind, scalar, path, names, inner) for scalar, kind in declared.scalars.items()
            ]
            made = Type(frozenset().union(*found))
        for wrap in reversed(declared.wraps):
            made = Type(items=made) if wrap == "list" else nullable(made)
        return made

    def _held(
        self, kind: Kind | None, scalar: str, path: _Names, names: _Names, seen: Seen | None
    ) -> frozenset[Scalar]:
        """What a schema's scalar of this name and kind holds. Some are written in more than one form."""
        told = seen is not None and seen.told
        if kind in _HELD:
            return frozenset((_HELD[kind],))
        if kind is not None and not told:
            texts: Scalar = "Decimal" if self._decimals else "str"
            return frozenset(("datetime" if kind == "timestamp" else texts,))
        if not told and not forms(names[0], _of_row(names)):
            self.unknown.setdefault(scalar, ".".join(path))
        return self._scalars(names, seen, kind)

    # ------------------------------------------------------------------ by a sample and by habit

    def _shown(self, field: Selected, path: _Names, names: _Names, seen: Seen | None, cube: bool) -> Type:
        told = seen is not None and seen.told
        listed = seen is not None and seen.items is not None
        if listed or (not told and (is_list(names) or (cube and field.fields is not None))):
            inner = self._inner(field, path, names, seen.items if seen else None)
            return Type(items=inner, null=seen is not None and seen.nulls > 0)
        return self._inner(field, path, names, seen)

    def _inner(self, field: Selected, path: _Names, names: _Names, seen: Seen | None) -> Type:
        """What stands there itself, or in its list."""
        if seen is not None and seen.items is not None:
            return Type(items=self._inner(field, path, names, seen.items), null=seen.nulls > 0)
        null = (seen is not None and seen.nulls > 0) or _may_be_null(field)
        if field.fields is not None:
            return Type(struct=self.struct(field.fields, path, names, seen, ()), null=null)
        made = Type(self._scalars(names, seen, guess(_of_row(names))), null=null)
        if made.is_open:
            self.open.append(".".join(path))
        return made

    def _scalars(self, names: _Names, seen: Seen | None, kind: Kind | None) -> frozenset[Scalar]:
        habit = forms(names[0], _of_row(names))
        if seen is None or not seen.told:
            if not habit:
                return OPEN
            texts: Scalar = "datetime" if kind == "timestamp" else "str"
            if self._decimals and (kind == "decimal" or habit >= {"string", "number"}):
                return frozenset(("Decimal",))
            return frozenset(texts if form == "string" else _SCALARS[form] for form in habit)
        if seen.objects:  # JSON as it is, by a scalar of the service's own
            return frozenset(("Raw",))
        shown = set(seen.forms)
        if "integer" in shown and not seen.wide and ("number" in shown or "number" in habit):
            shown = (shown - {"integer"}) | {"number"}  # 1 is how JSON may write 1.0
        made = {_SCALARS[form] for form in shown}
        if "string" in shown and seen.moments == seen.strings:
            made = made - {"str"} | {"datetime"}
        elif self._decimals and _is_wide(seen, habit, kind):
            made = made - {"str", "int", "float"} | {"Decimal"}
        return frozenset(made)


def _of_row(names: _Names) -> _Names:
    """The names from the row on."""
    return names[_CUBE:] or names[-1:]


def _is_wide(seen: Seen, habit: frozenset[Form], kind: Kind | None) -> bool:
    """Whether the numbers there may be wider than a double."""
    if not seen.strings:
        return (kind == "decimal" or seen.wide > 0) and bool(seen.forms & {"integer", "number"})
    if seen.numeric < seen.strings:
        return False
    return kind == "decimal" or habit >= {"string", "number"} or (not habit and seen.fractions > 0)


def _may_be_null(field: Selected) -> bool:
    """Metrics of no value and joins that find nothing (graphql/metrics, graphql/capabilities/joins)."""
    if field.fields is not None:
        return field.name.startswith("join")
    return field.name not in _NEVER_NULL and any(mention.asks for mention in field.mentions)
