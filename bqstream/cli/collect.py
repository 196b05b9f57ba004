"""``bqstream collect``: rows of subscriptions into sinks, for months, each exactly once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from .. import BqstreamError, Client, UsageError
from ..collect import Address, Batching, Collector, open_sink
from ..collect.monitor import Monitor
from .asking import Options, question, schema_text, use_token_url
from .collecting import run_all, seen, told
from .running import run, tell
from .settings import SAMPLE, Job, Settings, all_of, read

_ask = Options("COLLECT")
# For collectors that are cut off to let go of what they hold, in seconds.
_LEAVE = 1.0


def collect(
    document: Annotated[str | None, _ask.document] = None,
    /,
    *,
    to: Annotated[
        str | None,
        _ask.option(
            "--to",
            metavar="SINK",
            help="Where rows go: jsonl:PATH, parquet:FOLDER or parquet:s3://BUCKET/PREFIX, duckdb:PATH, sqlite:PATH, "
            "postgresql://HOST/DATABASE, nats://HOST/STREAM/SUBJECT, stdout:.",
        ),
    ] = None,
    query: Annotated[str | None, _ask.query] = None,
    operation: Annotated[str | None, _ask.operation] = None,
    var: Annotated[tuple[str, ...], _ask.var] = (),
    vars: Annotated[str | None, _ask.vars] = None,
    table: Annotated[
        str | None,
        _ask.option("--table", metavar="NAME", help="The table's name; else the cube's response key."),
    ] = None,
    name: Annotated[
        str | None,
        _ask.option(
            "--name", metavar="NAME", help="The subscription's name in the sink; else its tables' names."
        ),
    ] = None,
    since: Annotated[
        str | None,
        _ask.option(
            "--since",
            metavar="AGE|TIME|BLOCK",
            help="Begin in the past: an age (6h), a time, or a block's number; what the sink holds already wins.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        _ask.option("--rows", metavar="N", help="Stop after so many rows, at the end of a message."),
    ] = None,
    seconds: Annotated[
        str | None, _ask.option("--for", metavar="TIME", help="Stop after so long: 30s, 5m, 1h.")
    ] = None,
    on_gap: Annotated[
        str | None,
        _ask.option(
            "--on-gap", metavar="continue|stop", help="stop: end at rows that are missing for good, with 4."
        ),
    ] = None,
    column: Annotated[
        tuple[str, ...],
        _ask.option(
            "--column",
            metavar="NAME=KIND",
            help="What a column holds: text, float, integer, boolean, "
            "timestamp, json, decimal, or decimal(38,18). May be repeated.",
        ),
    ] = (),
    schema: Annotated[
        str | None,
        _ask.option(
            "--schema",
            metavar="FILE",
            help="The service's schema, as SDL or introspection: what fields hold.",
        ),
    ] = None,
    decimals: Annotated[
        bool | None,
        _ask.option("--decimals", help="Wide numbers are decimals where the sink has them, not text."),
    ] = None,
    undo: Annotated[
        bool | None, _ask.option("--undo", help="Take back the rows of blocks that a fork replaces.")
    ] = None,
    evolve: Annotated[
        bool | None, _ask.option("--evolve", help="Take a document that has changed, and add its columns.")
    ] = None,
    dead_letters: Annotated[
        str | None,
        _ask.option("--dead-letters", metavar="FILE", help="For rows that do not fit their table."),
    ] = None,
    batch_seconds: Annotated[
        str | None,
        _ask.option("--batch-seconds", metavar="TIME", help="Commit at least so often; else 5s, Parquet 1m."),
    ] = None,
    batch_messages: Annotated[
        str | None,
        _ask.option("--batch-messages", metavar="N", help="Commit after so many messages; else 10,000."),
    ] = None,
    batch_bytes: Annotated[
        str | None, _ask.option("--batch-bytes", metavar="SIZE", help="Commit after so much JSON; else 4MB.")
    ] = None,
    http: Annotated[
        str | None,
        _ask.option(
            "--http",
            metavar="HOST:PORT",
            help="Serve a page, /metrics, /healthz and /readyz. Off this machine's own address it needs a token: "
            "BQSTREAM_COLLECT_HTTP_TOKEN, or …_FILE.",
        ),
    ] = None,
    log: Annotated[
        str | None,
        _ask.option(
            "--log",
            metavar="auto|plain|json",
            help="What is told on standard error; auto: a live view in a terminal, else plain lines.",
        ),
    ] = None,
    stop_within: Annotated[
        str | None,
        _ask.option(
            "--stop-within", metavar="TIME", help="How long a last commit may take when stopped; else 20s."
        ),
    ] = None,
    overdue: Annotated[
        str | None,
        _ask.option("--overdue", metavar="TIME", help="A commit that takes longer fails /readyz; else 60s."),
    ] = None,
    endpoint: Annotated[str | None, _ask.endpoint] = None,
    token_url: Annotated[str | None, _ask.token_url] = None,
    config: Annotated[
        str | None,
        _ask.option("--config", metavar="FILE.toml", help="Settings, and several subscriptions at once."),
    ] = None,
    init: Annotated[
        bool, _ask.option("--init", help="Write a sample of such a file, to --config or collect.toml.")
    ] = False,
) -> None:
    """Put the rows of DOCUMENT (a file, or - for standard input) into a sink, each exactly once.

    Each commit holds rows, gaps and the checkpoint together. Started again, it goes on from the last one, however it
    ended: what was missed meanwhile is asked for. Flags win over BQSTREAM_COLLECT_… variables, these over --config.

    ```
    bqstream collect trades.graphql --to sqlite:trades.db
    bqstream collect trades.graphql --to postgresql://localhost/chain --table trades --since 6h
    bqstream collect trades.graphql --to parquet:trades --batch-seconds 1m --http 127.0.0.1:9464
    bqstream collect --init && bqstream collect --config collect.toml
    ```

    A password is never taken on the command line: PGPASSWORD or ~/.pgpass, NATS_CREDS, or ${VARIABLE} in the file.
    SIGTERM and Ctrl-C commit what has been read, and end; Ctrl-C once more ends at once.

    Exit codes: 0 done, 1 failed, 2 wrong usage, settings or document, 3 credentials or plan, 4 a gap under
    --on-gap stop, 5 the sink, 6 another collector is at it, 130 stopped by Ctrl-C.
    """
    flags = {
        "document": document, "to": to, "query": query, "operation": operation, "var": var, "vars": vars,
        "table": table, "name": name, "since": since, "rows": rows, "for": seconds, "on_gap": on_gap, "schema": schema,
        "columns": column, "decimals": decimals, "undo": undo, "evolve": evolve, "dead_letters": dead_letters,
        "batch_seconds": batch_seconds, "batch_messages": batch_messages, "batch_bytes": batch_bytes, "http": http,
        "log": log, "stop_within": stop_within, "overdue": overdue, "endpoint": endpoint, "token_url": token_url,
    }  # fmt: skip

    async def work() -> int:
        if init:
            return _write_sample(Path(config or "collect.toml"))
        return await _collect(read(flags, config))

    run(work())


def _write_sample(path: Path) -> int:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(SAMPLE)
    except FileExistsError:
        raise UsageError(f"{path} is there already: --config names another file") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    tell(f"{path} is written: bqstream collect --config {path}")
    return 0


# ---------------------------------------------------------------------- running


async def _collect(settings: Settings) -> int:
    process = settings.process
    use_token_url(process.token_url)
    monitor = Monitor()
    client, collectors = _made(settings, monitor)
    monitor.watch(client, collectors)
    async with seen(process, monitor) as say, client:
        ended = await run_all(collectors, process.seconds, process.stop_within, say)
    code = told(ended, say)
    if ended.late:  # a thread that hangs in a sink's library would hold up an orderly end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _made(settings: Settings, monitor: Monitor) -> tuple[Client, list[Collector]]:
    """The client and its collectors; nothing is opened yet. Raises UsageError with every mistake, or the only one."""
    errors: list[BqstreamError] = []
    client: Any = None  # collectors take no notice of it before they run
    try:
        client = Client(endpoint=settings.process.endpoint, on_event=monitor.event)
    except BqstreamError as error:
        errors.append(error)
    collectors = []
    for number, job in enumerate(settings.jobs, 1):
        try:
            collectors.append(collector_of(client, job, settings))
        except BqstreamError as error:
            errors.append(error if len(settings.jobs) == 1 else UsageError(f"[[collect]] {number}: {error}"))
    names = [(one.status().sink, one.name) for one in collectors]
    for sink, name in dict.fromkeys(names):
        if names.count((sink, name)) > 1:
            errors.append(UsageError(f"{name} goes to {sink} more than once: give each a name of its own"))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UsageError(all_of([str(error) for error in errors]))
    return client, collectors


def collector_of(client: Any, job: Job, settings: Settings) -> Collector:
    """One that is not run yet, and takes no notice of ``client`` before. Raises UsageError, DocumentRefused."""
    file = None if isinstance(job.vars, dict) else job.vars
    asked = question(job.document, job.query, operation=job.operation, var=job.var, vars=file)
    variables = {**(job.vars if isinstance(job.vars, dict) else {}), **asked.variables}
    for variable in variables:
        asked.document.require_variable(variable)
    given: dict[str, Any] = {
        "seconds": job.batch_seconds,
        "messages": job.batch_messages,
        "bytes": job.batch_bytes,
    }
    return Collector(
        client,
        asked.text,
        open_sink(Address.parse(job.to, trusted=settings.trusted)),
        variables,
        operation_name=asked.operation_name,
        name=job.name,
        table=job.table,
        columns=job.columns,
        schema=schema_text(job.schema_file),
        decimals=job.decimals,
        since=job.since,
        on_gap=job.on_gap,
        undo=job.undo,
        evolve=job.evolve,
        dead_letters=job.dead_letters,
        batching=Batching(**{name: value for name, value in given.items() if value is not None}),
        limit=job.rows,
        overdue=settings.process.overdue,
    )
