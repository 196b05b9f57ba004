"""When a file is finished and the next one begun, and what its name is then."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Self

from ..errors import UsageError

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, slots=True)
class Rotation:
    """A file is finished once it has ``size`` bytes, or its first commit is ``age`` seconds old."""

    size: float = math.inf
    age: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``100MB``, ``1h``, or both with a comma between. Raises UsageError."""
        size = age = math.inf
        for part in text.split(","):
            found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]+)", part.strip())
            number, unit = (float(found[1]), found[2]) if found else (0.0, "")
            if number and unit in _AGES:
                age = number * _AGES[unit]
            elif number and unit.lower() in _SIZES:
                size = number * _SIZES[unit.lower()]
            else:
                raise UsageError(f"rotate={text}: give a size or an age, such as 100MB or 1h")
        return cls(size, age)

    def due(self, size: int, age: timedelta) -> bool:
        return size >= self.size or age.total_seconds() >= self.age


def finished_name(name: str, begun: datetime, number: int) -> str:
    """``rows.jsonl`` becomes ``rows-20260102T030405Z-000001.jsonl``: names sort as their rows came."""
    stem, suffix = _split(name)
    return f"{stem}-{begun:%Y%m%dT%H%M%SZ}-{number:06}{suffix}"


def table_name(name: str, table: str) -> str:
    """``rows.jsonl`` becomes ``rows.DEXTrades.jsonl``."""
    stem, suffix = _split(name)
    return f"{stem}.{table}{suffix}"


def _split(name: str) -> tuple[str, str]:
    """What comes before the suffix, and the suffix; ``.jsonl.zst`` is one."""
    compressed = ".zst" if name.endswith(".zst") else ""
    path = PurePath(name.removesuffix(compressed))
    return path.stem, path.suffix + compressed
