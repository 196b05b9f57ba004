"""One view of one stream: what joins the tap, what is kept of it, and those who look on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..clock import Clock
from ..picture import changes
from ..subscription import Subscription
from ..tap import Tap
from .live import SERIES, Live
from .still import still

TICK = 0.25  # between two pictures, in seconds …
BEAT = 1.0  # … and where nothing but the time has changed
STILL = 5.0  # between two stills for the notebook's file
LOOKING = 16  # browsers that are known to look on


class Watching:
    """Takes a picture of ``subscription`` four times a second, until it ends or this is closed; it has no task.

    Args:
        send: gets what a browser draws: ``{"kind": "picture", "parts": …}``, whole, then ``"change"``.
        draw: gets a still, as HTML, every few seconds and when something has changed for long.
        on_closed: it was closed, perhaps by another view of the same stream.
    """

    def __init__(
        self,
        subscription: Subscription[Any],
        *,
        key: str,
        send: Callable[[Mapping[str, Any]], None],
        draw: Callable[[str], None],
        on_closed: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        self._key = key
        self._send = send
        self._draw = draw
        self._on_closed = on_closed
        self._clock = clock or Clock()
        self.loop = asyncio.get_running_loop()
        self.name = ", ".join(subscription.cubes) or f"operation {subscription.operation}"
        self._live = Live(subscription.operation, self.name, self._clock.wall())
        self._tap = Tap(
            subscription, on_messages=self._live.came, on_event=self._live.event, on_closed=self.close
        )
        # While a cell runs, no word of a browser may come in: until the first does, somebody is taken to look on, and
        # gets the whole picture each time.
        self._heard = False
        self._looking: set[str] = set()
        self._shown: dict[str, Any] = self._picture()
        self._sent_at = self._drawn_at = 0.0
        self._drawn_state = ""
        self._closed = False
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(TICK, self._tick)

    def close(self) -> None:
        """Look no longer; what was seen last stays, as a still too. Idempotent."""
        if not self._closed:
            self._closed = True
            self._stop()
            self._on_closed()

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            try:
                self._show(last=True)
            finally:
                self._tap.close()
                del self._tap, self._live  # a notebook keeps its views, which need what was shown last alone

    # ------------------------------------------------------------------ what a browser says

    def told(self, said: Any) -> None:
        """A message of a browser's; one that makes no sense is passed over."""
        match said:
            case {"kind": "look", "view": str(view)}:
                self._heard = True
                self._looking = {view, *list(self._looking)[: LOOKING - 1]}
                self._send_whole()
            case {"kind": "left", "view": str(view)}:
                self._looking.discard(view)
            case {"kind": str(kind)} if self._timer is not None:
                if kind == "pause":
                    self._tap.pause()
                elif kind == "resume":
                    self._tap.resume()
                elif kind == "column":
                    self._live.choose(str(said.get("name")))
                self._show()

    # ------------------------------------------------------------------ pictures

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK, self._tick)
        try:
            self._tap.let_go()
            self._show()
        except Exception:  # a bug, which the loop tells of, once
            self._stop()
            raise
        if self._tap.over and not self._tap.waits:
            self._stop()

    def _show(self, *, last: bool = False) -> None:
        """Take a picture, and send what has changed to those who look on."""
        picture, now = self._picture(), self.loop.time()
        if last or picture["state"] != self._drawn_state or now - self._drawn_at >= STILL:
            self._drawn_state, self._drawn_at = picture["state"], now
            self._draw(still(picture, self._key))
        due = last or now - self._sent_at >= BEAT
        if self._heard and self._looking:
            changed = changes(self._shown, picture, SERIES)
            if due or changed.keys() - {"at", "lag"}:
                self._shown, self._sent_at = picture, now
                self._send({"kind": "change", "parts": msgspec.to_builtins({"at": picture["at"], **changed})})
        else:
            self._shown = picture
            if due and not self._heard:
                self._send_whole()

    def _send_whole(self) -> None:
        self._sent_at = self.loop.time()
        self._send({"kind": "picture", "parts": msgspec.to_builtins(self._shown)})

    def _picture(self) -> dict[str, Any]:
        tap, now = self._tap, self._clock.wall()
        status = tap.status()
        self._live.look(now, status)
        state = "open"
        if tap.over:
            state = "failed" if tap.error is not None else "ended"
        elif tap.paused:
            state = "paused"
        return self._live.picture(
            now, tap.of(status), state=state, why=str(tap.error or ""), viewed=tap.viewed, read=tap.is_read
        )
