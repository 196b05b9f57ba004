"""``bqstream collect`` in this process: what is refused before any connection. tests/integration has real runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Bqstream

BLOCKS = "subscription { EVM(network: eth) { Blocks { Block { Number Hash } } } }"
TYPED = "subscription ($least: Int) { EVM { Blocks(a: $least) { b } } }"
# Nobody listens there: an attempt to connect would end with another code, and not at once.
NOWHERE: dict[str, str | None] = {
    "BITQUERY_TOKEN": "abc",
    "BITQUERY_ENDPOINT": "http://127.0.0.1:1/graphql",
}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--to: is missing"),
        (["--to", "sqlite:rows.db"], "give a DOCUMENT or --query TEXT"),
        (["nowhere.graphql", "--to", "sqlite:rows.db"], "nowhere.graphql"),
        (["--query", "subscription {", "--to", "sqlite:rows.db"], "line 1"),
        (["--query", "query { EVM { Blocks { b } } }", "--to", "sqlite:rows.db"], "this is a query"),
        (["--query", BLOCKS, "--to", "rows.db"], "give SCHEME:PLACE"),
        (["--query", BLOCKS, "--to", "oracle:rows"], "there is no sink 'oracle'"),
        (["--query", BLOCKS, "--to", "sqlite:"], "needs a file"),
        (["--query", BLOCKS, "--to", "sqlite:rows.db", "--var", "nobody=1"], "nobody"),
        (["--query", TYPED, "--to", "sqlite:rows.db", "--var", "least=many"], "least"),
        (["--query", BLOCKS, "--to", "sqlite:rows.db", "--column", "Nope=text"], "Nope"),
        (["--query", BLOCKS, "--to", "sqlite:rows.db", "--column", "Nope"], "give NAME=KIND"),
        (["--query", BLOCKS, "--to", "sqlite:rows.db", "--schema", "nowhere"], "--schema nowhere"),
        (["--query", BLOCKS, "--to", "sqlite:rows.db", "--endpoint", "http://192.0.2.1/graphql"], "https://"),
        (["--query", BLOCKS, "--to", "sqlite:rows.db", "--since", "yesterday"], "an age like 6h"),
    ],
)
def test_wrong_usage_ends_with_2_before_any_connection(
    arguments: list[str], says: str, bqstream: Bqstream
) -> None:
    end = bqstream("collect", *arguments, env=NOWHERE)
    assert (end.code, end.out) == (2, ""), end
    assert says in end.err


@pytest.mark.parametrize(
    "sink",
    [
        "postgresql://me:hunter22@host/database",
        "postgresql://host/database?password=hunter22",
        "postgresql://host/database?user=me&sslpassword=hunter22",
        "postgresql://host/database?p%61ssword=hunter22",
        "postgresql:////me:hunter22@host/database",
        "postgresql//me:hunter22@host/database",
        "nats://me:hunter22@host/S/s",
        "nats://hunter22@host/S/s",
        "tls://me:hunter22@host/S/s",
        "parquet:s3://me:hunter22@bucket/rows",
        "parquet:s3://bucket/rows?secret_key=hunter22",
        "other://me:hunter22@host",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_shown(sink: str, bqstream: Bqstream) -> None:
    for arguments, env in ((("--to", sink), NOWHERE), ((), NOWHERE | {"BQSTREAM_COLLECT_TO": sink})):
        end = bqstream("collect", "--query", BLOCKS, *arguments, env=env)
        assert (end.code, end.out) == (2, ""), end
        assert "hunter22" not in end.err


@pytest.mark.parametrize(
    ("sink", "way"),
    [
        ("postgresql://me:hunter22@host/database", "PGPASSWORD or ~/.pgpass"),
        ("nats://me:hunter22@host/S/s", "NATS_CREDS or NATS_TOKEN"),
        ("parquet:s3://me:hunter22@bucket/rows", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_whose_password_is_refused_is_told_how_to_give_it(sink: str, way: str, bqstream: Bqstream) -> None:
    end = bqstream("collect", "--query", BLOCKS, "--to", sink, env=NOWHERE)
    assert way in end.err
    assert "${VARIABLE}" in end.err


def test_a_path_that_looks_like_a_password_is_a_path(bqstream: Bqstream, tmp_path: Path) -> None:
    sink = f"sqlite:{tmp_path}//a:b@c/token=x/rows.db"
    end = bqstream("collect", "--query", BLOCKS, "--to", sink, "--column", "Nope=text", env=NOWHERE)
    assert "Nope" in end.err


def test_a_password_of_the_file_is_not_shown_by_what_is_wrong_there(
    bqstream: Bqstream, tmp_path: Path
) -> None:
    (tmp_path / "collect.toml").write_text(f"to = 'postgresql//me:${{SECRET}}@host/d'\nquery = '{BLOCKS}'")
    end = bqstream(
        "collect", "--config", str(tmp_path / "collect.toml"), env=NOWHERE | {"SECRET": "hunter22"}
    )
    assert end.code == 2
    assert "give SCHEME:PLACE" in end.err
    assert "hunter22" not in end.err


def test_a_mistake_of_each_subscription_is_told_at_once_with_its_number(
    bqstream: Bqstream, tmp_path: Path
) -> None:
    (tmp_path / "collect.toml").write_text(
        f"to = 'sqlite:rows.db'\n[[collect]]\ndocument = 'nowhere'\n[[collect]]\nquery = '{BLOCKS}'\nto = 'x:y'"
    )
    env = NOWHERE | {"BITQUERY_ENDPOINT": "http://192.0.2.1/graphql"}
    end = bqstream("collect", "--config", str(tmp_path / "collect.toml"), env=env)
    assert end.code == 2
    first, endpoint, one, other = end.err.splitlines()
    assert first == "bqstream: several things are wrong:"
    assert "https://" in endpoint
    assert one.startswith("  [[collect]] 1: ")
    assert "nowhere" in one
    assert other.startswith("  [[collect]] 2: there is no sink 'x'")


def test_two_subscriptions_of_one_name_in_one_sink_are_refused(bqstream: Bqstream, tmp_path: Path) -> None:
    one = f"[[collect]]\nquery = '{BLOCKS}'\n"
    (tmp_path / "collect.toml").write_text(f"to = 'sqlite:rows.db'\n{one}{one}")
    end = bqstream("collect", "--config", str(tmp_path / "collect.toml"), env=NOWHERE)
    assert (end.code, "give each a name of its own" in end.err) == (2, True)


@pytest.mark.parametrize(
    ("sink", "library", "extra"),
    [
        ("duckdb:rows.duckdb", "duckdb", "duckdb"),
        ("parquet:rows", "pyarrow", "parquet"),
        ("postgresql://host/d", "psycopg", "postgresql"),
        ("nats://127.0.0.1/S/s", "nats", "nats"),
    ],
)
def test_a_sink_whose_library_is_missing_says_what_to_install(sink: str, library: str, extra: str) -> None:
    script = (
        "import sys\nfrom bqstream.cli import main\n"
        f"sys.modules[{library!r}] = None\nmain(['collect', '--query', {BLOCKS!r}, '--to', {sink!r}])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BITQUERY_")}
    environment |= {name: value for name, value in NOWHERE.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done
    assert f'pip install "bqstream[{extra}]"' in done.stderr


def test_missing_credentials_end_with_3(bqstream: Bqstream) -> None:
    env: dict[str, str | None] = {
        f"BITQUERY_{name}": None for name in ("TOKEN", "CLIENT_ID", "CLIENT_SECRET")
    }
    env |= {f"{name}_FILE": None for name in env}
    end = bqstream("collect", "--query", BLOCKS, "--to", "stdout:", env=env)
    assert end.code == 3
    assert "BITQUERY_CLIENT_SECRET" in end.err


def test_the_sample_is_written_once_and_never_over_a_file(
    bqstream: Bqstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    end = bqstream("collect", "--init")
    assert (end.code, "collect.toml is written" in end.err) == (0, True)
    mine = tmp_path / "mine.toml"
    assert bqstream("collect", "--init", "--config", str(mine)).code == 0
    assert mine.read_text() == (tmp_path / "collect.toml").read_text()
    mine.write_text("# mine")
    end = bqstream("collect", "--init", "--config", str(mine))
    assert (end.code, "is there already" in end.err, mine.read_text()) == (2, True, "# mine")
    end = bqstream("collect", "--init", "--config", str(tmp_path / "no" / "folder.toml"))
    assert (end.code, "No such file" in end.err) == (2, True)
