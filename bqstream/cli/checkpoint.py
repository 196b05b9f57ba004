"""``bqstream checkpoint``: what a sink holds of a subscription, and how a collector is sent back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from cyclopts import App

from .. import Checkpoint, SinkFailed, SinkLocked, UsageError
from ..collect import Collector, Column, GapRecord, Stored
from ..collect.collector import locked
from ..collect.rewind import Place, Rewind, shown, standings
from ..collect.sinks.sql import quoted
from ..collect.state import State
from ..wording import counted
from .asking import Options, since
from .collect import collector_of
from .running import FAILED, run, tell
from .settings import Settings, read

_settings = Options("COLLECT")  # what is said to collect by its environment holds here too
_ask = Options("CHECKPOINT")

_Document = Annotated[str | None, _settings.document]
_Query = Annotated[str | None, _settings.query]
_Operation = Annotated[str | None, _settings.operation]
_Var = Annotated[tuple[str, ...], _settings.var]
_Vars = Annotated[str | None, _settings.vars]
_Table = Annotated[str | None, _settings.option("--table", metavar="NAME", help="As for collect.")]
_Name = Annotated[
    str | None,
    _settings.option(
        "--name",
        metavar="NAME",
        help="The subscription's name in the sink; with --config, which one is meant.",
    ),
]
_Config = Annotated[
    str | None, _settings.option("--config", metavar="FILE.toml", help="The file that collect is given.")
]

checkpoint = App(name="checkpoint")


@checkpoint.command
def show(
    document: _Document = None,
    /,
    *,
    to: Annotated[
        str | None, _settings.option("--to", metavar="SINK", help="The sink, as for collect.")
    ] = None,
    query: _Query = None,
    operation: _Operation = None,
    var: _Var = (),
    vars: _Vars = None,
    table: _Table = None,
    name: _Name = None,
    config: _Config = None,
    as_json: Annotated[
        bool, _ask.option("--json", help="One JSON object a line for each subscription.")
    ] = False,
) -> None:
    """Say what a sink holds of a subscription: its commits, where it stands, its tables, gaps that are open.

    It needs no credentials, changes nothing, and may be asked while a collector runs.

    ```
    bqstream checkpoint show trades.graphql --to sqlite:trades.db
    bqstream checkpoint show --config collect.toml --json
    ```

    Exit codes: 0 done, 1 nothing is there, 2 wrong usage, settings or document, 5 the sink, 6 a collector is at it.
    """
    flags = {
        "document": document, "to": to, "query": query, "operation": operation, "var": var, "vars": vars, "table": table
    }  # fmt: skip

    async def work() -> int:
        codes = [await _show(one, as_json) for one in _chosen(flags, config, name)]
        return max(codes)

    run(work())


@checkpoint.command
def rewind(
    document: _Document = None,
    /,
    *,
    to: Annotated[
        tuple[str, ...],
        _settings.option(
            "--to",
            metavar="BLOCK|AGE|TIME|SINK",
            help="Where to go back to: a block's number or slot; for what stands by time, a time or an age. "
            "Given once more, the sink, as for collect.",
            env_var_split=lambda _, text: [text],
        ),
    ] = (),
    query: _Query = None,
    operation: _Operation = None,
    var: _Var = (),
    vars: _Vars = None,
    table: _Table = None,
    name: _Name = None,
    config: _Config = None,
    yes: Annotated[bool, _ask.option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send a collector back: the next collect brings every row from a block on again.

    Rows that are in the sink already come a second time: it says how many, where the sink can tell, and how they are
    removed before. It refuses while a collector is at it.

    ```
    bqstream checkpoint rewind trades.graphql --to sqlite:trades.db --to 24000000
    bqstream checkpoint rewind --config collect.toml --name trades --to 24000000 --yes
    ```

    Exit codes: 0 done, 1 not confirmed, 2 wrong usage, settings or document, 5 the sink, 6 a collector is at it.
    """
    sinks, places = _told_apart(to)
    flags = {
        "document": document, "to": sinks, "query": query, "operation": operation, "var": var, "vars": vars,
        "table": table,
    }  # fmt: skip

    async def work() -> int:
        if len(places) != 1:
            raise UsageError("give --to BLOCK (or TIME) once: from there on rows come again")
        chosen = _chosen(flags, config, name)
        if len(chosen) > 1:
            names = ", ".join(one.name for one in chosen)
            raise UsageError(f"--name says which of them goes back: {names}")
        return await _rewind(chosen[0], places[0], yes)

    run(work())


