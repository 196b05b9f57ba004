"""From where on rows of each cube may be missing, by what was delivered."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .backfill import Window, surely
from .cursor import Cursor
from .enlarge import Reader
from .history import SPAN

Read = tuple[float, Mapping[str, list[Cursor]]]
"""One payload: when it came in, and where its rows stand, by cube."""


@dataclass(slots=True)
class Beginning:
    """What lies before all that an operation can lack.

    ``began``: the service's time when it was first started; ``offset``: its clock less our monotonic; ``starts``: from
    where on rows were missing before it was, by cube.
    """

    began: float | None = None
    offset: float = 0.0
    starts: Mapping[str, Window] = field(default_factory=dict)

    def window(self, key: str) -> Window:
        """From where on rows of the cube may be missing if nothing has come yet: of blocks that began a while before,
        since those are still being published, but of none from before it was to begin."""
        start, since = self.starts.get(key), math.floor((self.began or 0.0) - SPAN)
        if start is not None and start.since is not None:
            since = max(since, start.since)
        return Window(low=None if start is None else start.low, since=since, about=surely(since))

    def about(self, at: float) -> int:
        """A time before that of all blocks of which something came first at ``at`` (monotonic seconds)."""
        return math.floor(at + self.offset - SPAN)


def missing_after(
    read: Sequence[Read],
    readers: Mapping[str, Reader],
    beginning: Beginning,
    reach: float,
    *,
    cut: bool = False,
) -> dict[str, Window]:
    """Where each cube's rows begin that may be missing when these payloads are all that came.

    Blocks of which something came in ``reach`` seconds before the last payload or earlier are whole, and all rows of
    those above are kept; so they begin above the highest such block. Before there is one, when the subscription did.
    ``cut``: so much came that earlier ones are not kept: then what came first, in a quarter of the time that they span
    and a quarter of them at most, must do for such blocks, since rows of those are not all known.
    """
    whole = read[: whole_of([at for at, _ in read], reach, cut=cut)]
    edge = whole[-1][0] if whole else None
    highest: dict[str, Cursor] = {}
    for at, found in whole:
        if edge is not None and edge - SPAN <= at:
            for key, cursors in found.items():
                if cursors:
                    highest[key] = max(*cursors, highest.get(key, cursors[0]))
    return missing_above(edge, highest, readers, beginning)


def whole_of(times: Sequence[float], reach: float, *, cut: bool) -> int:
    """How many of the first payloads are those of which the blocks are whole, by when they came in, in order."""
    if not times:
        return 0
    count = bisect_right(times, times[-1] - reach)
    if count or not cut:
        return count
    quarter = bisect_right(times, times[0] + (times[-1] - times[0]) / 4)
    return min(quarter, max(1, len(times) // 4))  # many may have come at once


def missing_above(
    edge: float | None, highest: Mapping[str, Cursor], readers: Mapping[str, Reader], beginning: Beginning
) -> dict[str, Window]:
    """The same, where it is known what came last before: when (``edge``), and the highest place within ``SPAN``."""
    if edge is None:
        return {key: beginning.window(key) for key in readers}
    about = beginning.about(edge) + 1
    above = {key: Window(low=Cursor(one.kind, one.value + 1), about=about) for key, one in highest.items()}
    since = Window(since=about)
    found = {key: above.get(key) or like_others(reader, above) or since for key, reader in readers.items()}
    return {key: window.within(beginning.window(key)) for key, window in found.items()}


def like_others(reader: Reader, windows: Mapping[str, Window]) -> Window | None:
    """A cube of which nothing came lately lacks rows from where the others do, if it counts what they count."""
    alike = [
        window for window in windows.values() if window.low is not None and window.low.kind == reader.kind
    ]
    lowest = min(alike, key=lambda window: window.low.value if window.low is not None else 0, default=None)
    return None if lowest is None else Window(low=lowest.low, about=lowest.about)
