from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bqstream.simulator import Simulator
from bqstream.simulator.ledger import canonical

from .peer import QUICK, TRADES, http, settle, subscribed


async def a_run(simulator: Simulator, blocks: int = 3) -> list[tuple[str, object]]:
    """Rows that a socket got until the chain stood still."""
    async with subscribed(simulator) as peer:
        await peer.data()
        await simulator.blocks(blocks)
        await settle(simulator, peer)
        return peer.rows


@pytest.mark.asyncio
async def test_a_verdict_counts_what_is_lost_repeated_and_foreign() -> None:
    async with Simulator(**QUICK) as simulator:
        rows = await a_run(simulator)
        whole = simulator.ledger.verdict(TRADES, rows)
        assert whole.exact
        assert whole.emitted == whole.delivered == len(rows)
        stranger = ("DEXTrades", {"Block": {"Number": "1"}})
        wrong = simulator.ledger.verdict(TRADES, [*rows[2:], rows[5], stranger])
        assert (wrong.lost, wrong.repeated, wrong.foreign) == (2, 1, 1)
        assert not wrong.exact
        assert len(wrong.examples["lost"]) == 2
        assert '"Number":"1"' in wrong.examples["foreign"][0]


@pytest.mark.asyncio
async def test_rows_are_taken_as_pairs_or_as_a_client_hands_them_out() -> None:
    async with Simulator(**QUICK) as simulator:
        rows = await a_run(simulator)
        assert simulator.ledger.verdict(TRADES, [row for _, row in rows]).exact
        two = TRADES.replace("DEXTrades", "Transfers { Block { Number } } DEXTrades")
        async with subscribed(simulator, document=two) as peer:
            simulator.resume()
            await peer.data()
            await settle(simulator, peer)
            assert simulator.ledger.verdict(two, [{cube: row} for cube, row in peer.rows]).exact


@pytest.mark.asyncio
async def test_an_outage_is_owed_and_what_came_before_the_first_socket_is_not() -> None:
    async with Simulator(**QUICK) as simulator:
        await simulator.blocks(3)
        first = await a_run(simulator)
        simulator.resume()
        await simulator.blocks(3)  # nobody is connected
        second = await a_run(simulator)
        verdict = simulator.ledger.verdict(TRADES, first + second)
        assert verdict.lost >= 3
        assert not verdict.foreign
        assert verdict.emitted == len(first) + len(second) + verdict.lost
        owed = [(cube, row) for _, cube, row in simulator.ledger.rows(TRADES)]
        assert simulator.ledger.verdict(TRADES, owed).exact


@pytest.mark.asyncio
async def test_a_row_from_before_the_first_socket_is_early_and_not_foreign() -> None:
    async with Simulator(**QUICK) as simulator:
        await simulator.blocks(3)
        rows = await a_run(simulator)
        before = [(cube, row) for _, cube, row in simulator.ledger.rows(TRADES, since=0)][:4]
        verdict = simulator.ledger.verdict(TRADES, rows + before)
        assert verdict.exact
        assert verdict.early == 4


@pytest.mark.asyncio
async def test_equal_rows_stay_as_many_as_they_were() -> None:
    coarse = "subscription { EVM(network: eth) { DEXTrades { Block { Number } } } }"
    async with Simulator(**QUICK) as simulator, subscribed(simulator, document=coarse) as peer:
        await peer.data()
        await settle(simulator, peer)
        assert len({str(row) for row in peer.rows}) < len(peer.rows)
        assert simulator.ledger.verdict(coarse, peer.rows).exact
        assert simulator.ledger.verdict(coarse, peer.rows[1:]).lost == 1


@pytest.mark.asyncio
async def test_a_document_that_was_sent_with_fields_added_is_judged_as_it_was_written() -> None:
    written = "subscription { EVM(network: eth) { DEXTrades { Trade { Buy { Amount } } } } }"
    async with Simulator(**QUICK) as simulator:
        await simulator.blocks(2)
        rows = await a_run(simulator)  # with TRADES, which selects more of the same cube
        bare = [(cube, {"Trade": {"Buy": row["Trade"]["Buy"]}}) for cube, row in rows]  # type: ignore[index]
        assert simulator.ledger.verdict(written, bare).exact
        assert simulator.ledger.started(written) is None
        assert simulator.ledger.started(TRADES) is not None
        with pytest.raises(LookupError):
            simulator.ledger.verdict(written.replace("DEXTrades", "Transfers"), bare)


