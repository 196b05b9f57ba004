"""A pytest plugin: a PostgreSQL of the tests' own, each test with a database of its own.

One server for each process of pytest-xdist, so that a test may stop it without harm to others. It is started when the
first test asks for it, and is reached by a socket in its own directory, so no port can be taken. PostgreSQL refuses to
run as root: then it runs as the user ``postgres``, or else ``nobody``.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

# Where Debian, Red Hat and Homebrew have them, which do not all put them on PATH.
_PLACES = (
    "/usr/lib/postgresql/*/bin/pg_ctl",
    "/usr/pgsql-*/bin/pg_ctl",
    "/opt/homebrew/opt/postgresql*/bin/pg_ctl",
)
# A crash of the machine is not what tests are about. With ``SET synchronous_commit = on`` a session's COMMIT writes,
# and then waits for a standby that there is not: as long as the test likes (pg_cancel_backend ends that).
_SETTINGS = (
    "fsync=off full_page_writes=off shared_buffers=32MB max_wal_size=1GB listen_addresses= "
    "synchronous_standby_names=nobody synchronous_commit=local"
)
ASKED = "asked"
_PORT = 5432  # of no network: a part of the socket's name


class PostgreSQLServer:
    """A server that runs, from the start; its superuser is ``postgres``. Who is in the role ``asked`` is asked for a
    password, others are not."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = _unprivileged()
        self._numbers = itertools.count()
        self.directory = Path(tempfile.mkdtemp(prefix="bqstream-pg-"))
        if self._user:
            shutil.chown(self.directory, self._user)
        self.data = self.directory / "data"
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"
        )
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"local all +{ASKED} scram-sha-256\n{rules.read_text()}")
        self.start()
        self.query("postgres", f"CREATE ROLE {ASKED}")

    def start(self) -> None:
        """Returns when it takes connections."""
        settings = [f"-c {setting}" for setting in _SETTINGS.split()]
        options = " ".join([f"-k {self.directory}", f"-p {_PORT}", *settings])
        self._run("pg_ctl", "start", "-w", "-t60", "-s", f"-l{self.directory / 'log'}", f"-o{options}")

    def stop(self, mode: Literal["fast", "immediate"] = "immediate") -> None:
        """Returns when it is gone. ``immediate`` is a crash: it recovers at the next start."""
        self._run("pg_ctl", "stop", "-w", "-t60", "-s", f"-m{mode}")

    def database(self) -> str:
        """The name of a new database."""
        name = f"test_{next(self._numbers)}"
        self.query("postgres", f"CREATE DATABASE {name}")
        return name

    def address(self, database: str, user: str = "postgres", **options: str) -> str:
        """What a collector is given, and libpq takes."""
        more = "".join(f"&{key}={value}" for key, value in options.items())
        return f"postgresql://{user}@/{database}?host={self.directory}&port={_PORT}{more}"

    def query(self, database: str, text: str, *values: Any) -> list[dict[str, Any]]:
        """The rows that the superuser gets, each by name."""
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(self.address(database), autocommit=True, row_factory=dict_row) as connection:
            done = connection.execute(text.encode(), values or None)
            return done.fetchall() if done.description else []

    def remove(self) -> None:
        try:
            if (self.data / "postmaster.pid").exists():
                self.stop()
        finally:
            shutil.rmtree(self.directory)

    def _run(self, program: str, *arguments: str) -> None:
        """Output goes to a file: the server inherits it, and a pipe would be open as long as the server runs."""
        with (self.directory / "said").open("w+") as said:
            done = subprocess.run(
                [self._programs / program, f"-D{self.data}", *arguments],
                user=self._user,
                group=self._user and pwd.getpwnam(self._user).pw_gid,
                extra_groups=[] if self._user else None,
                cwd=self.directory,
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            if done.returncode:
                said.seek(0)
                log = self.directory / "log"
                raise RuntimeError(f"{program}: {said.read()}{log.read_text() if log.exists() else ''}")


def _unprivileged() -> str | None:
    """Whom the server runs as; None: as who runs the tests."""
    if os.geteuid():
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _programs() -> Path | None:
    found = [Path(path) for path in [shutil.which("pg_ctl")] if path]
    found += sorted(
        (path for place in _PLACES for path in Path("/").glob(place.removeprefix("/"))), reverse=True
    )
    return next((path.parent for path in found if (path.parent / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """A test that stops it must start it again."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed: apt install postgresql, or put its pg_ctl on PATH")
    server = PostgreSQLServer(programs)
    yield server
    server.remove()


@pytest.fixture
def database(postgresql_server: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty database; libpq's own variables are unset."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    return postgresql_server.database()
