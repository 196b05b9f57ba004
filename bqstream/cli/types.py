"""``bqstream types``: the types of what a document brings, as a Python module."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts.validators import Number

from .. import Client
from ..errors import MissingCredentials, UsageError
from ..models.model import Model, model_of
from ..models.seen import Seen
from ..models.writer import module
from ..wording import counted, timed
from .asking import Options, Question, question, schema_text, use_token_url
from .running import run, run_until, tell

_ask = Options("TYPES")
_ROWS = 500
_SECONDS = 30.0
_NAMED = 5  # of fields of which nothing is known


def types(
    document: Annotated[str | None, _ask.document] = None,
    /,
    *,
    query: Annotated[str | None, _ask.query] = None,
    operation: Annotated[str | None, _ask.operation] = None,
    var: Annotated[tuple[str, ...], _ask.var] = (),
    vars: Annotated[str | None, _ask.vars] = None,
    schema: Annotated[
        str | None,
        _ask.option(
            "--schema",
            metavar="FILE",
            help="The service's schema, as SDL or introspection: what fields hold. Nothing is streamed then.",
        ),
    ] = None,
    decimals: Annotated[
        bool, _ask.option("--decimals", help="Numbers that a float may not hold are Decimal, not str.")
    ] = False,
    rows: Annotated[
        int | None,
        _ask.option(
            "--rows",
            metavar="N",
            help=f"Stream so many rows of each cube to see what fields hold; else {_ROWS}.",
            validator=Number(gte=1),
        ),
    ] = None,
    seconds: Annotated[float | None, _ask.seconds] = None,
    no_sample: Annotated[
        bool, _ask.option("--no-sample", help="Stream nothing: go by the fields' names alone.")
    ] = False,
    endpoint: Annotated[str | None, _ask.endpoint] = None,
    token_url: Annotated[str | None, _ask.token_url] = None,
) -> None:
    """Write msgspec models of what DOCUMENT (a file, or - for standard input) brings.

    The module goes to standard output. Its class Data is for subscribe(document, type=Data): names and nesting are the
    document's. What a field holds is said by --schema, else by rows that are streamed for 30 s at most (--for), else by
    its name. A field is None where it was null in these rows, where the schema allows it, or where a fragment or
    directive may leave it out.

    ```
    bqstream types trades.graphql --var network=eth > models.py
    bqstream types trades.graphql --schema bitquery.graphql --decimals > models.py
    bqstream types trades.graphql --no-sample > models.py
    bqstream types trades.graphql --schema bitquery.graphql --rows 100 > models.py
    ```

    The last of these is for a schema with scalars of its own: the rows tell what they hold.

    Exit codes: 0 done, 1 failed, 2 wrong usage, schema or document, 3 credentials or plan, 130 stopped by Ctrl-C.
    """

    async def work() -> int:
        if no_sample and (rows is not None or seconds is not None):
            raise UsageError("--no-sample goes with neither --rows nor --for")
        asked = question(document, query, operation=operation, var=var, vars=vars)
        declared = schema_text(schema)
        origin = [f"the document {Path(document).name}" if document not in (None, "-") else "a document"]
        origin += [f"the schema {Path(schema).name}"] if schema is not None else []
        sample: Seen | None = None
        if not no_sample and (schema is None or rows is not None or seconds is not None):
            use_token_url(token_url)
            sample = Seen()
            try:
                told, signal = await _look(asked, endpoint, rows or _ROWS, seconds or _SECONDS, sample)
            except MissingCredentials as error:
                raise MissingCredentials(f"{error}; or give --no-sample, or --schema alone") from None
            if signal:
                return 128 + signal
            tell(f"sampled {told}")
            origin.append(f"a sample of {told}")
        elif schema is None:
            origin.append("what the service's fields hold by their names")
        model = model_of(asked.document, schema=declared, sample=sample, decimals=decimals)
        sys.stdout.write(module(model, origin=" and ".join(origin)))
        _tell_open(model)
        return 0

    run(work())


async def _look(
    asked: Question, endpoint: str | None, rows: int, seconds: float, sample: Seen
) -> tuple[str, int | None]:
    """Stream into ``sample`` until each cube has shown so many rows, or so long. Gives what came, in words, and the
    signal that ended it."""
    counts: Counter[str] = Counter()

    async def work() -> None:
        # A gap in a sample is not worth a query.
        async with (
            Client(endpoint=endpoint, on_event=lambda event: tell(timed(event)), backfill="off") as client,
            client.subscribe(asked.text, asked.variables, operation_name=asked.operation_name) as stream,
        ):
            async for message in stream:
                for error in message.errors:
                    tell(f"the service says: {error.get('message', error)}")
                if message.errors:
                    continue  # what is null beside an error says nothing of other messages
                sample.add_payload(message.raw)
                for cube, found in message.by_cube():
                    counts[cube] += len(found)
                if min((counts[cube] for cube in cubes_in(counts)), default=0) >= rows:
                    return

    def cubes_in(counts: Counter[str]) -> tuple[str, ...]:
        """Those to be waited for; data that has none is one row (``Message.by_cube``)."""
        return ("",) if "" in counts else asked.document.cubes

    signal = await run_until(work(), seconds)
    told = [f"{counted(counts[cube], 'row')}{f' of {cube}' if cube else ''}" for cube in cubes_in(counts)]
    return " and ".join(told) or "no row", signal


def _tell_open(model: Model) -> None:
    if model.open:
        shown = ", ".join(model.open[:_NAMED]) + (" and others" if len(model.open) > _NAMED else "")
        tell(f"nothing is known of {counted(len(model.open), 'field')}, which may be any scalar: {shown}")
