"""From a token to a connection and the machine that speaks its subprotocol."""

from __future__ import annotations

import pytest

from bqstream.endpoints import Endpoint, TokenPlace
from bqstream.protocol import LEGACY, MODERN, Action
from bqstream.session.dialer import Dialer, DialRefused, Network, Subprotocol
from bqstream.transport.base import DialError, UpgradeRefused
from tests.virtual_time import virtual_clock, virtual_time

from .service import ENDPOINT, FakeKeeper, Service


class Bench:
    def __init__(
        self,
        subprotocol: Subprotocol = "auto",
        token_in: tuple[TokenPlace, ...] = ("header",),
        endpoint: Endpoint = ENDPOINT,
    ) -> None:
        self.service = Service()
        self.dialer = Dialer(self.service, endpoint, token_in, subprotocol, Network(timeout=7))
        self.keeper = FakeKeeper(virtual_clock())

    async def dial(self) -> str:
        """Dial with the keeper's token; gives the subprotocol that is spoken."""
        held = await self.keeper.current()
        connection, machine, self.init = await self.dialer.dial(held)
        assert connection is self.service.newest
        return machine.subprotocol

    async def refusal(self) -> DialRefused:
        with pytest.raises(DialRefused) as refused:
            await self.dial()
        return refused.value

    @property
    def offers(self) -> list[tuple[str, ...]]:
        return [target.subprotocols for target in self.service.targets]


@virtual_time
async def test_both_subprotocols_are_offered_the_modern_one_first() -> None:
    bench = Bench()
    assert await bench.dial() == MODERN
    assert bench.offers == [(MODERN, LEGACY)]


@pytest.mark.parametrize("only", [MODERN, LEGACY])
@virtual_time
async def test_one_may_be_asked_for_alone(only: Subprotocol) -> None:
    bench = Bench(only)
    assert await bench.dial() == only
    assert bench.offers == [(only,)]


@virtual_time
async def test_it_speaks_what_the_server_chose() -> None:
    bench = Bench()
    bench.service.chooses = lambda offered: LEGACY
    assert await bench.dial() == LEGACY


@virtual_time
async def test_silence_after_one_offer_means_that_one() -> None:
    bench = Bench("graphql-ws")
    bench.service.chooses = lambda offered: None
    assert await bench.dial() == LEGACY
    assert len(bench.offers) == 1


@pytest.mark.parametrize("spoken", [MODERN, LEGACY])
@virtual_time
async def test_silence_after_two_offers_is_asked_one_by_one_and_the_answer_remembered(spoken: str) -> None:
    bench = Bench()
    bench.service.chooses = lambda offered: spoken if offered == (spoken,) else None
    assert await bench.dial() == spoken
    assert bench.offers == [(MODERN, LEGACY), (MODERN,), (LEGACY,)][: 2 if spoken == MODERN else 3]
    assert bench.service.open == [bench.service.newest], "the others are dropped"
    before = len(bench.offers)
    assert await bench.dial() == spoken
    assert bench.offers[before:] == [(spoken,)]


@virtual_time
async def test_a_server_that_never_names_one_is_spoken_to_in_the_older() -> None:
    bench = Bench()
    bench.service.chooses = lambda offered: None
    assert await bench.dial() == LEGACY
    assert len(bench.service.open) == 1


@pytest.mark.parametrize("asked", ["auto", MODERN])
@virtual_time
async def test_a_subprotocol_that_was_not_offered_is_fatal_and_no_frame_is_sent(asked: Subprotocol) -> None:
    bench = Bench(asked)
    bench.service.chooses = lambda offered: "mqtt"
    refused = await bench.refusal()
    assert refused.verdict.action is Action.END_CLIENT
    assert bench.service.open == []
    assert bench.service.newest.heard == []


@virtual_time
async def test_each_dial_bears_the_token_of_the_hour() -> None:
    bench = Bench(token_in=("header", "query", "init"))
    await bench.dial()
    assert bench.init == {"Authorization": "Bearer token-1"}
    bench.keeper.renew()
    await bench.dial()
    assert bench.init == {"Authorization": "Bearer token-2"}
    first, second = bench.service.targets
    assert first.headers == {"Authorization": "Bearer token-1"}
    assert first.url.endswith("?token=token-1")
    assert second.headers == {"Authorization": "Bearer token-2"}
    assert second.url.endswith("?token=token-2")
    assert "token-2" in second.secrets
    assert second.timeout == 7
    assert "token-2" not in repr(second)


@virtual_time
async def test_without_init_among_its_places_the_token_is_in_no_payload() -> None:
    bench = Bench()
    await bench.dial()
    assert bench.init is None
    assert bench.service.newest.target.url == ENDPOINT.ws


@pytest.mark.parametrize(
    ("status", "action"),
    [(401, Action.REFRESH), (402, Action.END_CLIENT), (503, Action.RETRY), (429, Action.RETRY)],
)
@virtual_time
async def test_an_http_refusal_is_judged_by_its_status(status: int, action: Action) -> None:
    bench = Bench()
    bench.service.refusals.append(UpgradeRefused(status, {"retry-after": "9"}, ""))
    verdict = (await bench.refusal()).verdict
    assert verdict.action is action
    assert verdict.code == status
    assert verdict.retry_after == (9 if action is Action.RETRY else None)


@pytest.mark.parametrize(("permanent", "action"), [(False, Action.RETRY), (True, Action.END_CLIENT)])
@virtual_time
async def test_a_dial_that_found_nobody_is_tried_again_unless_that_cannot_help(
    permanent: bool, action: Action
) -> None:
    bench = Bench()
    bench.service.refusals.append(DialError("no connection: refused", permanent=permanent))
    refused = await bench.refusal()
    assert refused.verdict.action is action
    assert refused.verdict.why == "no connection: refused"
    assert refused.__cause__ is None
    assert refused.__suppress_context__


@virtual_time
async def test_a_refused_subprotocol_gives_way_to_the_other_one_once() -> None:
    bench = Bench()
    assert bench.dialer.switch(MODERN)
    assert await bench.dial() == LEGACY
    assert bench.offers == [(LEGACY,)]
    assert bench.dialer.switch(MODERN), "another link may find out the same"
    assert not bench.dialer.switch(LEGACY)
    assert await bench.dial() == MODERN, "whoever begins anew offers both again"


@virtual_time
async def test_a_subprotocol_that_was_asked_for_gives_way_to_none() -> None:
    bench = Bench("graphql-ws")
    assert not bench.dialer.switch(LEGACY)
    assert await bench.dial() == LEGACY
