"""``bqstream simulator``: a service to try things against, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Annotated, Any, Literal

from cyclopts.validators import Number

from .asking import Options, duration, loopback
from .running import FAILED, run, run_until, tell

_ask = Options("SIMULATOR")
_port = Number(gte=0, lte=65535)
_some = Number(gte=1)


def simulator(
    *,
    host: Annotated[
        str, _ask.option("--host", help="A loopback address.", read=loopback, show_default=True)
    ] = "127.0.0.1",
    port: Annotated[
        int, _ask.option("--port", help="0: any free one.", validator=_port, show_default=True)
    ] = 8787,
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

    Prints one JSON line: endpoint, token_url, client_id, client_secret, control_url, ledger_url. Then it serves
    until it is stopped by SIGINT or SIGTERM. What can go wrong is asked for with a POST to control_url, such as
    `{"fault": "close", "code": 1013}`; what a client delivered is compared at ledger_url. The application's secret is
    BQSTREAM_SIMULATOR_CLIENT_SECRET, made up where that is not set: no secret is taken on a command line.

    ```
    bqstream simulator --port 8787
    bqstream simulator --token-ttl 5s --block-interval 0.2s --on-expiry close
    ```

    Exit codes: 0 stopped, 1 the port is taken, 2 wrong usage.
    """
    options: dict[str, Any] = {
        "host": host,
        "port": port,
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
    run(_serve(options))


async def _serve(options: dict[str, Any]) -> int:
    from ..simulator import Simulator

    names = ("endpoint", "token_url", "client_id", "client_secret", "control_url", "ledger_url")
    async with contextlib.AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(Simulator(**options))
        except OSError as error:
            tell(f"bqstream: cannot listen on port {options['port']}: {error.strerror}")
            return FAILED
        print(json.dumps({name: getattr(running, name) for name in names}), flush=True)
        await run_until(asyncio.Event().wait())
    return 0
