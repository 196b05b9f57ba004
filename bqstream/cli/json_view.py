"""What ``bqstream collect --log json`` tells: one JSON object a line on standard error, for those who gather logs."""

from __future__ import annotations

import logging
import sys
from typing import Any, Self

from pythonjsonlogger.json import JsonFormatter

from ..collect.monitor import Picture

_EVERY = 10.0
_FIELDS = {"levelname": "level", "name": "logger"}
_log = logging.getLogger("bqstream.collect")


class JSONCollect:
    """A line for each event, one for each subscription every ten seconds, and what the program logs by itself."""

    def __init__(self) -> None:
        self._handler = logging.StreamHandler(sys.stderr)
        form = "%(levelname)s %(name)s %(message)s"
        self._handler.setFormatter(JsonFormatter(form, rename_fields=_FIELDS, timestamp="at"))
        self._told = 0
        self._next = 0.0

    def __enter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self._handler)
        _log.setLevel(logging.INFO)
        return self

    def __exit__(self, *exc: object) -> None:
        logging.getLogger().removeHandler(self._handler)

    def say(self, text: str) -> None:
        """A line of the command's own, also when nothing is collected any more."""
        self._handler.handle(_log.makeRecord(_log.name, logging.INFO, "", 0, text, (), None))

    def show(self, picture: Picture) -> None:
        new = min(picture.happened - self._told, len(picture.events))
        for event in picture.events[len(picture.events) - new :]:
            level = logging.WARNING if event.tone == "trouble" else logging.INFO
            _log.log(level, event.text, extra={"event_at": event.at.isoformat()})
        self._told = picture.happened
        if picture.at.timestamp() >= self._next:
            self._next = picture.at.timestamp() + _EVERY
            for one in picture.collectors:
                _log.info(
                    "collecting", extra=_fields(one.status) | {"rate": round(one.rate, 1), "lag": one.lag}
                )


def _fields(status: Any) -> dict[str, Any]:
    names = ("state", "sink", "rows", "commits", "misfits", "gaps", "holes", "trouble")
    return {"subscription": status.name} | {name: getattr(status, name) for name in names}
