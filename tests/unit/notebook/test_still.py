"""The picture for a notebook's file."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from bqstream.notebook.live import Live
from bqstream.notebook.still import ROWS, still
from tests.unit.notebook.test_live import START, STATUS, message, row, shown


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def svg_of(html: str) -> str:
    (data,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    return base64.b64decode(data).decode()


def test_it_says_what_was_seen_last_and_is_small_after_hours() -> None:
    view = Live(1, "Transfers", START)
    for second in range(1000):
        many = [row(f"{10 ** (second % 15)}.{n}", 21_000_000 + second, START + second) for n in range(5)]
        view.came([message(START + second, *many)])
        view.look(START + second, STATUS)
    html = still(shown(view, START + 1000), "a-key")
    assert len(html) < 12_000
    text = Parsed(html).text
    assert "5.0 rows a second" in text
    assert "5,000 rows seen" in text
    assert text.count("21000999") == 5
    assert text.count("21000998") == ROWS - 5
    assert "https:" not in html


def test_before_the_first_row_it_says_so_much() -> None:
    view = Live(1, "Transfers", START)
    view.look(START, STATUS)
    html = still(shown(view, START), "a-key")
    assert "0 rows seen" in html
    assert "<img" not in html


@pytest.mark.parametrize("amounts", [["0"], ["-5", "5"], ["0.000001", "1000000000"], ["1e300", "-1e300"]])
def test_its_charts_are_svg_that_can_be_read_whatever_the_values(amounts: list[str]) -> None:
    view = Live(1, "Transfers", START)
    for second in range(3):
        view.came([message(START + second, *map(row, amounts))])
        view.look(START + second, STATUS)
    svg = svg_of(still(shown(view, START + 3), "a-key"))
    assert "nan" not in svg
    assert "inf" not in svg
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_what_rows_and_names_say_is_text() -> None:
    evil = '<script>alert("x")</script>'
    view = Live(1, evil, START)
    view.came([message(START, {evil: evil, "n": 1}, **{evil: [{evil: 1}]})])
    view.look(START + 2, STATUS)
    html = still({**shown(view, START + 2), "column": evil}, "a-key")
    assert {"script", "b\\x1b"}.isdisjoint(Parsed(html).tags)
    assert "<script" not in html
    assert "<script" not in svg_of(html)
    assert "alert" in html
