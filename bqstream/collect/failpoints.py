"""Places at which the process dies on request, so that what a crash leaves behind can be tested.

``BQSTREAM_FAILPOINT=committed:3`` kills the process, as ``kill -9`` does, when it gets to ``committed`` for the third
time. Without the variable a failpoint is a comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

Name = Literal["written", "staged", "committed", "unacknowledged"]
"""In the order of a commit.

    written         the batch's rows have been handed to the sink's files or server, and nothing commits them yet
    staged          everything is there that the commit needs, but for the one step that makes it count
    committed       the sink has committed, and has not returned
    unacknowledged  the sink has returned, and the collector has not taken note
"""

_asked, _, _times = os.environ.get("BQSTREAM_FAILPOINT", "").partition(":")
_left = int(_times or 1) if _asked else 0


def failpoint(name: Name) -> None:
    """Die here, if that was asked for and it is time."""
    global _left
    if name == _asked:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
