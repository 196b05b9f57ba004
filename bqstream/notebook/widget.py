"""The view as a widget, which anywidget carries to whatever shows notebooks; tested in JupyterLab and Notebook 7."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from importlib import resources
from typing import Any

import anywidget
import traitlets
from IPython.display import HTML, DisplayHandle, display

from .. import assets
from ..subscription import Subscription
from .watching import Watching

_OWN = resources.files(__package__) / "assets"


def script() -> str:
    """The module that a browser runs: uPlot, what is drawn with it, and the view."""
    own = (_OWN / "view.js").read_text(encoding="utf-8")
    return "\n".join((assets.read("uPlot.iife.min.js"), assets.read("drawing.js"), own))


def style() -> str:
    """Likewise its style sheet."""
    own = (_OWN / "view.css").read_text(encoding="utf-8")
    return "\n".join((assets.read("uPlot.min.css"), assets.read("drawing.css"), own))


def _html(text: str) -> HTML:
    return HTML(text)  # type: ignore[no-untyped-call]


class View(anywidget.AnyWidget):
    """What ``watch`` gives: shown where a cell ends with it, by ``display(view)``, or inside other widgets."""

    _esm = script()
    _style = traitlets.Unicode(style()).tag(sync=True)  # in a shadow root: the notebook's own style stays out
    _key = traitlets.Unicode().tag(sync=True)

    def __init__(self, subscription: Subscription[Any]) -> None:
        super().__init__(_key=uuid.uuid4().hex)
        self._still: DisplayHandle | None = None
        self._still_html = ""
        self._watching = Watching(
            subscription, key=self._key, send=self._sent, draw=self._drawn, on_closed=self.close
        )
        self._loop = self._watching.loop
        self.on_msg(self._heard)

    def __repr__(self) -> str:
        return f"<View of {self._watching.name}>"

    def close(self) -> None:
        """Look no longer; the stream goes on, and what was shown last stays as a still picture. Idempotent."""
        self._watching.close()
        super().close()

    def _ipython_display_(self) -> None:
        data, *_ = self._repr_mimebundle_() or ({},)
        display(data, raw=True)  # type: ignore[no-untyped-call]
        # A second output, which the view hides while it is there: what a notebook's file keeps of the first is nothing
        # that can be seen without a kernel, and to draw that anew would take the view away under its reader.
        self._still = display(_html(self._still_html), display_id=f"bqstream-{self._key}")  # type: ignore[no-untyped-call]

    def _drawn(self, html: str) -> None:
        self._still_html = html
        if self._still is not None:
            self._still.update(_html(html))  # type: ignore[no-untyped-call]

    def _sent(self, content: Mapping[str, Any]) -> None:
        self.send(dict(content))

    def _heard(self, widget: object, content: Any, buffers: object) -> None:
        """A browser's message, which comes in another thread where the kernel has subshells."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._watching.told, content)
