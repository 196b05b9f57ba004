"""``bqstream doctor``: what is wrong, by what it is caused, and what to do."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

from .asking import Options, duration, question, use_token_url
from .findings import Finding, exit_code_of
from .running import run, run_until

if TYPE_CHECKING:
    from rich.console import Console

_ask = Options("DOCTOR")


def doctor(
    document: Annotated[str | None, _ask.document] = None,
    /,
    *,
    query: Annotated[str | None, _ask.query] = None,
    operation: Annotated[str | None, _ask.operation] = None,
    var: Annotated[tuple[str, ...], _ask.var] = (),
    vars: Annotated[str | None, _ask.vars] = None,
    endpoint: Annotated[str | None, _ask.endpoint] = None,
    token_url: Annotated[str | None, _ask.token_url] = None,
    within: Annotated[
        float,
        _ask.option(
            "--within",
            help="How long the first row may take.",
            read=duration,
            metavar="TIME",
            show_default="30s",
        ),
    ] = 30.0,
    as_json: Annotated[bool, _ask.option("--json", help="Print all findings, as one JSON object.")] = False,
) -> None:
    """Say what is wrong, and what to do: from the credentials to the first row of DOCUMENT.

    Looks at one thing after another: document, credentials, addresses, exchange, network and TLS, clock, handshake,
    acknowledgement, subscription, first row, keep-alive, the plan's cap. A subscription that is live and silent is
    asked about with some queries, at about 5 points each. Without a DOCUMENT, Ethereum's blocks are subscribed.

    ```
    bqstream doctor
    bqstream doctor trades.graphql --var network=eth --within 1m
    bqstream doctor trades.graphql --json
    ```

    Exit codes: 0 healthy, 1 a fault, 2 wrong usage, 3 credentials or plan, 130 stopped by Ctrl-C.
    """
    run(_doctor(document, query, operation, var, vars, endpoint, token_url, within, as_json))


async def _doctor(
    document: str | None,
    query: str | None,
    operation: str | None,
    var: tuple[str, ...],
    vars: str | None,
    endpoint: str | None,
    token_url: str | None,
    within: float,
    as_json: bool,
) -> int:
    from ..errors import DocumentRefused
    from .examine import examine
    from .setup import USUAL, Setup

    use_token_url(token_url)
    if document is None and query is None:
        query = USUAL
    try:
        asked = question(document, query, operation=operation, var=var, vars=vars)
    except DocumentRefused as error:
        found = [Finding(check="document", cause="document", says=str(error))]
        _show(found, as_json)
        return exit_code_of(found)
    setup = Setup(
        endpoint=endpoint or os.environ.get("BITQUERY_ENDPOINT") or "eu",
        document=asked.text,
        variables=asked.variables,
        operation_name=asked.operation_name,
        within=within,
    )
    told: list[Finding] = []

    async def work() -> None:
        if as_json:
            await examine(setup, told.append)
            return
        console = _console()

        def tell(finding: Finding) -> None:
            told.append(finding)
            _line(console, finding)

        await examine(setup, tell)

    signal = await run_until(work())
    if signal:
        return 128 + signal
    if as_json:
        _show(told, as_json)
    else:
        print("healthy" if exit_code_of(told) == 0 else "not healthy", flush=True)
    return exit_code_of(told)


def _show(found: list[Finding], as_json: bool) -> None:
    if as_json:
        healthy = exit_code_of(found) == 0
        print(json.dumps({"healthy": healthy, "findings": [finding.as_dict() for finding in found]}))
        return
    console = _console()
    for finding in found:
        _line(console, finding)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def _line(console: Console, finding: Finding) -> None:
    """One line, and for a fault another with what to do; coloured on a terminal."""
    from rich.text import Text

    good, bad = ("✓", "✗") if _takes("✓✗") else ("ok", "FAULT")
    line = Text()
    line.append(good if finding.good else bad, "green" if finding.good else "bold red")
    line.append(f" {finding.check}: ", "bold")
    line.append(finding.says)
    if finding.advice is not None:
        line.append(f"\n  {finding.cause}: ", "yellow")
        line.append(finding.advice)
    console.print(line, soft_wrap=True)


def _takes(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
