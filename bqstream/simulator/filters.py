"""``where``: read once, and asked of every row.

A filter has the levels of the selection, fields with a capital and operators without (graphql/filters). Conditions
side by side and in a list are joined by AND, those under ``any`` by OR.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from .values import BLOCK, Leaf, Path, leaf

if TYPE_CHECKING:
    from .chain import Row

Check = Callable[[Any, datetime], bool]  # value, now
Predicate = Callable[["Row", datetime], bool]


class Refusal(Exception):
    """The service refuses a document. ``errors``: what a GraphQL answer carries under that name."""

    def __init__(self, *errors: dict[str, Any]) -> None:
        super().__init__("; ".join(error["message"] for error in errors))
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Test:
    """One operator on one leaf; no leaf: on the element of a list of scalars."""

    leaf: Leaf | None
    name: str
    value: Any
    check: Check


@dataclass(frozen=True, slots=True)
class Elements:
    """One operator on a list, with what it asks of an element (or of the length)."""

    leaf: Leaf
    name: str
    each: Condition


Condition = AllOf | AnyOf | Test | Elements


# --- operators ----------------------------------------------------------------------------------------------------


def number(value: Any) -> Any:
    """Something that compares with numbers, or None."""
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            return None
    return None if isinstance(value, bool) else value


def _instant(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _same(value: Any, constant: Any) -> bool:
    if type(value) is type(constant) or isinstance(value, bool) or isinstance(constant, bool):
        return bool(value == constant)
    found = number(constant)
    return found is not None and bool(number(value) == found)


def _numeric(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Check]:
    def make(constant: Any) -> Check:
        limit = number(constant)
        if limit is None:
            raise ValueError("a number is expected")

        def check(value: Any, now: datetime) -> bool:
            found = number(value)
            return found is not None and compare(found, limit)

        return check

    return make


def _equal(constant: Any) -> Check:
    return lambda value, now: _same(value, constant)


def _among(constant: Any) -> Check:
    items = constant if isinstance(constant, list) else [constant]
    plain = frozenset(item for item in items if isinstance(item, str))
    return lambda value, now: value in plain or any(_same(value, item) for item in items)


def _temporal(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Check]:
    def make(constant: Any) -> Check:
        limit = _instant(constant)
        return lambda value, now: value is not None and compare(_instant(value), limit)

    return make


def _relative(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Check]:
    units = {
        "seconds": 1,
        "minutes": 60,
        "hours": 3600,
        "days": 86_400,
        "weeks": 604_800,
        "years": 31_536_000,
    }

    def make(constant: Any) -> Check:
        ago = timedelta(
            seconds=sum(units[unit.removesuffix("_ago")] * int(n) for unit, n in constant.items())
        )
        return lambda value, now: value is not None and compare(_instant(value), now - ago)

    return make


def _textual(compare: Callable[[str, str], bool], fold: bool) -> Callable[[Any], Check]:
    def make(constant: Any) -> Check:
        if not isinstance(constant, str):
            raise ValueError("a string is expected")
        wanted = constant.casefold() if fold else constant
        if fold:
            return lambda value, now: isinstance(value, str) and compare(value.casefold(), wanted)
        return lambda value, now: isinstance(value, str) and compare(value, wanted)

    return make


def _like(value: str, pattern: str) -> bool:
    """SQL's wildcards: ``%`` any run, ``_`` one character."""
    expression = re.escape(pattern).replace("%", ".*").replace("_", ".")
    return re.fullmatch(expression, value, re.DOTALL) is not None


def _not(make: Callable[[Any], Check]) -> Callable[[Any], Check]:
    def negated(constant: Any) -> Check:
        check = make(constant)
        return lambda value, now: not check(value, now)

    return negated


def _is_null(constant: Any) -> Check:
    return lambda value, now: (value is None) == constant


