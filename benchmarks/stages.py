"""Scenario ``stages``: where each microsecond goes, from a chunk of TCP to a decoded message in the caller's hands.

One process and no socket: the client's own parts are put together one after another, each stage measured with all
that come before it. The least of several runs, since nothing but disturbance makes one longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Never

import msgspec

from .load import AT_ONCE, next_frame, payload_of
from .readers import DOCUMENT
from .rounds import Figures
from .typed import Data

RUNS = 7


class Unconnected:
    """A connection that nothing is sent on."""

    subprotocol = "graphql-transport-ws"
    date = None
    engine = "none"

    def send(self, frame: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


class Uncharted:
    """Nobody serves the subscription."""

    def closed(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def status(self) -> Never:
        raise NotImplementedError

    def listen(self, listener: object) -> Never:
        raise NotImplementedError


class Nobody:
    """Is told of what happens on a link."""

    def changed(self) -> None: ...


async def stages(rows: int, most: int) -> dict[str, float]:
    """Microseconds a message up to and including each stage."""
    from bqstream.clock import Clock
    from bqstream.config import Buffer, Timeouts
    from bqstream.delivery.document import Document
    from bqstream.delivery.plan import Plan
    from bqstream.delivery.stream import Stream
    from bqstream.protocol import machine_for
    from bqstream.session.link import Link
    from bqstream.session.operation import Operation
    from bqstream.subscription import Subscription
    from bqstream.transport.frames import Frames

    frame = next_frame({"id": "1"}, payload_of(DOCUMENT, rows))
    several = max(1, AT_ONCE // len(frame))
    chunk, chunks = frame * several, max(1, most // several)

    def ready() -> Any:
        machine = machine_for(Unconnected.subprotocol)
        machine.init(None)
        machine.receive(b'{"type":"connection_ack"}')
        return machine

    async def took(feed: Callable[[bytes], object], read: Callable[[], Awaitable[object]] | None) -> float:
        began = time.perf_counter()
        for _ in range(chunks):
            feed(chunk)
            if read is not None:
                for _ in range(several):
                    await read()
        return (time.perf_counter() - began) / (chunks * several) * 1e6

    async def least(
        feed: Callable[[bytes], object], read: Callable[[], Awaitable[object]] | None = None
    ) -> float:
        return min([await took(feed, read) for _ in range(RUNS)])

    def nothing(*_: object) -> None: ...

    found = {"frames cut out of TCP's chunks": await least(Frames(nothing, nothing, limit=2**26).feed)}
    machine = ready()
    machine.subscribe(b"{}")
    found["payloads cut out of frames"] = await least(
        Frames(lambda frames, _: machine.read(frames), nothing, limit=2**26).feed
    )

    document = Document.parse(DOCUMENT)

    async def read_by(look: Callable[[Any], object], into: Any = None) -> float:
        clock = Clock()
        stream = Stream(
            Buffer(),
            clock,
            on_gap=nothing,
            on_parked=nothing,
            on_ready=nothing,
            on_room=nothing,
            plan=Plan.make(document),
            cubes=document.cubes,
            into=into,
        )
        subscription: Subscription[Any] = Subscription(stream, Uncharted(), 1)
        link = Link(1, None, Unconnected(), ready(), Nobody(), timeouts=Timeouts(), clock=clock)  # type: ignore[arg-type]
        link.start(Operation(1, b"{}", stream), grace=1.0)

        async def one() -> object:
            return look(await anext(subscription))

        try:
            return await least(Frames(link._receive, nothing, limit=2**26).feed, one)
        finally:
            await subscription.aclose()

    found["buffered, kept and taken by the caller"] = await read_by(lambda message: None)
    found["message.data, into structs"] = await read_by(lambda message: message.data, Data)
    found["message.data, into dicts"] = await read_by(lambda message: message.data)
    payload = msgspec.json.encode(payload_of(DOCUMENT, rows))
    decode = msgspec.json.decode
    began = time.perf_counter()
    for _ in range(most):
        decode(payload)
    found["(msgspec.json.decode alone)"] = (time.perf_counter() - began) / most * 1e6
    return found


def run(*, quick: bool) -> Figures:
    figures: Figures = []
    for rows, most in ((1, 20_000), (100, 400)):
        found = asyncio.run(stages(rows, most // 4 if quick else most))
        print(f"\nstages: {rows} row(s) a message; microseconds a message up to and including each stage")
        for name, microseconds in found.items():
            print(f"  {name:42}{microseconds:10.2f}")
        figures.append({"rows": rows, "microseconds": found})
    return figures
