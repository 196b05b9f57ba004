"""From where on rows of each cube may be missing, by what was delivered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .backfill import Window
from .cursor import Cursor
from .enlarge import Reader
from .history import SPAN

Read = tuple[float, Mapping[str, list[Cursor]]]
"""One payload: when it came in, and where its rows stand, by cube."""


@dataclass(slots=True)
class Beginning:
    """``began``: the service's time when the operation was first started; ``offset``: its clock less our monotonic."""

    began: float | None = None
    offset: float = 0.0


def missing_after(
    read: Sequence[Read], readers: Mapping[str, Reader], beginning: Beginning, reach: float
) -> dict[str, Window]:
    """Where each cube's rows begin that may be missing when these payloads are all that came.

    Blocks of which something came in ``reach`` seconds before the last payload or earlier are whole, and all rows of
    those above are kept; so they begin above the highest such block. Before there is one, when the subscription did.
    """
    last = read[-1][0] if read else 0.0
    edge = max((at for at, _ in read if at <= last - reach), default=None)
    highest: dict[str, Cursor] = {}
    for at, found in read:
        if edge is not None and edge - SPAN <= at <= edge:
            for key, cursors in found.items():
                if cursors:
                    highest[key] = max(*cursors, highest.get(key, cursors[0]))
    return missing_above(edge, highest, readers, beginning)


def missing_above(
    edge: float | None, highest: Mapping[str, Cursor], readers: Mapping[str, Reader], beginning: Beginning
) -> dict[str, Window]:
    """The same, where it is known what came last before: when (``edge``), and the highest place within ``SPAN``."""
    if edge is None:
        return dict.fromkeys(readers, Window(since=math.floor(beginning.began or 0.0)))
    above = {key: Window(low=Cursor(one.kind, one.value + 1)) for key, one in highest.items()}
    since = Window(since=math.floor(edge + beginning.offset - SPAN) + 1)
    return {key: above.get(key) or like_others(reader, above) or since for key, reader in readers.items()}


def like_others(reader: Reader, windows: Mapping[str, Window]) -> Window | None:
    """A cube of which nothing came lately lacks rows from where the others do, if it counts what they count."""
    lows = [
        window.low for window in windows.values() if window.low is not None and window.low.kind == reader.kind
    ]
    return Window(low=min(lows)) if lows else None
