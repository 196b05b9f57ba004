from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bqstream.simulator.answers import Prepared, Refusal, View, prepare, rows_of
from bqstream.simulator.chain import Block, Chain

TRANSFERS = """{ EVM(network: eth) { Transfers%s {
  Block { Number Time Date Hash } Transaction { Hash Index Nonce } Log { Index }
  Transfer { Index Amount AmountInUSD Sender Receiver Success Currency { Symbol SmartContract Decimals } }
} } }"""


def asked(document: str, variables: dict[str, Any] | None = None, name: str | None = None) -> Prepared:
    return prepare(document, variables, name)


def emitted(prepared: Prepared, *blocks: Block) -> list[dict[str, Any]]:
    found = [prepared.portion(block, index) for block in blocks for index in range(block.portions)]
    return [data for data in found if data is not None]


def rows(*data: dict[str, Any]) -> list[Any]:
    return [row for one in data for _, row in rows_of(one)]


def counted(found: list[Any]) -> Counter[bytes]:
    return Counter(msgspec.json.encode(row) for row in found)


def mined(chain: Chain, blocks: int) -> list[Block]:
    return [chain.mine() for _ in range(blocks)]


def answered(chain: Chain, document: str, variables: dict[str, Any] | None = None, **view: Any) -> list[Any]:
    return rows(asked(document, variables).answer(chain, View(**view))["data"])


def refused(
    document: str, variables: dict[str, Any] | None = None, name: str | None = None
) -> dict[str, Any]:
    with pytest.raises(Refusal) as caught:
        prepare(document, variables, name)
    (error,) = caught.value.errors
    return error


# --- what a row is ------------------------------------------------------------------------------------------------


