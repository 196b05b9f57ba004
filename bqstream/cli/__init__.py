"""The command line: one file a command; ``bqstream`` on a terminal, or ``python -m bqstream.cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script. Without the ``cli`` extra it says how to get it: click and rich are not core."""
    try:
        from .app import app

        app(prog_name="bqstream")
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f'bqstream: the command line needs {error.name}: pip install "bqstream[cli]"')
