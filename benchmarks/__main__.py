"""Speed, latency and memory, side by side in interleaved rounds; see README.md beside this file."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import (
    collector_stages,
    frames,
    gap_closing,
    handover,
    idle,
    latency,
    memory,
    node,
    sinks,
    slow_consumer,
    speed,
    stages,
)
from .load import CouldNotKeepPace
from .rounds import Figures

SCENARIOS = {
    "speed": speed.run,
    "stages": stages.run,
    "latency": latency.run,
    "slow-consumer": slow_consumer.run,
    "idle": idle.run,
    "handover": handover.run,
    "gap-closing": gap_closing.run,
    "sinks": sinks.run,
    "collector-stages": collector_stages.run,
    "frames": frames.run,
    "memory": memory.run,
}
PACKAGES = ("bqstream", "gql", "websockets", "aiohttp", "picows", "orjson", "msgspec", "pyarrow", "polars")


def machine() -> dict[str, str | int]:
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = f"{model}, {names[0]}" if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "processor": model,
        "cores": multiprocessing.cpu_count(),
        "memory_mib": memory,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, **node.versions()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"{', '.join(SCENARIOS)}; or all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer messages and rounds, in under two minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    here, used = machine(), versions()
    print(f"{here['processor']}, {here['cores']} cores, {here['memory_mib']:,} MiB, {here['system']}")
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    found: dict[str, Figures] = {}
    failed = False
    for name in asked.scenarios or SCENARIOS:
        began = time.monotonic()
        try:
            found[name] = SCENARIOS[name](quick=asked.quick)
        except (
            CouldNotKeepPace,
            AssertionError,
            TimeoutError,
        ) as error:  # the others' figures are good all the same
            failed = True
            print(f"\n{name} HAS FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"\n({name}: {time.monotonic() - began:.0f} s)", flush=True)
    if asked.json is not None:
        written = {"machine": here, "versions": used, "quick": asked.quick, "scenarios": found}
        asked.json.write_text(json.dumps(written, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
