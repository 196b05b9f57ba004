"""Every example runs as it stands, without an account, and README's lines do too."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bqstream.simulator import Simulator

ROOT = Path(__file__).parents[2]
SAYS = {
    "backfill_then_follow.py": (
        r"^since: \d+ queries brought \d+ rows\nblocks \d+ to \d+: [1-9]\d* from before, [1-9]\d* live\n"
        r"0 missing, 0 twice\n$"
    ),
    "client_credentials.py": r"(slot \d+: .+\n){5}the token expires at 20",
    "collect.py": (
        r"life 1: (\d+) rows by \d+ commits, 0 holes\n  the table has \1, \1 of them different\n"
        r"life 2: \d+ rows by \d+ commits, 0 holes\n  the table has (\d+), \2 of them different\n$"
    ),
    "events.py": r"link 1 handed over to 2 by overlap, 0 operations unproven\n[\s\S]*live: 1 hand-overs, 0 reconn",
    "first_stream.py": r"^(block \d+: .+ bought\n){10}$",
    "many_tokens.py": r"^(\w+: \d+ trades\n){10}10 tokens in 3 subscriptions on 1 link, 0 others\n$",
    "many_subscriptions.py": r"6 subscriptions shared 1 link\n$",
    "price_candles.py": r"^([\d:]{8} ( +[\d.]+){4} +\d+ trades\n){4}[1-9] hand-overs meanwhile\n$",
    "resume.py": (
        r"after life 1: (\d+) rows, \1 of them different\n  resumed: \d+ queries brought \d+ rows\n"
        r"after life 2: (\d+) rows, \2 of them different\n$"
    ),
    "short_term_tokens.py": r"\d+ rows over 2 hand-overs, 0 gaps\n$",
    "typed_batches.py": (
        r"^(\d+ messages: \d+ rows, the last in block \d+\n)+a new process would go on after [\d:]{8}\n$"
    ),
    "web_service.py": r"serving\n(event: block \d+, .+\n){5}$",
    "webhook_alert.py": (
        r"^life 1: (\d+) alerts, posted in (?!\1 )\d+ tries\nlife 2: \d+ alerts, posted in \d+ tries\n"
        r"the receiver has (\d+), \2 of them different\n$"
    ),
}
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py") if path.name != "service.py")


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BITQUERY_")}
    return clean | {"PYTHONPATH": str(ROOT)}


async def printed(*arguments: str, env: dict[str, str], until: str | None = None) -> str:
    """What the program prints: to its end, or to the first line that has ``until`` in it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always", "-u", *arguments),
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        if until is None:
            out = (await process.communicate())[0].decode()
            assert process.returncode == 0, out
        else:
            out = ""
            while until not in out:
                line = await process.stdout.readline()
                assert line, out
                out += line.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return out


def test_every_example_is_known_here() -> None:
    assert sorted(SAYS) == EXAMPLES


@pytest.mark.asyncio
@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_example_runs_as_it_stands(name: str) -> None:
    out = await printed(f"examples/{name}", env=environment())
    assert re.search(SAYS[name], out), out
    assert "Warning" not in out


@pytest.mark.asyncio
async def test_readmes_ten_lines_print_rows(simulator: Simulator) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"## Ten lines\n\n```python\n(.+?)```", readme, re.DOTALL)
    assert found is not None
    assert sum(1 for line in found[1].splitlines() if line.strip()) <= 10
    env = environment() | {
        "BITQUERY_ENDPOINT": simulator.endpoint,
        "BITQUERY_TOKEN_URL": simulator.token_url,
        "BITQUERY_CLIENT_ID": simulator.client_id,
        "BITQUERY_CLIENT_SECRET": simulator.client_secret,
    }
    assert re.match(r"\d+ \d", await printed("-c", found[1], env=env, until="\n"))
