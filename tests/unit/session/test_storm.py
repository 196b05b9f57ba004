"""Whatever happens, in any order: the receivers' rules hold, and when the storm is over every operation is served
by exactly one link, once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Literal

import pytest

from bqstream.session.operation import Operation
from bqstream.transport.base import DialError, UpgradeRefused
from tests.virtual_time import virtual_time

from .service import Socket, World, mute, recorder, settle, world

CLOSES = [1000, 1001, 1006, 1011, 1012, 1013, 4401, 4408, 4429, 4500]
PASSING = ["too many requests", "Unauthorized", "something broke", "too many concurrent subscriptions"]


class Storm:
    """Picks what happens next; ``random`` decides all of it."""

    def __init__(self, w: World, seed: str) -> None:
        self.w = w
        self.random = random.Random(seed)
        self.operations: list[Operation] = []
        self.log: list[str] = []
        self.happenings: list[Callable[[], None]] = [
            *(self.add, self.remove, self.publish, self.publish, self.publish, self.renew, self.renew),
            *(self.shut, self.refuse_dials, self.never_ack, self.error, self.complete, self.fill),
            *(self.make_room, self.cross, self.linger, self.garbage, self.slow_dials),
        ]

    def step(self) -> None:
        happening = self.random.choice(self.happenings)
        self.log.append(f"{asyncio.get_running_loop().time():.2f} {happening.__name__}")
        happening()

    def add(self) -> None:
        if len(self.operations) < 6:
            self.operations.append(self.w.add())

    def remove(self) -> None:
        if self.operations:
            operation = self.operations.pop(self.random.randrange(len(self.operations)))
            self.w.remove(operation)

    def publish(self) -> None:
        self.w.service.publish()

    def renew(self) -> None:
        self.w.keeper.renew()

    def shut(self) -> None:
        if socket := self.socket():
            socket.shut(self.random.choice(CLOSES))

    def refuse_dials(self) -> None:
        refusals = [DialError("nobody there"), UpgradeRefused(401, {}, ""), UpgradeRefused(503, {}, "")]
        self.w.service.refusals.append(self.random.choice(refusals))

    def never_ack(self) -> None:
        self.w.service.scripts.append(mute)

    def error(self) -> None:
        if (socket := self.socket()) and (operation := self.running(socket)):
            socket.error(operation, self.random.choice(PASSING))

    def complete(self) -> None:
        if self.random.random() < 0.3 and (socket := self.socket()) and (operation := self.running(socket)):
            socket.complete(operation)

    def fill(self) -> None:
        if self.operations:
            recorder(self.random.choice(self.operations)).room = False

    def make_room(self) -> None:
        for operation in self.operations:
            recorder(operation).room = True
            self.w.session.has_room(operation)

    def cross(self) -> None:
        for operation in self.operations:
            recorder(operation).has_crossed = self.random.random() < 0.7

    def linger(self) -> None:
        if socket := self.socket():
            socket.answers_close = False

    def garbage(self) -> None:
        if socket := self.socket():
            socket.say_raw(self.random.choice([b"[]", b"\x00", b'{"type":"next","id":"77"}']))

    def slow_dials(self) -> None:
        self.w.service.latency = self.random.choice([0.0, 0.0, 0.3, 3.0])

    def socket(self) -> Socket | None:
        sockets = self.w.service.open
        return self.random.choice(sockets) if sockets else None

    def running(self, socket: Socket) -> Operation | None:
        queries = [
            o for o in self.operations if any(name in o.request.decode() for name in socket.live.values())
        ]
        return self.random.choice(queries) if queries else None

    def over(self) -> None:
        """The storm is over: nothing goes wrong any more, and every buffer has room."""
        self.w.service.refusals.clear()
        self.w.service.scripts.clear()
        self.w.service.latency = 0.0
        self.make_room()
        self.operations = [operation for operation in self.operations if recorder(operation).ended is None]
        for operation in self.operations:
            recorder(operation).has_crossed = True


def served_once(w: World, operation: Operation) -> bool:
    """Whether one link feeds the operation, and it runs on one socket."""
    query = operation.request.decode()
    homes = [socket for socket in w.service.open for running in socket.live.values() if running in query]
    return len(recorder(operation).sources) == len(homes) == 1


@pytest.mark.parametrize("mode", ["overlap", "replace"])
@pytest.mark.parametrize("number", range(15))
@virtual_time
async def test_after_any_storm_every_operation_is_served_once(
    seed: int, number: int, mode: Literal["overlap", "replace"]
) -> None:
    async with world(mode=mode, connections=1 + number % 2, lifetime=[None, 20.0, 300.0][number % 3]) as w:
        storm = Storm(w, f"{seed} {number}")
        try:
            for _ in range(120):
                storm.step()
                await asyncio.sleep(storm.random.choice([0.0, 0.0, 1e-6, 0.01, 0.3, 1.0, 5.0]))
            storm.over()
            await asyncio.sleep(200)
            assert len(w.service.open) <= len(w.session.supervisors)
            left = [operation for operation in storm.operations if recorder(operation).ended is None]
            assert all(served_once(w, operation) for operation in left)
            before = [len(recorder(operation).brought) for operation in left]
            w.service.publish()
            await settle()
            assert [len(recorder(operation).brought) for operation in left] == [n + 1 for n in before]
        except BaseException:
            print("\n".join(storm.log[-60:]))
            raise
