"""``bqstream simulator``: a service to try things against, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import sys
from typing import Any

import click

from .running import FAILED, duration, run, run_until


def _loopback(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Anybody who reaches the control endpoint may do anything, so nobody from elsewhere does."""
    try:
        local = value == "localhost" or ipaddress.ip_address(value).is_loopback
    except ValueError:
        local = False
    if not local:
        raise click.BadParameter("give a loopback address, such as 127.0.0.1", ctx, param)
    return value


@click.command(context_settings={"auto_envvar_prefix": "BQSTREAM_SIMULATOR", "show_default": True})
@click.option("--host", default="127.0.0.1", callback=_loopback, show_envvar=True, help="A loopback address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8787, show_envvar=True, help="0: any free one."
)
@click.option(
    "--control-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_envvar=True,
    help="Of the endpoints beside it.",
)
@click.option("--token-ttl", type=duration, default="5h", show_envvar=True, help="How long a token lives.")
@click.option("--block-interval", type=duration, default="1s", show_envvar=True, help="From block to block.")
@click.option("--seed", type=int, default=0, show_envvar=True, help="The same seed, the same chain.")
@click.option(
    "--transactions", type=click.IntRange(1), default=8, show_envvar=True, help="In a block, on average."
)
@click.option(
    "--portions", type=click.IntRange(1), default=3, show_envvar=True, help="That a block comes in."
)
@click.option(
    "--on-expiry",
    type=click.Choice(["nothing", "close", "error", "silence"]),
    default="nothing",
    show_envvar=True,
    help="What an open socket does when its token expires.",
)
@click.option(
    "--cap", type=click.IntRange(1), default=None, show_envvar=True, help="Subscriptions the plan allows."
)
@click.option("--client-id", default="simulator", show_envvar=True, help="Of the application.")
def simulator(**options: Any) -> None:
    """Serve what Bitquery's streaming API serves, made up, on loopback.

    Prints one JSON line: endpoint, token_url, client_id, client_secret, control_url, ledger_url. Then it serves
    until it is stopped by SIGINT or SIGTERM. What can go wrong is asked for with a POST to control_url, such as
    {"fault": "close", "code": 1013}; what a client delivered is compared at ledger_url. The application's secret is
    BQSTREAM_SIMULATOR_CLIENT_SECRET, made up where that is not set: no secret is taken on a command line.
    """
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
            click.echo(f"bqstream: cannot listen on port {options['port']}: {error.strerror}", err=True)
            return FAILED
        click.echo(json.dumps({name: getattr(running, name) for name in names}))
        sys.stdout.flush()
        await run_until(asyncio.Event().wait())
    return 0


command = simulator
