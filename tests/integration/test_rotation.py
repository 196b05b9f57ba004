"""Tokens of three seconds: links come and go underneath, and each row reaches the reader exactly once.

Links that live no longer than data may lag prove no hand-over: what may be missing is asked for each time.

Quick runs take ten seconds of virtual time each; `pytest -m soak -n 0` takes four minutes and prints figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bqstream import Client, Gap, Timeouts
from bqstream.events import HandedOver, Lost, Refused
from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict, canonical
from bqstream.simulator.settings import Behaviour
from tests.virtual_time import VirtualTimeLoop, virtual_time

from .harness import TRANSFERS, Events, Reader, client_for, reading, settled

TTL = 3.0
LAG = 1.0
BLOCK = 0.2
SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
LAGGING = (Behaviour(), Behaviour(lag=LAG), Behaviour(lag=LAG / 2))
QUIET = TRANSFERS.replace("Transfers {", 'Transfers(where: {Transfer: {Amount: {lt: "1", gt: "2"}}}) {')


@dataclass
class Outcome:
    """What a run came to; ``gaps`` of all readers, ``queries`` that were asked to close them."""

    verdicts: list[Verdict]
    gaps: list[Gap]
    queries: int
    handovers: list[HandedOver]
    refused: list[Refused]
    lost_links: list[Lost]
    past_expiry: list[int]
    expired_open: int
    stall: float
    uncovered: Counter[tuple[str, bytes]]

    @property
    def line(self) -> str:
        total = {
            name: sum(getattr(v, name) for v in self.verdicts) for name in ("emitted", "lost", "repeated")
        }
        gaps = dict(Counter((gap.cause, "closed" if gap.closed else gap.reason) for gap in self.gaps))
        modes = dict(Counter(handover.mode for handover in self.handovers))
        return (
            f"{total['emitted']:6} rows {len(self.handovers):3} hand-overs {modes} "
            f"lost {total['lost']} repeated {total['repeated']} gaps {gaps} "
            f"queries {self.queries} past expiry {len(self.past_expiry)}"
        )


async def streamed(
    seconds: float,
    *,
    documents: tuple[str, ...] = (TRANSFERS,),
    lag: bool = False,
    service: dict[str, Any] | None = None,
    ttl: float = TTL,
    together: asyncio.Barrier | None = None,
    **client_options: Any,
) -> Outcome:
    """Stream for so many seconds of blocks from a service whose tokens live three.

    Runs that share their loop wait for each other before the ledger is asked, which takes the loop for a while.
    """
    seen = Events()
    behaviours = LAGGING if lag else (Behaviour(),)
    async with (
        Simulator(token_ttl=ttl, block_interval=BLOCK, behaviours=behaviours, **service or {}) as simulator,
        client_for(simulator, on_event=seen.append, **client_options) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        readers = [await stack.enter_async_context(reading(client, text)) for text in documents]
        async with longest_stall() as stalls:
            await simulator.blocks(round(seconds / BLOCK))
        outcome = Outcome(
            verdicts=[],
            gaps=[],
            queries=0,
            handovers=seen.of(HandedOver),
            refused=seen.of(Refused),
            lost_links=seen.of(Lost),
            past_expiry=[s.number for s in simulator.counters.sockets if s.served_past_expiry],
            expired_open=simulator.counters["expired"],
            stall=max(stalls),
            uncovered=Counter(),
        )
        if together is not None:
            await together.wait()
        outcome.verdicts = await settled(simulator, *readers)
        assert not any(reader.error for reader in readers), [reader.error for reader in readers]
        outcome.queries = simulator.counters["queries"]
        for reader in readers:
            outcome.gaps += reader.gaps
            outcome.uncovered += uncovered(simulator, client, reader)
        return outcome


@contextlib.asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """How late the loop woke up: a machine that stands still for longer than the links have left fails any client."""
    stalls = [0.0]

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.02)
            stalls.append(loop.time() - before - 0.02)

    task = asyncio.create_task(watch())
    try:
        yield stalls
    finally:
        task.cancel()
        await asyncio.wait({task})


def uncovered(simulator: Simulator, client: Client, reader: Reader) -> Counter[tuple[str, bytes]]:
    """Rows that were lost, and published at a time that no gap names. ``Gap.start`` is a time of arrival, which is
    later than the row's publication by as much as its socket lags."""
    ahead = client._clock.wall() - client._clock.monotonic()
    came = Counter(canonical("", row) for row in reader.rows)
    lost, named = Counter[tuple[str, bytes]](), Counter[tuple[str, bytes]]()
    for emission, _, row in simulator.ledger.rows(reader.document):
        lost[canonical("", row)] += 1
        at = datetime.fromtimestamp(emission.time + ahead, UTC)
        if any(
            gap.start - timedelta(seconds=LAG + 0.1) <= at and (gap.end is None or at <= gap.end)
            for gap in reader.gaps
        ):
            named[canonical("", row)] += 1
    return (lost - came) - named


