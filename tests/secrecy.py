"""A pytest plugin that searches all that the suite logs, raises, shows and prints for every secret that it uses.

**Looked at**: every log record, whatever its level (those of servers, which are the tests' own, aside); every error of
``bqstream.errors`` at its end, with all that it leads to, and so every other exception that comes out of bqstream
where a test expects one; the ``repr`` of every object of bqstream that has one of its own, when it is made; warnings;
what a test or a child process prints.

**Searched for**: every token and client secret that a test, the simulator or the client makes an object of; plain,
escaped as in JSON and in a ``repr``, URL-encoded, and, with its client id, as Basic's base64. Eight characters of one
in a row are a leak. No leak are eight characters that stand in bqstream's own source, such as ``client_s``, nor such
as hold fewer than four different ones; and a secret of fewer than eight characters, which tests use as a word, is not
searched for. After each test its texts are searched for all the secrets of its module so far, and it fails if one is
shown, unless it is marked ``shows_secrets``. All log levels are on, but for tests marked ``log_levels``.
"""

from __future__ import annotations

import asyncio.subprocess
import base64
import functools
import gc
import importlib
import json
import logging
import pkgutil
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch
from urllib.parse import quote, quote_plus, urlsplit

import pytest

import bqstream
from bqstream.errors import BqstreamError

WINDOW = 8
LEAST_DISTINCT = 4
REPRS = 200  # of one class, in one test
SERVERS = ("tests", "websockets.server", "aiohttp.access", "aiohttp.server", "aiohttp.web", "strawberry")
PUBLIC_PREFIXES = ("ory_at_", "Bearer ")
_RUN = re.compile(r"[!-~]{8,}")  # no secret holds a space
_FOREIGN_TOKEN = re.compile(r"ory_[a-z]{2}_[\w-]{8,}")  # one that a child process made
_READY = re.compile(r'^.*"client_secret":.*$', re.MULTILINE)  # what `bqstream simulator` prints for its user
_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_SOURCE = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted(Path(bqstream.__file__).parent.rglob("*.py"))
)


def forms(secret: str) -> Iterator[str]:
    """How a secret may be written down."""
    for prefix in PUBLIC_PREFIXES:
        secret = secret.removeprefix(prefix)
    encoded = quote(secret, safe="")
    lower = re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield from (secret, encoded, lower, quote(secret), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], repr(secret)[1:-1])