OWN = "subscription { EVM(network: eth) { DEXTrades { Trade { Buy { Amount } } } } }"
ENLARGED = OWN.replace("} } } }", "} } bqs_Block: Block { Number } bqs_Tx: Transaction { Hash } } }")


def bare(rows: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Rows of the enlarged document as the user's own would have brought them."""
    return [(cube, {"Trade": row["Trade"]}) for cube, row in rows]


@pytest.mark.asyncio
@pytest.mark.parametrize("own", ["never", "later", "earlier"])
async def test_a_document_is_owed_from_when_it_first_went_live_be_it_enlarged(own: str) -> None:
    async with Simulator(**QUICK) as simulator:
        await simulator.blocks(2)
        if own == "earlier":
            async with subscribed(simulator, document=OWN) as peer:
                await peer.data()
            started = simulator.ledger.started(OWN)
        async with subscribed(simulator, document=ENLARGED) as peer:
            await peer.data()
            if own == "later":
                await simulator.blocks(2)
                await peer.subscribe(OWN, "2")
                await simulator.blocks(2)
            await settle(simulator, peer)
            rows = bare([pair for pair in peer.rows if "bqs_Tx" in pair[1]])
        verdict = simulator.ledger.verdict(OWN, rows)
        if own == "earlier":
            assert simulator.ledger.started(OWN) == started
            assert verdict.lost == verdict.emitted - len(rows) > 0
        else:
            assert simulator.ledger.started(OWN) == simulator.ledger.started(ENLARGED) > 0  # type: ignore[operator]
            assert verdict.exact
            assert [(cube, row) for _, cube, row in simulator.ledger.rows(OWN)] == rows
            assert simulator.ledger.verdict(OWN, rows[1:]).lost == 1
            assert simulator.ledger.verdict(OWN, [*rows, rows[-1]]).repeated == 1


@pytest.mark.asyncio
async def test_an_enlarged_document_is_known_by_its_variables_too() -> None:
    variables = {"n": "bsc"}

    def asked(document: str) -> str:
        return document.replace("subscription", "subscription ($n: Network!)").replace("eth", "$n")

    async with Simulator(**QUICK) as simulator, subscribed(simulator, document=ENLARGED) as peer:
        await simulator.blocks(2)
        await peer.subscribe(asked(ENLARGED), "2", variables=variables)
        await peer.data()
        await simulator.blocks(2)
        await settle(simulator, peer)
        eth, bsc = simulator.ledger.started(OWN), simulator.ledger.started(asked(OWN), variables)
        assert eth is not None
        assert bsc is not None
        assert eth < bsc
        owed = [(cube, row) for _, cube, row in simulator.ledger.rows(asked(OWN), variables)]
        assert simulator.ledger.verdict(asked(OWN), owed, variables).exact
        assert simulator.ledger.started(asked(OWN), {"n": "base"}) is None
        with pytest.raises(LookupError):
            simulator.ledger.verdict(asked(OWN), owed, {"n": "base"})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "other",
    [
        ENLARGED.replace("eth", "bsc"),
        ENLARGED.replace("DEXTrades", "DEXTrades(where: {Trade: {Index: {lt: 5}}})"),
        ENLARGED.replace("DEXTrades", "DEXTrades(limit: {count: 5})"),
        ENLARGED.replace("Amount", "AmountInUSD"),
        OWN.replace("} } } }", "} } count } }"),
    ],
)
async def test_a_document_that_asks_for_other_rows_is_not_taken_for_the_enlarged_one(other: str) -> None:
    async with Simulator(**QUICK) as simulator, subscribed(simulator, document=other) as peer:
        await peer.data()
        assert simulator.ledger.started(OWN) is None
        with pytest.raises(LookupError):
            simulator.ledger.verdict(OWN, [])
        await simulator.blocks(2)
        await peer.subscribe(ENLARGED, "2")
        await peer.catch_up()
        await settle(simulator, peer)
        begun = simulator.ledger.started(OWN)
        assert begun == simulator.ledger.started(ENLARGED)
        assert begun > simulator.ledger.started(other)  # type: ignore[operator]


@pytest.mark.asyncio
async def test_a_document_with_more_in_it_is_not_taken_for_one_that_went_live_itself() -> None:
    """Its rows are owed from its own start; without one of its own, from that of the greater."""
    greater = OWN.replace("Amount", "Amount PriceInUSD")
    async with Simulator(**QUICK) as simulator, subscribed(simulator, document=greater) as peer:
        await peer.data()
        first = simulator.ledger.verdict(OWN, []).emitted
        assert first > 0
        assert simulator.ledger.started(OWN) is None
        await simulator.blocks(3)
        await peer.subscribe(OWN, "2")
        await peer.catch_up()
        await settle(simulator, peer)
        assert simulator.ledger.started(OWN) > simulator.ledger.started(greater)  # type: ignore[operator]
        assert simulator.ledger.verdict(OWN, []).emitted < simulator.ledger.verdict(greater, []).emitted


