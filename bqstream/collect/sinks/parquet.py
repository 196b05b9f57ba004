"""``parquet:DIR`` and ``parquet:s3://BUCKET/PREFIX``: a folder of Parquet files for each table, by day, Hive style.

    DIR/Transfers/date=2026-01-02/part-transfers-000000007-9f86d081-0.parquet    rows of commit 7
    DIR/_bqstream_gaps/part-transfers-000000007-9f86d081-1.parquet               the newest record of an id counts
    DIR/_bqstream/transfers.json                                                 the manifest
    DIR/_bqstream/transfers.staged/                                              not committed, or not yet moved

Files are staged, then the manifest that names them takes the place of the former one: this is the commit. Then each is
moved to where readers find it, in one step, and never touched again. A process that dies in between leaves the rest of
the moves to the next ``open``; staged files that no manifest names are removed after the next commit. What is staged
does not end in ``.parquet``, since DuckDB's ``**`` looks into hidden folders too. So a reader, whenever it looks, finds
rows that are committed and each of them once, but perhaps not yet all files of the commit under way.

In a bucket a file is moved by a copy and a deletion: a reader finds the same there. Two collectors of one subscription
are told apart by the manifest's number. On one machine, and on a network disk that has locks, this is sure; in a bucket
the manifest is read right before it is written, since Arrow offers no conditional put, and two that do so within the
same instant go unnoticed.

All files of a table have the same columns, in one order, until ``evolve`` adds some: then ``union_by_name`` reads them
together. Rows that a fork takes back cannot be deleted: they come again with ``_undone`` true, a column that every file
has. What remains is, in DuckDB,

    WITH t AS (FROM read_parquet('DIR/Transfers/**/*.parquet', hive_partitioning = true, union_by_name = true))
    SELECT * EXCLUDE (date, _undone) FROM t WHERE NOT _undone
    EXCEPT ALL SELECT * EXCLUDE (date, _undone) FROM t WHERE _undone

A decimal of more than 38 digits is exact in Arrow and pandas; DuckDB reads a double, and Polars refuses the file. Each
commit makes a file for each table and day in it, so it should hold many rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ...tables.arrow import arrow_of, type_of
from ...tables.table import Column
from ..commit import Commit, Stored
from ..failpoints import failpoint
from ..sink import Address, BlockingSink
from .folders import Bucket, Folder, LocalFolder
from .sql import lacks

_COMPRESS = ("zstd", "snappy", "none")
_WIDEST = 76  # digits of a decimal; a number with more, or with any, is text
_UNDONE = "_undone"
_TEXT, _TIME = pa.string(), pa.timestamp("us", tz="UTC")
_GAPS = pa.schema(
    [
        *(("id", _TEXT), ("number", pa.int64()), ("subscription", _TEXT), ("cause", _TEXT), ("cubes", _TEXT)),
        *(("start", _TIME), ("end", _TIME), ("low", _TEXT), ("high", _TEXT), ("closed", pa.bool_())),
        *(("how", _TEXT), ("reason", _TEXT), ("detail", _TEXT)),
    ]
)


class _Manifest(msgspec.Struct):
    """The last commit: where its staged files go, and the columns of every table up to then."""

    number: int = 0
    state: str = ""
    committed_at: datetime | None = None
    files: list[tuple[str, str]] = []
    tables: dict[str, list[Column]] = {}


def sink(address: Address) -> ParquetSink:
    """``parquet:DIR?compress=zstd``, or snappy, none; in a bucket also ``region``, ``endpoint_override``, ``scheme``.

    Credentials for a bucket are taken from where AWS's own tools have them: the environment, ``~/.aws``, the machine.
    """
    bucket = address.place.startswith("s3://")
    of_bucket = ("region", "endpoint_override", "scheme") if bucket else ()
    address.only("compress", *of_bucket)
    compress = address.options.get("compress", "zstd")
    if compress not in _COMPRESS:
        raise UsageError(f"parquet: compress={compress}: it is one of {', '.join(_COMPRESS)}")
    root = address.place.removeprefix("s3://")
    if not root.strip("/"):
        raise UsageError("parquet: needs a folder, such as parquet:rows or parquet:s3://bucket/prefix")
    if not bucket:
        name = f"parquet:{Path(root)}"
        return ParquetSink(name, LocalFolder(name, Path(root)), compress)
    if "@" in root.partition("/")[0]:
        raise UsageError(
            "parquet: credentials do not belong into the address: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "~/.aws, hold them"
        )
    if address.options.get("scheme", "https") not in ("http", "https"):
        raise UsageError("parquet: scheme= is http or https")
    name = f"parquet:s3://{root}"
    options = {option: address.options[option] for option in of_bucket if option in address.options}
    return ParquetSink(name, Bucket(name, root, **options), compress)


class ParquetSink(BlockingSink):
    """Files in a folder, and a manifest for each subscription."""

    patience = 60.0  # each commit makes a file

    def __init__(self, name: str, folder: Folder, compress: str) -> None:
        super().__init__(name)
        self._folder = folder
        self._compress = compress
        self._manifest: _Manifest | None = None

    def _open(self, subscription: str) -> Stored | None:
        self._close()
        with self._folder.errors():
            self._folder.open()
            with self._folder.alone(_lock(subscription)):
                manifest = self._read(subscription)
                self._folder.move(manifest.files)
        self._manifest = manifest
        return Stored(manifest.number, manifest.state) if manifest.number else None

    def _peek(self, subscription: str) -> Stored | None:
        with self._folder.errors():
            manifest = self._read(subscription)
        return Stored(manifest.number, manifest.state) if manifest.number else None

    def _commit(self, commit: Commit) -> None:
        if self._manifest is None:
            raise SinkUnavailable(f"{self.name} is not open")
        tables = _defined(self._manifest.tables, commit)
        manifest = _Manifest(commit.number, commit.state, datetime.now(UTC), [], tables)
        # A name that was never used: what another manifest names, or once named, must not be written over.
        attempt = f"{commit.number:09}-{token_hex(4)}"
        staged = f"{_staged(commit.subscription)}/{attempt}.json"
        with self._folder.errors():
            try:
                self._folder.put(self._files(commit, manifest, attempt))
                failpoint("written")
                self._folder.put([(staged, msgspec.json.encode(manifest))])
                failpoint("staged")
            except BaseException:
                with contextlib.suppress(OSError):  # it may be that nothing works any more
                    self._folder.remove([staged, *(before for before, _ in manifest.files)])
                raise
            with self._folder.alone(_lock(commit.subscription)):
                if self._read(commit.subscription).number != commit.number - 1:
                    raise SinkLocked(f"{self.name}: another collector writes {commit.subscription!r} there")
                self._folder.commit(staged, _path(commit.subscription))
                failpoint("committed")
                self._folder.move(manifest.files)
            self._manifest = manifest
            # Only now: before this commit, what is staged could have been that of a collector which was here first.
            self._folder.clear(_staged(commit.subscription))

    def _close(self) -> None:
        self._manifest = None

    def _read(self, subscription: str) -> _Manifest:
        data = self._folder.get(_path(subscription))
        try:
            return _Manifest() if data is None else msgspec.json.decode(data, type=_Manifest)
        except msgspec.MsgspecError as error:
            raise SinkFailed(f"{self.name}: {_path(subscription)} is no manifest of bqstream's") from error

    def _files(self, commit: Commit, manifest: _Manifest, attempt: str) -> Iterator[tuple[str, Any]]:
        """Each file's staged path and what it holds; the manifest learns where it goes."""
        for index, (where, table) in enumerate(_tables(commit, manifest)):
            staged = f"{_staged(commit.subscription)}/{attempt}-{index}"
            final = f"{where}/part-{_safe(commit.subscription)}-{attempt}-{index}.parquet"
            manifest.files.append((staged, final))
            file = pa.BufferOutputStream()
            pq.write_table(table, file, compression=self._compress)
            yield staged, file.getvalue()


