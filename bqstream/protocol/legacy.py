"""graphql-ws, the older one, client side (PROTOCOL.md of apollographql/subscriptions-transport-ws)."""

from __future__ import annotations

from .core import Core, Frames, State
from .envelope import frame

_EITHER: Frames = {
    "ka": Core.on_beat,  # may come before the ack
    "error": Core.on_stray_error,  # names no operation, since there is none yet
}


class Legacy(Core):
    """One connection that speaks graphql-ws. It has no ``ping`` and ``pong``: ignored, never sent."""

    subprotocol = "graphql-ws"
    starts = "start"
    frames = {  # noqa: RUF012
        State.NEW: _EITHER,
        State.WAITING: {**_EITHER, "connection_ack": Core.on_ack, "connection_error": Core.on_refusal},
        State.READY: {
            **_EITHER,
            "data": Core.on_next,
            "error": Core.on_error,
            "complete": Core.on_complete,
            "connection_error": Core.on_stray_error,  # Apollo: a frame it cannot read; it stays open
        },
        State.OVER: {},
    }

    def stop(self, name: str) -> tuple[bytes, ...]:
        """Both words: Apollo knows ``stop``, which Bitquery does not honour (docs: subscriptions/examples).

        Apollo answers ``complete`` by an error for that id, which is dropped with all else that comes for it.
        """
        return (frame("stop", name), frame("complete", name))

    def ping(self) -> bytes | None:
        """``None``: Apollo answers an unknown word by an error, others by a close."""
        return None

    def terminate(self) -> tuple[bytes, ...]:
        return (_TERMINATE,)


_TERMINATE = frame("connection_terminate")
