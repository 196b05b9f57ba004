"""Decoding rows without Python's search for cycles of objects."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_pauses = 0
_was_on = False


@contextlib.contextmanager
def no_search() -> Iterator[None]:
    """Have Python not look for cycles meanwhile, in any thread: for work of a moment that makes many dicts and lists.

    It looks through all objects whenever their number has grown by a quarter, as it does with each batch, and finds
    nothing, since what JSON brings has no cycles: that takes three times as long as to decode it. Where the search is
    off already it stays off.
    """
    global _pauses, _was_on
    with _lock:
        if not _pauses:
            _was_on = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _was_on:
                gc.enable()
