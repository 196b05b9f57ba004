"""What the sinks that hold tables have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...tables.table import Column, Table
from ..commit import Commit


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def lacks(table: Table, missing: Sequence[Column]) -> str:
    """What to say of a table that is there without these columns."""
    names = ", ".join(column.name for column in missing)
    return f"the table {table.name} is there without {names}: --evolve adds what is missing, --table names another"


def gaps_of(commit: Commit) -> list[tuple[Any, ...]]:
    """The gaps as rows of ``_bqstream_gaps``: id, subscription, cause, cubes, start, end, low, high, closed, how,
    reason, detail."""
    return [
        (
            *(gap.id, commit.subscription, gap.cause, ",".join(gap.cubes), gap.start, gap.end),
            *(gap.low, gap.high, gap.closed, gap.how, gap.reason, gap.detail),
        )
        for gap in commit.gaps
    ]
