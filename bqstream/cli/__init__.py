"""The command line: one file a command; ``bqstream`` on a terminal, or ``python -m bqstream.cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# What the command line itself is made of, cyclopts' own needs among it; none of it is core.
_EXTRA = ("attr", "attrs", "cyclopts", "docstring_parser", "rich", "rich_rst")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Without the ``cli`` extra it says how to get it: cyclopts and rich are not core."""
    try:
        from .app import run_app

        run_app(sys.argv[1:] if arguments is None else arguments)
    except ImportError as error:
        # cyclopts tells of a command's module that cannot be imported by an error of its own.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if cause.name is None or cause.name.partition(".")[0] not in _EXTRA:
            raise
        sys.exit(f'bqstream: the command line needs {cause.name}: pip install "bqstream[cli]"')
