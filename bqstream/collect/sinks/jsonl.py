"""``jsonl:PATH[?rotate=…&compress=zstd&level=3]``: rows as lines of JSON, one object a line.

    rows.jsonl                          the rows, as the service nests them
    rows.Transfers.jsonl                those of one table, where there are several
    rows-20260102T030405Z-000001.jsonl  a finished file; it never changes again
    rows.jsonl.gaps                     gaps; the last line with an ``id`` counts
    .rows.jsonl.state                   what is committed: each file's length, the commit's number and state

With ``rotate=100MB``, ``rotate=1h`` or ``rotate=100MB,1h`` a file that has the size, or whose first commit is so long
ago, is finished at the next commit, and its new name bears the time of its first one, UTC. With ``compress=zstd`` names
end in ``.jsonl.zst``, and each commit is a frame of its own: a file that is cut at a commit is whole.

A commit counts once ``.rows.jsonl.state`` is replaced. What stands in a file beyond its committed length is cut when
the sink is opened: who follows the file may see rows that go and come again after a crash, and no half line stays.

A row that is taken back cannot be deleted. It is written once more, with ``"_undo": true`` before its own fields; where
nothing is taken back there is no such field. The order of such lines does not matter. What is left, in DuckDB::

    CREATE VIEW lines AS FROM read_json('rows*.jsonl', union_by_name=true, sample_size=-1);
    SELECT * EXCLUDE _undo FROM lines WHERE _undo IS NULL EXCEPT ALL SELECT * EXCLUDE _undo FROM lines WHERE _undo;
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import TypeVar

import msgspec
import zstandard

from ...atomic import replace_file, sweep, sync_folder
from ...errors import SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ...tables.table import Table
from ..commit import Commit, Stored
from ..failpoints import failpoint
from ..lines import lines
from ..rotation import Rotation, finished_name, table_name
from ..sink import Address, BlockingSink, files

T = TypeVar("T")


class _File(msgspec.Struct, omit_defaults=True):
    """A file at the last commit.

    Attributes:
        length: in bytes; what is beyond belongs to no commit.
        begun: the time of its first commit; UTC.
        finished: how many of its name were finished before it.
        becomes: the name that it is being given, for it is finished. It gets no rows before it has it.
    """

    length: int = 0
    begun: datetime | None = None
    finished: int = 0
    becomes: str | None = None


class _Head(msgspec.Struct, kw_only=True, tag_field="bqstream", tag="jsonl 1"):
    """Whose last commit the sidecar tells of."""

    subscription: str
    number: int = 0


class _Sidecar(_Head, kw_only=True):
    """What stands beside the rows: number 0 before the first commit. No file is made before its name is in it."""

    state: str = ""
    files: dict[str, _File] = {}


def sink(address: Address) -> JSONLSink:
    """``jsonl:PATH``, with the options ``rotate``, ``compress`` and ``level``."""
    address.only("rotate", "compress", "level")
    options = address.options
    if not PurePath(address.place).name:
        raise UsageError("jsonl: needs a file, such as jsonl:rows.jsonl")
    compress = options.get("compress", "zstd" if address.place.endswith(".zst") else None)
    if compress not in (None, "zstd"):
        raise UsageError(f"compress={compress}: there is zstd")
    if "level" in options and compress is None:
        raise UsageError("level= is nothing without compress=zstd")
    level = options.get("level", "3")
    if not level.isdecimal() or not 1 <= int(level) <= zstandard.MAX_COMPRESSION_LEVEL:
        raise UsageError(f"level={level}: give 1 to {zstandard.MAX_COMPRESSION_LEVEL}")
    rotation = Rotation.parse(options["rotate"]) if "rotate" in options else Rotation()
    return JSONLSink(Path(address.place.removesuffix(".zst")), rotation, int(level) if compress else None)


class JSONLSink(BlockingSink):
    """Files of lines, for one subscription; ``level``: they are compressed."""

    flat = False

    def __init__(self, path: Path, rotation: Rotation, level: int | None) -> None:
        self._live = path.name if level is None else f"{path.name}.zst"
        super().__init__(f"jsonl:{path.parent / self._live}", path.with_name(f".{path.name}.lock"))
        self._folder = path.parent
        self._gaps = f"{path.name}.gaps"
        self._state = path.with_name(f".{path.name}.state")
        self._rotation = rotation
        self._compressor = None if level is None else zstandard.ZstdCompressor(level)
        self._sidecar: _Sidecar | None = None

    def _open(self, subscription: str) -> Stored | None:
        self._close()
        with files(self.name):
            self._folder.mkdir(parents=True, exist_ok=True)
            sweep(self._state)
            sidecar = self._read(_Sidecar)
            if sidecar is None:
                self._refuse_foreign(self._live)
            elif sidecar.number and sidecar.subscription != subscription:
                raise SinkFailed(
                    f"{self.name} holds rows of another subscription, {sidecar.subscription!r}: name another file"
                )
            if sidecar is None or sidecar.subscription != subscription:
                sidecar = _Sidecar(subscription=subscription, files=sidecar.files if sidecar else {})
                self._save(sidecar)
            for name, file in sidecar.files.items():
                if file.becomes is None:
                    self._cut(name, file)
                else:
                    self._rename(sidecar, name, file.becomes)
        self._sidecar = sidecar
        return Stored(sidecar.number, sidecar.state) if sidecar.number else None

    def _peek(self, subscription: str) -> Stored | None:
        with files(self.name):
            sidecar = self._read(_Sidecar)
        if sidecar is None or sidecar.subscription != subscription or not sidecar.number:
            return None
        return Stored(sidecar.number, sidecar.state)

    def _commit(self, commit: Commit) -> None:
        sidecar, self._sidecar = self._sidecar, None  # what a failure leaves behind is for `_open` to mend
        if sidecar is None:
            raise SinkUnavailable(f"{self.name} is not open")
        if (commit.subscription, commit.number) != (sidecar.subscription, sidecar.number + 1):
            raise self._locked()
        with files(self.name):
            self._fence(commit)
            self._rotate(sidecar)
            parts = self._parts(commit)
            self._claim(sidecar, parts)
            for name, data in parts.items():
                self._append(name, sidecar.files[name], data)
            failpoint("written")
            sidecar.number, sidecar.state = commit.number, commit.state
            self._save(sidecar, commit)
        failpoint("committed")
        self._sidecar = sidecar

    def _close(self) -> None:
        self._sidecar = None

    def _parts(self, commit: Commit) -> dict[str, bytes]:
        """What is to be added to each file."""
        several = len(commit.tables) > 1
        made: dict[str, list[bytes]] = {}
        for rows in commit.steps:
            name = self._of_table(rows.table) if several else self._live
            made.setdefault(name, []).append(lines(rows))
        parts = {name: b"".join(texts) for name, texts in made.items() if any(texts)}
        if self._compressor is not None:
            parts = {name: self._compressor.compress(text) for name, text in parts.items()}
        if commit.gaps:
            parts[self._gaps] = msgspec.json.Encoder().encode_lines(commit.gaps)
        return parts

    def _of_table(self, table: Table) -> str:
        if PurePath(table.name).name != table.name:
            raise SinkFailed(
                f"{self.name}: {table.name!r} cannot be part of a file's name: --table names another"
            )
        return table_name(self._live, table.name)

    def _claim(self, sidecar: _Sidecar, names: dict[str, bytes]) -> None:
        """Name new files in the sidecar before they are there: what a crash then leaves of them is known as ours."""
        new = [name for name in names if name not in sidecar.files]
        for name in new:
            self._refuse_foreign(name)
            sidecar.files[name] = _File()
        if new:
            self._save(sidecar)

    def _append(self, name: str, file: _File, data: bytes) -> None:
        self._untouched(name, file)
        with (self._folder / name).open("r+b" if file.length else "ab", buffering=0) as opened:
            opened.seek(file.length)
            left = memoryview(data)
            while left:
                left = left[opened.write(left) :]
            os.fsync(opened.fileno())
        if not file.length:
            file.begun = _now()
            sync_folder(self._folder)
        file.length += len(data)

    def _rotate(self, sidecar: _Sidecar) -> None:
        for name, file in sidecar.files.items():
            if file.begun is None or name == self._gaps:
                continue
            if self._rotation.due(file.length, _now() - file.begun):
                self._untouched(name, file)
                number = file.finished + 1
                while (self._folder / finished_name(name, file.begun, number)).exists():
                    number += 1
                becomes = file.becomes = finished_name(name, file.begun, number)
                file.finished = number
                self._save(sidecar)
                self._rename(sidecar, name, becomes)

    def _rename(self, sidecar: _Sidecar, name: str, becomes: str) -> None:
        """The sidecar says that ``name`` is finished. Where it is not there it has been renamed, by a process that
        died then, and who reads finished files may have taken it away."""
        old, new = self._folder / name, self._folder / becomes
        if old.exists():
            if new.exists():
                raise SinkFailed(
                    f"{self.name}: {name} is to be named {becomes}, which is there: move that away"
                )
            old.rename(new)
            sync_folder(self._folder)
        sidecar.files[name] = _File(finished=sidecar.files[name].finished)
        self._save(sidecar)

    def _cut(self, name: str, file: _File) -> None:
        if self._size(name, file) == file.length:
            return
        path = self._folder / name
        if not file.length:
            path.unlink()  # an empty file is none of zstd's
            return
        with path.open("r+b") as opened:
            opened.truncate(file.length)
            os.fsync(opened.fileno())

    def _untouched(self, name: str, file: _File) -> None:
        if self._size(name, file) > file.length:
            raise SinkLocked(f"{self.name}: another program writes to {name}")

    def _size(self, name: str, file: _File) -> int:
        """How long it is: no less than was committed."""
        try:
            size = (self._folder / name).stat().st_size
            what = f"shortened to {size} of {file.length} bytes"
        except FileNotFoundError:
            size, what = 0, "removed"
        if size >= file.length:
            return size
        raise SinkFailed(
            f"{self.name}: since the last commit {name} was {what} by somebody. Put back what is missing; or, to go on "
            f'without it, move {name} away and take it out of "files" in {self._state}'
        )

    def _refuse_foreign(self, name: str) -> None:
        path = self._folder / name
        if path.exists() and path.stat().st_size:
            raise SinkFailed(
                f"{self.name}: {name} is there, and {self._state} does not know it, so its rows are not this "
                "subscription's: move it away, or name another file"
            )

    def _fence(self, commit: Commit) -> None:
        """Raise SinkLocked unless the last commit is the one before ``commit``."""
        head = self._read(_Head)
        if head is None:
            raise SinkFailed(
                f"{self.name}: {self._state} was removed by somebody, and only it says what is committed: put it back; "
                "or move the rows away, to begin anew"
            )
        if (head.subscription, head.number) != (commit.subscription, commit.number - 1):
            raise self._locked()

    def _locked(self) -> SinkLocked:
        return SinkLocked(f"{self.name}: another collector has committed there in between")

    def _read(self, type: type[T]) -> T | None:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=type)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise SinkFailed(f"{self.name}: {self._state} is none of this sink's: {error}") from error

    def _save(self, sidecar: _Sidecar, commit: Commit | None = None) -> None:
        """Replace the sidecar; for ``commit``, that is its one step that counts."""

        def staged() -> None:
            if commit is not None:
                failpoint("staged")
                self._fence(commit)

        replace_file(self._state, msgspec.json.encode(sidecar), staged=staged)


def _now() -> datetime:
    return datetime.now(UTC)
