"""Speed, side by side in interleaved rounds; see README.md beside this file."""

from __future__ import annotations

import argparse
import multiprocessing
import platform
from importlib.metadata import version

from . import gap_closing, speed

SCENARIOS = {"speed": speed.run, "gap-closing": gap_closing.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"{', '.join(SCENARIOS)}; or all")
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("bqstream", "gql", "websockets", "msgspec"))
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {multiprocessing.cpu_count()} cores; {versions}"
    )
    for name in asked.scenarios or SCENARIOS:
        SCENARIOS[name](quick=asked.quick)


if __name__ == "__main__":
    main()