def _operators() -> dict[str, Callable[[Any], Check]]:
    table: dict[str, Callable[[Any], Check]] = {
        "is": _equal, "eq": _equal, "not": _not(_equal), "ne": _not(_equal), "in": _among, "notIn": _not(_among),
        "isNull": _is_null,
    }  # fmt: skip
    table |= {name: _numeric(getattr(operator, name)) for name in ("gt", "ge", "lt", "le")}
    for name, compare in (("after", "gt"), ("since", "ge"), ("before", "lt"), ("till", "le"), ("is", "eq")):
        if name != "is":
            table[name] = _temporal(getattr(operator, compare))
        table[f"{name}_relative"] = _relative(getattr(operator, compare))
    texts: dict[str, Callable[[str, str], bool]] = {
        "includes": operator.contains, "startsWith": str.startswith, "endsWith": str.endswith, "like": _like
    }  # fmt: skip
    for name, found in texts.items():
        for suffix, fold in (("", False), ("CaseInsensitive", True)):
            table[name + suffix] = _textual(found, fold)
            table[f"not{name[0].upper()}{name[1:]}{suffix}"] = _not(table[name + suffix])
    return table


_OPERATORS = _operators()
_ON_LISTS: dict[str, Callable[[list[bool]], bool]] = {
    "includes": any,
    "excludes": lambda found: not any(found),
    "notIncludes": lambda found: not any(found),
    "startsWith": lambda found: found[:1] == [True],
    "endsWith": lambda found: found[-1:] == [True],
    "notStartsWith": lambda found: found[:1] != [True],
    "notEndsWith": lambda found: found[-1:] != [True],
}


def check(name: str, constant: Any, at: str = "") -> Check:
    """One operator with its constant. Raises `Refusal` where either is unknown."""
    if name not in _OPERATORS:
        raise Refusal({"message": f'Field "{name}" is not defined in the filter at {at}'})
    try:
        return _OPERATORS[name](constant)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"Invalid value {constant!r} for {name} in the filter at {at}: {error}"
        raise Refusal({"message": message}) from None


# --- reading ------------------------------------------------------------------------------------------------------


def read(where: Any, root: str, cube: str, path: Path = ()) -> AllOf:
    """The conditions of a ``where``. Raises `Refusal` naming the path of what it cannot read."""
    if isinstance(where, list):
        return AllOf(tuple(read(part, root, cube, path) for part in where))
    at = ".".join((root, cube, "where", *path))
    if not isinstance(where, dict):
        raise Refusal({"message": f"Expected an object in the filter at {at}, found {where!r}"})
    return AllOf(
        tuple(_part(key, value, root, cube, path, at) for key, value in where.items() if value is not None)
    )


def _part(key: str, value: Any, root: str, cube: str, path: Path, at: str) -> Condition:
    if key == "any":
        return AnyOf(
            tuple(read(p, root, cube, path) for p in (value if isinstance(value, list) else [value]))
        )
    if key[:1].isupper():
        here = (*path, key)
        if isinstance(value, bool):
            return Test(leaf(root, cube, here), "eq", value, _equal(value))
        found = leaf(root, cube, here)
        if (
            (found.objects or found.values)
            and isinstance(value, dict)
            and any(k[:1].isupper() for k in value)
        ):
            raise Refusal(
                {"message": f"Fields are asked of the elements of the list at {at}.{key}: use includes"}
            )
        return read(value, root, cube, here)
    if not path:
        raise Refusal({"message": f'Field "{key}" is not defined in the filter at {at}'})
    found = leaf(root, cube, path)
    if (key in _ON_LISTS or key == "length") and isinstance(value, dict | list):
        return _elements(key, value, found, at)
    if found.objects or found.values:
        raise Refusal({"message": f'Field "{key}" is not defined for the list at {at}'})
    return Test(found, key, value, check(key, value, at))


def _elements(key: str, value: Any, found: Leaf, at: str) -> Condition:
    if not (found.objects or found.values):
        raise Refusal({"message": f'"{key}" needs a list, which {at} is not'})
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise Refusal({"message": f"Expected an object in the filter at {at}.{key}"})
    each: list[Condition] = []
    for part in parts:
        if found.objects and key != "length":
            each.append(read(part, found.root, found.cube, found.path))
        else:
            each.append(AllOf(tuple(Test(None, k, v, check(k, v, f"{at}.{key}")) for k, v in part.items())))
    return AllOf(tuple(Elements(found, key, one) for one in each))


