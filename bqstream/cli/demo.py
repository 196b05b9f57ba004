"""``bqstream demo``: the simulator in this process, tokens that live some seconds, and a verdict."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any

from .. import Client, ClientCredentials, ShortTermToken, Subscription, Timeouts
from ..simulator import Simulator, Verdict
from ..wording import counted
from .asking import Options, duration
from .running import FAILED, run, run_until
from .view import LiveView, Moment, NoView, PlainView, View

_TICK = 0.1
_SETTLE = 5.0  # at most, for what is on its way when the chain stops
_TIMEOUTS = Timeouts(grace=1.0)


_ask = Options("DEMO")


def demo(
    *,
    seconds: Annotated[
        float,
        _ask.option(
            "--for",
            "--seconds",
            help="How long to stream: 30s, 5m, or a number of seconds.",
            show_default="20s",
            read=duration,
            metavar="TIME",
        ),
    ] = 20.0,
    token_ttl: Annotated[
        float,
        _ask.option(
            "--token-ttl", help="How long a token lives.", show_default="5s", read=duration, metavar="TIME"
        ),
    ] = 5.0,
    block_interval: Annotated[
        float,
        _ask.option(
            "--block-interval",
            help="From one block to the next.",
            show_default="0.5s",
            read=duration,
            metavar="TIME",
        ),
    ] = 0.5,
    seed: Annotated[int, _ask.option("--seed", help="The same seed, the same chain.", show_default=True)] = 1,
    as_json: Annotated[
        bool, _ask.option("--json", help="Print the verdict alone, as one JSON line.")
    ] = False,
) -> None:
    """Stream through one token after another, and prove that no row was lost or repeated.

    Starts a simulator of the service in this process, whose tokens live some seconds, subscribes to two
    documents, and at the end compares every row with the simulator's own ledger. No network, no account.

    ```
    bqstream demo
    bqstream demo --for 1m --token-ttl 2s
    bqstream demo --for 10s --json
    ```

    Exit codes: 0 nothing lost or repeated, 1 otherwise, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    view: View = NoView() if as_json else LiveView() if sys.stdout.isatty() else PlainView()
    run(_demo(Plan(seconds, token_ttl, block_interval, seed), view, as_json))


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; all but ``seed`` in seconds."""

    seconds: float
    token_ttl: float
    block_interval: float
    seed: int


@dataclass(slots=True)
class Reader:
    """Reads one document's subscription and keeps its rows, each with its cube, for the verdict."""

    name: str
    document: str
    rows: list[tuple[str, Any]] = field(default_factory=list)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20))

    async def read(self, stream: Subscription) -> None:
        async for message in stream:
            self.rows += [(cube, row) for cube, rows in message.by_cube() for row in rows]

    def rate(self, now: float) -> float:
        """Rows a second, over the last two seconds."""
        self._marks.append((now, len(self.rows)))
        then, count = self._marks[0]
        return (len(self.rows) - count) / (now - then) if now > then else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The verdict over all documents; ``foreign`` rows are such as were never emitted."""

    emitted: int
    delivered: int
    lost: int
    repeated: int
    foreign: int
    rotations: int
    reconnects: int
    seconds: float

    @property
    def good(self) -> bool:
        return self.delivered > 0 and not (self.lost or self.repeated or self.foreign)

    def as_json(self) -> str:
        return json.dumps(
            {
                "rows": self.delivered,
                "lost": self.lost,
                "duplicated": self.repeated,
                "rotations": self.rotations,
                "reconnects": self.reconnects,
                "seconds": self.seconds,
            }
        )

    def __str__(self) -> str:
        return (
            f"verdict: emitted {self.emitted:,}, delivered {self.delivered:,}, lost {self.lost:,}, "
            f"repeated {self.repeated:,}; {counted(self.rotations, 'hand-over')}, "
            f"{counted(self.reconnects, 'reconnect')}, {self.seconds:.1f} s"
        )


async def _demo(plan: Plan, view: View, as_json: bool) -> int:
    try:
        with view:
            result, number = await _stream(plan, view)
    except ExceptionGroup as group:  # of the readers; the first one's error tells the story
        raise group.exceptions[0] from None
    print(result.as_json() if as_json else str(result), flush=True)
    if number:
        return 128 + number
    return 0 if result.good else FAILED


async def _stream(plan: Plan, view: View) -> tuple[Result, int | None]:
    """Run the plan. Gives the verdict and the signal that ended it early, if one did."""
    started = time.monotonic()
    readers = _readers()
    async with Simulator(
        token_ttl=plan.token_ttl, block_interval=plan.block_interval, seed=plan.seed
    ) as simulator:
        credentials = ShortTermToken(
            ClientCredentials(simulator.client_id, simulator.client_secret, token_url=simulator.token_url),
            expires_in=plan.token_ttl,
        )
        async with (
            Client(
                credentials, endpoint=simulator.endpoint, timeouts=_TIMEOUTS, on_event=view.event
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(_read(client, reader)) for reader in readers]
            number = await run_until(_watch(client, readers, view, plan, started), plan.seconds)
            simulator.pause()
            await _settle(simulator, readers)
            view.show(_moment(client, readers, plan, started))
            status = client.status()
            for task in tasks:
                task.cancel()
        seconds = round(time.monotonic() - started, 2)
        verdicts = _verdicts(simulator, readers)
    return Result(
        emitted=sum(verdict.emitted for verdict in verdicts),
        delivered=sum(verdict.delivered for verdict in verdicts),
        lost=sum(verdict.lost for verdict in verdicts),
        repeated=sum(verdict.repeated for verdict in verdicts),
        foreign=sum(verdict.foreign for verdict in verdicts),
        rotations=status.rotations,
        reconnects=status.reconnects,
        seconds=seconds,
    ), number


def _readers() -> list[Reader]:
    folder = resources.files(__package__) / "documents"
    return [
        Reader(name, (folder / f"{name}.graphql").read_text(encoding="utf-8")) for name in ("trades", "chain")
    ]


async def _read(client: Client, reader: Reader) -> None:
    async with client.subscribe(reader.document) as stream:
        await reader.read(stream)


async def _watch(client: Client, readers: Sequence[Reader], view: View, plan: Plan, started: float) -> None:
    while True:
        view.show(_moment(client, readers, plan, started))
        await asyncio.sleep(_TICK)


def _moment(client: Client, readers: Sequence[Reader], plan: Plan, started: float) -> Moment:
    now = time.monotonic()
    return Moment(
        seconds=now - started,
        total=plan.seconds,
        token_ttl=plan.token_ttl,
        rows={reader.name: len(reader.rows) for reader in readers},
        rates={reader.name: reader.rate(now) for reader in readers},
        status=client.status(),
    )


def _verdicts(simulator: Simulator, readers: Sequence[Reader]) -> list[Verdict]:
    """One for each document that went live: a signal may come before that."""
    ledger = simulator.ledger
    return [
        ledger.verdict(reader.document, reader.rows)
        for reader in readers
        if ledger.started(reader.document) is not None
    ]


async def _settle(simulator: Simulator, readers: Sequence[Reader]) -> None:
    """The chain stands still: wait until all that it emitted has come, or for ``_SETTLE`` seconds.

    Then a little longer: what came twice would come right behind.
    """
    await simulator.drained()
    for _ in range(int(_SETTLE / _TICK)):
        if not any(verdict.lost for verdict in _verdicts(simulator, readers)):
            break
        await asyncio.sleep(_TICK)
    await asyncio.sleep(3 * _TICK)