VARIANTS: dict[str, dict[str, Any]] = {
    f"{'pongs' if keepalive else 'no pongs'}, token in {place or 'both'}, {'lag' if lag else 'no lag'}": {
        "service": {"keepalive": keepalive, **({"token_in": (place,)} if place else {})},
        "lag": lag,
    }
    for keepalive, place, lag in (
        (1.0, None, True),
        (1.0, None, False),
        (None, None, True),
        (None, None, False),
        (1.0, "header", True),
        (1.0, "query", True),
    )
}


def assert_exact(outcome: Outcome) -> None:
    assert all(verdict.exact and verdict.emitted for verdict in outcome.verdicts), outcome
    assert [str(gap) for gap in outcome.gaps if not gap.closed] == []
    # A gap of the first seconds is closed as a whole, with what was published just before the subscription was live.
    assert outcome.gaps or not any(verdict.early for verdict in outcome.verdicts), outcome
    assert outcome.past_expiry == []
    assert outcome.expired_open == 0


def assert_overlapped(outcome: Outcome) -> None:
    assert {handover.mode for handover in outcome.handovers} == {"overlap"}, outcome.handovers
    assert outcome.lost_links == []


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_links_rotate_by_overlap_and_each_row_comes_once(variant: str, subprotocol: str) -> None:
    @virtual_time
    async def run() -> None:
        outcome = await streamed(10, subprotocol=subprotocol, **VARIANTS[variant])
        assert_exact(outcome)
        assert_overlapped(outcome)
        assert {gap.cause for gap in outcome.gaps} == {"handover"}
        assert len(outcome.handovers) >= 4

    run()


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize(
    ("ttl", "grace", "lag"), [(TTL, LAG / 3, False), (4 * LAG / 0.45, 1.2 * LAG, True)], ids=["no lag", "lag"]
)
def test_links_that_overlap_for_longer_than_data_may_lag_name_no_gap_and_cost_no_query(
    ttl: float, grace: float, lag: bool, subprotocol: str
) -> None:
    @virtual_time
    async def run() -> None:
        outcome = await streamed(
            30, ttl=ttl, lag=lag, subprotocol=subprotocol, timeouts=Timeouts(grace=grace)
        )
        assert_exact(outcome)
        assert_overlapped(outcome)
        assert outcome.gaps == []
        assert outcome.queries == 0
        assert len(outcome.handovers) >= 4
        assert {handover.unproven for handover in outcome.handovers} == {0}

    run()


