"""graphql-ws for Node, the protocol's reference, as a reader: a process of its own that measures itself."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

from .readers import DOCUMENT
from .rounds import Elsewhere, Read

HERE = Path(__file__).with_name("node")
PACKAGES = ("graphql-ws", "ws")


def missing() -> str:
    """Why it cannot be measured; empty if it can."""
    if shutil.which("node") is None:
        return "there is no node"
    absent = [name for name in PACKAGES if not (HERE / "node_modules" / name).is_dir()]
    return f"{', '.join(absent)} not installed (npm install, in benchmarks/node)" if absent else ""


def versions() -> dict[str, str]:
    """Of Node and of what it reads with; empty where it is left out."""
    if missing():
        return {}
    found = {"node": subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()}
    for name in PACKAGES:
        package = (HERE / "node_modules" / name / "package.json").read_text()
        found[name] = json.loads(package)["version"]
    return found


def graphql_ws(subscriptions: int) -> Read:
    """What the second reading of one process took, from the dial to the end: by then its code is compiled, as the
    others' is."""

    async def read(url: str) -> Elsewhere:
        program = ["node", str(HERE / "reader.mjs"), url, str(subscriptions), DOCUMENT]
        running = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
        said, _ = await running.communicate()
        assert running.returncode == 0, f"reader.mjs ended with {running.returncode}"
        return Elsewhere(**json.loads(said))

    return read