def test_a_row_has_the_document_s_own_shape_and_the_service_s_own_forms() -> None:
    chain = Chain(transactions=30)
    mined(chain, 3)
    found = answered(chain, TRANSFERS % "")
    assert all(list(row) == ["Block", "Transaction", "Log", "Transfer"] for row in found)
    row = found[0]
    assert re.fullmatch(r"\d+", row["Block"]["Number"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["Block"]["Time"])
    assert row["Block"]["Time"].startswith(row["Block"]["Date"])
    assert re.fullmatch(r"0x[0-9a-f]{64}", row["Transaction"]["Hash"])
    assert re.fullmatch(r"0x[0-9a-f]{40}", row["Transfer"]["Sender"])
    assert type(row["Transaction"]["Index"]) is int
    assert isinstance(row["Transfer"]["Currency"]["Decimals"], int)
    wide = [
        row["Transfer"]["Amount"]
        for row in found
        if repr(float(row["Transfer"]["Amount"])) != row["Transfer"]["Amount"]
    ]
    assert len(wide) > len(found) / 2, "most amounts are wider than a double"


def test_forms_differ_by_chain_and_cube() -> None:
    chain = Chain()
    chain.mine()
    solana = answered(
        chain,
        "{ Solana { DEXTrades { Block { Slot Height } Transaction { Signature }"
        " Trade { Buy { PriceInUSD Account { Address } } } } } }",
    )[0]
    assert re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{88}", solana["Transaction"]["Signature"])
    assert re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{44}", solana["Trade"]["Buy"]["Account"]["Address"])
    assert isinstance(solana["Trade"]["Buy"]["PriceInUSD"], float)
    assert int(solana["Block"]["Height"]) < int(solana["Block"]["Slot"])
    tron = answered(chain, "{ Tron { Transfers { Transfer { Sender } Transaction { Hash } } } }")[0]
    assert re.fullmatch(r"T[1-9A-HJ-NP-Za-km-z]{33}", tron["Transfer"]["Sender"])
    event = answered(chain, "{ EVM { Events { Transaction { Index Gas } } } }")[0]
    assert isinstance(event["Transaction"]["Index"], str)
    assert isinstance(event["Transaction"]["Gas"], str)
    pair = answered(
        chain,
        "{ Trading { Pairs { Price { Ohlc { Close } } Volume { Usd } Interval { Time { Start End Duration } } } } }",
    )[0]
    assert isinstance(pair["Price"]["Ohlc"]["Close"], float)
    assert isinstance(pair["Volume"]["Usd"], float)
    assert pair["Interval"]["Time"]["Start"] < pair["Interval"]["Time"]["End"]


def test_every_row_has_its_own_index_in_its_block() -> None:
    chain = Chain()
    for block in mined(chain, 5):
        found = rows(*emitted(asked("subscription" + TRANSFERS % ""), block))
        assert len({row["Log"]["Index"] for row in found}) == len(found)


def test_one_transaction_is_the_same_in_every_cube_and_another_on_every_network() -> None:
    chain = Chain()
    chain.mine()

    def hashes(root: str, cube: str) -> set[str]:
        return {
            row["Transaction"]["Hash"]
            for row in answered(chain, f"{{ {root} {{ {cube} {{ Transaction {{ Hash }} }} }} }}")
        }

    assert (
        hashes("EVM", "Transfers") == hashes("EVM(network: eth)", "Events") == hashes("EVM", "Transactions")
    )
    assert not hashes("EVM", "Transfers") & hashes("EVM(network: bsc)", "Transfers")
    assert not hashes("EVM", "Transfers") & hashes("EVM(mempool: true)", "Transfers")


def test_the_blocks_cube_has_one_row_for_each_block() -> None:
    chain = Chain()
    blocks = mined(chain, 4)
    prepared = asked("subscription { EVM { Blocks { Block { Number Hash ParentHash TxCount } } } }")
    found = rows(*emitted(prepared, *blocks))
    assert [row["Block"]["Hash"] for row in found] == [block.hash for block in blocks]
    assert [row["Block"]["ParentHash"] for row in found] == [block.parent_hash for block in blocks]
    assert [row["Block"]["TxCount"] for row in found] == [block.content.transactions for block in blocks]


def test_an_argument_s_value_is_of_one_type_and_only_that_fragment_fills_it() -> None:
    chain = Chain(transactions=40)
    mined(chain, 4)
    document = """{ EVM { Events { Arguments { Name Type Value { __typename
      ... on EVM_ABI_Address_Value_Arg { address } ... on EVM_ABI_BigInt_Value_Arg { bigInteger } } } } } }"""
    arguments = [argument for row in answered(chain, document) for argument in row["Arguments"]]
    kinds = Counter(argument["Value"]["__typename"] for argument in arguments)
    assert len(kinds) == 6
    for argument in arguments:
        value = dict(argument["Value"])
        kind = value.pop("__typename")
        assert list(value) == {
            "EVM_ABI_Address_Value_Arg": ["address"],
            "EVM_ABI_BigInt_Value_Arg": ["bigInteger"],
        }.get(kind, [])
        assert None not in value.values()
    assert {a["Type"] for a in arguments if "address" in a["Value"]} == {"address"}


def test_aliases_fragments_variables_and_directives_are_resolved() -> None:
    chain = Chain()
    chain.mine()
    document = """query Q($network: evm_network = bsc, $deep: Boolean!, $where: EVM_Transfer_Filter) {
      chain: EVM(network: $network) {
        all: Transfers(where: $where) { ...row Transfer { value: Amount @include(if: $deep) } }
      }
    }
    fragment row on EVM_Transfers {
      Transfer { Sender ... on Anything { to: Receiver } } Log @skip(if: $deep) { Index }
    }"""
    shallow = prepare(document, {"deep": False}, "Q").answer(chain)["data"]["chain"]["all"]
    deep = prepare(document, {"deep": True}, "Q").answer(chain)["data"]["chain"]["all"]
    assert [list(row) for row in shallow[:1]] == [["Transfer", "Log"]]
    assert list(deep[0]["Transfer"]) == ["Sender", "to", "value"]
    assert [row["Transfer"]["Sender"] for row in shallow] == [row["Transfer"]["Sender"] for row in deep]
    one = {"Transfer": {"Sender": {"is": deep[0]["Transfer"]["Sender"]}}}
    filtered = prepare(document, {"deep": True, "where": one}, "Q").answer(chain)["data"]["chain"]["all"]
    assert deep[0] in filtered
    assert len(filtered) < len(deep)


def test_scalar_roots_and_scalars_beside_cubes_are_answered_once_a_block() -> None:
    chain = Chain()
    blocks = mined(chain, 3)
    counter = asked("subscription { counter }")
    assert emitted(counter, *blocks) == [{"counter": block.number} for block in blocks]
    head = asked("subscription { newHead { number hash } }")
    assert list(rows_of(emitted(head, blocks[0])[0])) == [
        ("number", blocks[0].number),
        ("hash", blocks[0].hash),
    ]
    assert counter.cubes == ("counter",)
    assert head.cubes == ("number", "hash")


# --- subscriptions ------------------------------------------------------------------------------------------------


def test_a_document_asked_for_twice_is_the_same_and_emits_the_same() -> None:
    document = "subscription" + TRANSFERS % ""
    assert asked(document) is asked(document, {})
    assert asked(document).kind == "subscription"
    assert asked(document).cubes == ("Transfers",)
    assert asked(document).fingerprint != asked(document + " ").fingerprint
    block = Chain().mine()
    assert emitted(asked(document), block) == emitted(asked(document), block)


def test_a_message_keeps_the_key_of_every_cube_and_is_none_without_a_row() -> None:
    chain = Chain(transactions=2, portions=4)
    prepared = asked(
        """subscription { EVM { few: Transfers(where: {Transaction: {Nonce: {lt: 100}}}) { Transfer { Amount } }
        more: DEXTrades { Trade { Index } } } }"""
    )
    assert prepared.cubes == ("few", "more")
    portions = [prepared.portion(block, index) for block in mined(chain, 10) for index in range(4)]
    assert None in portions
    data = [portion for portion in portions if portion]
    assert all(list(one["EVM"]) == ["few", "more"] for one in data)
    assert any(one["EVM"]["few"] == [] for one in data)
    assert {key for one in data for key, _ in rows_of(one)} == {"few", "more"}


def test_a_filter_finds_rows_soon_and_the_unfiltered_subscription_has_them_too() -> None:
    chain = Chain()
    one = asked(
        "subscription"
        + TRANSFERS
        % """(where: {Transfer: {Currency: {Symbol: {is: "WETH"}}, Amount: {gt: "1000", lt: "2000"},
          Receiver: {in: ["0xaa", "0xbb"]}, Success: true}})"""
    )
    every = asked("subscription" + TRANSFERS % "")
    emitted(one, chain.mine())
    blocks = mined(chain, 10)
    found = rows(*emitted(one, *blocks))
    assert len(found) > 20
    assert {row["Transfer"]["Receiver"] for row in found} == {"0xaa", "0xbb"}
    assert all(row["Transfer"]["Currency"]["Symbol"] == "WETH" for row in found)
    assert all(1000 < float(row["Transfer"]["Amount"]) < 2000 for row in found)
    unfiltered = counted(rows(*emitted(every, *blocks)))
    assert counted(found) <= unfiltered
    assert unfiltered.total() > 2 * len(found)


def test_a_nonce_is_uniform_and_never_learned_so_that_a_filter_can_be_sparse() -> None:
    chain = Chain(transactions=100)
    prepared = asked("subscription" + TRANSFERS % "(where: {Transaction: {Nonce: {lt: 10}}})")
    emitted(prepared, chain.mine())
    blocks = mined(chain, 20)
    share = len(rows(*emitted(prepared, *blocks))) / len(
        rows(*emitted(asked("subscription" + TRANSFERS % ""), *blocks))
    )
    assert 0.003 < share < 0.03


def test_rows_may_be_equal_where_little_is_selected() -> None:
    chain = Chain(transactions=50)
    found = rows(
        *emitted(
            asked("subscription { EVM { Transfers { Transfer { Currency { Symbol } } } } }"), chain.mine()
        )
    )
    assert max(counted(found).values()) > 1


def test_a_portion_holds_every_row_unless_the_document_sets_a_limit() -> None:
    block = Chain(transactions=1000, portions=1).mine()
    every = "subscription { EVM { Transfers%s { Transfer { Index } } } }"
    assert len(rows(*emitted(asked(every % ""), block))) > 1500
    assert len(rows(*emitted(asked(every % "(limit: {count: 1200})"), block))) == 1200
    assert len(rows(*emitted(asked(every % "(limit: {count: 3, offset: 1})"), block))) == 3


def test_a_fork_emits_the_same_heights_again_with_other_hashes() -> None:
    chain = Chain()
    mined(chain, 5)
    prepared = asked("subscription" + TRANSFERS % "")
    old = list(chain.blocks())[-2:]
    before, after = rows(*emitted(prepared, *old)), rows(*emitted(prepared, *chain.fork(2)))
    assert {row["Block"]["Number"] for row in before} == {row["Block"]["Number"] for row in after}
    assert not {row["Block"]["Hash"] for row in before} & {row["Block"]["Hash"] for row in after}
    assert {row["Transaction"]["Hash"] for row in before} & {row["Transaction"]["Hash"] for row in after}
    assert counted(answered(chain, TRANSFERS % "")) >= counted(after)


# --- queries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    ["", '(where: {Transfer: {Sender: {is: "0x1"}}})', "(where: {Transaction: {Nonce: {ge: 500}}})"],
)
def test_a_query_over_a_range_brings_what_the_subscription_emitted_over_it(where: str) -> None:
    chain = Chain()
    prepared = asked("subscription" + TRANSFERS % where)
    emitted(prepared, chain.mine())
    blocks = mined(chain, 30)
    inside = blocks[4:20]
    bounds = f'{{Block: {{Number: {{ge: "{inside[0].number}", le: "{inside[-1].number}"}}}}}}'
    both = where[:-1].replace("(where: ", f"(where: [{bounds}, ") + "])" if where else f"(where: {bounds})"
    found = answered(chain, TRANSFERS % both)
    assert found
    assert counted(found) == counted(rows(*emitted(prepared, *inside)))


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ('Number: {gt: "N2", lt: "N5"}', [3, 4]),
        ('Number: {eq: "N2"}', [2]),
        ('Number: {in: ["N2", "N4"]}', [2, 4]),
        ('Time: {since: "2026-01-01T00:00:02Z", till: "2026-01-01T00:00:04Z"}', [2, 3, 4]),
        ('Time: {after: "2026-01-01T00:00:02", before: "2026-01-01T00:00:04.5Z"}', [3, 4]),
        ('Time: {is: "2026-01-01T00:00:02Z"}', [2]),
        ("Time: {since_relative: {seconds_ago: 2}}", [7, 8, 9]),
        ('Date: {after: "2026-01-01"}', []),
        ('Date: {since: "2026-01-01"}, Number: {ge: "N8"}', [8, 9]),
    ],
)
def test_a_range_is_by_number_time_or_date(bounds: str, kept: list[int]) -> None:
    chain = Chain()
    blocks = mined(chain, 10)
    for n, block in enumerate(blocks):
        bounds = bounds.replace(f"N{n}", str(block.number))
    found = answered(chain, f"{{ EVM {{ Blocks(where: {{Block: {{{bounds}}}}}) {{ Block {{ Hash }} }} }} }}")
    assert [row["Block"]["Hash"] for row in found] == [blocks[n].hash for n in kept]


