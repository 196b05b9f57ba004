"""Whole text frames cut out of what a WebSocket brings, past the library; what is not so simple is left to it.

Nearly all that a GraphQL service sends is one kind of frame: text, unfragmented, uncompressed (RFC 6455, section 5.2).
To take it by the library's general way costs more than all that is done with it afterwards; see benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Callable

_TEXT = 0x81  # FIN and opcode 1, no extension's bit
_SHORT = 126  # the size follows in two bytes
AT_ONCE = 256  # text frames, so that a pause is felt soon
_CLOSE = 0x88
_CONTROL = (_CLOSE, 0x89, 0x8A)  # close, ping, pong; at most 125 bytes


class Frames:
    """Takes chunks of bytes; ``texts(payloads, False)`` gets whole text frames, ``rest(data)`` all else, in order.

    Text frames that came at once are handed out together, ``AT_ONCE`` at most. The rest comes as whole control frames,
    so that a parser behind it is never in the middle of one. With the first frame that is neither (a fragment, binary,
    larger than ``limit`` bytes, no UTF-8, against the protocol) everything from there on is the rest, and ``simple`` is
    False. While ``paused`` nothing is handed out and all is kept; after it, feed an empty chunk. What ``texts`` raises
    comes out of ``feed``.
    """

    def __init__(
        self, texts: Callable[[list[bytes], bool], None], rest: Callable[[bytes], None], *, limit: int
    ) -> None:
        self.texts = texts
        self.simple = True
        self.paused = False
        self._rest = rest
        self._limit = limit
        # The beginning of a frame that is not whole yet, or what a pause holds up …
        self._parts: list[bytes] = []
        self._missing = 0  # … and how many bytes there must be more, at least

    def feed(self, data: bytes) -> None:
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        place, end, limit = 0, len(data), self._limit
        missing = 0
        found: list[bytes] = []
        while self.simple and not self.paused:
            if len(found) == AT_ONCE:
                self.texts(found, False)  # which may pause
                found = []
                continue
            start = place + 4
            if start <= end and data[place] == _TEXT and data[place + 1] == _SHORT:  # the usual case
                stop = start + (data[place + 2] << 8 | data[place + 3])
                payload = data[start:stop]
                if stop <= end and payload.isascii() and stop - start <= limit:
                    place = stop
                    found.append(payload)
                    continue
            start = place + 2
            if start > end:
                missing = start - end
                break
            first, size = data[place], data[place + 1]
            if size > 125:
                start += 8 if size == 127 else 2
                if start > end:
                    missing = start - end
                    break
                # A server masks nothing, and a masked frame's size would read as 128 and above.
                size = int.from_bytes(data[place + 2 : start], "big") if size < 128 else limit + 1
            stop = start + size
            is_text = first == _TEXT
            if size > limit or not (is_text or (first in _CONTROL and size < 126)):
                self.simple = False
            elif stop > end:
                missing = stop - end
                break
            elif is_text:
                payload = data[start:stop]
                if payload.isascii() or _is_utf8(payload):
                    place = stop
                    found.append(payload)
                else:
                    self.simple = False
            elif found:
                self.texts(found, False)
                found = []
            else:
                control, place = data[place:stop], stop
                self._rest(control)
                self.simple = first != _CLOSE  # what follows is to be ignored (RFC 6455, section 5.5.1)
        if found:
            self.texts(found, False)
        if place == end:
            return
        left = data[place:] if place else data
        if self.simple or self.paused:
            self._parts.append(left)
            self._missing = missing
        else:
            self._rest(left)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