def basic(client_id: str, secret: str) -> Iterator[str]:
    """The secret's part of HTTP Basic's base64; characters that also hold bits of the client id are left out."""
    for user, password in ((client_id, secret), (quote_plus(client_id), quote_plus(secret))):
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode().rstrip("=")
        yield encoded[-(-(len(user) + 1) * 8 // 6) :]


def told(error: BaseException | None) -> Iterator[str]:
    """All that can be read of an exception and of those it leads to, source lines in tracebacks aside."""
    todo, seen = [error], set[int]()
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield f"{error!r} {error} {error.args!r} {vars(error)!r}"
        todo += (error.__cause__, error.__context__, *getattr(error, "exceptions", ()))


class Watch:
    """Collects texts and secrets, and says which text shows which secret. A context manager: hooks live within."""

    def __init__(self) -> None:
        self.windows: set[str] = set()
        self._known: set[str] = set()
        self.keep()
        self._texts: set[tuple[str, str]] = set()
        self.every_level = True
        self.searched: Counter[str] = Counter()  # by what it was
        self.secrets = 0
        self._made: Counter[type] = Counter()
        self._printed: dict[tuple[int, int], bytearray] = {}
        self._hooks: list[Any] = []

    # ------------------------------------------------------------------ what is collected

    def secret(self, *values: str) -> None:
        """Search for these from now on."""
        for value in set(values) - self._known:
            self._known.add(value)
            self.secrets += len(value) >= WINDOW
            self._add(*forms(value))

    def client_secret(self, client_id: str, secret: str) -> None:
        self.secret(secret)
        if len(secret) >= WINDOW:
            self._add(*basic(client_id, secret))

    def _add(self, *texts: str) -> None:
        self.windows.update(text[i : i + WINDOW] for text in texts for i in range(len(text) - WINDOW + 1))

    def keep(self) -> None:
        """What is known by now is never forgotten."""
        self._kept = (frozenset(self.windows), frozenset(self._known))

    def forget(self) -> None:
        """Search no longer for what came to be known since ``keep()``."""
        self.windows, self._known = map(set, self._kept)

    def text(self, origin: str, text: str) -> None:
        """Something that was shown."""
        self._texts.add((origin, text))

    def error(self, origin: str, error: BaseException | None) -> None:
        for text in told(error):
            self.text(origin, text)

    def record(self, record: logging.LogRecord) -> None:
        extras = [value for name, value in vars(record).items() if name not in _RECORD]
        origin = f"the log of {record.name}"
        self.text(origin, f"{record.getMessage()} {record.args!r} {extras or ''} {record.stack_info or ''}")
        if record.exc_info:
            self.error(origin, record.exc_info[1])

    def printed(self, source: int, descriptor: int, data: bytes) -> None:
        """A child process printed; it may stop in the middle of a word."""
        self._printed.setdefault((source, descriptor), bytearray()).extend(data)

    # ------------------------------------------------------------------ what is found

    def leaks(self) -> list[str]:
        """Say which texts show a secret, and forget them all."""
        texts, self._texts = self._texts, set()
        printed, self._printed = self._printed, {}
        self._made.clear()
        for data in printed.values():
            texts.add(("a child process", _READY.sub("", data.decode(errors="replace"))))
        self.searched.update(origin for origin, _ in texts)
        found = {origin: leak for origin, text in texts for leak in self._leaks(origin, text)}
        return sorted(f"{origin}: …{leak}…" for origin, leak in found.items())

    def _leaks(self, origin: str, text: str) -> Iterator[str]:
        if origin == "a child process":
            yield from _FOREIGN_TOKEN.findall(text)
        for run in _RUN.finditer(text):
            word = run[0]
            for at in range(len(word) - WINDOW + 1):
                window = word[at : at + WINDOW]
                if window in self.windows and len(set(window)) >= LEAST_DISTINCT and window not in _SOURCE:
                    yield text[max(run.start() + at - 60, 0) : run.start() + at + 60]

    # ------------------------------------------------------------------ the hooks

    def __enter__(self) -> Self:
        enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle
        piped = asyncio.subprocess.SubprocessStreamProtocol.pipe_data_received
        filled = pytest.ExceptionInfo.fill_unfilled

        def is_enabled_for(logger: logging.Logger, level: int) -> bool:
            return (self.every_level and not logger.name.startswith(SERVERS)) or enabled(logger, level)

        def handled(logger: logging.Logger, record: logging.LogRecord) -> None:
            if not record.name.startswith(SERVERS):
                self.record(record)
            if enabled(logger, record.levelno):  # handlers see what they would see without this plugin
                handle(logger, record)

        def pipe_data_received(protocol: Any, descriptor: int, data: bytes) -> None:
            self.printed(id(protocol), descriptor, data)
            piped(protocol, descriptor, data)

        def fill_unfilled(info: Any, caught: Any) -> None:
            if _came_through_bqstream(caught[2]):
                self.error("an exception that a test expects", caught[1])
            filled(info, caught)

        def seen_off(error: BqstreamError) -> None:
            self.error(f"a {type(error).__name__}", error)

        self._hook(logging.Logger, "isEnabledFor", is_enabled_for)
        self._hook(logging.Logger, "handle", handled)
        self._hook(asyncio.subprocess.SubprocessStreamProtocol, "pipe_data_received", pipe_data_received)
        self._hook(pytest.ExceptionInfo, "fill_unfilled", fill_unfilled)
        for kind in classes():
            if issubclass(kind, BqstreamError):
                self._hook(kind, "__del__", seen_off)
            elif "__init__" in vars(kind):
                self._hook(kind, "__init__", self._watched_init(kind))
        return self

    def __exit__(self, *_: object) -> None:
        while self._hooks:
            self._hooks.pop().stop()

    def _hook(self, owner: type, name: str, value: Any) -> None:
        hook = patch.object(owner, name, value, create=True)
        hook.start()
        self._hooks.append(hook)

    def _watched_init(self, kind: type) -> Callable[..., None]:
        original = kind.__init__  # type: ignore[misc]
        shows = any("__repr__" in vars(one) for one in kind.__mro__[:-1])

        @functools.wraps(original)
        def init(made: Any, *args: Any, **options: Any) -> None:
            original(made, *args, **options)
            if type(made).__init__ is not init:
                return  # a subclass is not ready yet
            self._learn(made)
            if shows and self._made[kind] < REPRS:
                self._made[kind] += 1
                self.text(f"the repr of a {kind.__name__}", repr(made))

        return init

    def _learn(self, made: Any) -> None:
        match type(made).__name__:
            case "Token" | "IssuedToken":
                self.secret(made.value)
            case "Placement":
                self.secret(*made.secrets)
            case "Target":
                self.secret(*made.secrets, *_passwords(made.proxy))
            case "Network":
                self.secret(*_passwords(made.proxy))
            case "ClientCredentials" | "Settings" if hasattr(made, "client_secret"):
                self.client_secret(made.client_id, made.client_secret)


def _came_through_bqstream(trace: TracebackType | None) -> bool:
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(trace)]
    return any(name.startswith("bqstream.") and ".simulator" not in name for name in frames)


def _kind(origin: str) -> str:
    if origin.startswith("the log of"):
        return "log records"
    if origin.startswith("the repr of"):
        return "reprs"
    return "errors" if origin.startswith(("a ", "an ")) and "process" not in origin else "printed texts"


def _passwords(proxy: object) -> list[str]:
    return [urlsplit(proxy).password or ""] if isinstance(proxy, str) else []


@functools.cache
def classes() -> tuple[type, ...]:
    """Every class of the client, and of the simulator those that hold secrets."""
    found: dict[type, None] = {}
    for module in pkgutil.walk_packages(bqstream.__path__, "bqstream."):
        if module.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and kind.__module__ == module.name:
                simulated = module.name.startswith("bqstream.simulator")
                protocol = getattr(kind, "_is_protocol", False)
                if not protocol and (not simulated or kind.__name__ in ("IssuedToken", "Settings")):
                    found[kind] = None
    return tuple(found)


# ---------------------------------------------------------------------- the plugin


class Secrecy:
    """One watch over the whole session; the guilty test fails at its teardown."""

    def __init__(self) -> None:
        self.watch = Watch()

    def pytest_collection_finish(self) -> None:
        self.watch.leaks()
        self.watch.keep()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.watch.every_level = item.get_closest_marker("log_levels") is None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, None, None]:
        yield
        for _, what, text in item._report_sections:
            if what != "log":  # each record was looked at
                self.watch.text(f"what the test prints ({what})", _READY.sub("", text))
        last = nextitem is None or nextitem.path != item.path
        if last:
            gc.collect()  # errors that are left come to their end
            gc.freeze()  # what outlives the module is looked at no more, which would take seconds each time
        leaks = self.watch.leaks()
        if last:
            self.watch.forget()
        if leaks and item.get_closest_marker("shows_secrets") is None:
            pytest.fail("a secret is shown:\n" + "\n".join(leaks), pytrace=False)

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        self.watch.text("a warning", str(warning_message.message))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:  # a process of pytest-xdist
            output["secrecy"] = (self.watch.secrets, dict(self.watch.searched))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        secrets, searched = getattr(node, "workeroutput", {}).get("secrecy", (0, {}))
        self.watch.secrets += secrets
        self.watch.searched.update(searched)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        searched, kinds = self.watch.searched, dict[str, list[int]]()
        for origin, count in searched.items():
            kinds.setdefault(_kind(origin), []).append(count)
        shown = (f"{sum(counts):,} {kind} of {len(counts)} kinds" for kind, counts in kinds.items())
        terminalreporter.section("secrecy")
        terminalreporter.line(
            f"{searched.total():,} texts searched for {self.watch.secrets:,} secrets: {', '.join(shown)}"
        )

    def pytest_unconfigure(self) -> None:
        self.watch.__exit__()


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "shows_secrets: shows a secret on purpose, which tests/secrecy.py lets pass",
        "log_levels: is about which log levels are on, so that tests/secrecy.py switches on none",
    ):
        config.addinivalue_line("markers", marker)
    plugin = Secrecy()
    plugin.watch.__enter__()
    config.pluginmanager.register(plugin, "secrecy")
