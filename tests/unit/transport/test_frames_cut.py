"""Whole text frames are cut out, wherever the chunks of TCP end; the rest is left to the library, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqstream.transport.frames import AT_ONCE, Frames

LIMIT = 100_000
PING, PONG, CLOSE = b"\x89\x02hi", b"\x8a\x00", b"\x88\x02\x03\xe8"


def framed(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, size))
    elif size < 65536:
        head = bytes((first, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 127)) + size.to_bytes(8, "big")
    return head + payload


class Sorted:
    """What came out, in order: texts as they are, the rest as ("rest", bytes)."""

    def __init__(self, on_text: Callable[[], None] = lambda: None) -> None:
        self.out: list[bytes | tuple[str, bytes]] = []
        self.on_text = on_text
        self.frames = Frames(self._texts, lambda data: self.out.append(("rest", data)), limit=LIMIT)

    def _texts(self, payloads: list[bytes], binary: bool) -> None:
        assert not binary
        assert 0 < len(payloads) <= AT_ONCE
        self.out += payloads
        self.on_text()


PAYLOADS = st.one_of(
    st.binary(max_size=3).map(bytes.hex).map(str.encode),
    st.text(max_size=40).map(str.encode),
    st.sampled_from([b"x" * size for size in (125, 126, 127, 128, 65535, 65536, LIMIT)]),
)


@given(st.lists(st.one_of(PAYLOADS.map(framed), st.sampled_from([PING, PONG]))), st.data())
def test_frames_come_whole_and_in_order_wherever_chunks_end(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    ends = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pauses = data.draw(st.sets(st.integers(0, len(frames))))
    found = Sorted()

    def pause() -> None:
        found.frames.paused = len(found.out) in pauses

    found.on_text = pause
    for start, end in zip([0, *ends], [*ends, len(stream)], strict=True):
        found.frames.feed(stream[start:end])
    while found.frames.paused:
        found.frames.paused = False
        found.frames.feed(b"")
    expected = [
        ("rest", frame) if frame in (PING, PONG) else frame[len(frame) - _size(frame) :] for frame in frames
    ]
    assert found.out == expected
    assert found.frames.simple


def _size(frame: bytes) -> int:
    size = frame[1]
    return size if size < 126 else int.from_bytes(frame[2 : 4 if size == 126 else 10], "big")


@pytest.mark.parametrize(
    "odd",
    [
        framed(b"half", 0x01),
        framed(b"bytes", 0x82),
        framed(b"reserved", 0x83),
        framed(b"compressed", 0xC1),
        framed(b"\xff\xfe"),
        framed(b"x" * (LIMIT + 1)),
        b"\x81\x85" + bytes(4) + b"maskd",
        framed(b"x" * 126, 0x89),
    ],
    ids=["fragment", "binary", "opcode", "extension", "no UTF-8", "too large", "masked", "a large ping"],
)
def test_from_the_first_frame_that_is_not_simple_all_is_the_rest(odd: bytes) -> None:
    found = Sorted()
    found.frames.feed(framed(b"one") + odd[:1])
    found.frames.feed(odd[1:] + framed(b"two"))
    assert found.out[0] == b"one"
    assert not found.frames.simple
    assert b"".join(part[1] for part in found.out[1:] if isinstance(part, tuple)) == odd + framed(b"two")
    found.frames.feed(PING)
    assert found.out[-1] == ("rest", PING)


def test_what_follows_a_close_frame_is_left_to_the_library_which_ignores_it() -> None:
    found = Sorted()
    found.frames.feed(framed(b"one") + CLOSE + framed(b"two"))
    assert found.out == [b"one", ("rest", CLOSE), ("rest", framed(b"two"))]


def test_what_a_pause_holds_up_is_handed_out_after_it_even_when_it_is_not_simple() -> None:
    found = Sorted()
    found.frames.paused = True
    found.frames.feed(framed(b"one"))
    found.frames.feed(framed(b"half", 0x01))
    assert found.out == []
    found.frames.paused = False
    found.frames.feed(b"")
    assert found.out == [b"one", ("rest", framed(b"half", 0x01))]


def test_what_the_receiver_raises_comes_out() -> None:
    def fail() -> None:
        raise LookupError

    found = Sorted(fail)
    with pytest.raises(LookupError):
        found.frames.feed(framed(b"one"))