def test_a_query_sees_no_block_above_what_it_may() -> None:
    chain = Chain()
    blocks = mined(chain, 6)
    found = answered(chain, "{ Solana { Blocks { Block { Slot } } } }", upto=blocks[3].number)
    assert [row["Block"]["Slot"] for row in found] == [str(block.number) for block in blocks[:4]]
    assert asked("{ EVM { Blocks { Block { Number } } } }").answer(Chain()) == {
        "data": {"EVM": {"Blocks": []}}
    }


def test_rows_of_an_answer_are_capped_and_paged() -> None:
    chain = Chain()
    mined(chain, 10)
    every = answered(chain, TRANSFERS % "")
    assert answered(chain, TRANSFERS % "", row_cap=25) == every[:25]
    assert answered(chain, TRANSFERS % "(limit: {count: 40})", row_cap=25) == every[:25]
    assert answered(chain, TRANSFERS % "(limit: {count: 10, offset: 15})") == every[15:25]
    assert answered(chain, TRANSFERS % "(limit: {count: 10, offset: 9999})") == []


def by_time(row: Any) -> Any:
    return row["Block"]["Time"]


def by_amount(row: Any) -> float:
    return float(row["Transfer"]["Amount"])


@pytest.mark.parametrize(
    ("order", "key", "down"),
    [
        ("descending: Block_Time", by_time, True),
        ("ascending: Block_Number", by_time, False),
        ("descending: Transfer_Amount", by_amount, True),
        ("ascending: Transfer_Amount", by_amount, False),
        ('descendingByField: "Transfer_Amount"', by_amount, True),
    ],
)
def test_an_answer_is_ordered_before_it_is_limited(order: str, key: Callable[[Any], Any], down: bool) -> None:
    chain = Chain(block_interval=0.3)
    mined(chain, 30)
    every = sorted(answered(chain, TRANSFERS % ""), key=key, reverse=down)
    found = answered(chain, TRANSFERS % f"(orderBy: {{{order}}}, limit: {{count: 50, offset: 3}})")
    assert [key(row) for row in found] == [key(row) for row in every[3:53]]
    assert counted(found).total() == 50


