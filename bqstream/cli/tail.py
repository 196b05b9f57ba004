"""``bqstream tail``: the rows of one document, as lines."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import msgspec
from cyclopts.validators import Number

from .. import Client, Message
from ..events import Event
from ..output import Output
from ..wording import counted, timed
from .asking import Options, Question, Since, question, use_token_url
from .running import run, run_until, tell

Render = Callable[[Iterable[Any]], bytes]


_ask = Options("TAIL")


def tail(
    document: Annotated[str | None, _ask.document] = None,
    /,
    *,
    query: Annotated[str | None, _ask.query] = None,
    operation: Annotated[str | None, _ask.operation] = None,
    var: Annotated[tuple[str, ...], _ask.var] = (),
    vars: Annotated[str | None, _ask.vars] = None,
    endpoint: Annotated[str | None, _ask.endpoint] = None,
    token_url: Annotated[str | None, _ask.token_url] = None,
    since: Annotated[Since | None, _ask.since] = None,
    limit: Annotated[
        int | None,
        _ask.option("--rows", help="Stop after so many rows.", metavar="N", validator=Number(gte=1)),
    ] = None,
    seconds: Annotated[float | None, _ask.seconds] = None,
    form: Annotated[
        Literal["json", "table"], _ask.option("--format", help="json: one row a line.", show_default=True)
    ] = "json",
) -> None:
    """Print the rows of DOCUMENT (a file, or - for standard input) until stopped.

    Rows go to standard output, one JSON object a line; what happens to the connection goes to standard error. With
    --since what came before is asked for by queries first, and nothing is repeated where the two meet.

    ```
    bqstream tail trades.graphql
    bqstream tail trades.graphql --var network=eth --for 5m > trades.jsonl
    bqstream tail trades.graphql --since 6h
    bqstream tail --query 'subscription { EVM(network: eth) { Blocks { Block { Number } } } }' --rows 10
    bqstream tail - --vars variables.json --format table < trades.graphql
    ```

    Exit codes: 0 done, 1 failed, 2 wrong usage or document, 3 credentials or plan, 130 stopped by Ctrl-C.
    """

    async def work() -> int:
        asked = question(document, query, operation=operation, var=var, vars=vars)
        use_token_url(token_url)
        return await _tail(asked, endpoint, since, limit, seconds, _RENDERS[form])

    run(work())


async def _tail(
    asked: Question,
    endpoint: str | None,
    since: Since | None,
    limit: int | None,
    seconds: float | None,
    render: Render,
) -> int:
    counts = {"rows": 0, "gaps": 0}

    async def work() -> None:
        async with (
            Client(endpoint=endpoint, on_event=_tell) as client,
            client.subscribe(
                asked.text, asked.variables, operation_name=asked.operation_name, since=since
            ) as stream,
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
    tell(f"{counted(counts['rows'], 'row')}, {counted(counts['gaps'], 'gap')}")
    return 128 + signal if signal else 0


def _tell(event: Event) -> None:
    tell(timed(event))


def _tell_errors(message: Message) -> None:
    for error in message.errors:
        tell(f"the service says, beside partial data: {error.get('message', error)}")


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
