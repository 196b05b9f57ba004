"""The command line: one file a command; ``bqstream`` on a terminal, or ``python -m bqstream.cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# What the command line itself is made of, cyclopts' own needs among it, and what some commands need beside; none of it
# is core.
_EXTRAS = {
    "cli": ("attr", "attrs", "cyclopts", "docstring_parser", "rich", "rich_rst"),
    "collect": ("aiohttp_sse", "filelock", "prometheus_client", "pydantic", "pythonjsonlogger", "zstandard"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Without the ``cli`` extra it says how to get it: cyclopts and rich are not core."""
    try:
        from .app import run_app

        run_app(sys.argv[1:] if arguments is None else arguments)
    except ImportError as error:
        # cyclopts tells of a command's module that cannot be imported by an error of its own.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        missing = (cause.name or "").partition(".")[0]
        extra = next((extra for extra, names in _EXTRAS.items() if missing in names), None)
        if extra is None:
            raise
        who = "the command line" if extra == "cli" else "this command"
        sys.exit(f'bqstream: {who} needs {cause.name}: pip install "bqstream[{extra}]"')