def test_several_orders_apply_one_after_the_other() -> None:
    chain = Chain()
    mined(chain, 5)
    found = answered(
        chain, TRANSFERS % "(orderBy: [{descending: Block_Number}, {ascending: Transfer_Index}])"
    )
    keys = [(-int(row["Block"]["Number"]), row["Transfer"]["Index"]) for row in found]
    assert keys == sorted(keys)


def test_limit_by_keeps_so_many_rows_of_each_key() -> None:
    chain = Chain()
    mined(chain, 10)
    found = answered(chain, TRANSFERS % "(limitBy: {by: [Transfer_Currency_Symbol, Block_Number], count: 2})")
    keys = Counter((row["Transfer"]["Currency"]["Symbol"], row["Block"]["Number"]) for row in found)
    assert set(keys.values()) == {1, 2}
    assert len(answered(chain, TRANSFERS % "(limitBy: {by: Transfer_Currency_Symbol, count: 1})")) == len(
        {k for k, _ in keys}
    )


def test_a_query_may_have_several_roots() -> None:
    chain = Chain()
    chain.mine()
    data = asked("{ EVM { Blocks { Block { Number } } } Solana { b: Blocks { Block { Slot } } } }").answer(
        chain
    )["data"]
    assert {key for key, _ in rows_of(data)} == {"Blocks", "b"}


