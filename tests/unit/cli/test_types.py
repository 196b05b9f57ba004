"""`bqstream types` without a service: by names and by a schema; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Bqstream

TRANSFERS = "subscription { EVM { Transfers { Transfer { Amount from: Sender } Wondrous } } }"
SCHEMA = """
type Query { nothing: Int }
type Subscription { EVM: EVM! }
type EVM { Transfers: [Row!]! }
type Row { Transfer: Transfer! Wondrous: Boolean! }
type Transfer { Amount: BigInt! Sender: String }
scalar BigInt
"""
# Nobody listens there: an attempt to connect would end with another code, and not at once.
NOWHERE = {"BITQUERY_TOKEN": "abc", "BITQUERY_ENDPOINT": "http://127.0.0.1:1/graphql"}
BY_NAMES = '''"""What a subscription to EVM brings: Transfers.

Written by `bqstream types` from a document and what the service's fields hold by their names.

    async with client.subscribe(document, type=Data) as stream:
        async for message in stream:
            for row in message.data.EVM.Transfers:
                ...
"""

from msgspec import Struct, field

Scalar = str | int | float | bool | None
"""A value of which nothing was known but that it is one."""


class TransfersTransfer(Struct, frozen=True, kw_only=True, gc=False):
    Amount: str
    from_: str = field(name="from")


class TransfersRow(Struct, frozen=True, kw_only=True, gc=False):
    Transfer: TransfersTransfer
    Wondrous: Scalar


class EVMData(Struct, frozen=True, kw_only=True, gc=False):
    Transfers: list[TransfersRow]


class Data(Struct, frozen=True, kw_only=True, gc=False):
    EVM: EVMData
'''


def test_a_module_by_names_says_how_it_is_used_and_what_nothing_is_known_of(bqstream: Bqstream) -> None:
    end = bqstream("types", "--query", TRANSFERS, "--no-sample", env=NOWHERE)
    assert (end.code, end.out) == (0, BY_NAMES)
    assert end.err == "nothing is known of 1 field, which may be any scalar: EVM.Transfers.Wondrous\n"


def test_a_module_by_a_schema_streams_nothing_and_names_both_files(
    bqstream: Bqstream, tmp_path: Path
) -> None:
    document, schema = tmp_path / "transfers.graphql", tmp_path / 'odd "\\ name.graphql'
    document.write_text(TRANSFERS, encoding="utf-8")
    schema.write_text(SCHEMA, encoding="utf-8")
    end = bqstream("types", str(document), "--schema", str(schema), "--decimals", env=NOWHERE)
    assert (end.code, end.err) == (0, "")
    assert "from the document transfers.graphql and the schema odd '/ name.graphql." in end.out
    assert str(tmp_path) not in end.out
    for line in ("Wondrous: bool", "Amount: Decimal", 'from_: str | None = field(name="from")'):
        assert f"    {line}\n" in end.out
    compile(end.out, "models.py", "exec")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "DOCUMENT"),
        (["--query", "query { EVM { Transfers { Hash } } }"], "subscription"),
        (["--query", TRANSFERS, "--no-sample", "--rows", "5"], "--no-sample"),
        (["--query", TRANSFERS, "--no-sample", "--for", "5s"], "--no-sample"),
        (["--query", TRANSFERS, "--schema", "nowhere.graphql"], "nowhere.graphql cannot be read"),
        (["--query", TRANSFERS, "--schema", "README.md"], "no schema"),
        (["--query", TRANSFERS, "--rows", "0"], "--rows"),
        (["--query", "subscription { EVM { ...Gone } }", "--no-sample"], "Gone"),
    ],
)
def test_wrong_usage_a_wrong_schema_or_document_ends_with_2_and_no_module(
    arguments: list[str], says: str, bqstream: Bqstream
) -> None:
    end = bqstream("types", *arguments, env=NOWHERE)
    assert (end.code, end.out) == (2, "")
    assert says in end.err


def test_missing_credentials_end_with_3_where_a_sample_is_to_be_had(bqstream: Bqstream) -> None:
    env: dict[str, str | None] = {
        f"BITQUERY_{name}": None for name in ("TOKEN", "CLIENT_ID", "CLIENT_SECRET")
    }
    env |= {f"{name}_FILE": None for name in env}
    end = bqstream("types", "--query", TRANSFERS, env=env)
    assert (end.code, end.out) == (3, "")
    assert "--no-sample" in end.err
