"""What a new process needs to go on where another one stopped."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from .errors import UsageError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one cube has come.

    Attributes:
        low: the kind and value, as text, of the place below which every row was delivered; None where no row has come.
        since: beside it or in place of it, the same as a block's time, in seconds since the epoch.
        beyond: the rows at that place and above that were delivered too, by their block's value ("" where a row does
            not say): for each row 12 characters that stand for it, one after another.
        told: what rows are compared by, as text that means nothing else.
    """

    low: tuple[str, str] | None = None
    since: int | None = None
    beyond: Mapping[str, str] = field(default_factory=dict, repr=False)
    told: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All rows up to here, and these beyond: ``client.subscribe(document, variables, resume=checkpoint)`` goes on.

    It is taken from ``message.checkpoint`` or ``stream.checkpoint``, is plain JSON, holds no token, and belongs to one
    document with its variables and endpoint (``fingerprint``). ``at`` is when its last message came in; UTC.
    """

    fingerprint: str
    at: datetime
    cubes: Mapping[str, Mark]

    def __repr__(self) -> str:
        places = ", ".join(f"{key} {' '.join(mark.low or ())}".strip() for key, mark in self.cubes.items())
        return f"<Checkpoint at {self.at.isoformat()}: {places or 'no cube that can be resumed'}>"

    def dumps(self) -> str:
        """As JSON text, to be kept beside the rows, in the same transaction."""
        stored = _Stored(
            bqstream_checkpoint=VERSION, fingerprint=self.fingerprint, at=self.at, cubes=self.cubes
        )
        return msgspec.json.encode(stored).decode()

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """What ``dumps`` gave. Raises UsageError for anything else, and for one of a version that is not known."""
        if not isinstance(text, str | bytes):
            raise UsageError(f"a checkpoint is text, not {type(text).__name__}")
        try:
            version = msgspec.json.decode(text, type=_Version).bqstream_checkpoint
            if version != VERSION:
                raise UsageError(
                    f"the checkpoint is of version {version}; this bqstream reads version {VERSION}"
                )
            stored = msgspec.json.decode(text, type=_Stored)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UsageError(
                f"this is no checkpoint, so begin anew without it, or with since=: {error}"
            ) from None
        if stored.at.tzinfo is None:
            raise UsageError("this is no checkpoint: its time has no zone")
        return cls(stored.fingerprint, stored.at, stored.cubes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, atomically: a crash leaves the old one or the new one, whole. Raises OSError."""
        target = Path(path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.dumps())
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        sync_folder(target.parent)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` wrote. Raises UsageError for another file, OSError where there is none."""
        return cls.loads(Path(path).read_bytes())


class _Version(msgspec.Struct):
    bqstream_checkpoint: Any


class _Stored(msgspec.Struct):
    bqstream_checkpoint: int
    fingerprint: str
    at: datetime
    cubes: Mapping[str, Mark]


def sync_folder(folder: Path) -> None:
    """A new name is safe once its folder is; some systems cannot open one."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
