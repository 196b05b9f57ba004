"""The table of commands; each is imported when it is asked for, so that one does not pay for another."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from .._version import __version__
from .running import USAGE, tell

# The first line of each command's help, which the list of them shows without importing one.
COMMANDS = {
    "checkpoint": "Say what a sink holds of a subscription, or send its collector back.",
    "collect": "Put the rows of DOCUMENT (a file, or - for standard input) into a sink, each exactly once.",
    "demo": "Stream through one token after another, and prove that no row was lost or repeated.",
    "doctor": "Say what is wrong, and what to do: from the credentials to the first row of DOCUMENT.",
    "simulator": "Serve what Bitquery's streaming API serves, made up, on loopback.",
    "tail": "Print the rows of DOCUMENT (a file, or - for standard input) until stopped.",
    "types": "Write msgspec models of what DOCUMENT (a file, or - for standard input) brings.",
    "token": "Get a token with the credentials found, and tell their kind, their scope and when it expires.",
}

app = App(
    name="bqstream",
    version=__version__,
    help="""Bitquery subscriptions that outlive their tokens.

    Credentials come from the environment, never from the command line: BITQUERY_TOKEN, or BITQUERY_CLIENT_ID
    and BITQUERY_CLIENT_SECRET (each also as ..._FILE). Every option can be set there too, under the name that
    its help shows.

    ```
    bqstream demo
    bqstream tail --query 'subscription { EVM(network: eth) { Blocks { Block { Number } } } }' --rows 10
    bqstream tail --help
    ```
    """,
    help_format="markdown",
    default_parameter=Parameter(negative=()),
)
for _name, _line in COMMANDS.items():
    app.command(f"{__package__}.{_name}:{_name}", name=_name, help=_line)
app.register_install_completion_command(help="Install completion for your shell (bash, zsh or fish).")


def run_app(arguments: Sequence[str]) -> None:
    """Run the command that ``arguments`` ask for; what they get wrong is told on standard error, with exit code 2."""
    for name in [name for name, value in os.environ.items() if name.startswith("BQSTREAM_") and not value]:
        del os.environ[name]  # an empty variable counts as none, as for BITQUERY_…
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    if command is not None and app[command].default_command is not None:
        app[command].help = None  # its own, in place of the line in the list
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        tell(f"bqstream: {error}")
        tell(f"{' '.join(filter(None, ('bqstream', command, '--help')))} says what there is")
        sys.exit(USAGE)
