"""What several commands ask for alike: options that the environment can set as well, and a document with its variables.

``duration``, ``since`` and ``loopback`` read one value each, and raise ValueError for what is none.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cyclopts import Parameter, Token

from ..delivery.document import Document
from ..errors import UsageError

Since = datetime | timedelta | int
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_AGE = 50 * 365 * 86400.0  # seconds: no chain is older


# ---------------------------------------------------------------------- types of values


def duration(text: str) -> float:
    """The seconds of ``30s``, ``5m``, ``1h``, or of a plain number. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{text!r} is no length of time: give one like 30s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def since(text: str) -> Since:
    """What ``subscribe(since=…)`` takes: an age (``6h``, ``2d``), an RFC 3339 time, or a block's number.

    Raises ValueError. A plain number is a block, so an age needs its unit.
    """
    text = text.strip()
    if re.fullmatch(r"\d{1,19}", text):
        return int(text)
    age = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhd])", text)
    if age is not None and 0 < (seconds := float(age[1]) * _UNITS[age[2]]) <= _LONGEST_AGE:
        return timedelta(seconds=seconds)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no moment: give an age like 6h, a time like 2026-01-31T12:00:00Z, or a block's number"
        ) from None
    if time.tzinfo is None:
        raise ValueError(
            f"{text!r} has no zone: write a Z behind a time of UTC, such as 2026-01-31T12:00:00Z"
        )
    return time.astimezone(UTC)


def loopback(text: str) -> str:
    """The address of this machine alone that ``text`` is. Raises ValueError."""
    import ipaddress

    try:
        local = text == "localhost" or ipaddress.ip_address(text).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError("give a loopback address, such as 127.0.0.1")
    return text


# ---------------------------------------------------------------------- options


@dataclass(frozen=True, slots=True)
class Options:
    """Makes the options of one command: each can be set by ``BQSTREAM_<COMMAND>_<FLAG>`` too, which its help names.

    options = Options("TAIL")

    def tail(*, query: Annotated[str | None, options.query] = None, …): …
    """

    command: str

    def option(
        self,
        *flags: str,
        help: str,
        read: Callable[[str], object] | None = None,
        env_var: str | None = None,
        show_default: bool | str = False,
        **settings: Any,
    ) -> Parameter:
        """An option. ``read`` makes its value of a text, and raises ValueError for one that cannot mean anything."""
        variable = (
            env_var or f"BQSTREAM_{self.command}_{flags[0].removeprefix('--').replace('-', '_').upper()}"
        )
        if read is not None:
            settings |= {"converter": _by(read), "n_tokens": 1, "accepts_keys": False}
        return Parameter(
            name=flags, help=help, env_var=variable, show_default=show_default, negative=(), **settings
        )

    @property
    def document(self) -> Parameter:
        """A document's file as an argument; what begins with a hyphen is an option that there is not."""
        return Parameter(
            help="A file, or - for standard input.",
            env_var=f"BQSTREAM_{self.command}_DOCUMENT",
            show_default=False,
            converter=_by(_name_of_file),
            allow_leading_hyphen=True,
        )

    @property
    def query(self) -> Parameter:
        return self.option("--query", help="The document itself, instead of a file.", metavar="TEXT")

    @property
    def operation(self) -> Parameter:
        return self.option("--operation", help="Which of a document's operations.", metavar="NAME")

    @property
    def var(self) -> Parameter:
        return self.option(
            "--var",
            help="A variable, read as the type that the document declares. May be repeated; wins over --vars.",
            metavar="NAME=VALUE",
        )

    @property
    def vars(self) -> Parameter:
        return self.option("--vars", help="Variables, as one JSON object; - for standard input.",
                           metavar="FILE.json", allow_leading_hyphen=True)  # fmt: skip

    @property
    def endpoint(self) -> Parameter:
        return self.option(
            "--endpoint", help="eu, us, asia, or a URL; else eu.", metavar="URL", env_var="BITQUERY_ENDPOINT"
        )

    @property
    def token_url(self) -> Parameter:
        return self.option(
            "--token-url", help="Where tokens are had.", metavar="URL", env_var="BITQUERY_TOKEN_URL"
        )

    @property
    def seconds(self) -> Parameter:
        return self.option("--for", help="Stop after so long: 30s, 5m, 1h.", read=duration, metavar="TIME")

    @property
    def since(self) -> Parameter:
        return self.option(
            "--since",
            help="Begin in the past, and follow: an age (6h), a time (2026-01-31T12:00:00Z), or a block's number.",
            read=since,
            metavar="AGE|TIME|BLOCK",
        )


def _by(read: Callable[[str], object]) -> Callable[[Any, Sequence[Token]], object]:
    return lambda _, tokens: read(tokens[0].value)


def _name_of_file(text: str) -> str:
    if text.startswith("-") and text != "-":
        raise ValueError(f"Unknown option: {text}")
    return text


# ---------------------------------------------------------------------- a document and its variables


@dataclass(frozen=True, slots=True)
class Question:
    """A document as it was asked for on a command line."""

    document: Document
    variables: dict[str, Any]

    @property
    def text(self) -> str:
        return self.document.text

    @property
    def operation_name(self) -> str | None:
        return self.document.operation_name


def question(
    document: str | None,
    query: str | None = None,
    *,
    operation: str | None = None,
    var: Sequence[str] = (),
    vars: str | None = None,
) -> Question:
    """Read a subscription and its variables, before a token is fetched for nothing.

    Raises UsageError and DocumentRefused.
    """
    if (document is None) == (query is None):
        raise UsageError("give a DOCUMENT or --query TEXT, one of the two")
    if document == "-" and vars == "-":
        raise UsageError("the document and --vars cannot both come from standard input")
    source = query if query is not None else sys.stdin.read() if document == "-" else Path(document or "")
    parsed = Document.parse(source, operation)
    parsed.require("subscription")
    return Question(parsed, _variables(parsed, var, vars))


def schema_text(path: str | None) -> str | None:
    """What the file of a schema holds; None for none. Raises UsageError where it cannot be read."""
    try:
        return None if path is None else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(f"--schema {path} cannot be read: {why}") from None


def use_token_url(url: str | None) -> None:
    """Have the credentials that the environment holds fetch their tokens there, since it is a part of them."""
    if url:
        os.environ["BITQUERY_TOKEN_URL"] = url


def _variables(document: Document, given: Sequence[str], file: str | None) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    if file is not None:
        name = "standard input" if file == "-" else Path(file).name
        try:
            loaded = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--vars: {name} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"--vars: {name} is no JSON: {error}") from None
        if not isinstance(loaded, dict):
            raise UsageError(f"--vars: {name} must hold one JSON object")
        variables |= loaded
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {text}: give NAME=VALUE")
        variables[name] = document.coerce(name, value)
    return variables
