"""What a notebook shows: tables of text, whatever others wrote into it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from bqstream import Gap, StaticToken, html
from tests.unit.session.service import settle
from tests.unit.test_client import client_of, service_of
from tests.unit.test_message import message, message_of
from tests.virtual_time import virtual_time

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></table><iframe src='javascript:alert(1)'>",
    '" onmouseover="alert(1)',
    "' style='position:fixed",
    "&lt;b&gt;",
    "<!-- ",
    "\x00\x1b]8;;http://evil\x07\u202e\u2066",
    "x" * 10_000,
)
TAGS = {"div", "b", "table", "thead", "tbody", "tr", "th", "td"}
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DOCUMENT = "subscription { EVM { Blocks { Number } } }"


class Page(HTMLParser):
    """Reads a table as a browser does: cells' texts; and fails at any markup that is not ours."""

    def __init__(self, shown: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(shown)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert attrs in ([], [("style", "text-align:left")])
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)


def texts(of: Any) -> list[str]:
    return Page(of._repr_html_()).texts


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_is_shown_as_it_is_and_commands_nothing(hostile: str) -> None:
    seen = Page(html.facts(hostile, [(hostile, hostile)]) + html.grid([hostile], [[hostile]])).texts
    assert len(seen) == 5
    for shown in seen:
        assert len(shown) <= html.LONGEST
        assert shown.isprintable()
        assert shown == hostile or not hostile.isprintable() or shown == f"{hostile[: html.LONGEST - 1]}…"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_message_a_gap_and_a_stream_show_what_others_wrote_as_text(hostile: str) -> None:
    row = {"Symbol": hostile, hostile: {hostile: [hostile]}}
    assert "Symbol" in texts(message({"EVM": {"Blocks": [row]}}, "Blocks"))
    gap = Gap(start=AT, end=None, cause="lost", cubes=(hostile,), detail=hostile, low=hostile, reason=hostile)
    assert "Hole 0" in texts(gap)


def test_a_message_is_a_table_of_its_first_rows_by_path() -> None:
    rows = [
        {"Block": {"Number": number, "Hash": f"0x{number}"}, "Amount": None}
        for number in range(12_345_600, 12_345_625)
    ]
    seen = texts(message({"EVM": {"Blocks": rows}}, "Blocks"))
    assert seen[seen.index("rows") + 1] == "25"
    head = seen.index("Block.Number")
    assert seen[head : head + 5] == ["Block.Number", "Block.Hash", "Amount", "12345600", "0x12345600"]
    assert seen[-1] == "… 15 more rows"


class Row(msgspec.Struct, rename="pascal"):
    number: int


class Cubes(msgspec.Struct, rename="pascal"):
    blocks: list[Row]


class Root(msgspec.Struct):
    EVM: Cubes


def test_typed_rows_are_shown_under_the_names_that_the_document_has() -> None:
    typed = message_of(b'{"data":{"EVM":{"Blocks":[{"Number":7}]}}}', "Blocks", into=Root)
    assert texts(typed)[-2:] == ["Number", "7"]


@pytest.mark.parametrize(
    "raw",
    [
        b"no JSON",
        b'{"data":{"EVM":{"Blocks":[{"Number":"seven"}]}}}',
        b'{"data":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_a_message_that_cannot_be_decoded_says_so(raw: bytes) -> None:
    assert "unreadable" in texts(message_of(raw, "Blocks", into=Root))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"EVM": None},
        {"EVM": {"Blocks": []}},
        7,
        {"EVM": {"Blocks": [json.loads('{"a":' * 300 + "1" + "}" * 300)]}},
        {"EVM": {"Blocks": [{"a": json.loads("[" * 300 + "]" * 300)}]}},
        {"EVM": {"Blocks": [{"a": 10**4299}, {f"c{n}": n for n in range(1000)}]}},
    ],
)
def test_whatever_a_message_holds_is_shown_in_little_space(data: Any) -> None:
    shown = message(data, "Blocks")._repr_html_()
    Page(shown)
    assert len(shown) < 20_000


def test_a_value_that_has_no_text_does_not_keep_the_rest_from_being_shown() -> None:
    assert Page(html.grid(["a", "b"], [[10**5000, 1]])).texts == ["a", "b", "…", "1"]


@virtual_time
async def test_a_client_and_its_streams_are_shown_with_their_state_and_no_token() -> None:
    token = "ory_at_no-page-may-show-this"
    async with client_of(credentials=StaticToken(token)) as client, client.subscribe(DOCUMENT) as stream:
        await settle()
        service_of(client).publish('{"EVM":{"Blocks":[{"Number":1}]}}')
        await settle()
        assert {"https://service.test/graphql", "live"} <= set(texts(client))
        seen = texts(stream)
        assert seen[seen.index("messages waiting") + 1] == "1"
        await stream.pause()
        assert "paused" in texts(stream)
        assert "paused" in texts(client)
        assert {"paused", "cause"} <= set(texts(stream.gaps))
        for shown in (client, client.status(), stream, await anext(stream), stream.gaps, stream.gaps[0]):
            assert token[7:] not in shown._repr_html_()
    assert "closed" in texts(client)
    assert "closed" in texts(stream)


@virtual_time
async def test_no_gaps_are_said_to_be_none() -> None:
    async with client_of() as client, client.subscribe(DOCUMENT) as stream:
        assert stream.gaps == ()
        assert texts(stream.gaps) == ["no gaps"]


@virtual_time
async def test_a_stream_whose_client_was_closed_is_shown_as_ended_though_a_message_waits() -> None:
    async with client_of() as client:
        stream = await client.subscribe(DOCUMENT)
        await settle()
        service_of(client).publish('{"EVM":{"Blocks":[{"Number":1}]}}')
        await settle()
    assert "ended, 1 waiting" in repr(stream)
    assert "ended" in texts(stream)


@virtual_time
async def test_a_client_that_is_not_open_yet_is_shown_as_well() -> None:
    assert "closed" in texts(client_of())
