"""The console program as a user runs it: another process, real pipes, real signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bqstream.simulator import Simulator

ROOT = Path(__file__).parents[2]
BLOCKS = "subscription { EVM(network: eth) { Blocks { Block { Number Hash } } } }"
TRANSFERS = """
subscription ($network: evm_network!, $least: Int, $exact: String) {
  EVM(network: $network) {
    Transfers(where: {Transfer: {Index: {ge: $least}, Currency: {Symbol: {not: $exact}}}}) {
      Transfer { Index Amount }
    }
  }
}
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def environment(simulator: Simulator | None = None, **more: str) -> dict[str, str]:
    """This process's environment with no other account's variables in it, and a simulator's where there is one."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("BITQUERY_", "BQSTREAM_"))
    }
    if simulator is not None:
        clean |= {
            "BITQUERY_ENDPOINT": simulator.endpoint,
            "BITQUERY_TOKEN_URL": simulator.token_url,
            "BITQUERY_CLIENT_ID": simulator.client_id,
            "BITQUERY_CLIENT_SECRET": simulator.client_secret,
        }
    return clean | more


@asynccontextmanager
async def started(*arguments: str, env: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """``bqstream`` with these arguments; whatever happens, it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always", "-m", "bqstream.cli", *arguments),
        cwd=ROOT,
        env=dict(env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def bqstream(*arguments: str, env: Mapping[str, str], stdin: str = "") -> Ended:
    async with started(*arguments, env=env) as process:
        return await ended(process, stdin)


async def ended(process: asyncio.subprocess.Process, stdin: str = "") -> Ended:
    out, err = await process.communicate(stdin.encode() or None)
    assert process.returncode is not None
    assert b"Warning" not in err, err.decode()
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, (out or b"").decode(), err.decode())


# ---------------------------------------------------------------------- demo


@pytest.mark.asyncio
async def test_the_demo_loses_and_repeats_nothing_and_says_so_in_one_line_of_json() -> None:
    end = await bqstream("demo", "--seconds", "5", "--token-ttl", "2", "--json", env=environment())
    assert end.code == 0, end
    (line,) = end.out.splitlines()
    verdict = json.loads(line)
    assert list(verdict) == ["rows", "lost", "duplicated", "rotations", "reconnects", "seconds"]
    assert verdict["rows"] > 0
    assert verdict["rotations"] >= 2
    assert (verdict["lost"], verdict["duplicated"], verdict["reconnects"]) == (0, 0, 0)


@pytest.mark.asyncio
async def test_the_demo_without_a_terminal_prints_plain_lines_and_the_verdict_last() -> None:
    end = await bqstream("demo", "--for", "4s", "--token-ttl", "2", env=environment())
    assert end.code == 0, end
    assert "\x1b" not in end.out
    assert "handed over by overlap: link 1 to 2" in end.out
    last = end.out.splitlines()[-1]
    assert last.startswith("verdict: emitted ")
    assert "lost 0, repeated 0" in last


@pytest.mark.asyncio
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_demo_early_with_the_verdict_so_far(
    number: signal.Signals, code: int
) -> None:
    async with started("demo", "--for", "1h", env=environment()) as process:
        assert process.stdout is not None
        while b" rows, " not in await process.stdout.readline():
            pass
        process.send_signal(number)
        end = await ended(process)
    assert end.code == code, end
    assert "lost 0, repeated 0" in end.out.splitlines()[-1]


@pytest.mark.asyncio
async def test_on_a_terminal_the_demo_is_live_and_leaves_the_cursor_as_it_was() -> None:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bqstream.cli", "demo", "--for", "1s"),
        cwd=ROOT,
        env=environment(TERM="xterm", COLUMNS="100"),
        stdout=theirs,
    )
    os.close(theirs)
    screen = await asyncio.to_thread(everything, ours)
    assert await process.wait() == 0
    assert "rows a second" in screen
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")
    assert "lost 0, repeated 0" in screen.splitlines()[-1]


