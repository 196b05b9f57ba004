"""What ``bqstream collect`` is told: by flags, by the environment, by a TOML file; and every mistake in it at once."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from ..errors import UsageError
from .asking import duration, since

SAMPLE = '''\
# bqstream collect --config collect.toml
#
# Credentials come from the environment: BITQUERY_TOKEN, or BITQUERY_CLIENT_ID and BITQUERY_CLIENT_SECRET, each also as
# ..._FILE. Flags and BQSTREAM_COLLECT_... win over what is here. ${NAME} stands for the variable NAME, or for what is
# in the file that NAME_FILE names: the only way to give a password.

endpoint = "eu"              # or "us", "asia", or a URL
# http = "127.0.0.1:9464"    # a page, /metrics, /healthz and /readyz

# What holds for every subscription, unless it says otherwise:
to = "sqlite:rows.db"        # or jsonl:rows.jsonl, parquet:folder, duckdb:rows.duckdb, postgresql://host/database,
                             # nats://host/STREAM/subject
on_gap = "continue"          # "stop": end at rows that are missing for good, with exit code 4
# since = "6h"               # where to begin at first: an age, a time, or a block

[[collect]]
query = """
subscription { EVM(network: eth) { DEXTrades {
    Block { Number Time Hash }
    Transaction { Hash }
    Trade { Buy { Amount PriceInUSD Currency { Symbol } } }
} } }
"""
table = "trades"
# columns = { Trade_Buy_Amount = "decimal(38, 18)" }

[[collect]]
query = "subscription ($network: evm_network) { EVM(network: $network) { Blocks { Block { Number Time Hash } } } }"
vars = { network = "eth" }
table = "blocks"
'''

M = TypeVar("M", bound=BaseModel)

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def size(value: Any) -> Any:
    """Bytes of ``512kB``, ``4MiB``, or of a plain number."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?b?", value.strip().lower())
    if found is None:
        raise ValueError(f"{value!r} is no size: give one like 512kB or 4MB")
    return int(float(found[1]) * _SIZES[found[2]])


