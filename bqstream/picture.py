"""A picture in a browser's terms: a mapping of parts, which is sent whole at first, then what of it has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_LONGEST = 200  # characters of one value in a table of rows


def changes(before: Mapping[str, Any], after: Mapping[str, Any], series: Sequence[str]) -> dict[str, Any]:
    """The parts that differ, whole; of ``series`` only what is new. Such a part has by name a sequence of tuples, of
    which the first items rise."""
    changed = {part: value for part, value in after.items() if value != before[part]}
    for part in series:
        if part in changed:
            changed[part] = {
                name: _newer(before[part].get(name, ()), found) for name, found in after[part].items()
            }
    return changed


def _newer(before: Sequence[Any], after: Sequence[Any]) -> Sequence[Any]:
    """What came after the last of ``before``."""
    if not before:
        return after
    last, start = before[-1][0], len(after)
    while start and after[start - 1][0] > last:
        start -= 1
    return after[start:]


def text(value: Any) -> str | None:
    """A value as people read it. JavaScript would take the last digits off a long integer, so that all are text."""
    if value is None:
        return None
    said = value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
