"""``python -m benchmarks.plot FILE``: draw what ``--json FILE`` wrote of ``speed``, beside this file.

One SVG for light and dark: a browser chooses (``prefers-color-scheme``).
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .speed import FLOOR, GQL

HERE = Path(__file__).with_name("speed.svg")
# Who is drawn, as what; every load has them in this order, whoever is faster.
SHOWN = {
    "bqstream": "mine",
    "bqstream, typed": "typed",
    "bqstream, message.raw": "bytes",
    GQL: "other",
    "gql, aiohttp": "other",
    "graphql-ws, Node": "other",
    FLOOR: "bare",
}
WIDTH, LEFT, RIGHT, TOP = 760, 200, 130, 64
BAR, GAP, HEAD, FOOT = 14, 5, 30, 40

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-weight: 600 }
  .note { fill: #59636e }
  .card { fill: #ffffff }
  .mine { fill: #0969da }
  .typed { fill: #4d94e4 }
  .bytes { fill: #80b4ee }
  .other { fill: #9aa4af }
  .bare { fill: #d0d7de }
  .one { stroke: #59636e; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .card { fill: #0d1117 }
    .mine { fill: #4493f8 }
    .typed { fill: #356cb4 }
    .bytes { fill: #27568f }
    .other { fill: #6e7681 }
    .bare { fill: #3d444d }
    .one { stroke: #9198a1 }
  }
"""


def load_of(figure: dict[str, Any]) -> str:
    rows = f"{figure['rows']} row{'' if figure['rows'] == 1 else 's'} a message"
    return (
        rows
        if figure["subscriptions"] == 1
        else f"{rows}, {figure['subscriptions']} subscriptions on one socket"
    )


def drawn(figures: list[dict[str, Any]], note: str) -> str:
    """The chart; ``figures`` are those of ``speed``."""
    shown = sorted(
        (one for one in figures if one["reader"] in SHOWN), key=lambda one: list(SHOWN).index(one["reader"])
    )
    loads = sorted(
        shown, key=lambda one: (one["subscriptions"], one["rows"])
    )  # stable: within a load as in SHOWN
    longest = max(one["times_as_fast_by_clock"][GQL] for one in loads)
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts: list[str] = []

    def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> None:
        parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
        )

    text(16, 28, "Messages a second, as multiples of gql (websockets)", "title")
    text(16, 48, "each message decoded, but for message.raw; longer is faster", "note")
    y: float = TOP
    for load, group in groupby(loads, load_of):
        text(16, y + HEAD - 10, load, "head")
        y += HEAD
        begin = y
        for one in group:
            times = one["times_as_fast_by_clock"][GQL]
            middle = y + BAR - 3
            text(LEFT - 8, middle, one["reader"], anchor="end")
            bar = f'x="{LEFT}" y="{y:.1f}" width="{times * scale:.1f}" height="{BAR}" rx="2"'
            parts.append(f'<rect class="{SHOWN[one["reader"]]}" {bar}/>')
            text(
                LEFT + times * scale + 6,
                middle,
                f"{times:.2g} x, {one['messages_per_second']:,.0f}/s",
                "note",
            )
            y += BAR + GAP
        line = f'x1="{LEFT + scale:.1f}" x2="{LEFT + scale:.1f}" y1="{begin - 2:.1f}" y2="{y - GAP + 2:.1f}"'
        parts.append(f'<line class="one" {line}/>')
    text(16, y + FOOT - 16, note, "note")
    height = y + FOOT
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    label = 'role="img" aria-label="Messages a second of bqstream and others, as multiples of gql"'
    card = f'<rect class="card" width="{WIDTH}" height="{height:.0f}" rx="8"/>'
    body = "\n".join((f"<style>{STYLE}</style>", card, *parts))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>\n{body}\n</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("figures", type=Path, metavar="FILE", help="what --json FILE has written")
    parser.add_argument(
        "--to", type=Path, default=HERE, metavar="SVG", help="default: speed.svg beside this module"
    )
    asked = parser.parse_args()
    written = json.loads(asked.figures.read_text())
    if not (figures := written["scenarios"].get("speed")):
        parser.error("the scenario speed is not in it")
    here, used = written["machine"], written["versions"]
    names = ("bqstream", "gql", "websockets", "picows", "graphql-ws")
    tools = ", ".join(f"{name} {used[name]}" for name in names if name in used)
    note = f"Python {used['python']}, {here['processor']}, {here['cores']} cores; {tools}"
    asked.to.write_text(drawn(figures, note))


if __name__ == "__main__":
    main()
