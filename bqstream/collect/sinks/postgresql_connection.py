"""How PostgreSQL is reached: by what address, for how long it is waited for, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Generator, Mapping
from typing import Any, Self
from urllib.parse import quote, unquote

import psycopg
from psycopg.abc import PQGen

from ...errors import SinkFailed, SinkUnavailable, UsageError
from ..sink import Address

# What libpq is told where neither the address nor the environment says it; seconds, and milliseconds for the last. A
# server that has gone without a word is noticed in half a minute.
_LIBPQ = {
    "fallback_application_name": "bqstream",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
# The same for the server: no lock and no statement waits for ever, and the row lock of a collector that has gone is
# let go. They end with the transaction, so that a pooler may serve each by another session; and what the user has set
# (in the second column is what the server has by itself) stays.
BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config(name, wanted, true) FROM (VALUES
    ('lock_timeout', '0', '10s'), ('statement_timeout', '0', '60s'),
    ('idle_in_transaction_session_timeout', '0', '60s'), ('tcp_keepalives_idle', '7200', '10'),
    ('tcp_keepalives_interval', '75', '5'), ('tcp_keepalives_count', '9', '3'),
    ('synchronous_commit', 'off', 'on')  -- a commit outlives a loss of power
) AS asked (name, plain, wanted) WHERE current_setting(name) = plain"""
# A server that has not answered so many seconds after its own time-out never will: a standstill keeps TCP alive.
GRACE = 15.0


def read_address(address: Address) -> tuple[dict[str, str], str | None]:
    """libpq's parameters, and the schema; libpq reads all but ``schema=`` by itself.

    Raises UsageError, in which no part of a password is shown.
    """
    if not address.place.startswith("//"):
        raise UsageError(f"{address.scheme}: needs a server, such as postgresql://user@host:5432/database")
    text, _, query = address.text.partition("?")
    authority, _, database = address.place.removeprefix("//").partition("/")
    # libpq ends a password at the first @, and a host at the first /: what comes then would be shown as a name.
    if authority.count("@") > 1 or "@" in database + query:
        raise UsageError(
            "postgresql: write the @ of a user, of a password and in an option as %40, and / and ? as %2F and %3F"
        )
    address.only("schema", *(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()))
    # Not of address.options: to libpq, unlike in a form, a plus is a plus.
    options = [option.partition("=") for option in query.split("&") if option]
    schema = next((unquote(value) for key, _, value in options if key == "schema"), None)
    if schema == "":
        raise UsageError("postgresql: schema= is empty; leave it out, or name one")
    query = "&".join("".join(option) for option in options if option[0] != "schema")
    with contextlib.suppress(psycopg.Error):  # its text may hold a password
        given = psycopg.conninfo.conninfo_to_dict(f"{text}?{query}")
        if re.fullmatch("[0-9,]*", str(given.get("port") or "")):
            return {key: str(value) for key, value in given.items() if value is not None}, schema
    raise UsageError(
        "postgresql: the address cannot be read: give postgresql://user@host:5432/database?schema=…, with what is "
        "neither letter nor digit as %XX"
    )


def name_of(server: Mapping[str, str], schema: str | None) -> str:
    """For people. Two places have two names, so what libpq gets from the environment is in it; but no password is."""
    known = {
        option.keyword.decode(): option.val.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.val
    }
    known |= server
    host = known.get("host") or known.get("hostaddr") or known.get("service", "")
    user, port, database = (known.get(key, "") for key in ("user", "port", "dbname"))
    at = f"{quote(user)}@" if user else ""
    return (
        f"postgresql://{at}{quote(host, safe=',:')}{port and ':'}{port}/{quote(database)}"
        f"{f'?schema={quote(schema)}' if schema else ''}"
    )


class Connection(psycopg.Connection[Any]):
    """Waits for each answer for at most ``patience`` seconds; a commit that goes on is not cut off."""

    patience = 60.0 + GRACE

    @classmethod
    def to(cls, server: Mapping[str, str]) -> Self:
        """Connect. ``server`` are libpq's parameters, as `read_address` gives them."""
        defaults = {key: value for key, value in _LIBPQ.items() if f"PG{key.upper()}" not in os.environ}
        server = {**defaults, **server, "client_encoding": "utf8"}
        return cls.connect(psycopg.conninfo.make_conninfo(**server), autocommit=True, prepare_threshold=None)

    def wait(self, gen: PQGen[Any], *how: Any, **more: Any) -> Any:
        return super().wait(self._bounded(gen), *how, **more)

    def _bounded(self, gen: PQGen[Any]) -> Generator[Any, Any, Any]:
        until = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {self.patience:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value


_PASSING = ("08", "40", "53", "57", "58", "25P03", "55P03", "55006")
_ADVICE = {
    "53100": "the disk is full: make room; nothing is lost",
    "57014": "options=-cstatement_timeout%3D10min in the address gives it longer",
    "42501": "the role may not do that: GRANT it CREATE on the schema, or make the tables and GRANT it SELECT, INSERT, "
    "UPDATE and DELETE on them",
    "25006": "the server is read-only: with several hosts in the address, target_session_attrs=read-write finds the "
    "one that is not",
    "28": "set the user in the address, and the password by PGPASSWORD or ~/.pgpass",
    "3D": "CREATE DATABASE makes it",
}
# A connection that is refused has no SQLSTATE, only text, which the server may have in another language. What is not
# known is tried again, and said.
_REFUSED = {
    "28": r"authentication failed|no pg_hba\.conf entry|no password supplied|role .* (does not exist|not permitted)",
    "3D": r"database .* does not exist",
    "42501": r"permission denied for database",
    "22": r"invalid .*(number|value)|does not support SSL|certificate",
}


def meaning(name: str, error: psycopg.Error) -> SinkFailed:
    """What ``error`` is to a collector whose sink is called ``name``."""
    said = error.diag.message_primary or str(error)
    where = error.diag.context or ""
    code = error.sqlstate or ""
    if not code:
        code = next((code for code, text in _REFUSED.items() if re.search(text, said)), "")
    advice = next((f": {advice}" for start, advice in _ADVICE.items() if code.startswith(start)), "")
    # Two that make a table at the same time: the name is taken in the catalogue, after it was not.
    raced = code == "42P07" or (code == "23505" and error.diag.schema_name == "pg_catalog")
    lost = not code and isinstance(error, psycopg.OperationalError)
    kind = SinkUnavailable if lost or raced or code.startswith(_PASSING) else SinkFailed
    return kind(f"{name}: {' '.join(f'{said} {where}'.split())}{advice}")