# --- aggregates ---------------------------------------------------------------------------------------------------

AGGREGATE = """{ EVM { Transfers {
  Block { Number } Transfer { Currency { Symbol } last: Amount(maximum: Transfer_Index) }
  count n: count(distinct: Transaction_Hash) few: count(if: {Transfer: {Index: {lt: 5}}})
  sum(of: Transfer_Amount) median(of: Transfer_Index) q: quantile(of: Transfer_Index, level: 1)
  uniq(of: Transfer_Sender) average(of: Transfer_Index)
} } }"""


def test_a_metric_makes_one_row_for_each_group() -> None:
    chain = Chain(transactions=40)
    block = chain.mine()
    every = rows(*emitted(asked("subscription" + TRANSFERS % ""), block))
    prepared = asked("subscription" + AGGREGATE)
    (data,) = emitted(prepared, block)
    assert prepared.portion(block, block.portions - 1) == data
    groups: dict[str, list[Any]] = {}
    for row in every:
        groups.setdefault(row["Transfer"]["Currency"]["Symbol"], []).append(row)
    assert len(rows(data)) == len(groups) < len(every)
    for found in rows(data):
        members = groups[found["Transfer"]["Currency"]["Symbol"]]
        indices = sorted(row["Transfer"]["Index"] for row in members)
        assert found["Block"]["Number"] == str(block.number)
        assert found["count"] == str(len(members))
        assert found["n"] == str(len({row["Transaction"]["Hash"] for row in members}))
        assert found["few"] == str(sum(index < 5 for index in indices))
        assert found["sum"] == str(sum(Decimal(row["Transfer"]["Amount"]) for row in members))
        assert found["average"] == pytest.approx(sum(indices) / len(indices))
        assert found["median"] == statistics.median(indices)
        assert found["q"] == indices[-1]
        assert found["uniq"] == str(len({row["Transfer"]["Sender"] for row in members}))
        last = max(members, key=lambda row: int(row["Transfer"]["Index"]))
        assert found["Transfer"]["last"] == last["Transfer"]["Amount"]