def everything(terminal: int) -> str:
    """What is written to a terminal until its last user is gone."""
    text = b""
    with open(terminal, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # EIO: they hung up
        while piece := screen.read(65536):
            text += piece
    return text.decode()


# ---------------------------------------------------------------------- tail


@pytest.mark.asyncio
async def test_tail_prints_rows_as_json_lines_and_what_happens_on_stderr(simulator: Simulator) -> None:
    end = await bqstream("tail", "--query", BLOCKS, "--rows", "5", env=environment(simulator))
    assert end.code == 0, end
    rows = [json.loads(line) for line in end.out.splitlines()]
    assert len(rows) == 5
    assert all(set(row) == {"Block"} and set(row["Block"]) == {"Number", "Hash"} for row in rows)
    assert "connected: link 1" in end.err
    assert end.err.splitlines()[-1] == "5 rows, 0 gaps"
    assert simulator.client_secret not in end.out + end.err


@pytest.mark.asyncio
async def test_tail_reads_a_file_or_standard_input(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "blocks.graphql"
    path.write_text(BLOCKS)
    env = environment(simulator)
    ends = await asyncio.gather(
        bqstream("tail", str(path), "--rows", "1", env=env),
        bqstream("tail", "-", "--rows", "1", env=env, stdin=BLOCKS),
    )
    assert [(end.code, len(end.out.splitlines())) for end in ends] == [(0, 1), (0, 1)], ends


@pytest.mark.asyncio
async def test_tail_reads_variables_as_the_types_that_the_document_declares(
    simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "vars.json").write_text('{"network": "bsc", "least": 1, "exact": "nothing"}')
    end = await bqstream(
        *("tail", "--query", TRANSFERS, "--vars", str(tmp_path / "vars.json")),
        *("--var", "least=0", "--var", "exact=123", "--rows", "3"),
        env=environment(simulator),
    )
    assert end.code == 0, end
    assert len(end.out.splitlines()) == 3


@pytest.mark.asyncio
async def test_tail_begins_in_the_past_and_follows_without_a_repetition(simulator: Simulator) -> None:
    await simulator.blocks(5)
    first = simulator.chain.numbers.start
    begins = {"1h": first, str(first + 2): first + 2, "2020-01-31T12:00:00+01:00": first}
    asked = ("tail", "--query", BLOCKS, "--rows", "40", "--since")
    ends = await asyncio.gather(*(bqstream(*asked, since, env=environment(simulator)) for since in begins))
    for end, begin in zip(ends, begins.values(), strict=True):
        assert end.code == 0, end
        numbers = [int(json.loads(line)["Block"]["Number"]) for line in end.out.splitlines()]
        assert sorted(numbers) == list(range(begin, begin + 40))


@pytest.mark.asyncio
async def test_tail_stops_after_its_time(simulator: Simulator) -> None:
    end = await bqstream("tail", "--query", BLOCKS, "--for", "0.7s", env=environment(simulator))
    assert end.code == 0, end
    assert end.out
    assert "rows, 0 gaps" in end.err.splitlines()[-1]


@pytest.mark.asyncio
async def test_tail_takes_its_options_from_the_environment(simulator: Simulator) -> None:
    env = environment(simulator, BQSTREAM_TAIL_QUERY=BLOCKS, BQSTREAM_TAIL_ROWS="2")
    end = await bqstream("tail", env=env)
    assert (end.code, len(end.out.splitlines())) == (0, 2), end


@pytest.mark.asyncio
async def test_tail_prints_tables_with_dotted_columns(simulator: Simulator) -> None:
    end = await bqstream(
        "tail", "--query", BLOCKS, "--rows", "2", "--format", "table", env=environment(simulator)
    )
    assert end.code == 0, end
    assert "Block.Number" in end.out
    assert "Block.Hash" in end.out


@pytest.mark.asyncio
async def test_ctrl_c_ends_tail_cleanly(simulator: Simulator) -> None:
    async with started("tail", "--query", BLOCKS, env=environment(simulator)) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        end = await ended(process)
    assert end.code == 130, end
    assert all(json.loads(line) for line in end.out.splitlines())


@pytest.mark.asyncio
async def test_a_closed_pipe_ends_tail_as_done(simulator: Simulator) -> None:
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always", "-m", "bqstream.cli", "tail", "--query", BLOCKS),
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
    assert "BrokenPipe" not in end.err


@pytest.mark.asyncio
async def test_a_slow_pipe_does_not_stop_the_client_from_handing_over(seed: int) -> None:
    from bqstream.simulator import Simulator

    async with Simulator(seed=seed, block_interval=0.02, token_ttl=2) as quick:
        arguments = ("tail", "--query", "subscription { EVM { Transactions { Transaction { Hash } } } }")
        async with started(*arguments, env=environment(quick)) as process:
            assert process.stderr is not None
            # Nobody reads standard output: its pipe is soon full, and hand-overs are still made.
            while b"handed over" not in await process.stderr.readline():
                assert process.returncode is None
            process.send_signal(signal.SIGINT)
            end = await ended(process)
    assert end.code == 130, end


@pytest.mark.asyncio
async def test_refused_credentials_end_with_3_and_are_not_shown(simulator: Simulator) -> None:
    env = environment(simulator, BITQUERY_CLIENT_SECRET="not-the-secret-at-all")
    end = await bqstream("tail", "--query", BLOCKS, env=env)
    assert end.code == 3, end
    assert "not-the-secret" not in end.err
    assert "refused" in end.err
