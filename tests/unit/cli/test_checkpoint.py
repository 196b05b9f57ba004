from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bqstream import Checkpoint
from bqstream.checkpoint import Mark
from bqstream.collect import Commit, GapRecord, Rows, Stored, Table, open_sink
from bqstream.collect.collector import locked
from bqstream.collect.state import State
from bqstream.delivery.document import Document
from bqstream.tables.columns import drafts

from .conftest import Bqstream

DOCUMENT = """subscription { EVM(network: eth) { DEXTrades {
    Block { Number Hash } Trade { Buy { Amount Price } } Transaction { Hash }
} } }"""
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MARK = Mark(low=("number", "100"), beyond={"100": "abcdefghijkl" * 3})
GAP = GapRecord(
    id="g", cause="dropped", cubes=("DEXTrades",), start=AT, end=None, low=None, high=None, closed=False, how="",
    reason=None, detail="",
)  # fmt: skip
# What another account's environment would add to: none of these commands needs credentials.
NO_CREDENTIALS = dict.fromkeys(("BITQUERY_TOKEN", "BITQUERY_CLIENT_ID", "BITQUERY_CLIENT_SECRET"))


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "trades.graphql"
    path.write_text(DOCUMENT)
    return str(path)


@pytest.fixture
def sink(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'trades.db'}"


def state_of(table: Table) -> str:
    checkpoint = Checkpoint("fingerprint", AT, {"DEXTrades": MARK}).dumps()
    return State(run="r", checkpoint=checkpoint, tables=(table,), open_gaps=(GAP,)).dumps()


def fill(sink: str) -> None:
    """A commit with a row in each of the blocks 90 to 109."""
    (draft,) = drafts(Document.parse(DOCUMENT, None), table="trades")
    columns: list[list[object]] = [
        list(range(90, 110)) if column.name == "Block_Number" else ["1"] * 20
        for column in draft.table.columns
    ]
    rows = [{"Block": {"Number": str(number)}} for number in range(90, 110)]

    async def work() -> None:
        opened = open_sink(sink)
        await opened.open("trades")
        steps = (Rows(draft.table, 20, columns, rows),)
        await opened.commit(
            Commit(
                subscription="trades",
                number=1,
                state=state_of(draft.table),
                tables=(draft.table,),
                steps=steps,
            )
        )
        await opened.aclose()

    asyncio.run(work())


def held(sink: str) -> Stored:
    async def work() -> Stored | None:
        opened = open_sink(sink)
        try:
            return await opened.open("trades")
        finally:
            await opened.aclose()

    found = asyncio.run(work())
    assert found is not None
    return found


def place(sink: str) -> tuple[str, str] | None:
    return Checkpoint.loads(State.loads(held(sink).state).checkpoint).cubes["DEXTrades"].low


@contextlib.contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, answer: str) -> Iterator[None]:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal())
        yield


def test_show_tells_what_the_sink_holds_and_needs_no_credentials(
    bqstream: Bqstream, document: str, sink: str
) -> None:
    fill(sink)
    ended = bqstream("checkpoint", "show", document, "--to", sink, "--table", "trades", env=NO_CREDENTIALS)
    assert (ended.code, ended.err) == (0, "")
    first, *lines = ended.out.splitlines()
    assert first == f"trades in {sink}"
    assert lines[:2] == [
        "  commit 1, of what came in by 2026-01-02T03:04:05Z",
        "  DEXTrades: whole below number 100, and 3 of the rows beyond up to 100",
    ]
    assert "  table trades: Block_Number integer, Block_Hash text, Trade_Buy_Amount text" in lines[2]
    assert lines[3] == "  gap being closed: DEXTrades from 2026-01-02T03:04:05Z to now (dropped)"
    assert lines[4].startswith("  checkpoint of ")