@pytest.mark.parametrize("lag", [False, True], ids=["no lag", "lag"])
@pytest.mark.parametrize("options", [{}, {"handover": "replace"}], ids=["overlap", "replace"])
def test_without_backfill_each_row_comes_once_or_its_time_is_named(options: Any, lag: bool) -> None:
    @virtual_time
    async def run() -> None:
        outcome = await streamed(10, lag=lag, backfill="off", **options)
        (verdict,) = outcome.verdicts
        assert verdict.delivered
        assert verdict.repeated == verdict.foreign == verdict.early == 0, verdict
        assert verdict.lost == 0 or "handover" in options, verdict
        assert not outcome.uncovered, outcome.gaps
        assert {gap.reason for gap in outcome.gaps} == {'backfill is "off"'}
        assert outcome.queries == 0

    run()


CAPPED: dict[str, dict[str, Any]] = {
    "a cap that is silent": {"service": {"cap": 1}},
    "a cap with its error": {"service": {"cap": 1, "over_cap": "error"}},
    "replace by choice": {"handover": "replace"},
}


def assert_replaced(outcome: Outcome, *, told: bool) -> None:
    assert_exact(outcome)
    # What is lost while a gap is being closed widens that.
    assert outcome.gaps
    assert {gap.cause for gap in outcome.gaps} <= {"replaced", "handover"}
    assert [handover.mode for handover in outcome.handovers].count("replace") >= 3
    assert [event.what for event in outcome.refused].count("overlap") == told


@pytest.mark.parametrize(("subprotocol", "lag"), list(zip(SUBPROTOCOLS, (True, False), strict=True)))
@pytest.mark.parametrize("variant", CAPPED)
def test_where_links_are_replaced_what_fell_between_them_is_brought(
    variant: str, lag: bool, subprotocol: str
) -> None:
    @virtual_time
    async def run() -> None:
        outcome = await streamed(12, subprotocol=subprotocol, lag=lag, **CAPPED[variant])
        assert_replaced(outcome, told="service" in CAPPED[variant])

    run()


ALIKE = {
    "of two kinds": "Transfers { Transfer { Success } }",
    "one a block": "Blocks { Block { Number } }",
    "all equal": (
        'Transfers(where: {Transfer: {Currency: {Symbol: {is: "USDT"}}}}) { Transfer { Currency { Symbol } } }'
    ),
}


@pytest.mark.parametrize("lag", [False, True], ids=["no lag", "lag"])
@pytest.mark.parametrize("rows", ALIKE)
def test_rows_that_the_reader_cannot_tell_apart_come_as_often_as_they_were_sent(rows: str, lag: bool) -> None:
    @virtual_time
    async def run() -> None:
        document = f"subscription {{ EVM(network: eth) {{ {ALIKE[rows]} }} }}"
        assert_exact(await streamed(10, documents=(document,), lag=lag))

    run()


BY_POSITION = {
    "of two kinds": ("Transfers(limit: {count: 1000}) { Transfer { Success } }", 0),
    "of a few kinds": ("Transfers { count Transfer { Currency { Symbol } } }", 0),
    "one a block": ("Blocks(limit: {count: 1000}) { Block { Number } }", 0),
    # Nothing tells one from another, and they never pause: some fall between the links, and that is said.
    "all equal": (
        'Transfers(limit: {count: 1000}, where: {Transfer: {Currency: {Symbol: {is: "USDT"}}}}) '
        "{ Transfer { Currency { Symbol } } }",
        0.2,
    ),
}


@pytest.mark.parametrize("lag", [False, True], ids=["no lag", "lag"])
@pytest.mark.parametrize("rows", BY_POSITION)
def test_rows_that_only_their_place_tells_apart_are_never_repeated_nor_lost_in_silence(
    rows: str, lag: bool
) -> None:
    """Cubes that aggregate or have a limit of their own: no field can be added to their rows."""
    selection, losable = BY_POSITION[rows]

    @virtual_time
    async def run() -> None:
        outcome = await streamed(
            10, documents=(f"subscription {{ EVM(network: eth) {{ {selection} }} }}",), lag=lag
        )
        (verdict,) = outcome.verdicts
        assert verdict.emitted
        assert verdict.repeated == verdict.foreign == verdict.early == 0, verdict
        assert verdict.lost <= losable * lag * verdict.emitted, verdict
        assert not outcome.uncovered, outcome.gaps
        assert outcome.queries == 0

    run()


