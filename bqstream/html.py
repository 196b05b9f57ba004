"""What a notebook shows of a value: small tables in the page's own colours, in which nothing is markup but they."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

LONGEST = 80  # characters of a cell
ROWS, COLUMNS = 10, 12
_LEFT = ' style="text-align:left"'


def text(value: object) -> str:
    """``value`` as a page may have it: cut, what is not to be seen replaced, and escaped."""
    try:
        said = "" if value is None else f"{value:%F %T %Z}" if isinstance(value, datetime) else str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists without end
        said = "…"
    cut = said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"
    return escape("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in cut))


def facts(title: str, pairs: Iterable[tuple[str, object]]) -> str:
    """What is known of one thing, line by line."""
    lines = "".join(
        f"<tr><th{_LEFT}>{text(name)}</th><td{_LEFT}>{text(value)}</td></tr>" for name, value in pairs
    )
    return f"<div><b>{text(title)}</b></div><table>{lines}</table>"


def grid(heads: Sequence[str], rows: Sequence[Sequence[object]], *, of: int | None = None) -> str:
    """Things that are alike, a row each, `ROWS` and `COLUMNS` at most; ``of`` so many that there are."""
    if not rows:
        return ""
    shown, more = rows[:ROWS], (len(rows) if of is None else of) - len(rows[:ROWS])
    wide = len(heads) - COLUMNS
    top = "".join(f"<th{_LEFT}>{text(head)}</th>" for head in heads[:COLUMNS])
    body = "".join(
        f"<tr>{''.join(f'<td{_LEFT}>{text(value)}</td>' for value in row[:COLUMNS])}</tr>" for row in shown
    )
    left = [f"{more:,} more rows"] * (more > 0) + [f"{wide:,} more columns"] * (wide > 0)
    below = f"<div>… {' and '.join(left)}</div>" if left else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{below}"
