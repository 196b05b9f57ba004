"""What examples/collect has for those who keep a collector running says what the command takes."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bqstream.cli.app import app
from bqstream.cli.asking import duration
from bqstream.cli.collect import collector_of
from bqstream.cli.running import ACCESS, GAP, LOCKED, USAGE
from bqstream.cli.settings import Process, read

FOLDER = Path(__file__).parents[3] / "examples" / "collect"
SECRETS = {"BITQUERY_CLIENT_ID_FILE", "BITQUERY_CLIENT_SECRET_FILE"}


class _Unit(dict[str, Any]):
    """Keys may be there several times, and then all of them count."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and key in self:
            value = [*self[key], *value]
        super().__setitem__(key, value)


def service() -> dict[str, list[str]]:
    unit = configparser.RawConfigParser(dict_type=_Unit, strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FOLDER / "bqstream-collect.service", encoding="utf-8")
    assert unit.sections() == ["Unit", "Service", "Install"]
    return {key: value.splitlines() for key, value in unit.items("Service")}


def instructions(name: str) -> Iterator[str]:
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            yield line.removeprefix(f"{name} ").strip()


def options(arguments: list[str]) -> dict[str, str]:
    """The options of ``bqstream collect``, each of which there is."""
    program, command, *given = arguments
    assert (Path(program).name, command) == ("bqstream", "collect")
    known = {name for argument in app["collect"].assemble_argument_collection() for name in argument.names}
    found = dict(zip(given[::2], given[1::2], strict=True))
    assert found.keys() <= known
    return found


def test_the_file_of_settings_is_understood_and_each_of_its_subscriptions_makes_a_collector() -> None:
    settings = read({}, str(FOLDER / "collect.toml"))
    collectors = [collector_of(None, job, settings) for job in settings.jobs]
    assert [one.name for one in collectors] == ["trades", "blocks"]
    assert settings.process.http == ("127.0.0.1", 9464)


def test_systemd_runs_it_with_options_there_are_and_gives_it_the_time_that_it_takes_to_stop() -> None:
    unit = service()
    (line,) = unit["ExecStart"]
    given = options(shlex.split(line))
    assert given["--config"].endswith("/collect.toml")
    (patience,) = unit["TimeoutStopSec"]
    assert float(patience) > duration(given.get("--stop-within", str(Process().stop_within)))
    assert (unit["KillSignal"], unit["Restart"]) == (["SIGTERM"], ["on-failure"])


def test_systemd_does_not_start_it_again_for_what_a_restart_does_not_mend() -> None:
    (codes,) = service()["RestartPreventExitStatus"]
    assert set(map(int, codes.split())) == {USAGE, ACCESS, GAP, LOCKED}


def test_systemd_hands_secrets_over_as_files() -> None:
    unit = service()
    names = {line.partition(":")[0] for line in unit["LoadCredential"]}
    given = dict(line.split("=", 1) for line in unit["Environment"])
    assert given.keys() == SECRETS
    assert {path.removeprefix("%d/") for path in given.values()} == names


def test_the_container_runs_as_nobody_in_particular_and_is_asked_whether_it_lives() -> None:
    (entry,), (command,), (health,) = map(list, map(instructions, ("ENTRYPOINT", "CMD", "HEALTHCHECK")))
    given = options([*json.loads(entry), *json.loads(command)])
    assert f"http://{given['--http']}/healthz" in health
    json.loads(health[health.index("[") :])
    assert [*instructions("USER")] == ["collector"]
    assert [*instructions("VOLUME")] == [*instructions("WORKDIR")] == ["/data"]
    assert set(re.findall(r"\w+_FILE", next(instructions("ENV")))) == SECRETS


@pytest.mark.parametrize("name", ["bqstream-collect.service", "Containerfile", "collect.toml"])
def test_each_begins_by_saying_what_it_is(name: str) -> None:
    first, second, *_ = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ")
    assert second.startswith("# ")


def test_readme_names_every_metric() -> None:
    root = FOLDER.parents[1]
    sources = [root / "bqstream" / path for path in ("prometheus.py", "collect/metrics.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    names = set(re.findall(r'"(bqstream_\w+)"', text))
    section = (
        (root / "README.md").read_text(encoding="utf-8").partition("## Collect into")[2].partition("\n## ")[0]
    )
    assert set(re.findall(r"`(bqstream_\w+)`", section)) == names
