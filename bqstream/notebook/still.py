"""A live view as a still picture, for the notebook's file: HTML that needs no script, no kernel and no other host.

Styles stand in attributes and the charts are an image, since what shows a notebook that nobody trusts yet takes style
sheets and inline SVG out. Colours are such as can be read on white and on black.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from ..wording import counted, shown

ROWS, COLUMNS, LONGEST = 8, 7, 20
BARS, DOTS = 90, 120  # of a chart: the still is small, however long the view was open
_WIDTH, _HEIGHT, _BLUE, _GREEN, _GREY = 340, 150, "#4f83e0", "#159a8c", "#808a96"
_CELL = "padding:1px 12px 1px 0;text-align:left;white-space:nowrap"
_ROW = "border-bottom:1px solid #80808033;background:none"

_STATES = {"rotating": "handing over", "waiting": "waiting to reconnect"}


_Frame = tuple[Callable[[float], float], Callable[[float], float], str]
"""Where a time stands across, where a value stands down, and the axes."""


def still(picture: Mapping[str, Any], key: str) -> str:
    """The picture that `Live.picture` gives; ``key`` marks it for the live view, which hides it while it is shown."""
    at = datetime.fromtimestamp(picture["at"], UTC)
    state = (
        picture["state"]
        if picture["state"] != "open"
        else _STATES.get(client := picture["client"]["state"], client)
    )
    lines = [
        f'<div><b>{_safe(picture["name"])}</b> <span style="color:{_GREY}">'
        f"{_safe(state)}, as it was at {at:%Y-%m-%d %H:%M:%S} UTC</span></div>",
        f'<div style="margin:2px 0 8px">{" · ".join(_safe(fact) for fact in _facts(picture))}</div>',
        _charts(picture),
        *(_table(name, rows) for name, rows in list(picture["rows"].items())[:2]),
    ]
    inside = "".join(lines)
    # The live view of a notebook that has no kernel says that it is loading, for ever: this hides it.
    dead = (
        f'.jp-OutputArea:has([data-bqstream-still="{key}"]):not(:has(.bqstream-view)) '
        ".jp-OutputArea-child:has(.jupyter-widgets, .jp-WidgetRenderer)"
    )
    return (
        f"<style>{dead} {{ display: none }}</style>"
        f'<div data-bqstream-still="{key}" style="font:13px/1.5 system-ui,sans-serif;max-width:64rem;overflow-x:auto">'
        f"{inside}</div>"
    )


def _facts(picture: Mapping[str, Any]) -> list[str]:
    client, gaps = picture["client"], picture["gaps"]
    facts = [f"{picture['rate']:,.1f} rows a second", f"{counted(picture['seen'], 'row')} seen"]
    if picture["lag"] is not None:
        facts.append(f"{picture['lag']:.1f} s behind the chain")
    facts.append(counted(client["rotations"], "hand-over"))
    holes = sum(one.gap.is_hole for one in gaps)
    facts.append(counted(len(gaps), "gap") + (f", {counted(holes, 'hole')}" if holes else ""))
    if picture["viewed"]:
        facts.append(f"{counted(picture['viewed'], 'row')} only viewed")
    return facts


def _charts(picture: Mapping[str, Any]) -> str:
    rates = [(sample.at, sample.rate) for sample in picture["samples"][""]]
    points = [(point.at, point.value) for found in picture["points"].values() for point in found]
    drawn = []
    if len(rates) > 1:
        drawn.append(("rows a second", _area(_thinned(rates, BARS))))
    if points:
        step = -(-len(points) // DOTS)
        drawn.append((str(picture["column"]).replace("_", " "), _dots(points[::-1][::step][::-1])))
    if not drawn:
        return ""
    parts = [
        f'<g transform="translate({index * (_WIDTH + 20)} 0)"><text x="0" y="12">{_safe(title)}</text>{part}</g>'
        for index, (title, part) in enumerate(drawn)
    ]
    width = len(drawn) * (_WIDTH + 20) - 20
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" font-size="11" '
        f'font-family="system-ui,sans-serif" fill="{_GREY}">{"".join(parts)}</svg>'
    )
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{_safe(" and ".join(title for title, _ in drawn))}" src="data:image/svg+xml;base64,{data}">'


def _thinned(samples: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    step = -(-len(samples) // most)
    groups = [samples[index : index + step] for index in range(0, len(samples), step)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _frame(points: Sequence[tuple[float, float]], low: float, high: float, marks: Sequence[float]) -> _Frame:
    """Where a chart's points stand, and its axes, with lines at ``marks``."""
    left, right, top, bottom = 48.0, _WIDTH - 6.0, 22.0, _HEIGHT - 20.0
    first, last = points[0][0], points[-1][0]
    across, up = (last - first) or 1.0, (high - low) or 1.0

    def x(at: float) -> float:
        return round(left + (at - first) / across * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (value - low) / up * (bottom - top), 1)

    lines = "".join(f'<path d="M{left} {y(value)}H{right}" stroke="#80808033"/>' for value in marks)
    begin, end = (f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}" for at in (first, last))
    times = (
        f'<text x="{left}" y="{_HEIGHT - 4}">{begin}</text>'
        f'<text x="{right}" y="{_HEIGHT - 4}" text-anchor="end">{end}</text>'
    )
    return x, y, lines + times