@pytest.mark.parametrize("run", range(2))
def test_a_machine_that_stands_still_loses_and_repeats_nothing(run: int) -> None:
    """Its data lags by a second, its links overlap for 1.3: now and then a link is lost to it."""

    async def stand_still() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        while True:
            await asyncio.sleep(random.uniform(0, 4))
            loop.now += random.uniform(0, 1.3)

    @virtual_time
    async def stream() -> None:
        standing = asyncio.create_task(stand_still())
        outcome = await streamed(20, lag=True)
        standing.cancel()
        await asyncio.wait({standing})
        (verdict,) = outcome.verdicts
        assert verdict.exact, verdict
        assert [str(gap) for gap in outcome.gaps if not gap.closed] == []

    random.seed(random.random() + run)
    stream()


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("keepalive", [1.0, None], ids=["pongs", "no pongs"])
def test_a_quiet_subscription_is_handed_over_before_its_token_expires(
    keepalive: float | None, subprotocol: str
) -> None:
    @virtual_time
    async def run() -> None:
        outcome = await streamed(
            10, documents=(QUIET,), subprotocol=subprotocol, service={"keepalive": keepalive}
        )
        assert outcome.verdicts[0].emitted == outcome.verdicts[0].delivered == 0
        assert len(outcome.handovers) >= 4
        assert {handover.mode for handover in outcome.handovers} == {"overlap"}
        assert outcome.expired_open == 0
        assert outcome.lost_links == []
        assert {gap.cause for gap in outcome.gaps} == {"quiet"}  # which proves nothing, so it is asked
        assert all(gap.closed for gap in outcome.gaps)

    run()


@pytest.mark.parametrize(("subprotocol", "lag"), list(zip(SUBPROTOCOLS, (True, False), strict=True)))
def test_twelve_subscriptions_on_three_links_rotate_one_link_at_a_time(lag: bool, subprotocol: str) -> None:
    documents = tuple(TRANSFERS.replace("Transfers", f"link{n}: Transfers") for n in range(12))

    @virtual_time
    async def run() -> None:
        outcome = await streamed(6, documents=documents, lag=lag, subprotocol=subprotocol, connections=3)
        assert_exact(outcome)
        assert_overlapped(outcome)
        assert [handover.operations for handover in outcome.handovers] == [4] * len(outcome.handovers)
        assert len(outcome.handovers) >= 9

    run()


SOAKED = {
    "lag": {name: options for name, options in VARIANTS.items() if options["lag"]},
    "no lag": {name: options for name, options in VARIANTS.items() if not options["lag"]}
    | {"a cap that is silent": CAPPED["a cap that is silent"]},
}


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.asyncio
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("variants", SOAKED.values(), ids=SOAKED)
async def test_a_minute_of_real_time_with_tokens_of_three_seconds(
    variants: dict[str, dict[str, Any]], subprotocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    together = asyncio.Barrier(len(variants))
    outcomes = await asyncio.gather(
        *(
            streamed(60, subprotocol=subprotocol, together=together, **options)
            for options in variants.values()
        )
    )
    stall = max(outcome.stall for outcome in outcomes)
    with capsys.disabled():
        print(
            f"\n{subprotocol}, 60 s, tokens of {TTL:g} s; the machine stood still for {stall:.2f} s at most"
        )
        for name, outcome in zip(variants, outcomes, strict=True):
            print(f"  {name:31} {outcome.line}")
    for name, outcome in zip(variants, outcomes, strict=True):
        if name in CAPPED:
            assert_replaced(outcome, told="service" in CAPPED[name])
        else:
            assert_exact(outcome)
            assert_overlapped(outcome)
