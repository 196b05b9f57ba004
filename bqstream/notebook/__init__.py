"""A stream in a notebook: ``watch(stream)`` shows it live. Needs the extra ``notebook``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..subscription import Subscription

if TYPE_CHECKING:
    from .widget import View

__all__ = ["watch"]


def watch(stream: Subscription[Any]) -> View:
    """Show ``stream`` live: its newest rows, how many come and how late, a numeric column, token, links and gaps.

    What it gives is shown where a cell ends with it, or by ``display``. It takes no row from a reader: not from a loop,
    nor from a cell or task that reads again later on, however long it works in between. Before anybody reads, rows that
    have waited for a few seconds are let go; once the cells that have read are over, rows wait for the next one until
    the buffer is half full, and then the oldest go, so that a stream that is only watched never fills its buffer. The
    view counts them ("only viewed"), and they count as read for ``stream.checkpoint``. Rows of which there are many are
    drawn in part. Its button pauses the stream and resumes it, which closes the gap.

    The view ends with the stream, by ``close()``, or when another of the same stream takes its place. A still picture
    of it is what the notebook's file keeps.

    Raises UsageError: a library is missing, which the error names; what is given is no open subscription; or no event
    loop runs, as in a plain console.
    """
    if not isinstance(stream, Subscription):
        raise UsageError(
            f"watch takes a subscription, not {type(stream).__name__}: stream = await client.subscribe(…)"
        )
    try:
        from .widget import View
    except ImportError as error:
        raise UsageError(f"watch needs {error.name}: pip install 'bqstream[notebook]'") from None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError("watch needs a running event loop, as a notebook's cells have") from None
    return View(stream)
