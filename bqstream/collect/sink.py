"""What a sink is, and how one is found by its name."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote

from ..errors import SinkFailed, SinkUnavailable, UsageError
from .commit import Commit, Stored

T = TypeVar("T")

# Part of the package: the module that makes each, and the extra that brings its library.
_OWN = {
    "jsonl": ("jsonl", "collect"),
    "stdout": ("stdout", "collect"),
    "sqlite": ("sqlite", "collect"),
    "duckdb": ("duckdb", "duckdb"),
    "parquet": ("parquet", "parquet"),
    "postgresql": ("postgresql", "postgresql"),
    "postgres": ("postgresql", "postgresql"),
    "nats": ("nats", "nats"),
    "tls": ("nats", "nats"),
}
GROUP = "bqstream.sinks"
# A password before the host, or in an option.
_SECRET = re.compile(r"^(\w+:)?//[^/?#]*:[^/?#]*@|[?&][^=&]*(password|secret|token)[^=&]*=", re.IGNORECASE)
# For the thread of a blocking sink to end what it is doing, in seconds; its library's own time-outs bound it too.
_LEAVE = 10.0


class Sink(Protocol):
    """Where a collector puts rows: any object with these. One object serves one subscription.

    A commit is there as a whole or not at all, whenever the process dies: rows, gaps and state together. The collector
    calls one method at a time. Each raises SinkUnavailable where trying again may help: the collector then calls
    ``open`` anew, learns from what it returns whether the commit went through, and repeats it if not; SinkFailed where
    it does not help; SinkLocked where another collector has committed in between.

    Two methods more are for ``bqstream checkpoint``, and may be missing:

        async def peek(self, subscription: str) -> Stored | None
            what ``open`` gives, while another may be at it; it changes nothing and makes nothing
        async def count(self, table: str, column: str, at_least: int | datetime) -> int | None
            how many rows have that much in a column, and more; None where that cannot be told

    For collectors it may also have:

    ``patience``       how many seconds a batch waits for more at most, where the user has not said; else 5.
    ``stateless``      True: it keeps nothing that a second collector could harm, which then is not kept away.
    ``refused(rows)``  the indices of the `Rows` (by column) that it can never hold: these go to the dead letters. It
                       is called in a thread, and reaches for nothing outside.
    """

    @property
    def name(self) -> str:
        """For people; no password is in it."""
        ...

    @property
    def flat(self) -> bool:
        """Whether it takes rows by column (``Rows.columns``); else as the service nests them (``Rows.nested``)."""
        ...

    @property
    def lock(self) -> Path | None:
        """A file on this machine that keeps a second collector away; None: one by the sink's name is chosen."""
        ...

    async def open(self, subscription: str) -> Stored | None:
        """Connect, undo or finish what a crash left behind, and give what is stored of ``subscription``."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Add ``commit``, if the last commit of the subscription is the one before it."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and files. Idempotent, and commits nothing."""
        ...


class BlockingSink(abc.ABC):
    """A sink whose library blocks: what it does happens in one thread of its own, so that reading goes on.

    Cancelling a call leaves its thread to end by itself; ``aclose`` waits for that, bounded.
    """

    flat = True

    def __init__(self, name: str, lock: Path | None = None) -> None:
        self.name = name
        self.lock = lock
        self._thread: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def open(self, subscription: str) -> Stored | None:
        return await self._in_thread(self._open, subscription)

    async def peek(self, subscription: str) -> Stored | None:
        return await self._in_thread(self._peek, subscription)

    async def count(self, table: str, column: str, at_least: int | datetime) -> int | None:
        return await self._in_thread(self._count, table, column, at_least)

    async def commit(self, commit: Commit) -> None:
        await self._in_thread(self._commit, commit)

    async def aclose(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            closed = asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)
            await asyncio.wait({closed}, timeout=_LEAVE)

    async def _in_thread(self, call: Callable[..., T], *args: Any) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bqstream-sink")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    @abc.abstractmethod
    def _open(self, subscription: str) -> Stored | None: ...

    @abc.abstractmethod
    def _peek(self, subscription: str) -> Stored | None: ...

    def _count(self, table: str, column: str, at_least: int | datetime) -> int | None:
        return None

    @abc.abstractmethod
    def _commit(self, commit: Commit) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """``scheme:place?option=value&…``, as ``--to`` takes it. ``text`` is the whole of it."""

    scheme: str
    place: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)
    text: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, trusted: bool = False) -> Address:
        """Read ``text``. Raises UsageError: no scheme; or a password, unless the text is ``trusted`` to hold one,
        since a command line is read by every user of the machine."""
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme.isidentifier():
            # It is not shown: where the colon is missing, a password may yet be in it.
            raise UsageError(f"--to: give SCHEME:PLACE, such as jsonl:rows.jsonl; there are {_known()}")
        if not trusted and _SECRET.search(unquote(rest)):
            raise UsageError(
                "--to holds a password, which every user of this machine can read there: leave it out and give it "
                "by PGPASSWORD or ~/.pgpass (PostgreSQL), NATS_CREDS or NATS_TOKEN (NATS), AWS_SECRET_ACCESS_KEY (S3), "
                "or as ${VARIABLE} in the `to` of a --config file"
            )
        place, _, options = rest.partition("?")
        return cls(scheme, place, dict(parse_qsl(options, keep_blank_values=True)), text)

    def only(self, *names: str) -> None:
        """Raise UsageError for an option that is none of ``names``."""
        for name in self.options:
            if name not in names:
                known = ", ".join(names) or "none"
                raise UsageError(f"the sink {self.scheme}: has no option {name!r}; it has {known}")


def open_sink(address: str | Address) -> Sink:
    """The sink that ``address`` names (text is trusted); nothing is opened yet.

    A package adds one by an entry point of the group ``bqstream.sinks``, named as its scheme: a callable that takes a
    `Address` and gives a `Sink`.

    Raises UsageError: there is no such sink, its library is not installed, or its address is wrong.
    """
    address = Address.parse(address, trusted=True) if isinstance(address, str) else address
    if address.scheme in _OWN:
        module, extra = _OWN[address.scheme]
        try:
            make = importlib.import_module(f".sinks.{module}", __package__).sink
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("bqstream"):
                raise
            raise UsageError(
                f'the sink {address.scheme}: needs {error.name}: pip install "bqstream[{extra}]"'
            ) from None
    else:
        found = {point.name: point for point in entry_points(group=GROUP)}
        if address.scheme not in found:
            raise UsageError(f"there is no sink {address.scheme!r}; there are {_known()}")
        make = found[address.scheme].load()
    made: Sink = make(address)
    return made


def _known() -> str:
    names = {name for name in _OWN if name not in ("postgres", "tls")}
    return ", ".join(sorted(names | {point.name for point in entry_points(group=GROUP)}))


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_FINAL = (
    *_FORBIDDEN,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


@contextlib.contextmanager
def files(name: str) -> Iterator[None]:
    """Say what an OSError means for the sink ``name``: a full disk passes, a missing permission does not."""
    try:
        yield
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _FULL:
            raise SinkUnavailable(f"{name}: the disk is full ({what}): make room; nothing is lost") from error
        if error.errno in _FINAL:
            path = error.filename or "it"
            why = f"{path} cannot be written by this user" if error.errno in _FORBIDDEN else path
            raise SinkFailed(f"{name}: {what}: {why}") from error
        raise SinkUnavailable(f"{name}: {what}") from error
