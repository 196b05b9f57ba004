"""A folder that files are put into and moved within: on this machine, or in a bucket of S3 or what speaks like it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from pyarrow import fs

from ...errors import SinkFailed, SinkUnavailable
from ..sink import files

# How long another process that commits the same is waited for before the commit is tried anew; seconds.
_BUSY = 5.0


class Folder(Protocol):
    """Files by their path within, with ``/`` between its parts."""

    def errors(self) -> AbstractContextManager[None]:
        """Say what an error of the methods below means for a collector."""
        ...

    def alone(self, path: str) -> AbstractContextManager[Any]:
        """Keep other processes out, as far as the folder allows it; ``path`` is a file that is made for this."""
        ...

    def open(self) -> None:
        """Make the folder, or see that it is there."""
        ...

    def get(self, path: str) -> bytes | None:
        """What a file holds; None: there is none."""
        ...

    def put(self, files: Iterable[tuple[str, Any]]) -> None:
        """Write files: path and bytes."""
        ...

    def commit(self, before: str, after: str) -> None:
        """Move one file as ``move`` does. When it returns, all that was done up to then outlives a loss of power; and
        none of it comes to be without what was done before."""
        ...

    def move(self, files: Sequence[tuple[str, str]]) -> None:
        """Give files another path, each as a whole. One that is not there any more has been moved before; one that
        still is, because it was copied, is moved again by the same call, and no harm is done."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, those that are there."""
        ...

    def clear(self, path: str) -> None:
        """Remove the files right under ``path``."""
        ...


class LocalFolder:
    """A directory. What is moved is renamed, and an advisory lock keeps others out."""

    def __init__(self, name: str, root: Path) -> None:
        self._name = name
        self._root = root
        self._changed: set[Path] = set()  # directories whose entries a loss of power may undo

    def errors(self) -> AbstractContextManager[None]:
        return files(self._name)

    def alone(self, path: str) -> AbstractContextManager[Any]:
        self._make((self._root / path).parent)
        return FileLock(self._root / path, timeout=_BUSY)

    def open(self) -> None:
        self._make(self._root)

    def get(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, files: Iterable[tuple[str, Any]]) -> None:
        for path, data in files:
            with self._at(path).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def commit(self, before: str, after: str) -> None:
        self._settle()
        self.move([(before, after)])
        self._settle()

    def move(self, files: Sequence[tuple[str, str]]) -> None:
        for before, after in files:
            there = self._at(after)
            try:
                (self._root / before).replace(there)
            except FileNotFoundError:
                if (self._root / before).exists():  # it is the directory that has just been deleted
                    raise

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            (self._root / path).unlink(missing_ok=True)

    def clear(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            for file in (self._root / path).iterdir():
                file.unlink(missing_ok=True)

    def _at(self, path: str) -> Path:
        """Where a file is, or is to be; its directory is made, and counts as changed."""
        directory = (self._root / path).parent
        self._make(directory)
        self._changed.add(directory)
        return self._root / path

    def _make(self, directory: Path) -> None:
        if not directory.is_dir():
            self._make(directory.parent)
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
            self._changed.add(directory.parent)

    def _settle(self) -> None:
        """The names in a directory are as much in need of this as what its files hold."""
        for directory in self._changed:
            with contextlib.suppress(FileNotFoundError):  # such as a day that its user has deleted
                _sync(directory)
        self._changed.clear()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Bucket:
    """A prefix in a bucket. What is moved is copied, and goes when its place is cleared; nothing keeps others out."""

    def __init__(self, name: str, root: str, **options: Any) -> None:
        self._name = name
        self._root = root.rstrip("/")
        self._options = options

    @cached_property
    def _store(self) -> Any:
        # A file of a few MB goes up in one request when its opening may be delayed, and in three otherwise.
        return fs.S3FileSystem(allow_delayed_open=True, **self._options)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            final = any(said in str(error) for said in _FINAL)
            raise (SinkFailed if final else SinkUnavailable)(f"{self._name}: {error}") from error

    def alone(self, path: str) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def open(self) -> None:
        if not self._there(self._root.partition("/")[0]):
            raise SinkFailed(f"{self._name}: there is no such bucket, or these credentials do not see it")

    def get(self, path: str) -> bytes | None:
        try:
            with self._store.open_input_stream(f"{self._root}/{path}", compression=None) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError:
            return None

    def put(self, files: Iterable[tuple[str, Any]]) -> None:
        for path, data in files:
            with self._store.open_output_stream(f"{self._root}/{path}", compression=None) as stream:
                stream.write(data)

    def commit(self, before: str, after: str) -> None:
        self.move([(before, after)])

    def move(self, files: Sequence[tuple[str, str]]) -> None:
        for before, after in files:
            try:
                self._store.copy_file(f"{self._root}/{before}", f"{self._root}/{after}")
            except OSError:
                if self._there(f"{self._root}/{before}"):
                    raise

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self._store.delete_file(f"{self._root}/{path}")

    def clear(self, path: str) -> None:
        self._store.delete_dir_contents(f"{self._root}/{path}", missing_dir_ok=True)

    def _there(self, path: str) -> bool:
        return bool(self._store.get_file_info(path).type != fs.FileType.NotFound)


# What Arrow says of a refusal: AWS's own names of it, and the status that comes with those it has no name for.
_FINAL = (
    *("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("HTTP status 301", "HTTP status 400", "HTTP status 401", "HTTP status 403"),
)
