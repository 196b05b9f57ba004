"""Play one schedule again: ``python -m tests.faults SEED``."""

from __future__ import annotations

import argparse
import asyncio
import sys

from .run import STRICT, play, play_for_real
from .schedule import schedule_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--loose", action="store_true", help="lost rows need only be named")
    parser.add_argument("--orderly", action="store_true", help="every socket brings rows in their order")
    parser.add_argument(
        "--real", type=float, metavar="FACTOR", help="on real sockets, times shortened by FACTOR"
    )
    parser.add_argument("--digest", action="store_true", help="print only what stands for the whole run")
    parser.add_argument("--brief", action="store_true", help="leave the log out")
    asked = parser.parse_args()
    schedule = schedule_of(asked.seed)
    if asked.orderly:
        schedule = schedule.orderly()
    if asked.real:
        outcome = asyncio.run(play_for_real(schedule.scaled(asked.real), strict=STRICT and not asked.loose))
    else:
        outcome = play(schedule, strict=STRICT and not asked.loose)
    if asked.digest:
        print(outcome.digest)
        return 0
    if not asked.brief:
        print("\n".join(outcome.log))
        for name, gaps in outcome.gaps.items():
            print(f"\ngaps of {name}:", *gaps, sep="\n  ")
        print()
    print(outcome.report())
    return bool(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
