from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from bqstream.cli import main
from bqstream.cli.app import COMMANDS, app


def test_no_arguments_show_the_help_and_succeed() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert all(command in result.output for command in COMMANDS)


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["nothing"]).exit_code == 2
    assert CliRunner().invoke(app, ["demo", "--nothing"]).exit_code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_can_come_from_the_environment(name: str) -> None:
    command: click.Command = getattr(importlib.import_module(f"bqstream.cli.{name}"), name)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert options
    text = " ".join(CliRunner().invoke(app, [name, "--help"]).output.split())
    for option in options:
        flags = [flag.removeprefix("--").replace("-", "_").upper() for flag in option.opts]
        variables = {f"BQSTREAM_{name.upper()}_{flag}" for flag in flags} | {
            f"BITQUERY_{flag}" for flag in flags
        }
        assert any(f"env var: {variable}" in text for variable in variables), option.name


def test_tail_takes_no_secret_on_the_command_line() -> None:
    from bqstream.cli.tail import tail

    names = {name for parameter in tail.params for name in parameter.opts}
    assert names.isdisjoint({"--token", "--client-id", "--client-secret", "--credentials"})


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_an_extra_the_console_script_says_which(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == missing or (name.startswith("bqstream.cli.")):
            monkeypatch.delitem(sys.modules, name)
    found = builtins.__import__

    def without(
        name: str,
        scope: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return found(name, scope, local, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(sys, "argv", ["bqstream", "demo", "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert "bqstream[cli]" in str(left.value.code)
