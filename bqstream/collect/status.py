"""A picture of a collector at one moment, as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["starting", "collecting", "retrying", "stopping", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorStatus:
    """One collector; times are UTC, spans are in seconds.

    Attributes:
        name: the subscription's; in metrics its label.
        operation: its number in ``Client.status()`` and in events; None until it is subscribed.
        sink: where its rows go, without a password.
        state: "retrying" while the sink does not take a commit; ``trouble`` says why.
        tables: the names of its tables.
        rows: committed by this process; ``taken_back``: of those that were committed, taken back for a fork.
        misfits: rows that went to the dead-letter file.
        commits: by this process. ``committed_at``: when the last one ended. ``commit_seconds``: how long it took;
            ``committing_seconds``: how long all of them took together.
        pending_rows: read from the subscription, decoded, and not committed. ``pending_since``: since when something
            waits to be committed; None where nothing does.
        overdue: whether something has waited for longer than it may: readiness fails.
        gaps: named by this process; ``holes``: those that will not be closed.
        newest: the block's time of the newest row committed, where the document selects it; else when its message
            came in.
        backfilled: rows that queries brought.
    """

    name: str
    operation: int | None
    sink: str
    state: State
    trouble: str = ""
    tables: tuple[str, ...] = ()
    rows: int = 0
    taken_back: int = 0
    misfits: int = 0
    commits: int = 0
    committed_at: datetime | None = None
    commit_seconds: float = 0.0
    committing_seconds: float = 0.0
    pending_rows: int = 0
    pending_since: datetime | None = None
    overdue: bool = False
    gaps: int = 0
    holes: int = 0
    newest: datetime | None = None
    backfilled: int = 0
