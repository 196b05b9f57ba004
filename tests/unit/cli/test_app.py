from __future__ import annotations

import builtins
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

import pytest
from cyclopts import App

from bqstream.cli import main
from bqstream.cli.app import COMMANDS, app

from .conftest import Bqstream

# Every command with options of its own, as it is typed.
TYPED = [*(name for name in COMMANDS if name != "checkpoint"), "checkpoint show", "checkpoint rewind"]
# Where a shared option goes by a name that the library knows too.
SHARED = {"--endpoint": "BITQUERY_ENDPOINT", "--token-url": "BITQUERY_TOKEN_URL"}

# What the other extras bring.
OTHERS = (
    "aiohttp_sse anywidget duckdb filelock nats pandas polars prometheus_client psycopg pyarrow pydantic pydantic_core "
    "pythonjsonlogger zstandard"
)


def command_of(name: str) -> App:
    found = app
    for part in name.split():
        found = found[part]
    return found


def test_no_arguments_show_the_help_and_succeed(bqstream: Bqstream) -> None:
    ended = bqstream()
    assert ended.code == 0
    assert all(command in ended.out and line in ended.out for command, line in COMMANDS.items())


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", TYPED)
def test_the_help_of_every_command_teaches_by_examples_and_names_the_exit_codes(
    name: str, flag: str, bqstream: Bqstream
) -> None:
    ended = bqstream(*name.split(), flag)
    assert ended.code == 0
    assert COMMANDS.get(name, "") in " ".join(ended.out.split())
    assert ended.out.count(f" bqstream {name}") >= 3  # its usage, and two examples at least
    assert "Exit codes: 0" in ended.out


def test_the_version_is_told(bqstream: Bqstream) -> None:
    from bqstream import __version__

    ended = bqstream("--version")
    assert (ended.code, ended.out) == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["demo", "--nothing"], ["tail", "--nothing"], ["demo", "--seed", "x"], ["tail", "--rows"]],
)
def test_wrong_usage_is_told_in_words_on_standard_error_with_2(
    arguments: list[str], bqstream: Bqstream
) -> None:
    ended = bqstream(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("bqstream: ")
    assert "--help says what there is" in ended.err
    assert arguments[-1] in ended.err


@pytest.mark.parametrize("name", TYPED)
def test_every_option_can_come_from_the_environment_by_a_name_that_its_help_shows(
    name: str, bqstream: Bqstream
) -> None:
    command, *_ = name.split()
    options = [
        argument
        for argument in command_of(name).assemble_argument_collection()
        if argument.names and argument.names[0].startswith("--")
    ]
    assert options
    of_collect = {argument.names[0] for argument in app["collect"].assemble_argument_collection()}
    text = " ".join(bqstream(*name.split(), "--help").out.replace("│", " ").split())
    for option in options:
        flag = option.names[0]
        owner = "collect" if command == "checkpoint" and flag in of_collect else command
        variable = SHARED.get(flag, f"BQSTREAM_{owner}_{flag[2:]}".replace("-", "_").upper())
        assert option.parameter.env_var == (variable,)
        assert f"[env var: {variable}]" in text


def test_no_command_takes_a_secret_on_the_command_line() -> None:
    for name in TYPED:
        flags = {
            flag for argument in command_of(name).assemble_argument_collection() for flag in argument.names
        }
        assert flags.isdisjoint({"--token", "--client-secret", "--credentials", "--password"})


def test_a_command_is_imported_when_it_is_asked_for_and_no_other(bqstream: Bqstream) -> None:
    script = (
        "import sys, bqstream.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sorted(name for name in sys.modules if name.startswith('bqstream.cli.')), file=sys.stderr)"
    )
    for arguments, commands in ([["tail", "-h"], {"tail"}], [["--help"], set()]):
        ran = [sys.executable, "-c", script, *arguments]
        loaded = subprocess.run(ran, capture_output=True, text=True, check=True).stderr.split()
        assert {name for name in COMMANDS if f"bqstream.cli.{name}" in loaded} == commands


def test_an_empty_variable_counts_as_none(bqstream: Bqstream) -> None:
    ended = bqstream("tail", "--query", "query { A { B { c } } }", env={"BQSTREAM_TAIL_ROWS": ""})
    assert ended.code == 2
    assert "this is a query" in ended.err


def test_completion_is_made_for_every_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        script = app.generate_completion(shell=shell)
        assert all(name in script for name in COMMANDS)
        assert "--rows" in script
    assert "--install-completion" in app


@pytest.mark.parametrize("missing", ["cyclopts", "rich", "docstring_parser"])
def test_without_an_extra_the_console_script_says_which(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] in (missing, "cyclopts") or name.startswith("bqstream.cli."):
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


@pytest.mark.parametrize("command", COMMANDS)
def test_with_the_extra_cli_alone_a_command_works_or_says_which_it_needs(command: str) -> None:
    script = (
        "import sys, bqstream.cli as cli\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in sys.argv[1].split():\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "cli.main([sys.argv[2], '--help'])"
    )
    ran = subprocess.run([sys.executable, "-c", script, OTHERS, command], capture_output=True, text=True)
    if command in ("collect", "checkpoint"):
        assert ran.returncode == 1
        assert re.fullmatch(
            r'bqstream: this command needs \w+: pip install "bqstream\[collect\]"\n', ran.stderr
        )
    else:
        assert ran.stdout.startswith(f"Usage: bqstream {command}"), ran.stderr