def test_show_gives_the_same_as_json(bqstream: Bqstream, document: str, sink: str) -> None:
    fill(sink)
    ended = bqstream("checkpoint", "show", document, "--to", sink, "--name", "trades", "--json")
    shown = json.loads(ended.out)
    assert (shown["name"], shown["sink"], shown["commit"], shown["at"]) == (
        "trades",
        sink,
        1,
        "2026-01-02T03:04:05Z",
    )
    assert shown["cubes"] == {
        "DEXTrades": {"kind": "number", "whole_below": "100", "beyond": 3, "reached": "100"}
    }
    assert shown["tables"]["trades"]["Block_Number"] == "integer"
    assert [gap["id"] for gap in shown["open_gaps"]] == ["g"]
    assert shown["checkpoint_bytes"] > 0


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "jsonl", "parquet"])
def test_nothing_is_made_where_nothing_is(
    scheme: str, bqstream: Bqstream, document: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    for arguments in (["show"], ["rewind", "--to", "90", "--yes"]):
        ended = bqstream("checkpoint", *arguments, document, "--to", f"{scheme}:{tmp_path / 'nothing'}")
        assert ended.code == (1 if arguments == ["show"] else 2)
        assert "holds nothing of DEXTrades" in ended.out + ended.err
    assert sorted(path for path in tmp_path.iterdir() if path.suffix != ".lock") == before


def test_show_looks_while_a_collector_is_at_it_and_rewind_does_not(
    bqstream: Bqstream, document: str, sink: str
) -> None:
    fill(sink)
    named = (document, "--to", sink, "--name", "trades")
    with locked(open_sink(sink), "trades"):
        assert bqstream("checkpoint", "show", *named).code == 0
        ended = bqstream("checkpoint", "rewind", *named, "--to", "95", "--yes")
    assert ended.code == 6
    assert "another collector on this machine" in ended.err
    assert held(sink).number == 1


def test_rewind_says_what_comes_again_and_goes_back(bqstream: Bqstream, document: str, sink: str) -> None:
    fill(sink)
    named = (document, "--to", sink, "--name", "trades")
    ended = bqstream("checkpoint", "rewind", *named, "--to", "95", "--yes", env=NO_CREDENTIALS)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines() == [
        f"trades in {sink}, commit 1",
        "  DEXTrades goes back to 95; it is whole below number 100, and 3 of the rows beyond up to 100",
        "  15 rows of trades come again, and stand twice unless removed before:",
        '    DELETE FROM "trades" WHERE "Block_Number" >= 95;',
        "trades: the next collect goes on from 95",
    ]
    assert (held(sink).number, place(sink)) == (2, ("number", "95"))
    with contextlib.closing(sqlite3.connect(sink.removeprefix("sqlite:"))) as database:
        assert database.execute(ended.err.splitlines()[3]).rowcount == 15


@pytest.mark.parametrize("scheme", ["duckdb", "jsonl", "parquet"])
def test_every_sink_takes_it_and_tells_what_it_can(
    scheme: str, bqstream: Bqstream, document: str, tmp_path: Path
) -> None:
    sink = f"{scheme}:{tmp_path / 'rows'}"
    fill(sink)
    ended = bqstream(
        "checkpoint", "rewind", document, "--to", "95", "--to", sink, "--name", "trades", "--yes"
    )
    assert ended.code == 0, ended
    said = (
        "15 rows of trades come again"
        if scheme == "duckdb"
        else "the rows of trades from there on come again"
    )
    assert said in ended.err
    assert (held(sink).number, place(sink)) == (2, ("number", "95"))


def test_a_table_that_was_dropped_is_no_obstacle(bqstream: Bqstream, document: str, sink: str) -> None:
    fill(sink)
    with contextlib.closing(sqlite3.connect(sink.removeprefix("sqlite:"))) as database:
        database.execute("DROP TABLE trades")
    assert (
        bqstream(
            "checkpoint", "rewind", document, "--to", sink, "--name", "trades", "--to", "0", "--yes"
        ).code
        == 0
    )
    assert place(sink) == ("number", "0")


@pytest.mark.parametrize(("answer", "code", "number"), [("y\n", 0, 2), ("no\n", 1, 1), ("", 1, 1)])
def test_a_person_is_asked(
    answer: str,
    code: int,
    number: int,
    bqstream: Bqstream,
    document: str,
    sink: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(sink)
    with answering(monkeypatch, answer):
        ended = bqstream("checkpoint", "rewind", document, "--to", sink, "--name", "trades", "--to", "95")
    assert ended.code == code
    assert "Go back? [y/N]" in ended.err
    assert held(sink).number == number


def test_without_a_person_it_must_be_told_yes(
    bqstream: Bqstream, document: str, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sink)
    with Path("/dev/null").open() as nobody, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", nobody)
        ended = bqstream("checkpoint", "rewind", document, "--to", sink, "--name", "trades", "--to", "95")
    assert ended.code == 2
    assert "--yes" in ended.err
    assert held(sink).number == 1


def test_a_collector_elsewhere_is_noticed_by_the_number(
    bqstream: Bqstream, document: str, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits while the person thinks."""
    fill(sink)

    def think() -> str:
        with contextlib.closing(sqlite3.connect(sink.removeprefix("sqlite:"))) as database, database:
            database.execute("UPDATE _bqstream_state SET number = 2")
        return "y\n"

    with answering(monkeypatch, "y\n"):
        monkeypatch.setattr(sys.stdin, "readline", think)
        ended = bqstream("checkpoint", "rewind", document, "--to", sink, "--name", "trades", "--to", "95")
    assert ended.code == 6
    assert "meanwhile" in ended.err
    assert place(sink) == ("number", "100")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --to BLOCK"),
        (["--to", "1", "--to", "2"], "give --to BLOCK"),
        (["--to", "101"], "whole below number 100"),
        (["--to", "2026-01-01T00:00:00Z"], "the way back is to a block's number"),
        (["--to", "1h"], "the way back is to a block's number"),
    ],
)
def test_a_place_that_means_nothing_is_refused_with_2(
    arguments: list[str], said: str, bqstream: Bqstream, document: str, sink: str
) -> None:
    fill(sink)
    ended = bqstream("checkpoint", "rewind", document, "--to", sink, "--name", "trades", *arguments, "--yes")
    assert ended.code == 2
    assert said in ended.err
    assert held(sink).number == 1


def test_the_file_of_collect_and_its_environment_name_the_subscription_too(
    bqstream: Bqstream, document: str, sink: str, tmp_path: Path
) -> None:
    fill(sink)
    config = tmp_path / "collect.toml"
    blocks = "subscription { EVM(network: eth) { Blocks { Block { Number } } } }"
    config.write_text(
        f"to = {json.dumps(sink)}\n[[collect]]\ndocument = 'trades.graphql'\ntable = 'trades'\n"
        f"[[collect]]\nquery = '{blocks}'\n"
    )
    by_file = ("--config", str(config))
    shown = bqstream("checkpoint", "show", *by_file, "--json")
    assert shown.code == 1  # there are no blocks yet
    assert [json.loads(line)["commit"] for line in shown.out.splitlines()] == [1, None]
    assert bqstream("checkpoint", "show", *by_file, "--name", "trades").code == 0
    ended = bqstream("checkpoint", "rewind", *by_file, "--to", "95", "--yes")
    assert (ended.code, "--name says which of them goes back: trades, Blocks" in ended.err) == (2, True)
    ended = bqstream("checkpoint", "rewind", *by_file, "--to", "95", "--yes", "--name", "trade")
    assert (ended.code, "has trades, Blocks" in ended.err) == (2, True)
    assert bqstream("checkpoint", "rewind", *by_file, "--to", "95", "--yes", "--name", "trades").code == 0
    environment = {
        "BQSTREAM_COLLECT_DOCUMENT": document,
        "BQSTREAM_COLLECT_TO": sink,
        "BQSTREAM_COLLECT_TABLE": "trades",
    }
    assert bqstream("checkpoint", "rewind", "--to", "94", "--yes", env=environment).code == 0
    assert (held(sink).number, place(sink)) == (3, ("number", "94"))