def _told_apart(values: Sequence[str]) -> tuple[str | None, list[Place]]:
    """The sink and the places among what ``--to`` was given."""
    sinks, places = [], []
    for value in values:
        try:
            found = since(value)
        except ValueError:
            sinks.append(value)
        else:
            places.append(datetime.now(UTC) - found if isinstance(found, timedelta) else found)
    return (sinks[-1] if sinks else os.environ.get("BQSTREAM_COLLECT_TO")), places


def _chosen(flags: dict[str, Any], config: str | None, name: str | None) -> list[Collector]:
    """The collectors that are meant, none of which is run. Raises UsageError."""
    settings: Settings = read(flags if config else {**flags, "name": name}, config)
    collectors = [collector_of(None, job, settings) for job in settings.jobs]
    if config is None or name is None:
        return collectors
    chosen = [one for one in collectors if one.name == name]
    if not chosen:
        names = ", ".join(one.name for one in collectors)
        raise UsageError(f"--name {name}: {config} has {names}")
    return chosen


# ---------------------------------------------------------------------- show


async def _show(collector: Collector, as_json: bool) -> int:
    try:
        stored = await _peek(collector)
    finally:
        await collector.sink.aclose()
    if stored is None:
        if as_json:
            print(json.dumps({"name": collector.name, "sink": collector.sink.name, "commit": None}))
        else:
            print(f"{collector.sink.name} holds nothing of {collector.name}")
        return FAILED
    state = State.loads(stored.state)
    if as_json:
        print(json.dumps(_json(collector, stored, state)))
    else:
        print(f"{collector.name} in {collector.sink.name}")
        for line in _lines(stored, state):
            print(f"  {line}")
    return 0


async def _peek(collector: Collector) -> Stored | None:
    """What is stored; where the sink cannot be looked into beside a collector, none may be at it."""
    peek = getattr(collector.sink, "peek", None)
    if peek is not None:
        found: Stored | None = await peek(collector.name)
        return found
    with locked(collector.sink, collector.name):
        return await collector.sink.open(collector.name)


def _lines(stored: Stored, state: State) -> list[str]:
    checkpoint = Checkpoint.loads(state.checkpoint)
    lines = [f"commit {stored.number:,}, of what came in by {shown(checkpoint.at)}"]
    lines += [f"{key}: {standing}" for key, standing in standings(checkpoint).items()]
    for table in state.tables:
        columns = ", ".join(f"{column.name} {_kind(column)}" for column in table.columns)
        lines.append(f"table {table.name}: {columns}")
    lines += [f"gap being closed: {_gap(gap)}" for gap in state.open_gaps]
    lines.append(f"checkpoint of {counted(len(state.checkpoint), 'byte')}")
    return lines


def _json(collector: Collector, stored: Stored, state: State) -> dict[str, Any]:
    checkpoint = Checkpoint.loads(state.checkpoint)
    return {
        "name": collector.name,
        "sink": collector.sink.name,
        "commit": stored.number,
        "at": shown(checkpoint.at),
        "cubes": {
            key: {
                "kind": one.whole.kind,
                "whole_below": one.whole.text(),
                "beyond": one.beyond,
                "reached": None if one.reached is None else str(one.reached),
            }
            for key, one in standings(checkpoint).items()
        },
        "tables": {
            table.name: {column.name: _kind(column) for column in table.columns} for table in state.tables
        },
        "open_gaps": msgspec.to_builtins(state.open_gaps),
        "checkpoint_bytes": len(state.checkpoint),
    }


