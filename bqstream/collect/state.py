"""What a collector keeps in its sink with each commit, and reads when it starts again."""

from __future__ import annotations

import msgspec

from ..errors import UsageError
from ..tables.table import Table
from .commit import GapRecord

_VERSION = 1


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the next process goes on from; JSON text in the sink.

    Attributes:
        run: the process that wrote it, by a random name, so that no two commits have the same state.
        checkpoint: of bqstream, up to and including the rows of this commit.
        tables: as they were settled by the first rows; empty before these.
        dead_letters: how many bytes of the dead-letter file belong to this commit and those before.
        dead_file: which file that is; of another one nothing is known.
        open_gaps: gaps that were being closed.
    """

    run: str
    checkpoint: str
    tables: tuple[Table, ...] = ()
    dead_letters: int = 0
    dead_file: str = ""
    open_gaps: tuple[GapRecord, ...] = ()
    version: int = _VERSION

    def dumps(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def loads(cls, text: str) -> State:
        """What ``dumps`` gave. Raises UsageError for anything else, and for one of another version."""
        try:
            version = msgspec.json.decode(text, type=_Version).version
            if version != _VERSION:
                raise UsageError(
                    f"the sink holds a state of version {version}; this bqstream reads version {_VERSION}"
                )
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise UsageError(f"the sink holds no collector's state, or a damaged one: {error}") from None


class _Version(msgspec.Struct):
    version: int
