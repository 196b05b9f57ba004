"""``bqstream simulator``: a service to try things against, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from .asking import Options, duration, loopback
from .beside import run_beside
from .running import FAILED, run, run_until, tell

_ask = Options("SIMULATOR")
_port = Number(gte=0, lte=65535)
_some = Number(gte=1)


def simulator(
    *command: Annotated[
        str, Parameter(help="A program to run beside it, with its arguments, after a --.", show_default=False)
    ],
    host: Annotated[
        str, _ask.option("--host", help="A loopback address.", read=loopback, show_default=True)
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        _ask.option(
            "--port",
            help="0: any free one, which it is with a COMMAND.",
            validator=_port,
            show_default="8787",
        ),
    ] = None,
    control_port: Annotated[
        int,
        _ask.option("--control-port", help="Of the endpoints beside it.", validator=_port, show_default=True),
    ] = 0,
    token_ttl: Annotated[
        float,
        _ask.option(
            "--token-ttl", help="How long a token lives.", show_default="5h", read=duration, metavar="TIME"
        ),
    ] = 18_000.0,
    block_interval: Annotated[
        float,
        _ask.option(
            "--block-interval", help="From block to block.", show_default="1s", read=duration, metavar="TIME"
        ),
    ] = 1.0,
    seed: Annotated[int, _ask.option("--seed", help="The same seed, the same chain.", show_default=True)] = 0,
    transactions: Annotated[
        int, _ask.option("--transactions", help="In a block, on average.", validator=_some, show_default=True)
    ] = 8,
    portions: Annotated[
        int, _ask.option("--portions", help="That a block comes in.", validator=_some, show_default=True)
    ] = 3,
    on_expiry: Annotated[
        Literal["nothing", "close", "error", "silence"],
        _ask.option(
            "--on-expiry", help="What an open socket does when its token expires.", show_default=True
        ),
    ] = "nothing",
    cap: Annotated[
        int | None, _ask.option("--cap", help="Subscriptions the plan allows.", validator=_some)
    ] = None,
    client_id: Annotated[
        str, _ask.option("--client-id", help="Of the application.", show_default=True)
    ] = "simulator",
) -> None:
    """Serve what Bitquery's streaming API serves, made up, on loopback.

    With a COMMAND it serves as long as that runs, and tells it where by BITQUERY_ENDPOINT, BITQUERY_TOKEN_URL,
    BITQUERY_CLIENT_ID and BITQUERY_CLIENT_SECRET. Signals are passed on, and the exit code is the command's.

    Without, it prints one JSON line: endpoint, token_url, client_id, client_secret, control_url, ledger_url. Then it
    serves until it is stopped by SIGINT or SIGTERM. What can go wrong is asked for with a POST to control_url, such as
    `{"fault": "close", "code": 1013}`; what a client delivered is compared at ledger_url. The application's secret is
    BQSTREAM_SIMULATOR_CLIENT_SECRET, made up where that is not set: no secret is taken on a command line.

    ```
    bqstream simulator --port 8787
    bqstream simulator --token-ttl 5s --block-interval 0.2s -- pytest tests
    bqstream simulator -- bqstream tail trades.graphql --rows 10
    ```

    Exit codes: 0 stopped, 1 the port is taken, 2 wrong usage; with a COMMAND its own, and 126 or 127
    where it cannot be run.
    """
    options: dict[str, Any] = {
        "host": host,
        "port": port if port is not None else 0 if command else 8787,
        "control_port": control_port,
        "token_ttl": token_ttl,
        "block_interval": block_interval,
        "seed": seed,
        "transactions": transactions,
        "portions": portions,
        "on_expiry": on_expiry,
        "cap": cap,
        "client_id": client_id,
    }
    if secret := os.environ.get("BQSTREAM_SIMULATOR_CLIENT_SECRET"):
        options["client_secret"] = secret
    run(_serve(options, command))


async def _serve(options: dict[str, Any], command: Sequence[str]) -> int:
    from ..simulator import Simulator

    names = ("endpoint", "token_url", "client_id", "client_secret", "control_url", "ledger_url")
    async with contextlib.AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(Simulator(**options))
        except OSError as error:
            tell(f"bqstream: cannot listen on port {options['port']}: {error.strerror}")
            return FAILED
        if command:
            return await run_beside(command, running)
        print(json.dumps({name: getattr(running, name) for name in names}), flush=True)
        await run_until(asyncio.Event().wait())
    return 0
