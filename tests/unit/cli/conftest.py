"""The command line in this process: ``ended = bqstream("tail", "--rows", "5", env={…})``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from bqstream.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Bqstream = Callable[..., Ended]


@pytest.fixture
def bqstream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bqstream:
    """Run ``bqstream`` with these arguments; ``env`` sets variables, or unsets those that are None."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, env: Mapping[str, str | None] | None = None) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            code: object = 0
            try:
                main(arguments)
            except SystemExit as left:
                code = left.code or 0
        written = capsys.readouterr()
        return Ended(code if isinstance(code, int) else 1, written.out, written.err)

    return run
