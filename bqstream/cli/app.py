"""The group of commands; each is imported when it is asked for, so that one does not pay for another."""

from __future__ import annotations

import importlib

import click

from .._version import __version__

COMMANDS = ("demo", "simulator", "tail")


class _Commands(click.Group):
    """Finds the command ``x`` in the module ``x`` beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f".{cmd_name}", __package__), cmd_name)
        return command


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="bqstream")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Bitquery subscriptions that outlive their tokens.

    Credentials come from the environment, never from the command line: BITQUERY_TOKEN, or BITQUERY_CLIENT_ID
    and BITQUERY_CLIENT_SECRET (each also as ..._FILE). Every option can be set there too, under the name that
    its help shows.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
