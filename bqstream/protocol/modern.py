"""graphql-transport-ws, client side (PROTOCOL.md of enisdenjo/graphql-ws)."""

from __future__ import annotations

from .core import Core, Frames, State
from .envelope import frame

_EITHER: Frames = {
    "ping": Core.on_ping,  # at once, even before the ack
    "pong": Core.on_beat,  # also unasked for: Bitquery's sign of life
    "ka": Core.on_beat,  # Hasura sends it here too
    "error": Core.on_stray_error,  # names no operation, since there is none yet
}


class Modern(Core):
    """One connection that speaks graphql-transport-ws."""

    subprotocol = "graphql-transport-ws"
    starts = "subscribe"
    frames = {  # noqa: RUF012
        State.NEW: _EITHER,
        State.WAITING: {**_EITHER, "connection_ack": Core.on_ack, "connection_error": Core.on_refusal},
        State.READY: {
            **_EITHER,
            "next": Core.on_next,
            "error": Core.on_error,
            "complete": Core.on_complete,
            "connection_error": Core.on_stray_error,
        },
        State.OVER: {},
    }

    def stop(self, name: str) -> tuple[bytes, ...]:
        return (frame("complete", name),)

    def ping(self) -> bytes | None:
        return _PING

    def terminate(self) -> tuple[bytes, ...]:
        """None: a ``connection_terminate`` would be answered by a close with 4400."""
        return ()


_PING = frame("ping")