def _kind(column: Column) -> str:
    return f"{column.kind}({column.digits[0]}, {column.digits[1]})" if column.digits else column.kind


def _gap(gap: GapRecord) -> str:
    end = shown(gap.end) if gap.end else "now"
    return f"{', '.join(gap.cubes)} from {shown(gap.start)} to {end} ({gap.cause})"


# ---------------------------------------------------------------------- rewind


async def _rewind(collector: Collector, to: Place, yes: bool) -> int:
    sink, name = collector.sink, collector.name
    async with _alone(collector):
        stored = await _opened(collector)
        if stored is None:
            raise UsageError(f"{sink.name} holds nothing of {name}: there is nothing to go back from")
        kinds = {key: reader.kind for key, reader in collector.readers.items()}
        back = Rewind.of(stored, to, kinds)
        for line in await _repeated(collector, back, to):
            tell(line)
        if not yes and not _confirmed():
            return FAILED
        if await sink.open(name) != stored:
            raise SinkLocked(f"{sink.name}: a collector has committed to {name!r} meanwhile")
        await sink.commit(back.commit(name))
    tell(f"{name}: the next collect goes on from {shown(to)}")
    return 0


@contextlib.asynccontextmanager
async def _alone(collector: Collector) -> AsyncIterator[None]:
    with locked(collector.sink, collector.name):
        try:
            yield
        finally:
            await collector.sink.aclose()


async def _opened(collector: Collector) -> Stored | None:
    """What is stored. The sink is opened, unless nothing is there: opening would make it."""
    peek = getattr(collector.sink, "peek", None)
    if peek is not None and await peek(collector.name) is None:
        return None
    return await collector.sink.open(collector.name)


async def _repeated(collector: Collector, back: Rewind, to: Place) -> list[str]:
    """What a person should know before."""
    lines = [f"{collector.name} in {collector.sink.name}, commit {back.stored.number:,}"]
    lines += [f"  {key} stays: {standing}" for key, standing in back.stay.items()]
    for key, standing in back.moved.items():
        lines.append(f"  {key} goes back to {shown(to)}; it is {standing}")
        table = next((table for table in back.state.tables if table.cube == key), None)
        if table is None:  # it has had no rows
            continue
        reader = collector.readers.get(key)
        column = next((column for column in table.columns if reader and column.path == reader.at), None)
        count = None if column is None else await _count(collector, table.name, column, to)
        if column is None or count is None:
            lines.append(
                f"  the rows of {table.name} from there on come again, and stand twice unless removed before"
            )
        elif count:
            literal = str(to) if isinstance(to, int) else f"'{to.astimezone(UTC).isoformat()}'"
            lines += [
                f"  {counted(count, 'row')} of {table.name} come again, and stand twice unless removed before:",
                f"    DELETE FROM {quoted(table.name)} WHERE {quoted(column.name)} >= {literal};",
            ]
    return lines


async def _count(collector: Collector, table: str, column: Column, to: Place) -> int | None:
    count = getattr(collector.sink, "count", None)
    if count is None or column.kind != ("integer" if isinstance(to, int) else "timestamp"):
        return None
    try:
        found: int | None = await count(table, column.name, to)
    except SinkFailed:  # such as a table that was dropped; what else is wrong, the commit will say
        return None
    return found


def _confirmed() -> bool:
    """Ask. Raises UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm it: --yes goes back without asking")
    print("Go back? [y/N] ", end="", file=sys.stderr, flush=True)
    # asyncio's own handler would cancel this task once it waits, which it does not do before the answer.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    finally:
        signal.signal(signal.SIGINT, former)
