"""``bqstream collect`` as a user runs it: another process, real signals, and what is in the sink in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from bqstream.simulator import Simulator

from .harness import until
from .test_cli import BLOCKS, ROOT, Ended, bqstream, ended, environment, started

COUNTED = "subscription { EVM(network: eth) { Transfers { count Transfer { Currency { Symbol } } } } }"
TYPED = """subscription ($network: evm_network, $symbol: String) { EVM(network: $network) {
    Transfers(where: {Transfer: {Currency: {Symbol: {not: $symbol}}}}) { Transfer { Index } }
} }"""


def blocks_in(path: Path) -> list[Any]:
    """The rows of the table Blocks, as the service nests them."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT Block_Number, Block_Hash FROM Blocks ORDER BY rowid").fetchall()
    return [{"Block": {"Number": str(number), "Hash": text}} for number, text in found]


def holes_in(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT count(*) FROM _bqstream_gaps WHERE reason IS NOT NULL").fetchone()
    return int(found[0])


async def said(process: asyncio.subprocess.Process, text: str) -> str:
    """Wait for a line of standard error."""
    assert process.stderr is not None
    async for line in process.stderr:
        if text in line.decode():
            return line.decode()
    raise AssertionError(f"it ended without {text!r}")


async def live(simulator: Simulator, document: str = BLOCKS, blocks: int = 4) -> None:
    """Wait until a document is live, and for some blocks that it is sent."""
    async with asyncio.timeout(30):
        while simulator.ledger.started(document) is None:
            await simulator.blocks(1)
        await simulator.blocks(blocks)


async def subscribed(simulator: Simulator) -> None:
    """Wait until somebody subscribes once more, and for some blocks that are sent there."""
    async with asyncio.timeout(30):
        while not any(socket.operations for socket in simulator._service.open.values()):
            await simulator.blocks(1)
        await simulator.blocks(4)


async def collected(path: Path, simulator: Simulator, *arguments: str, **env: str) -> Ended:
    return await bqstream(
        *("collect", "--query", BLOCKS, "--to", f"sqlite:{path}", *arguments),
        env=environment(simulator, **env),
    )


# ---------------------------------------------------------------------- what ends it


@pytest.mark.asyncio
async def test_rows_are_counted_committed_and_told(simulator: Simulator, tmp_path: Path) -> None:
    end = await collected(tmp_path / "rows.db", simulator, "--rows", "5", "--batch-seconds", "0.2s")
    assert (end.code, end.out) == (0, ""), end
    assert end.err.splitlines()[-1].startswith("Blocks: 5 rows, ")
    assert len(blocks_in(tmp_path / "rows.db")) == 5


@pytest.mark.asyncio
async def test_it_ends_after_its_time(simulator: Simulator, tmp_path: Path) -> None:
    end = await collected(tmp_path / "rows.db", simulator, "--for", "1s")
    assert end.code == 0, end
    assert blocks_in(tmp_path / "rows.db")


@pytest.mark.asyncio
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_signal_in_the_middle_of_a_batch_commits_what_was_read(
    number: signal.Signals, code: int, simulator: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "rows.db"
    arguments = ("collect", "--query", BLOCKS, "--to", f"sqlite:{path}", "--batch-seconds", "1h")
    async with started(*arguments, env=environment(simulator)) as process:
        await live(simulator)
        assert not path.exists() or not _has_table(path)
        process.send_signal(number)
        end = await ended(process)
    assert end.code == code, end
    assert "stopping: what has been read is committed" in end.err
    assert len(blocks_in(path)) >= 3


def _has_table(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Blocks'").fetchall())


@contextlib.asynccontextmanager
async def writing(path: Path) -> Any:
    """Somebody else writes there, for as long as the block lasts."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


@pytest.mark.asyncio
async def test_ctrl_c_once_more_ends_at_once(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    assert (await collected(path, simulator, "--rows", "2", "--batch-seconds", "0.2s")).code == 0
    arguments = ("collect", "--query", BLOCKS, "--to", f"sqlite:{path}", "--batch-seconds", "1h")
    time = asyncio.get_running_loop().time
    async with started(*arguments, env=environment(simulator)) as process, writing(path):
        await subscribed(simulator)
        process.send_signal(signal.SIGINT)
        await said(process, "Ctrl-C ends at once")
        at = time()
        process.send_signal(signal.SIGINT)
        end = await ended(process)
        assert time() - at < 4  # SQLite alone waits for five seconds
    assert end.code == 130, end
    assert "Blocks: ended at once; what is not committed comes again" in end.err


@pytest.mark.asyncio
async def test_a_last_commit_that_takes_too_long_is_left_and_ends_with_5(
    simulator: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "rows.db"
    assert (await collected(path, simulator, "--rows", "2", "--batch-seconds", "0.2s")).code == 0
    arguments = ("collect", "--query", BLOCKS, "--to", f"sqlite:{path}", "--batch-seconds", "1h")
    time = asyncio.get_running_loop().time
    async with (
        started(*arguments, "--stop-within", "0.3s", env=environment(simulator)) as process,
        writing(path),
    ):
        await subscribed(simulator)
        at = time()
        process.send_signal(signal.SIGTERM)
        end = await ended(process)
        assert time() - at < 4
    assert end.code == 5, end
    assert "the last commit did not end within 0.3 s; what is not committed comes again" in end.err


# ---------------------------------------------------------------------- how it ends


@pytest.mark.asyncio
async def test_a_hole_under_on_gap_stop_ends_with_4_and_the_other_subscription_commits(
    simulator: Simulator, tmp_path: Path
) -> None:
    path, config = tmp_path / "rows.db", tmp_path / "collect.toml"
    config.write_text(
        f'to = "sqlite:{path}"\nbatch_seconds = "1h"\n[[collect]]\nquery = "{BLOCKS}"\n'
        f'[[collect]]\nquery = "{COUNTED}"\non_gap = "stop"'
    )
    async with started("collect", "--config", str(config), env=environment(simulator)) as process:
        await live(simulator)
        await live(simulator, COUNTED)
        simulator.faults.close(1012)
        end = await ended(process)
    assert end.code == 4, end
    assert "bqstream: Transfers: rows may be missing: " in end.err
    assert len(blocks_in(path)) >= 3
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM Transfers").fetchone()[0] > 0
    assert holes_in(path) == 1


@pytest.mark.asyncio
async def test_a_hole_that_the_service_cannot_fill_is_recorded_and_it_goes_on(
    seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "rows.db"
    async with Simulator(seed=seed, block_interval=0.05) as simulator:
        arguments = ("collect", "--query", COUNTED, "--to", f"sqlite:{path}", "--batch-seconds", "0.2s")
        async with started(*arguments, env=environment(simulator)) as process:
            await live(simulator, COUNTED)
            simulator.faults.close(1012)
            await until(lambda: holes_in(path))
            process.send_signal(signal.SIGTERM)
            end = await ended(process)
    assert end.code == 0, end
    assert "1 gap, 1 gap that cannot be closed" in end.err


@pytest.mark.asyncio
async def test_an_operation_that_the_service_ends_ends_with_1_and_what_came_is_committed(
    simulator: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "rows.db"
    arguments = ("collect", "--query", BLOCKS, "--to", f"sqlite:{path}", "--batch-seconds", "1h")
    async with started(*arguments, env=environment(simulator)) as process:
        await live(simulator)
        simulator.faults.errors("Internal error")
        end = await ended(process)
    assert (end.code, "Internal error" in end.err) == (1, True), end
    assert len(blocks_in(path)) >= 3


@pytest.mark.asyncio
async def test_refused_credentials_end_with_3_and_are_not_shown(simulator: Simulator, tmp_path: Path) -> None:
    end = await collected(tmp_path / "rows.db", simulator, BITQUERY_CLIENT_SECRET="not-the-secret-at-all")
    assert end.code == 3, end
    assert "not-the-secret" not in end.err


@pytest.mark.asyncio
async def test_a_sink_that_does_not_take_the_rows_ends_with_5(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE Blocks (Block_Number INTEGER)")
    end = await collected(path, simulator, "--rows", "5", "--batch-seconds", "0.2s")
    assert end.code == 5, end
    assert "Block_Hash" in end.err


@pytest.mark.asyncio
async def test_a_second_collector_of_the_same_ends_with_6(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    arguments = ("collect", "--query", BLOCKS, "--to", f"sqlite:{path}")
    async with started(*arguments, env=environment(simulator)) as process:
        await live(simulator)
        end = await collected(path, simulator)
        assert end.code == 6, end
        assert "another collector" in end.err
        process.send_signal(signal.SIGTERM)
        assert (await ended(process)).code == 0


# ---------------------------------------------------------------------- what it is told


@pytest.mark.asyncio
async def test_a_document_comes_from_standard_input_and_options_from_the_environment(
    simulator: Simulator, tmp_path: Path
) -> None:
    env = environment(
        simulator,
        BQSTREAM_COLLECT_TO=f"sqlite:{tmp_path / 'rows.db'}",
        BQSTREAM_COLLECT_ROWS="2",
        BQSTREAM_COLLECT_BATCH_SECONDS="0.2s",
    )
    end = await bqstream("collect", "-", env=env, stdin=BLOCKS)
    assert end.code == 0, end
    assert len(blocks_in(tmp_path / "rows.db")) == 2


@pytest.mark.asyncio
async def test_a_variable_is_what_the_document_declares(simulator: Simulator) -> None:
    end = await bqstream(
        *("collect", "--query", TYPED, "--to", "stdout:", "--batch-seconds", "0.1s", "--rows", "3"),
        *("--var", "network=bsc", "--var", "symbol=123"),
        env=environment(simulator),
    )
    assert end.code == 0, end
    assert all(set(json.loads(line)) == {"Transfer"} for line in end.out.splitlines())


@pytest.mark.asyncio
async def test_the_sample_runs(simulator: Simulator, tmp_path: Path) -> None:
    sample, path = tmp_path / "sample.toml", tmp_path / "rows.db"
    assert (await bqstream("collect", "--init", "--config", str(sample), env=environment())).code == 0
    end = await bqstream(
        *(
            "collect",
            "--config",
            str(sample),
            "--to",
            f"sqlite:{path}",
            "--rows",
            "3",
            "--batch-seconds",
            "0.2s",
        ),
        env=environment(simulator),
    )
    assert end.code == 0, end
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table in ("trades", "blocks"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= 3


@pytest.mark.asyncio
async def test_several_collectors_write_to_standard_output_at_once(
    simulator: Simulator, tmp_path: Path
) -> None:
    config = tmp_path / "collect.toml"
    one, other = BLOCKS, BLOCKS.replace("Blocks", "Others: Blocks")
    config.write_text(
        f'to = "stdout:"\nrows = 20\nbatch_seconds = 0.1\n[[collect]]\nquery = "{one}"\n[[collect]]\nquery = "{other}"'
    )
    command = ("collect", "--config", str(config))
    ends = await asyncio.gather(*(bqstream(*command, env=environment(simulator)) for _ in range(2)))
    for end in ends:
        assert end.code == 0, end
        assert len([json.loads(line)["Block"]["Number"] for line in end.out.splitlines()]) == 40


@pytest.mark.asyncio
async def test_a_closed_pipe_ends_it_as_done(simulator: Simulator) -> None:
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always", "-m", "bqstream.cli"),
        *("collect", "--query", BLOCKS, "--to", "stdout:", "--batch-seconds", "0.1s"),
        cwd=ROOT,
        env=environment(simulator),
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        await asyncio.to_thread(pipe.readline)
    end = await ended(process)
    assert end.code == 0, end