def _tables(commit: Commit, manifest: _Manifest) -> Iterator[tuple[str, pa.Table]]:
    """What the commit adds, and to which folder."""
    today = datetime.now(UTC).date()
    for table in commit.tables:
        columns = manifest.tables[table.name]
        steps = [
            arrow_of(rows, columns, _WIDEST).append_column(
                _UNDONE, pa.repeat(pa.scalar(rows.undo), rows.count)
            )
            for rows in commit.steps
            if rows.table.name == table.name and rows.count
        ]
        if steps:
            for day, part in _by_day(pa.concat_tables(steps), _clock(columns), today):
                yield f"{_safe(table.name)}/date={day.isoformat()}", part
    if commit.gaps:
        gaps = {gap.id: gap for gap in commit.gaps}
        records = [
            {
                **{name: getattr(gap, name, None) for name in _GAPS.names},
                "number": commit.number,
                "subscription": commit.subscription,
                "cubes": ",".join(gap.cubes),
            }
            for gap in gaps.values()
        ]
        yield "_bqstream_gaps", pa.Table.from_pylist(records, schema=_GAPS)


def _by_day(table: pa.Table, clock: str | None, today: date) -> Iterator[tuple[date, pa.Table]]:
    """The rows of each day; a row without a time goes to ``today``."""
    if clock is None:
        yield today, table
        return
    days = pc.fill_null(table[clock].cast(pa.date32()), today)
    each = pc.unique(days).to_pylist()
    for day in each:
        yield day, table if len(each) == 1 else table.filter(pc.equal(days, day))


def _clock(columns: list[Column]) -> str | None:
    """The column whose day a row belongs to."""
    times = [column.name for column in columns if column.kind == "timestamp"]
    return "Block_Time" if "Block_Time" in times else next(iter(times), None)


def _defined(known: dict[str, list[Column]], commit: Commit) -> dict[str, list[Column]]:
    """The columns of every table with this commit: none ever goes, and none changes what it holds."""
    tables = dict(known)
    for table in commit.tables:
        there = {column.name: column for column in known.get(table.name, ())}
        missing = [column for column in table.columns if column.name not in there]
        if there and missing and not commit.evolve:
            raise SinkFailed(lacks(table, missing))
        for column in table.columns:
            before, now = (type_of(one, _WIDEST) for one in (there.get(column.name, column), column))
            if before != now:
                raise SinkFailed(
                    f"{table.name}.{column.name} is there as {before} and would be {now}: --table names another table"
                )
            if column.name.lower() in ("date", _UNDONE):
                raise SinkFailed(
                    f"{table.name}.{column.name}: the folders have a column of this name: give it an alias"
                )
        tables[table.name] = [*there.values(), *missing]
    return tables


def _safe(name: str) -> str:
    """A name as a part of a path, which no reader takes for hidden."""
    text = quote(name, safe="")
    return f"%{ord(text[0]):02X}{text[1:]}" if text[:1] in (".", "_") else text


def _path(subscription: str) -> str:
    return f"_bqstream/{_safe(subscription)}.json"


def _lock(subscription: str) -> str:
    return f"_bqstream/{_safe(subscription)}.lock"


def _staged(subscription: str) -> str:
    return f"_bqstream/{_safe(subscription)}.staged"
