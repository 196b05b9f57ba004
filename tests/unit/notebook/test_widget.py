"""The widget outside of a kernel, and what its script may do."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bqstream import UsageError
from bqstream.notebook import watch
from bqstream.notebook.widget import View, script, style
from tests.unit.session.service import settle
from tests.unit.test_client import client_of
from tests.virtual_time import virtual_time

DOCUMENT = "subscription { EVM { Blocks { Number } } }"


@virtual_time
async def test_a_view_ends_with_close_and_when_the_stream_is_watched_anew() -> None:
    async with client_of() as client, client.subscribe(DOCUMENT) as stream:
        await settle()
        first = watch(stream)
        assert isinstance(first, View)
        assert repr(first) == "<View of Blocks>"
        assert first.comm is not None
        second = watch(stream)
        assert first.comm is None
        second.close()
        second.close()
        assert second.comm is None
        assert not stream.paused


@virtual_time
async def test_only_a_subscription_is_watched() -> None:
    async with client_of() as client:
        subscribing = client.subscribe(DOCUMENT)
        with pytest.raises(UsageError, match=r"not Subscribing: stream = await client\.subscribe"):
            watch(subscribing)  # type: ignore[arg-type]


@virtual_time
async def test_a_closed_subscription_shows_that_it_has_ended() -> None:
    async with client_of() as client:
        async with client.subscribe(DOCUMENT) as stream:
            await settle()
        watch(stream).close()


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    code = (
        "import sys\nfrom bqstream import Subscription, UsageError\nfrom bqstream.notebook import watch\n"
        "sys.modules['anywidget'] = None\n"
        "try:\n    watch(Subscription.__new__(Subscription))\nexcept UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "watch needs anywidget: pip install 'bqstream[notebook]'\n"


def test_its_script_takes_no_html_and_names_no_other_host() -> None:
    for text in (script(), style()):
        own = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\binnerHTML|insertAdjacentHTML|DOMParser|\beval\(|\bfetch\(|import\(", own)
        assert set(re.findall(r"https?://[\w./-]+", own)) <= {"https://github.com/leeoniya/uPlot"}
