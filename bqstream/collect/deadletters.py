"""Rows that no table takes, with the reason, in a file of JSON lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ..atomic import sync_folder
from ..errors import SinkFailed
from ..tables.flatten import Misfit
from .sink import files


class DeadLetters:
    """A file that is as long as the last commit says: what a crash left behind that is cut off.

    It is made when there is something to be written. All of it blocks, and may run in any thread, one call at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, size: int | None) -> int:
        """Make it as long as it was at the last commit; None: no commit knows it, and what is there stays. Returns how
        long it is.

        Raises SinkFailed where it is shorter: somebody else has changed it. One that was removed begins anew.
        """
        with files(f"dead letters {self.path}"):
            there = self.path.stat().st_size if self.path.exists() else 0
            if size is None:
                return there
            if there > size:
                os.truncate(self.path, size)
            elif 0 < there < size:
                raise SinkFailed(
                    f"dead letters {self.path}: shorter than it was at the last commit: move it away, and a new one is "
                    "begun"
                )
            return min(there, size)

    def add(self, misfits: Sequence[Misfit]) -> int:
        """Append, down to the disk. Returns how long the file is then."""
        with files(f"dead letters {self.path}"):
            at = datetime.now(UTC).isoformat()
            lines = [_line(misfit, at) for misfit in misfits]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                new = file.tell() == 0
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            if new:
                sync_folder(self.path.parent)
            return size


def _line(misfit: Misfit, at: str) -> bytes:
    letter: dict[str, Any] = {"at": at, "table": misfit.table, "reason": misfit.reason, "row": misfit.row}
    return msgspec.json.encode(letter) + b"\n"
