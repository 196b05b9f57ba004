"""``bqstream tail``: the rows of one document, as lines."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from .. import Client, Message, UsageError
from ..collect.output import Output
from ..delivery.document import Document
from ..events import Event
from .running import duration, run, run_until
from .wording import counted, timed

Render = Callable[[Iterable[Any]], bytes]


def _option(flag: str, parameter: str, help: str, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """An option that an environment variable named after it can set as well."""
    settings.setdefault("envvar", "BQSTREAM_TAIL_" + flag.removeprefix("--").replace("-", "_").upper())
    return click.option(flag, parameter, help=help, show_envvar=True, **settings)


@click.command()
@click.argument(
    "document", required=False, type=click.File(encoding="utf-8"), envvar="BQSTREAM_TAIL_DOCUMENT"
)
@_option("--query", "query", "The document itself, instead of a file.", metavar="TEXT")
@_option("--operation", "operation", "Which of a document's operations.", metavar="NAME")
@_option(
    "--var",
    "given",
    "A variable, read as the type that the document declares. May be repeated; wins over --vars.",
    metavar="NAME=VALUE",
    multiple=True,
)
@_option(
    "--vars", "file", "Variables, as one JSON object.", metavar="FILE.json", type=click.File(encoding="utf-8")
)
@_option(
    "--endpoint", "endpoint", "eu, us, asia, or a URL; else eu.", metavar="URL", envvar="BITQUERY_ENDPOINT"
)
@_option("--token-url", "token_url", "Where tokens are had.", metavar="URL", envvar="BITQUERY_TOKEN_URL")
@_option("--rows", "limit", "Stop after so many rows.", metavar="N", type=click.IntRange(min=1))
@_option("--for", "seconds", "Stop after so long: 30s, 5m, 1h.", type=duration)
@_option(
    "--format",
    "form",
    "json: one row a line.",
    type=click.Choice(["json", "table"]),
    default="json",
    show_default=True,
)
def tail(
    document: IO[str] | None,
    query: str | None,
    operation: str | None,
    given: Sequence[str],
    file: IO[str] | None,
    endpoint: str | None,
    token_url: str | None,
    limit: int | None,
    seconds: float | None,
    form: str,
) -> None:
    """Print the rows of DOCUMENT (a file, or - for standard input) until stopped.

    Rows go to standard output, one JSON object a line; what happens to the connection goes to standard error.

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage or document, 3 credentials or plan, 130 stopped by Ctrl-C.
    """
    if (document is None) == (query is None):
        raise click.UsageError("give a DOCUMENT or --query TEXT, one of the two")
    text = query if query is not None else document.read() if document is not None else ""
    run(_tail(text, operation, given, file, endpoint, token_url, limit, seconds, _RENDERS[form]))


async def _tail(
    text: str,
    operation: str | None,
    given: Sequence[str],
    file: IO[str] | None,
    endpoint: str | None,
    token_url: str | None,
    limit: int | None,
    seconds: float | None,
    render: Render,
) -> int:
    parsed = Document.parse(text, operation)
    parsed.require("subscription")  # before a token is fetched for nothing
    variables = _variables(parsed, given, file)
    if token_url:
        # Credentials are read from the environment and nowhere else; this option is a part of them.
        os.environ["BITQUERY_TOKEN_URL"] = token_url
    counts = {"rows": 0, "gaps": 0}

    async def work() -> None:
        async with (
            Client(endpoint=endpoint, on_event=_tell) as client,
            client.subscribe(text, variables, operation_name=operation) as stream,
        ):
            out = Output(sys.stdout.fileno())
            try:
                async for message in stream:
                    _tell_errors(message)
                    left = None if limit is None else limit - counts["rows"]
                    rows = list(itertools.islice(message.rows(), left))
                    await out.write(render(rows))
                    counts["rows"] += len(rows)
                    if counts["rows"] == limit:
                        break
            finally:
                counts["gaps"] = len(stream.gaps)

    signal = await run_until(work(), seconds)
    click.echo(f"{counted(counts['rows'], 'row')}, {counted(counts['gaps'], 'gap')}", err=True)
    return 128 + signal if signal else 0


def _variables(document: Document, given: Sequence[str], file: IO[str] | None) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = json.load(file)
        except ValueError as error:
            raise UsageError(f"--vars: {Path(file.name).name} is no JSON: {error}") from None
        if not isinstance(loaded, dict):
            raise UsageError(f"--vars: {Path(file.name).name} must hold one JSON object")
        variables |= loaded
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {text}: give NAME=VALUE")
        variables[name] = document.coerce(name, value)
    return variables


def _tell(event: Event) -> None:
    click.echo(timed(event), err=True)


def _tell_errors(message: Message) -> None:
    for error in message.errors:
        click.echo(f"the service says, beside partial data: {error.get('message', error)}", err=True)


def _json_lines(rows: Iterable[Any]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _table(rows: Iterable[Any]) -> bytes:
    """One table for each message; a row's nested fields become dotted columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    flat = [dict(_leaves(row)) for row in rows]
    if not flat:
        return b""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(flat)))
    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold")
    for row in flat:
        table.add_row(*(row.get(column, "") for column in columns))
    terminal = sys.stdout.isatty()
    page = io.StringIO()
    width = None if terminal else max(120, 40 * len(columns))
    Console(file=page, force_terminal=terminal, width=width, markup=False).print(table)
    return page.getvalue().encode()


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, str):
        yield path or "value", value
    else:
        yield path or "value", msgspec.json.encode(value).decode()


_RENDERS: dict[str, Render] = {"json": _json_lines, "table": _table}