def _of_text(read: Any) -> BeforeValidator:
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def _zoned(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError("a time has a zone: write a Z behind it")
    return value


def _host_and_port(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is no address: give HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


def _by_name(value: Any) -> Any:
    """A mapping as it is, and of texts like ``NAME=KIND`` one."""
    if isinstance(value, Mapping):
        return value
    pairs = [text.partition("=") for text in value]
    if wrong := [name for name, equals, kind in pairs if not (name and equals and kind)]:
        raise ValueError(f"{wrong[0]!r}: give NAME=KIND, such as Trade_Buy_Amount=decimal")
    return {name: kind for name, _, kind in pairs}


Seconds = Annotated[PositiveFloat, _of_text(duration)]
Since = Annotated[datetime | timedelta | int, BeforeValidator(_zoned), _of_text(since)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Job(_Strict):
    """One subscription and its sink."""

    document: str | None = None
    query: str | None = None
    operation: str | None = None
    var: tuple[str, ...] = ()
    vars: str | dict[str, Any] | None = None
    to: str = Field(repr=False)  # which may hold a password
    name: str | None = None
    table: str | None = None
    since: Since | None = None
    rows: PositiveInt | None = None
    on_gap: Literal["continue", "stop"] = "continue"
    schema_file: str | None = Field(default=None, alias="schema")
    columns: Annotated[dict[str, str], BeforeValidator(_by_name)] = {}
    decimals: bool = False
    undo: bool = False
    evolve: bool = False
    dead_letters: Path | None = None
    batch_seconds: Seconds | None = None
    batch_messages: PositiveInt | None = None
    batch_bytes: Annotated[PositiveInt, BeforeValidator(size)] | None = None


class Process(_Strict):
    """What holds for the process as a whole."""

    endpoint: str | None = None
    token_url: str | None = None
    seconds: Seconds | None = Field(default=None, alias="for")
    http: Annotated[tuple[str, int], _of_text(_host_and_port)] | None = None
    log: Literal["auto", "plain", "json"] = "auto"
    stop_within: Seconds = 20.0
    overdue: Seconds = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """``trusted``: the sinks come from the file, which may hold a password."""

    process: Process
    jobs: tuple[Job, ...]
    trusted: bool


@dataclass(frozen=True, slots=True)
class _Layer:
    """Values of one source, and what each is called there."""

    values: Mapping[str, Any]
    name: str

    def of(self, model: type[BaseModel]) -> _Layer:
        """What of it belongs to ``model``."""
        return _Layer({key: self.values[key] for key in self.values.keys() & _keys(model)}, self.name)

    def called(self, key: str) -> str:
        flag = "column" if key == "columns" else key.replace("_", "-")
        return self.name.format(flag=flag, variable=flag.replace("-", "_").upper(), key=key)


def read(flags: Mapping[str, Any], config: str | None) -> Settings:
    """The settings. ``flags`` holds what a flag or its variable said, by key; what is None was not given.

    Raises UsageError, naming every mistake.
    """
    mistakes: list[str] = []
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    found = _file(config) if config else {}
    filled = {key: _filled(value, f"{config}: {key}", mistakes) for key, value in found.items()}
    found = _beside(filled, Path(config or "").parent)
    listed = found.pop("collect", [{}])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        mistakes.append(f"{config}: collect: write [[collect]] above what each subscription says")
        listed = []
    if len(listed) > 1 and (one := given.keys() & {"document", "query", "table", "name"}):
        flag = sorted(one)[0]
        mistakes.append(f"--{flag} is for one subscription, and {config} lists {len(listed)}")
    process = _made(
        Process, [_given(given, Process), _Layer(found, f"{config}: {{key}}").of(Process)], mistakes
    )
    default = _Layer({key: found[key] for key in found.keys() - _keys(Process)}, f"{config}: {{key}}")
    jobs = [
        _made(
            Job,
            [_given(given, Job), _Layer(one, f"{config}: {{key}} of [[collect]] {number}"), default],
            mistakes,
        )
        for number, one in enumerate(listed, 1)
    ]
    if mistakes:
        raise UsageError(all_of(mistakes))
    assert process is not None
    return Settings(process, tuple(filter(None, jobs)), "to" not in given)


def secret(name: str) -> str | None:
    """What the environment holds under ``name``, or the file that ``name_FILE`` names. Raises UsageError."""
    if (text := os.environ.get(name)) is not None:
        return text
    path = os.environ.get(f"{name}_FILE")
    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else None
    except (OSError, ValueError):
        raise UsageError(f"the file that {name}_FILE names cannot be read") from None


def all_of(mistakes: Sequence[str]) -> str:
    """Every mistake, each on a line of its own where there are several."""
    mistakes = list(dict.fromkeys(mistakes))
    return mistakes[0] if len(mistakes) == 1 else "\n  ".join(["several things are wrong:", *mistakes])


def _keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _given(flags: Mapping[str, Any], model: type[BaseModel]) -> _Layer:
    return _Layer(flags, "--{flag} (or BQSTREAM_COLLECT_{variable})").of(model)


def _made(model: type[M], layers: Sequence[_Layer], mistakes: list[str]) -> M | None:
    """The first layer that has a value has the say."""
    values: dict[str, Any] = {}
    called: dict[str, str] = {}
    for layer in reversed(layers):
        for key, value in layer.values.items():
            values[key], called[key] = value, layer.called(key)
    if "query" in layers[0].values or "document" in layers[0].values:  # one of them stands for the other
        for key in {"query", "document"} - layers[0].values.keys():
            values.pop(key, None)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            key = str(one["loc"][0]) if one["loc"] else ""
            mistakes.append(f"{called.get(key, f'--{key}')}: {_said(one['type'], one['msg'], model)}")
        return None


def _said(kind: str, message: str, model: type[BaseModel]) -> str:
    if kind == "missing":
        return "is missing: say where the rows go, such as sqlite:rows.db"
    if kind == "extra_forbidden":
        return f"there is no such setting; there are {', '.join(sorted(_keys(Job) | _keys(Process)))}"
    return message.removeprefix("Value error, ").replace("Input should be ", "must be ")


# ---------------------------------------------------------------------- the file


def _file(config: str) -> dict[str, Any]:
    """What it says. Raises UsageError at once: what is missing beside it cannot be known."""
    try:
        return tomllib.loads(Path(config).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {config}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--config {config} is no TOML: {error}") from None


def _beside(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Files that are read and that the file names stand beside it, wherever the command is run."""
    found = dict(values)
    for key in ("document", "schema", "vars"):
        if isinstance(found.get(key), str) and found[key] != "-":  # which is standard input
            found[key] = str(folder / found[key])
    if isinstance(found.get("collect"), list):
        found["collect"] = [
            _beside(one, folder) if isinstance(one, dict) else one for one in found["collect"]
        ]
    return found


def _filled(value: Any, where: str, mistakes: list[str]) -> Any:
    """``value`` with ``${NAME}`` replaced by what the environment holds, in text at any depth; a document's own
    variables have no braces."""
    if isinstance(value, dict):
        return {key: _filled(one, f"{where}.{key}", mistakes) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, where, mistakes) for one in value]
    if not isinstance(value, str):
        return value

    def filled(found: re.Match[str]) -> str:
        try:
            if (text := secret(found[1])) is not None:
                return text
            mistakes.append(f"{where}: the environment has no {found[1]}, nor {found[1]}_FILE")
        except UsageError as error:
            mistakes.append(f"{where}: {error}")
        return ""

    return _VARIABLE.sub(filled, value)
