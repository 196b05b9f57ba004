"""A place for each sink: where its rows go, and how something that is not the sink reads them back."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .documents import TABLES

Read = Callable[[], list[tuple[str, Any]]]


@dataclass(frozen=True)
class Place:
    """``address``: the sink's. ``read``: every row that is there, with its cube, as the service nests it."""

    address: str
    read: Read
    environment: Mapping[str, str] = field(default_factory=dict)


Places = Callable[[Path], contextlib.AbstractContextManager[Place]]


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    from .documents import rows_of

    path = folder / "rows.db"

    def read() -> list[tuple[str, Any]]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            return rows_of(
                {table: map(dict, database.execute(f"SELECT * FROM {table}").fetchall()) for table in TABLES}
            )

    yield Place(f"sqlite:{path}", read)


PLACES: dict[str, Places] = {"sqlite": sqlite}

__all__ = ["PLACES", "Place", "json"]
