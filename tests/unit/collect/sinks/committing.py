"""Commits to try sinks with, and a process that makes them until it dies at a failpoint.

python -m tests.unit.collect.sinks.committing TARGET FIRST LAST
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from bqstream.collect.commit import Commit, GapRecord
from bqstream.collect.sink import Sink, open_sink
from bqstream.tables.table import Column, Rows, Table

ROOT = Path(__file__).parents[4]
SUBSCRIPTION = "transfers"
TABLE = Table(
    "Transfers",
    "Transfers",
    (
        Column("Block_Number", ("Block", "Number"), "integer"),
        Column("Block_Time", ("Block", "Time"), "timestamp"),
        Column("Transfer_Amount", ("Transfer", "Amount"), "text"),
        Column("Transfer_AmountInUSD", ("Transfer", "AmountInUSD"), "float"),
        Column("Transfer_Success", ("Transfer", "Success"), "boolean"),
        Column("Transfer_Exact", ("Transfer", "Exact"), "decimal", (38, 18)),
        Column("Arguments", ("Arguments",), "json"),
    ),
)
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# What a column of the table may hold that is odd: nulls, wide numbers, text that quoting must survive.
ODD: dict[str, Sequence[Any]] = {
    "Block_Number": (0, None, -(2**63), 2**63 - 1),
    "Block_Time": (TIME, None, TIME + timedelta(microseconds=1), datetime(1970, 1, 1, tzinfo=UTC)),
    "Transfer_Amount": (
        "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        None,
        "",
        "a\tb\nc\\d\"e'f,\r\\N\u00e9\u2603\U0001f600",
    ),
    "Transfer_AmountInUSD": (0.1, None, 1e308, -5e-324),
    "Transfer_Success": (True, None, False, True),
    "Transfer_Exact": (
        Decimal("12345678901234567890.123456789012345678"),
        None,
        Decimal("0"),
        Decimal("-1.5"),
    ),
    "Arguments": ('[{"Name":"to","Value":{"address":"0x1"}}]', None, "[]", '"a\\"b"'),
}


def rows(count: int, start: int = 0, *, table: Table = TABLE, undo: bool = False) -> Rows:
    """So many rows of the table, different from all others, by column and nested."""
    numbers = range(start, start + count)
    made: dict[str, list[Any]] = {
        "Block_Number": list(numbers),
        "Block_Time": [TIME + timedelta(seconds=number) for number in numbers],
        "Transfer_Amount": [f"{number}000000000000000000.5" for number in numbers],
        "Transfer_AmountInUSD": [number / 8 for number in numbers],
        "Transfer_Success": [number % 2 == 0 for number in numbers],
        "Transfer_Exact": [Decimal(number) / 4 for number in numbers],
        "Arguments": [f'[{{"Index":{number}}}]' for number in numbers],
    }
    columns = [made[column.name] if column.name in made else [None] * count for column in table.columns]
    return Rows(table, count, columns, nested_of(table, columns), undo)


def odd_rows() -> Rows:
    columns = [list(ODD[column.name]) for column in TABLE.columns]
    return Rows(TABLE, 4, columns, nested_of(TABLE, columns))


def nested_of(table: Table, columns: Sequence[Sequence[Any]]) -> list[Any]:
    """The rows as the service nests them, with plain JSON values."""
    nested: list[Any] = []
    for values in zip(*columns, strict=True):
        row: dict[str, Any] = {}
        for column, value in zip(table.columns, values, strict=True):
            inside = row
            for key in column.path[:-1]:
                inside = inside.setdefault(key, {})
            plain = value.isoformat() if isinstance(value, datetime) else value
            inside[column.path[-1]] = str(plain) if isinstance(plain, Decimal) else plain
        nested.append(row)
    return nested


def commit(
    number: int, *steps: Rows, gaps: Sequence[GapRecord] = (), table: Table = TABLE, **more: Any
) -> Commit:
    return Commit(
        subscription=SUBSCRIPTION,
        number=number,
        state=f"state {number} of {os.getpid()}",
        tables=(table,),
        steps=steps,
        gaps=tuple(gaps),
        **more,
    )


def gap(id: str, **more: Any) -> GapRecord:
    record = GapRecord(
        id=id,
        cause="dropped",
        cubes=("Transfers",),
        start=TIME,
        end=None,
        low="100",
        high=None,
        closed=False,
        how="",
        reason=None,
        detail="it's gone",
    )
    return replace(record, **more)


async def commit_all(sink: Sink, first: int, last: int) -> None:
    """Ten rows a commit, each different; commits with an even number have a gap."""
    await sink.open(SUBSCRIPTION)
    for number in range(first, last + 1):
        gaps = [gap(f"g{number}")] if number % 2 == 0 else []
        await sink.commit(commit(number, rows(10, number * 10), gaps=gaps))
    await sink.aclose()


async def die(target: str, first: int, last: int, failpoint: str) -> None:
    """Commit in another process, which must be killed at its failpoint."""
    environment = {**os.environ, "BQSTREAM_FAILPOINT": failpoint}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.unit.collect.sinks.committing", target, str(first), str(last)),
        cwd=ROOT,
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


if __name__ == "__main__":
    asyncio.run(commit_all(open_sink(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