def test_a_query_aggregates_over_the_whole_range() -> None:
    chain = Chain()
    mined(chain, 5)
    (row,) = answered(chain, "{ EVM { Transfers { count sum(of: Transfer_Index) } } }")
    every = answered(chain, TRANSFERS % "")
    assert row == {"count": str(len(every)), "sum": sum(r["Transfer"]["Index"] for r in every)}
    assert answered(chain, '{ EVM { Transfers(where: {Block: {Number: {lt: "1"}}}) { count } } }') == []


def test_a_group_can_be_selected_by_its_metric_and_ordered_by_it() -> None:
    chain = Chain()
    mined(chain, 5)
    document = """{ EVM { Transfers(orderBy: {descendingByField: "n"}) {
      Transfer { Currency { Symbol } } n: count(selectWhere: {ge: "3"}) } } }"""
    counts = [int(row["n"]) for row in answered(chain, document)]
    assert counts
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 3


def test_an_interval_rounds_times_down_to_groups() -> None:
    chain = Chain()
    mined(chain, 25)
    document = "{ EVM { Blocks { Block { Time(interval: {in: seconds, count: 10}) } count } } }"
    assert [(r["Block"]["Time"][-3:], r["count"]) for r in answered(chain, document)] == [
        ("00Z", "10"),
        ("10Z", "10"),
        ("20Z", "5"),
    ]


