"""Options that cannot mean anything are refused when they are given, with a word on what can."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

from .errors import UsageError


def none_unknown(unknown: Mapping[str, object], function: Callable[..., object]) -> None:
    """Raise UsageError for options that there are not, which a type checker refuses by ``Never``."""
    if unknown:
        parameters = inspect.signature(function).parameters.values()
        known = ", ".join(one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY)
        raise UsageError(f"there is no option {', '.join(unknown)}; there are {known}")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise UsageError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UsageError(f"{name}={value!r}: give one of {', '.join(map(repr, choices))}")


def kind_of(name: str, value: object, kind: type) -> None:
    """Raise UsageError unless ``value`` is None or of that kind."""
    if value is not None and not isinstance(value, kind):
        raise UsageError(f"{name} takes a {kind.__name__}, not {type(value).__name__}")


def whole(name: str, value: object) -> None:
    """Raise UsageError unless ``value`` is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={value!r}: give a whole number from 1")


def is_positive(value: object) -> bool:
    """Whether it is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def seconds(value: object) -> None:
    """Raise UsageError unless ``value`` is a positive, finite number or None."""
    if value is not None and not is_positive(value):
        raise UsageError(
            f"seconds={value!r}: give a positive, finite number of seconds, or None for no limit"
        )


def plain_function(name: str, value: object) -> None:
    """Raise UsageError unless ``value`` is None or can be called without being awaited."""
    if value is not None and (not callable(value) or inspect.iscoroutinefunction(value)):
        raise UsageError(f"{name} takes a plain function, since nobody would await what another returns")


def proxy(value: object) -> None:
    """Raise UsageError for what is no proxy. The text must not show its URL, which may hold its password."""
    if not (value is None or isinstance(value, bool) or (isinstance(value, str) and "://" in value)):
        raise UsageError("proxy is True, None, or a URL such as http://proxy.example:3128")