def _labels(y: Callable[[float], float], marks: Mapping[float, float]) -> str:
    """What the lines at ``marks`` stand for."""
    return "".join(
        f'<text x="42" y="{y(place) + 4}" text-anchor="end">{_amount(value)}</text>'
        for place, value in marks.items()
    )


def _amount(value: float) -> str:
    size = abs(value)
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if unit <= size < 1e15:
            divisor = 1e3 if name == "k" else unit
            return f"{value / divisor:.3g}{name}"
    return f"{value:.3g}" if size < 1000 else f"{value:,.0f}" if size < 1e15 else f"{value:.0e}"


def _area(points: Sequence[tuple[float, float]]) -> str:
    high = max(value for _, value in points) or 1.0
    marks = {0.0: 0.0, high / 2: high / 2, high: high}
    x, y, axes = _frame(points, 0.0, high, list(marks))
    line = "L".join(f"{x(at)} {y(value)}" for at, value in points)
    begin, end, base = x(points[0][0]), x(points[-1][0]), y(0.0)
    return (
        f'{axes}{_labels(y, marks)}<path d="M{begin} {base}L{line}L{end} {base}Z" fill="{_BLUE}" fill-opacity=".15"/>'
        f'<path d="M{line}" fill="none" stroke="{_BLUE}" stroke-width="1.5" stroke-linejoin="round"/>'
    )


def _dots(points: Sequence[tuple[float, float]]) -> str:
    """By their logarithm where they are orders of magnitude apart, as in the live view."""
    values = sorted(value for _, value in points)
    low, high = values[0], values[-1]
    if low > 0 and high > 1000 * low:
        points = [(at, math.log10(value)) for at, value in points]
        bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
        step = -(-(top - bottom) // 4)
        marks = {float(power): 10.0**power for power in range(bottom, top + 1, step)}
        low, high = bottom, top
    else:
        if low == high:
            low, high = low - abs(low) / 2 - 0.5, high + abs(high) / 2 + 0.5
        marks = {value: value for value in (low, (low + high) / 2, high)}
    x, y, axes = _frame(points, low, high, list(marks))
    path = "".join(f"M{x(at)} {y(value)}h0" for at, value in points)
    return (
        f'{axes}{_labels(y, marks)}<path d="{path}" stroke="{_GREEN}" stroke-opacity=".6" stroke-width="5" '
        'stroke-linecap="round"/>'
    )


def _table(name: str, rows: Sequence[Any]) -> str:
    newest = [dict(row.cells) for row in reversed(rows[-ROWS:])]
    columns = list(dict.fromkeys(column for row in newest for column in row))
    heads = "".join(
        f'<th style="{_CELL};font-weight:500;color:{_GREY}">{_cut(column.replace("_", " "))}</th>'
        for column in columns[:COLUMNS]
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL}">{_cut(row.get(column))}</td>' for column in columns[:COLUMNS])
        + "</tr>"
        for row in newest
    )
    more = f", {len(columns) - COLUMNS} more columns" if len(columns) > COLUMNS else ""
    return (
        f'<div style="margin:10px 0 2px;color:{_GREY}">{_safe(name)}, the newest rows{more}</div>'
        f'<table style="border-collapse:collapse;margin:0;font-size:12px"><thead><tr style="{_ROW}">{heads}</tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def _cut(value: str | None) -> str:
    if value is None:
        return f'<span style="color:{_GREY}">null</span>'
    return _safe(value if len(value) <= LONGEST else value[: LONGEST - 1] + "…")


def _safe(value: str) -> str:
    return escape(shown(value))