def test_calculate_reads_fields_and_what_was_selected_before_it() -> None:
    chain = Chain()
    chain.mine()
    document = """{ EVM { Transfers { Transfer { i: Index } twice: calculate(expression: "$Transfer_i * 2")
      again: calculate(expression: "round(($twice + Transfer_Index) / 7, 2)")
      none: calculate(expression: "1 / ($twice - $twice)")
      text: calculate(expression: "$Transfer_Sender + 1") } } }"""
    for row in answered(chain, document):
        index = row["Transfer"]["i"]
        assert row["twice"] == 2 * index
        assert row["again"] == pytest.approx(round(3 * index / 7, 2))
        assert row["none"] is None
        assert row["text"] is None


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_syntax_error_is_refused_with_its_place() -> None:
    error = refused("subscription {\n  EVM(network: ) { a }\n}")
    assert error["message"].startswith("Syntax Error")
    assert error["locations"] == [{"line": 2, "column": 16}]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            "subscription { EVM { Blocks { Block { Number } } } Solana { Blocks { Block { Slot } } } }",
            "only one top level field",
        ),
        (
            "subscription S { a: EVM { Blocks { Block { Number } } } b: ping }",
            'Subscription "S" must select only one',
        ),
        ("mutation { a }", "not configured for mutations"),
        ("fragment f on EVM { Blocks { Block { Number } } }", "Must provide an operation"),
        ("query A { a } query B { b }", "Must provide operation name"),
        ("{ EVM { ...f } }", 'Unknown fragment "f"'),
        ("{ EVM { ...f } } fragment f on EVM { ...f }", "holds itself"),
        ("{ EVM @skip(if: true) { Blocks { Block { Number } } } }", "Nothing is selected"),
        ("{ EVM { Blocks(limit: {count: $n}) { Block { Number } } } }", '"$n" is not defined'),
        (
            "query ($n: Int!) { EVM { Blocks(limit: {count: $n}) { Block { Number } } } }",
            'required type "Int!" was not provided',
        ),
        ("{ EVM { Blocks(limit: {count: -1}) { Block { Number } } } }", "not a number of rows"),
        ("{ EVM { Blocks { Block { a: Number a: Hash } } } }", "conflict"),
        (
            "{ EVM { Blocks(orderBy: {upwards: Block_Number}) { Block { Number } } } }",
            "'upwards' is not defined",
        ),
        ('{ EVM { Blocks(orderBy: {ascendingByField: "x"}) { Block { Number } } } }', "'x' is not selected"),
        ('{ EVM { Blocks { calculate(expression: "import os") } } }', "cannot read the expression"),
        ('{ EVM { Blocks { calculate(expression: "().__class__") } } }', "cannot read the expression"),
        ("{ EVM { Blocks { sum } } }", "of is missing"),
        ("{ EVM(mempool: true) { } }", "Syntax Error"),
    ],
)
def test_a_document_that_cannot_be_answered_is_refused(document: str, message: str) -> None:
    assert message in refused(document)["message"]


def test_a_missing_operation_or_variable_is_refused() -> None:
    assert refused("query A { a }", None, "B")["message"] == 'Unknown operation named "B".'
    assert "must not be null" in refused("query ($a: Int!) { b(c: $a) }", {"a": None})["message"]


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("{Transfer: {Amount: {above: 1}}}", "EVM.Transfers.where.Transfer.Amount"),
        ('{Transfer: {Amount: {gt: "much"}}}', "EVM.Transfers.where.Transfer.Amount"),
        ('{Transfer: {Amount: "1"}}', "EVM.Transfers.where.Transfer.Amount"),
        ("{is: 1}", "EVM.Transfers.where"),
        ('{Block: {Time: {since: "yesterday"}}}', "EVM.Transfers.where.Block.Time"),
        ("{Block: {Time: {since_relative: {moons_ago: 1}}}}", "EVM.Transfers.where.Block.Time"),
        ("{Transfer: {Sender: {includes: {is: 1}}}}", "EVM.Transfers.where.Transfer.Sender"),
        ("{Arguments: {is: 1}}", "EVM.Transfers.where.Arguments"),
        ("{Arguments: {Name: {is: 1}}}", "EVM.Transfers.where.Arguments"),
        ("{any: 5}", "EVM.Transfers.where"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_by_its_path(where: str, path: str) -> None:
    assert path in refused("subscription" + TRANSFERS % f"(where: {where})")["message"]


def test_a_tokens_price_wanders_and_the_trades_of_a_block_stand_close_to_each_other() -> None:
    chain = Chain(transactions=10)
    where = '(where: { Trade: { Currency: { SmartContract: { is: "0xa" } } } })'
    prepared = asked(
        f"{{ EVM {{ DEXTradeByTokens{where} {{ Block {{ Number }} Trade {{ PriceInUSD }} }} }} }}"
    )
    emitted(prepared, chain.mine())  # from now on there are trades of that token
    blocks: dict[str, list[float]] = {}
    for row in rows(*emitted(prepared, *mined(chain, 300))):
        blocks.setdefault(row["Block"]["Number"], []).append(row["Trade"]["PriceInUSD"])
    prices = [price for of_block in blocks.values() for price in of_block]
    assert max(prices) / min(prices) > 1.02
    assert max(max(of_block) / min(of_block) for of_block in blocks.values()) < 1.01
    assert len(set(prices)) > len(prices) / 2
