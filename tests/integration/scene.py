"""One service, one client and one reader, while things go wrong: in the end each row has come exactly once.

async with playing(client={"backoff": Backoff(jitter=0)}) as scene:
    scene.simulator.faults.close(1012)
    await scene.recovered()
    await scene.assert_exact()
    assert scene.waits() == [0.5]
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from bqstream import Client, Gap
from bqstream.events import Connected, Waiting
from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict, canonical

from .harness import TRANSFERS, Events, Reader, client_for, reading, settled, until

BLOCK = 0.2


@dataclass
class Scene:
    """``late`` is by how many seconds a row may come in after it was published: what the machine is slow by."""

    simulator: Simulator
    client: Client
    reader: Reader
    seen: Events
    late: float = 0.25

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return self.reader.gaps

    @property
    def dials(self) -> int:
        """Upgrades that the service was asked for."""
        return self.simulator.counters["dials"]

    @property
    def token_requests(self) -> int:
        return self.simulator.counters["token_requests"]

    @property
    def links(self) -> int:
        """Links that were acknowledged."""
        return len(self.seen.of(Connected))

    def waits(self, *, token: bool = False) -> list[float]:
        """The schedule: how long each wait before a dial was to last, or before a token request; in seconds."""
        return [
            round((event.until - event.at).total_seconds(), 3)
            for event in self.seen.of(Waiting)
            if event.why.startswith("no token") == token
        ]

    async def recovered(self, *, links: int = 2, within: float = 120.0) -> None:
        """Wait until that many links were acknowledged in all, and the newest has brought data for a while."""
        await until(lambda: self.links >= links or self.reader.task.done(), within=within)
        if self.reader.error is not None:
            raise self.reader.error
        await self.goes_on()

    async def goes_on(self, messages: int = 10) -> None:
        """Wait until the reader has had that many more messages."""
        before = self.reader.messages
        await until(lambda: self.reader.messages >= before + messages)

    async def assert_exact(self) -> Verdict:
        """Settle: each row came once, and every gap was closed."""
        verdict = await self._settled(within=10.0)
        assert verdict.exact, verdict
        assert [str(gap) for gap in self.reader.unclosed] == []
        assert self.gaps or not verdict.early, verdict
        return verdict

    async def assert_nothing_unnamed(self) -> Verdict:
        """Settle, where gaps cannot be closed: nothing came twice, and every row that is lost was published in the
        time of a named hole."""
        verdict = await self._settled(within=2.0)
        assert verdict.repeated == verdict.foreign == verdict.early == 0, verdict
        assert verdict.delivered
        unnamed = unnamed_losses(self.simulator, self.client, self.reader, late=self.late)
        assert not unnamed, (unnamed.total(), verdict, self.gaps)
        assert all(gap.is_hole and not gap.closed for gap in self.gaps), self.gaps
        return verdict

    async def _settled(self, within: float) -> Verdict:
        (verdict,) = await settled(self.simulator, self.reader, within=within)
        assert self.reader.error is None, self.reader.error
        assert verdict.delivered
        return verdict

    def told(self, title: str) -> None:
        """Print what happened in one line."""
        print(
            f"{title}: dials {self.dials}, token requests {self.token_requests}, "
            f"waits before dials {self.waits()} s, before token requests {self.waits(token=True)} s, "
            f"gaps {[(gap.cause, gap.how or gap.reason) for gap in self.gaps]}"
        )


def unnamed_losses(
    simulator: Simulator, client: Client, reader: Reader, *, late: float
) -> Counter[tuple[str, bytes]]:
    """Rows that are missing though no gap names the time at which they were published.

    A gap starts when the row before it came in, which is ``late`` seconds after it was published at most.
    """
    clock = client._clock
    ahead = clock.wall() - clock.monotonic()
    gaps = [
        (gap.start.timestamp() - ahead - late, gap.end.timestamp() - ahead if gap.end else float("inf"))
        for gap in reader.gaps
    ]
    missing = Counter[tuple[str, bytes]]()
    named = Counter[tuple[str, bytes]]()
    for emission, cube, row in simulator.ledger.rows(reader.document, reader.variables):
        key = canonical(cube, row)
        missing[key] += 1
        named[key] += any(start <= emission.time <= end for start, end in gaps)
    missing.subtract(canonical("Transfers", row) for row in reader.rows)
    return +missing - named


@contextlib.asynccontextmanager
async def playing(
    *,
    service: Mapping[str, Any] | None = None,
    client: Mapping[str, Any] | None = None,
    credentials: Any = None,
    document: str = TRANSFERS,
) -> AsyncIterator[Scene]:
    """A stream that flows: some messages have come in when this is entered."""
    seen = Events()
    async with (
        Simulator(**{"block_interval": BLOCK, "transactions": 3, **(service or {})}) as simulator,
        client_for(simulator, credentials, on_event=seen.append, **(client or {})) as opened,
        reading(opened, document) as reader,
    ):
        scene = Scene(simulator, opened, reader, seen)
        await scene.goes_on(5)
        yield scene


async def passed(seconds: float) -> None:
    """Let virtual time pass, in which the stream goes on; in real time this is a sleep, for soaks alone."""
    await asyncio.sleep(seconds)
