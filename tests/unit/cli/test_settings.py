"""What ``bqstream collect`` is told, and by whom: flags, variables, a file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bqstream import UsageError
from bqstream.cli import collect
from bqstream.cli.settings import Job, Process, Settings, read, size

from .conftest import Bqstream

Told = Callable[..., Settings]

# Of each setting: what the file, the variable and the flag say in this test, and what each of them means.
PROCESS: dict[str, tuple[str, str, str, tuple[Any, Any, Any]]] = {
    "endpoint": ('"us"', "asia", "eu", ("us", "asia", "eu")),
    "token_url": ('"http://a"', "http://b", "http://c", ("http://a", "http://b", "http://c")),
    "for": ('"1m"', "2m", "3m", (60.0, 120.0, 180.0)),
    "http": ('"127.0.0.1:1"', "[::1]:2", ":3", (("127.0.0.1", 1), ("::1", 2), ("127.0.0.1", 3))),
    "log": ('"plain"', "json", "auto", ("plain", "json", "auto")),
    "stop_within": ("1", "2", "3s", (1.0, 2.0, 3.0)),
    "overdue": ("1.5", "2", "3", (1.5, 2.0, 3.0)),
}
JOB: dict[str, tuple[str, str, str, tuple[Any, Any, Any]]] = {
    "document": ('"a"', "b", "c", ("{folder}/a", "b", "c")),
    "query": ('"a"', "b", "c", ("a", "b", "c")),
    "operation": ('"a"', "b", "c", ("a", "b", "c")),
    "var": ('["a=1"]', "b=2 c=3", "d=4", (("a=1",), ("b=2", "c=3"), ("d=4",))),
    "vars": ("{a = 1}", "b", "c", ({"a": 1}, "b", "c")),
    "to": ('"a:"', "b:", "c:", ("a:", "b:", "c:")),
    "name": ('"a"', "b", "c", ("a", "b", "c")),
    "table": ('"a"', "b", "c", ("a", "b", "c")),
    "since": (
        "2026-01-31T12:00:00Z",
        "6h",
        "7",
        (datetime(2026, 1, 31, 12, tzinfo=UTC), timedelta(hours=6), 7),
    ),
    "rows": ("1", "2", "3", (1, 2, 3)),
    "on_gap": ('"stop"', "continue", "stop", ("stop", "continue", "stop")),
    "schema": ('"a"', "b", "c", ("{folder}/a", "b", "c")),
    "columns": (
        '{a = "text"}',
        "b=float c=json",
        "d=decimal(38,18)",
        ({"a": "text"}, {"b": "float", "c": "json"}, {"d": "decimal(38,18)"}),
    ),
    "decimals": ("true", "false", "", (True, False, True)),
    "undo": ("true", "0", "", (True, False, True)),
    "evolve": ("true", "no", "", (True, False, True)),
    "dead_letters": ('"a"', "b", "c", (Path("a"), Path("b"), Path("c"))),
    "batch_seconds": ("1", "2s", "3m", (1.0, 2.0, 180.0)),
    "batch_messages": ("1", "2", "3", (1, 2, 3)),
    "batch_bytes": ('"1kB"', "2MiB", "3", (1024, 2 * 1024**2, 3)),
}


@pytest.fixture
def told(bqstream: Bqstream, monkeypatch: pytest.MonkeyPatch) -> Told:
    """The settings that a command line comes to, and nothing is run."""
    found: list[Settings] = []

    async def keep(settings: Settings) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr(collect, "_collect", keep)
    for name in ("BITQUERY_ENDPOINT", "BITQUERY_TOKEN_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, env: dict[str, str | None] | None = None) -> Settings:
        ended = bqstream("collect", *arguments, env=env)
        assert ended.code == 0, ended
        return found.pop()

    return run


def written(folder: Path, text: str) -> str:
    path = folder / "collect.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_each_setting_is_tested_here() -> None:
    assert {field.alias or name for name, field in Process.model_fields.items()} == set(PROCESS)
    assert {field.alias or name for name, field in Job.model_fields.items()} == set(JOB)


@pytest.mark.parametrize("key", [*PROCESS, *JOB])
def test_a_flag_wins_over_its_variable_and_this_over_the_file(key: str, told: Told, tmp_path: Path) -> None:
    in_file, in_variable, in_flag, meant = (PROCESS | JOB)[key]
    flag = "column" if key == "columns" else key.replace("_", "-")
    variable = f"BQSTREAM_COLLECT_{flag.upper().replace('-', '_')}"
    if key in ("endpoint", "token_url"):
        variable = f"BITQUERY_{key.upper()}"
    text = f"{key} = {in_file}\n" + ("" if key == "to" else 'to = "sqlite:rows.db"\n')
    config = ("--config", written(tmp_path, text))
    given = [in_flag] if key == "document" else [f"--{flag}", in_flag] if in_flag else [f"--{flag}"]
    by_file = told(*config)
    by_variable = told(*config, env={variable: in_variable})
    by_flag = told(*config, *given, env={variable: in_variable})
    name = {"for": "seconds", "schema": "schema_file"}.get(key, key)
    for settings, value in zip((by_file, by_variable, by_flag), meant, strict=True):
        found = getattr(settings.process if key in PROCESS else settings.jobs[0], name)
        expected = value.format(folder=tmp_path) if isinstance(value, str) else value
        assert found == expected
        assert type(found) is type(expected)


def test_one_subscription_says_more_than_the_file_as_a_whole_and_less_than_a_flag(
    told: Told, tmp_path: Path
) -> None:
    config = written(
        tmp_path,
        'to = "a:"\non_gap = "stop"\nrows = 1\n[[collect]]\nquery = "x"\nto = "b:"\nrows = 2\n[[collect]]\nquery = "y"',
    )
    settings = told("--config", config, "--rows", "3")
    assert [(job.query, job.to, job.on_gap, job.rows) for job in settings.jobs] == [
        ("x", "b:", "stop", 3),
        ("y", "a:", "stop", 3),
    ]


def test_a_document_that_a_flag_gives_stands_for_the_one_of_the_file(told: Told, tmp_path: Path) -> None:
    (job,) = told("--config", written(tmp_path, 'to = "a:"\nquery = "x"'), "other.graphql").jobs
    assert (job.document, job.query) == ("other.graphql", None)


def test_a_sink_of_the_file_may_hold_a_password_and_one_of_a_flag_may_not(told: Told, tmp_path: Path) -> None:
    config = written(tmp_path, 'to = "a:"')
    assert told("--config", config).trusted
    assert not told("--config", config, "--to", "b:").trusted
    assert not told("--config", config, env={"BQSTREAM_COLLECT_TO": "b:"}).trusted


def test_every_mistake_is_named_at_once_with_where_it_is(
    bqstream: Bqstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    config = written(
        tmp_path,
        """
        log = "loud"
        colour = "red"
        since = 2026-01-31T12:00:00
        [[collect]]
        query = "${MISSING}"
        to = "a:"
        rows = 0
        [[collect]]
        vars = 3
        to = "b:"
        colums = {}
        """,
    )
    ended = bqstream(
        *("collect", "--config", config, "--batch-bytes", "much", "--overdue", "soon"),
        env={"BQSTREAM_COLLECT_ON_GAP": "panic", "BQSTREAM_COLLECT_HTTP": "9464"},
    )
    assert (ended.code, ended.out) == (2, "")
    first, *lines = ended.err.splitlines()
    assert first == "bqstream: several things are wrong:"
    for said in (
        f"  {config}: log: must be 'auto', 'plain' or 'json'",
        f"  {config}: colour: there is no such setting; there are batch_bytes, ",
        f"  {config}: since: a time has a zone",
        f"  {config}: collect.query: the environment has no MISSING, nor MISSING_FILE",
        f"  {config}: rows of [[collect]] 1: must be greater than 0",
        f"  {config}: vars of [[collect]] 2: ",
        f"  {config}: colums of [[collect]] 2: there is no such setting",
        "  --batch-bytes (or BQSTREAM_COLLECT_BATCH_BYTES): 'much' is no size",
        "  --overdue (or BQSTREAM_COLLECT_OVERDUE): 'soon' is no length of time",
        "  --on-gap (or BQSTREAM_COLLECT_ON_GAP): must be 'continue' or 'stop'",
        "  --http (or BQSTREAM_COLLECT_HTTP): '9464' is no address: give HOST:PORT",
    ):
        assert any(line.startswith(said) for line in lines), (said, ended.err)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "--config .*collect.toml: No such file"),
        ("=", r"^--config \S*collect.toml is no TOML"),
        ("\udcff", r"^--config \S*collect.toml is no TOML"),
        ("collect = 3", r"collect: write \[\[collect\]\]"),
        ("collect = [3]", r"collect: write \[\[collect\]\]"),
        ("", "--to: is missing"),
    ],
)
def test_a_file_that_says_nothing_is_a_mistake(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "collect.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UsageError, match=says):
        read({}, str(path))


def test_what_is_for_one_subscription_is_refused_where_the_file_lists_several(tmp_path: Path) -> None:
    config = written(tmp_path, 'to = "a:"\n[[collect]]\nquery = "x"\n[[collect]]\nquery = "y"')
    with pytest.raises(UsageError, match=r"--table is for one subscription, and .* lists 2"):
        read({"table": "t"}, config)


def test_variables_and_files_that_they_name_fill_text_at_any_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("of a file\n")
    monkeypatch.setenv("USER_NAME", "me")
    monkeypatch.setenv("OTHER_FILE", str(tmp_path / "secret"))
    text = 'to = "p://${USER_NAME}:${OTHER}@h/d"\nvars = { a = ["${USER_NAME}"], b = 1 }\nquery = "$a ${USER_NAME} $$"'
    (job,) = read({}, written(tmp_path, text)).jobs
    assert (job.to, job.vars, job.query) == ("p://me:of a file@h/d", {"a": ["me"], "b": 1}, "$a me $$")


def test_a_file_that_cannot_be_read_is_named_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTHER", raising=False)
    monkeypatch.setenv("OTHER_FILE", str(tmp_path))
    with pytest.raises(UsageError, match=r"collect\.toml: to: the file that OTHER_FILE names cannot be read"):
        read({}, written(tmp_path, 'to = "${OTHER}"'))


def test_files_that_are_read_stand_beside_the_file_and_those_of_flags_where_the_command_is_run(
    tmp_path: Path,
) -> None:
    config = written(
        tmp_path,
        'to = "sqlite:rows.db"\nschema = "s"\n[[collect]]\ndocument = "d"\nvars = "/v"\n[[collect]]\ndocument = "-"',
    )
    one, other = read({"dead_letters": "dead"}, config).jobs
    assert (one.document, one.vars, one.schema_file) == (str(tmp_path / "d"), "/v", str(tmp_path / "s"))
    assert (one.to, one.dead_letters) == ("sqlite:rows.db", Path("dead"))
    assert other.document == "-"


@pytest.mark.parametrize(
    ("text", "bytes"), [("1", 1), ("2k", 2048), ("0.5 MiB", 2**19), ("1GB", 2**30), (" 3b ", 3), (7, 7)]
)
def test_a_size_is_read_with_and_without_a_unit(text: Any, bytes: int) -> None:
    assert size(text) == bytes