@pytest.mark.asyncio
async def test_an_aggregate_has_no_form_but_its_own() -> None:
    sums = "subscription { EVM(network: eth) { DEXTrades { Trade { Dex { ProtocolName } } count } } }"
    finer = sums.replace("count }", "count bqs_Block: Block { Number } }")
    async with Simulator(**QUICK) as simulator, subscribed(simulator, document=finer) as peer:
        await peer.data()
        assert simulator.ledger.started(sums) is None
        with pytest.raises(LookupError):
            simulator.ledger.verdict(sums, [])


@pytest.mark.asyncio
async def test_a_copy_from_before_the_start_in_its_second_is_early_and_a_copy_too_many_is_repeated() -> None:
    coarse = "subscription { EVM(network: eth) { DEXTrades { Block { Time } } } }"
    async with Simulator(**QUICK) as simulator:
        await simulator.blocks(2)
        async with subscribed(simulator, document=coarse) as peer:
            await peer.data()
            await settle(simulator, peer)
            (first, *_), rows = simulator.ledger.rows(coarse), peer.rows
        before = [
            (cube, row)
            for emission, cube, row in simulator.ledger.rows(coarse, since=0)
            if emission.sequence < first[0].sequence and emission.block.time == first[0].block.time
        ]
        verdict = simulator.ledger.verdict(coarse, rows + before)
        assert verdict.exact
        assert verdict.early == len(before)
        verdict = simulator.ledger.verdict(coarse, [*rows, *before, rows[0]])
        assert (verdict.early, verdict.repeated, verdict.lost, verdict.foreign) == (len(before), 1, 0, 0)


@pytest.mark.asyncio
async def test_variables_are_part_of_what_was_asked() -> None:
    document = TRADES.replace("subscription", "subscription ($n: Network)").replace("eth", "$n")
    async with Simulator(**QUICK) as simulator, subscribed(simulator) as peer:
        await peer.subscribe(document, "2", variables={"n": "bsc"})
        await peer.data()
        await simulator.blocks(2)
        await settle(simulator, peer)
        bsc = [(cube, row) for _, cube, row in simulator.ledger.rows(document, {"n": "bsc"})]
        assert simulator.ledger.verdict(document, bsc, {"n": "bsc"}).exact
        eth = [(cube, row) for _, cube, row in simulator.ledger.rows(TRADES)]
        assert len(peer.rows) == len(bsc) + len(eth)
        assert simulator.ledger.verdict(TRADES, bsc).foreign == len(bsc)


def test_json_floats_are_left_out_of_the_comparison() -> None:
    assert canonical("A", {"b": 1.5, "a": ["1.5", {"c": 2.0}]}) == canonical(
        "A", {"a": ["1.5", {"c": 9.0}], "b": 0.1}
    )
    assert canonical("A", {"b": 1}) != canonical("A", {"b": 2})
    assert canonical("A", {"b": "1.5"}) != canonical("A", {"b": "2.5"})


@pytest.mark.asyncio
async def test_the_ledger_can_be_asked_over_http() -> None:
    async with Simulator(**QUICK) as simulator:
        rows = await a_run(simulator)
        async with http() as session:
            async with session.get(simulator.ledger_url) as response:
                (fingerprint,) = (await response.json())["documents"]
            async with session.get(simulator.ledger_url, params={"document": fingerprint}) as response:
                lines = [msgspec.json.decode(line) for line in (await response.read()).splitlines()]
            assert sorted(str(line["row"]) for line in lines) == sorted(str(row) for _, row in rows)
            assert [line["sequence"] for line in lines] == sorted(line["sequence"] for line in lines)
            asked = {"document": TRADES, "rows": rows[1:]}
            async with session.post(simulator.ledger_url, json=asked) as response:
                verdict = await response.json()
            assert (verdict["lost"], verdict["exact"], verdict["emitted"]) == (1, False, len(rows))
            for wrong in (
                {},
                {"document": "subscription {"},
                {"document": TRADES.replace("DEXTrades", "Calls")},
            ):
                async with session.post(simulator.ledger_url, json=wrong) as response:
                    assert response.status == 400
            async with session.get(simulator.ledger_url, params={"document": "none"}) as response:
                assert response.status == 404
