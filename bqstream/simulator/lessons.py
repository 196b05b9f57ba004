"""What a chain learns from the filters it is asked for, so that a filter for one address finds rows of that address.

`alternatives` turns a filter into what the leaves of a row must satisfy; a block keeps the `Lessons` known when it was
mined, and `satisfy` bends the values of the rows that follow one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from .filters import AllOf, AnyOf, Condition, Elements, Test, check, number
from .values import Cube, Leaf, Path

Rules = dict[Path, dict[str, Any]]  # a leaf's path to the operators that its value has to satisfy
Profile = tuple[Rules, ...]  # the ways to pass one filter
_MOST_ALTERNATIVES = 16
_MOST_PROFILES = 4096  # a cube


class Lessons:
    """The filters that a chain has been asked for, by cube. Grows by replacement: what a block took stays as it was."""

    def __init__(self) -> None:
        self.profiles: dict[Cube, tuple[Profile, ...]] = {}
        self._heard: set[str] = set()
        self._known: set[tuple[Cube, str]] = set()

    def learn(self, fingerprint: str, profiles: list[tuple[Cube, Profile]]) -> None:
        if fingerprint in self._heard:
            return
        self._heard.add(fingerprint)
        for cube, profile in profiles:
            known = (cube, repr(profile))
            if known not in self._known and any(profile):
                self._known.add(known)
                learned = (*self.profiles.get(cube, ()), profile)
                self.profiles = {**self.profiles, cube: learned[-_MOST_PROFILES:]}


def alternatives(condition: Condition) -> list[Rules]:
    """Ways to pass, at most a few: what each leaf must satisfy. An element n of a list stands at ``list, #n, …``."""
    match condition:
        case AllOf(parts):
            ways: list[Rules] = [{}]
            for place, part in enumerate(parts):
                more = (
                    [_nth(way, place) for way in alternatives(part)]
                    if isinstance(part, Elements)
                    else alternatives(part)
                )
                ways = [_merged(one, other) for one in ways for other in more][:_MOST_ALTERNATIVES]
            return ways
        case AnyOf(parts):
            return [way for part in parts for way in alternatives(part)][:_MOST_ALTERNATIVES]
        case Test(found, name, value, _):
            if found is None or not found.learnable:
                return [{}]
            return [{found.path: {name: value}} | dict(_union_type(found))]
        case Elements(found, name, each):
            return _list_rules(found, name, each)


def _list_rules(found: Leaf, name: str, each: Condition) -> list[Rules]:
    if name == "length" or found.values:
        assert isinstance(each, AllOf)
        wanted = {part.name: part.value for part in each.parts if isinstance(part, Test)}
        return [{found.path: {name: wanted}}]
    if name not in ("includes", "startsWith"):
        return [{}]
    depth = len(found.path)
    return [
        {(*path[:depth], "#", *path[depth:]): rule for path, rule in way.items()}
        for way in alternatives(each)
    ]


def _nth(way: Rules, place: int) -> Rules:
    """Each condition on a list is met by an element of its own."""
    return {tuple(f"#{place}" if step == "#" else step for step in path): rule for path, rule in way.items()}


def _merged(one: Rules, other: Rules) -> Rules:
    return one | {path: one.get(path, {}) | rule for path, rule in other.items()}


def _union_type(found: Leaf) -> Iterator[tuple[Path, dict[str, Any]]]:
    if found.path[-2:-1] == ("Value",):
        names = {"bigInteger": "BigInt", "bool": "Boolean", "hex": "Bytes"}
        kind = names.get(found.path[-1], found.path[-1].capitalize())
        yield (*found.path[:-1], "__typename"), {"is": f"{found.root}_ABI_{kind}_Value_Arg"}


def satisfy(value: Any, rule: dict[str, Any], bits: int, now: datetime) -> Any:
    """The value itself where it satisfies the rule, else one in its form that does."""
    if isinstance(value, list):
        return _satisfy_list(value, rule, bits, now)
    if all(check(name, constant)(value, now) for name, constant in rule.items()):
        return value
    for name in ("is", "eq"):
        if name in rule:
            return _in_form(rule[name], value)
    if "in" in rule:
        return _in_form(
            rule["in"][bits % len(rule["in"])] if isinstance(rule["in"], list) else rule["in"], value
        )
    if rule.keys() & {"gt", "ge", "lt", "le"}:
        return _between(rule, value, bits)
    return _as_text(rule, value)


def _in_form(constant: Any, like: Any) -> Any:
    """The constant as the field would write it: a number in a field of strings is a string."""
    if isinstance(like, str) and not isinstance(constant, str | bool):
        return str(constant)
    if isinstance(like, int | float) and not isinstance(like, bool) and isinstance(constant, str):
        found = number(constant)
        return constant if found is None else type(like)(found)
    return constant


def _between(rule: dict[str, Any], value: Any, bits: int) -> Any:
    low = max((Decimal(str(rule[name])) for name in ("gt", "ge") if name in rule), default=None)
    high = min((Decimal(str(rule[name])) for name in ("lt", "le") if name in rule), default=None)
    if low is None or high is None:
        span = max(abs(low if low is not None else high or Decimal(0)), Decimal(1))
        low, high = (
            (low, low + span) if low is not None else ((high or Decimal(0)) - span, high or Decimal(0))
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return int(low) + (1 if high - low >= 1 else 0)
    point = low + (high - low) * (1 + bits % 998) / 1000
    return float(point) if isinstance(value, float) else format(point, "f")


def _as_text(rule: dict[str, Any], value: Any) -> Any:
    text = "" if value is None else str(value)
    for name, constant in rule.items():
        match name.removesuffix("CaseInsensitive"):
            case "includes":
                value = text = f"{text[:8]}{constant}{text[8:]}"
            case "startsWith":
                value = text = constant + text[len(constant) :]
            case "endsWith":
                value = text = text[: max(len(text) - len(constant), 0)] + constant
            case "like":
                value = text = constant.replace("%", "").replace("_", "x")
    return value


def _satisfy_list(value: list[Any], rule: dict[str, Any], bits: int, now: datetime) -> list[Any]:
    for name, wanted in rule.items():
        if name == "length":
            length = satisfy(len(value), wanted, bits, now)
            value = (value * length)[:length] if value else [0] * length
        elif name in ("includes", "endsWith", "startsWith"):
            element = satisfy(value[0] if value else 0, wanted, bits, now)
            value = [element, *value] if name == "startsWith" else [*value, element]
    return value
