"""A collector that lives and dies again and again, by SIGKILL at named points and at random ones, while the service has
faults and its tokens live five seconds; and the ledger's verdict on what is in the sink in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, get_args

from bqstream.collect.failpoints import Name
from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict

from .documents import DOCUMENT
from .places import Place

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
POINTS: tuple[str, ...] = get_args(Name)


@dataclass
class Life:
    """One process, and what it has told of last."""

    process: asyncio.subprocess.Process
    last: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.last = json.loads(line)
            async with self.heard:
                self.heard.notify_all()
        self.ended = True
        async with self.heard:
            self.heard.notify_all()

    async def until(self, condition: Callable[[], bool], within: float = PATIENCE) -> None:
        """Wait for what it tells. Raises TimeoutError."""
        async with asyncio.timeout(within), self.heard:
            await self.heard.wait_for(lambda: condition() or self.ended)

    def said(self, name: str) -> Any:
        return self.last.get(name, 0)

    async def settled(self, name: str, seconds: float = 1.0) -> None:
        """Wait until what it says by this name has not changed for so long."""

        def other_than(before: Any) -> Callable[[], bool]:
            return lambda: bool(self.said(name) != before)

        with contextlib.suppress(TimeoutError):
            while not self.ended:
                await self.until(other_than(self.said(name)), within=seconds)


@dataclass
class Lives:
    """All the lives of one collector."""

    simulator: Simulator
    place: Place
    random: Random
    died: dict[str, int] = field(default_factory=dict)
    faults: int = 0

    @contextlib.asynccontextmanager
    async def living(self, failpoint: str = "") -> AsyncIterator[Life]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BITQUERY_")}
        environment |= {
            "BITQUERY_ENDPOINT": self.simulator.endpoint,
            "BITQUERY_TOKEN_URL": self.simulator.token_url,
            "BITQUERY_CLIENT_ID": self.simulator.client_id,
            "BITQUERY_CLIENT_SECRET": self.simulator.client_secret,
            "BQSTREAM_FAILPOINT": failpoint,
            **self.place.environment,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.collecting.process", self.place.address),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        life = Life(process)
        assert process.stderr is not None
        errors = asyncio.create_task(process.stderr.read())
        listening = asyncio.create_task(life.listen())
        try:
            yield life
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            print((await errors).decode()[-4000:], file=sys.stderr)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await listening
            await errors

    async def die_at(self, point: str) -> None:
        """Be killed at a failpoint, in one of the first commits."""
        async with self.living(f"{point}:{self.random.randint(2, 5)}") as life:
            await life.until(lambda: life.ended)
            assert await life.process.wait() == -signal.SIGKILL, f"it did not die at {point}: {life.last}"
        self.died[point] = self.died.get(point, 0) + 1

    async def die_at_random(self) -> None:
        """Be killed at any moment: soon after the start, as it asks for what was missed, or later."""
        async with self.living() as life:
            if self.random.random() < 0.7:
                await life.until(lambda: life.said("commits") > 1)
            with contextlib.suppress(TimeoutError):
                await life.until(lambda: False, within=self.random.uniform(0.05, 2.5))
            assert not life.ended, f"it ended by itself: {life.last}"
        self.died["random"] = self.died.get("random", 0) + 1

    async def trouble(self) -> None:
        """Faults of the service, one after the other, for as long as it is not cancelled."""
        faults = self.simulator.faults
        kinds: list[Callable[[], object]] = [
            faults.abort,
            lambda: faults.close(1013),
            lambda: faults.close(1012),
            lambda: faults.stall(data_only=True),
            faults.revoke,
            faults.expire,
            lambda: faults.refuse_dials(2),
            lambda: faults.refuse_queries(2),
            lambda: faults.garbage("json"),
            lambda: faults.token_endpoint("down", count=2),
        ]
        while True:
            await asyncio.sleep(self.random.uniform(3.0, 12.0))
            with contextlib.suppress(LookupError):
                self.random.choice(kinds)()
            self.faults += 1

    async def die(self, *, points: int, random: int, until: float) -> None:
        """Be killed so often at each point and at random, in any order; then on, until the monotonic time ``until``."""
        deaths = [*POINTS * points, *["random"] * random]
        self.random.shuffle(deaths)
        async with self.living() as life:  # what is owed begins with what the first one stores
            await life.until(lambda: life.said("rows") > 0)
        troubling = asyncio.create_task(self.trouble())
        try:
            while deaths or time.monotonic() < until:
                if troubling.done():
                    troubling.result()
                death = deaths.pop() if deaths else self.random.choice([*POINTS, "random"])
                await (self.die_at_random() if death == "random" else self.die_at(death))
        finally:
            troubling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await troubling

    async def verdict(self) -> Verdict:
        """The last life catches up; then what the sink's own readers see is compared with what was emitted."""
        simulator = self.simulator
        async with self.living() as life:
            await life.until(lambda: life.said("rows") > 0 and not life.said("closing"))
            simulator.pause()
            await simulator.drained()
            await self._caught_up(life)
            life.process.send_signal(signal.SIGTERM)
            await life.until(lambda: life.ended)
            assert await life.process.wait() == 0
            assert not life.said("misfits"), life.last
        return await self._read()

    async def _caught_up(self, life: Life) -> None:
        """Wait until nothing is owed, or for as long as patience lasts. What it tells of gaps is no sign: the chain
        stands still, and a gap that begins then cannot be closed before the chain goes on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not (life.ended or (await self._read()).exact):
                    await life.settled("commits")

    async def _read(self) -> Verdict:
        return self.simulator.ledger.verdict(DOCUMENT, await asyncio.to_thread(self.place.read))