def of_block(condition: Condition) -> bool:
    """Whether only the block is asked, so that one answer does for all of its rows."""
    match condition:
        case AllOf(parts) | AnyOf(parts):
            return all(of_block(part) for part in parts)
        case Test(found, _, _, _):
            return found is not None and found.scope == BLOCK
        case Elements():
            return False


def flat(condition: AllOf) -> Iterator[Condition]:
    """The conditions that must all hold, none of them an `AllOf`."""
    for part in condition.parts:
        if isinstance(part, AllOf):
            yield from flat(part)
        else:
            yield part


def bounds(conditions: Iterable[Condition]) -> tuple[list[Predicate], list[Predicate]]:
    """Of conditions that must all hold, what they say of blocks: tests that, along a chain, turn true once and stay so;
    and those that turn false once. No row of a block that fails one passes.
    """
    lower: list[Predicate] = []
    upper: list[Predicate] = []
    for part in conditions:
        if not isinstance(part, Test) or part.leaf is None:
            continue
        name = part.name.removesuffix("_relative")
        if part.leaf.behind and name in ("since", "after"):
            lower.append(_on(leaf(part.leaf.root, part.leaf.cube, ("Block", "Time")), part.check))
        elif part.leaf.monotonic and name in ("gt", "ge", "after", "since"):
            lower.append(predicate(part))
        elif part.leaf.monotonic and name in ("lt", "le", "before", "till"):
            upper.append(predicate(part))
        elif part.leaf.monotonic and part.name in ("is", "eq", "in"):
            with contextlib.suppress(Refusal):  # what cannot be compared is asked of each block
                low, high = _ends(part.leaf, part.value)
                lower.append(low)
                upper.append(high)
    return lower, upper


def _ends(found: Leaf, value: Any) -> tuple[Predicate, Predicate]:
    """Whether a block is not before the first, and not after the last, of the values that are asked for."""
    names = ("since", "till") if found.path[-1] in ("Time", "Date") else ("ge", "le")
    one_of = value if isinstance(value, list) else [value]
    low, high = ([check(name, one) for one in one_of] for name in names)
    return (
        _on(found, lambda value, now: any(test(value, now) for test in low)),
        _on(found, lambda value, now: any(test(value, now) for test in high)),
    )


def _on(found: Leaf, passes: Check) -> Predicate:
    return lambda row, now: passes(row.get(found), now)


# --- asking -------------------------------------------------------------------------------------------------------


def predicate(condition: Condition) -> Predicate:
    match condition:
        case AllOf(parts):
            tests = [predicate(part) for part in parts]
            if len(tests) == 1:
                return tests[0]
            return lambda row, now: all(test(row, now) for test in tests)
        case AnyOf(parts):
            tests = [predicate(part) for part in parts]
            return lambda row, now: any(test(row, now) for test in tests)
        case Test(found, _, _, passes):
            assert found is not None  # tests without a leaf stand only inside Elements
            return _on(found, passes)
        case Elements():
            return _ask_list(condition)


def _ask_list(condition: Elements) -> Predicate:
    found, name = condition.leaf, condition.name
    if name == "length":
        return lambda row, now: _ask_scalar(condition.each, len(row.get(found)), now)
    decide = _ON_LISTS[name]
    if found.values:
        return lambda row, now: decide([_ask_scalar(condition.each, item, now) for item in row.get(found)])
    inner = predicate(condition.each)
    return lambda row, now: decide([inner(item, now) for item in row.get(found)])


def _ask_scalar(condition: Condition, value: Any, now: datetime) -> bool:
    assert isinstance(condition, AllOf)
    return all(part.check(value, now) for part in condition.parts if isinstance(part, Test))
