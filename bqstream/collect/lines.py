"""Rows as lines of JSON: one object a line, as the service nests it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..tables.table import Rows


def lines(rows: Rows, *, named: bool = False) -> bytes:
    """Each row and a newline; ``named``: ``{"Transfers": row}``, by its table.

    A row that is taken back is written once more, and its line begins with ``"_undo": true``: as many lines of the row
    count as there are without it, less those with it.
    """
    made: Iterable[Any] = rows.nested
    if named:
        made = [{rows.table.name: row} for row in made]
    if rows.undo:
        made = [{"_undo": True, **row} for row in made]
    return msgspec.json.Encoder().encode_lines(made)
