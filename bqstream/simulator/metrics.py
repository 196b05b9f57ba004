"""Metrics over a group of rows (graphql/metrics), and `calculate` (graphql/capabilities/expression)."""

from __future__ import annotations

import ast
import math
import operator
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from .filters import Refusal

Values = Sequence[Any]


def number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _floats(values: Values) -> list[float]:
    return [found for found in map(number, values) if found is not None]


def _sum(values: Values) -> Any:
    """In the form of what is summed: strings give a decimal string, JSON numbers a JSON number."""
    if any(isinstance(value, str) for value in values):
        return format(sum((Decimal(v) for v in values if number(v) is not None), Decimal(0)), "f")
    found = [value for value in values if number(value) is not None]
    return sum(found) if all(isinstance(value, int) for value in found) else math.fsum(found)


def _quantile(values: Values, level: float) -> float | None:
    found = sorted(_floats(values))
    if not found:
        return None
    place = (len(found) - 1) * min(max(level, 0.0), 1.0)
    low = math.floor(place)
    high = min(low + 1, len(found) - 1)
    return found[low] + (found[high] - found[low]) * (place - low)


def _moment(power: int) -> Callable[[list[float]], float]:
    def standardised(found: list[float]) -> float:
        mean, deviation = statistics.fmean(found), statistics.pstdev(found)
        return statistics.fmean(((x - mean) / deviation) ** power for x in found) if deviation else 0.0

    return standardised


def _entropy(values: Values) -> float:
    counts = Counter(map(repr, values)).values()
    return -sum(n / len(values) * math.log2(n / len(values)) for n in counts) + 0.0


def _over_floats(compute: Callable[[list[float]], float]) -> Callable[[Values], float | None]:
    def metric(values: Values) -> float | None:
        found = _floats(values)
        return compute(found) if found else None

    return metric


def _uniq(values: Values) -> str:
    return str(len({repr(value) for value in values}))


METRICS: dict[str, Callable[[Values], Any]] = {
    "count": lambda values: str(len(values)),
    "sum": _sum,
    "uniq": _uniq,
    "average": _over_floats(statistics.fmean),
    "median": lambda values: _quantile(values, 0.5),
    "quantile": lambda values: _quantile(values, 0.5),
    "standard_deviation": _over_floats(statistics.pstdev),
    "dispersion": _over_floats(statistics.pvariance),
    "skew": _over_floats(_moment(3)),
    "kurtosis": _over_floats(_moment(4)),
    "entropy": _entropy,
}


def metric(name: str, arguments: dict[str, Any]) -> Callable[[Values], Any]:
    """Raises `Refusal` on arguments that make no sense."""
    if name == "count" and "distinct" in arguments:
        return _uniq
    if name == "quantile" and "level" in arguments:
        level = number(arguments["level"])
        if level is None:
            raise Refusal({"message": f"quantile: level {arguments['level']!r} is not a number"})
        return lambda values: _quantile(values, level)
    return METRICS[name]


_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "round": lambda value, digits=0: float(round(value, int(digits))),
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "log": math.log,
    "least": min,
    "greatest": max,
}
Lookup = Callable[[str], Callable[[Any], Any]]
Expression = Callable[[Any], float | None]


def expression(text: Any, lookup: Lookup) -> Expression:
    """Compile ``calculate``'s arithmetic; ``lookup`` finds what a name (``$Trade_Price``) reads from a row or group.

    Null where an operand is not a number, or where the arithmetic fails. Raises `Refusal` on anything but arithmetic.
    """
    try:
        tree = ast.parse(str(text).replace("$", "").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unreadable(text) from None
    compute = _compile(tree, lookup, text)

    def evaluate(source: Any) -> float | None:
        try:
            found = float(compute(source))
        except (TypeError, ValueError, ArithmeticError):
            return None
        return found if math.isfinite(found) else None

    return evaluate


def _unreadable(text: Any) -> Refusal:
    return Refusal({"message": f"calculate: cannot read the expression {text!r}"})


def _compile(node: ast.expr, lookup: Lookup, text: Any) -> Callable[[Any], Any]:
    match node:
        case ast.Constant(value=int() | float() as constant):
            return lambda source: constant
        case ast.Name(id=name):
            read = lookup(name)
            return lambda source: number(read(source))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand, lookup, text)
            return lambda source: -inner(source)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            apply, one, two = _BINARY[type(op)], _compile(left, lookup, text), _compile(right, lookup, text)
            return lambda source: apply(one(source), two(source))
        case ast.Call(func=ast.Name(id=name), args=arguments) if name.lower() in _FUNCTIONS:
            function = _FUNCTIONS[name.lower()]
            parts = [_compile(argument, lookup, text) for argument in arguments]
            return lambda source: function(*(part(source) for part in parts))
    raise _unreadable(text)
