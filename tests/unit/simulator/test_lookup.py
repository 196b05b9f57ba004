"""What a query finds on the query side: datasets, half blocks, prices, order and pages, and how little it looks at."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from bqstream.simulator.answers import Failure, Prepared, Refusal, View, prepare, rows_of
from bqstream.simulator.chain import Block, Chain, Content
from bqstream.simulator.values import Cube, moment

FIELDS = """Block { Number Time } Transaction { Hash Index } Log { Index }
  Transfer { Amount AmountInUSD Currency { Symbol } }"""
NUMBERS = "{ %s { Blocks%s { Block { Number } } } }"
FLOATS = "{ Solana { DEXTrades%s { Block { Slot } Trade { Index Buy { Amount PriceInUSD } Sell { PriceInUSD } } } } }"


def mined(blocks: int, **options: Any) -> Chain:
    chain = Chain(**options)
    for _ in range(blocks):
        chain.mine()
    return chain


def answered(chain: Chain, document: str, view: View | None = None) -> list[Any]:
    return [row for _, row in rows_of(prepare(document, None, None).answer(chain, view)["data"])]


def transfers(chain: Chain, arguments: str = "", view: View | None = None) -> list[Any]:
    arguments = f"({arguments})" if arguments else ""
    return answered(chain, f"{{ EVM {{ Transfers{arguments} {{ {FIELDS} }} }} }}", view)


def numbers(chain: Chain, root: str, view: View | None = None, arguments: str = "") -> list[int]:
    return [int(row["Block"]["Number"]) for row in answered(chain, NUMBERS % (root, arguments), view)]


def counted(rows: list[Any]) -> Counter[bytes]:
    return Counter(msgspec.json.encode(row) for row in rows)


# --- datasets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("", slice(-6, None)),
        ("(dataset: realtime)", slice(-6, None)),
        ("(dataset: archive)", slice(None, -3)),
        ("(dataset: combined)", slice(None)),
    ],
)
def test_a_dataset_holds_its_own_part_of_the_chain_and_says_nothing_of_the_rest(
    arguments: str, kept: slice
) -> None:
    chain = mined(20)
    view = View(realtime_window=5.0, archive_lag=3.0)
    every = [block.number for block in chain.blocks()]
    assert numbers(chain, f"EVM{arguments}", view) == every[kept]
    whole = f'(where: {{Block: {{Number: {{ge: "{every[0]}", le: "{every[-1]}"}}}}}})'
    assert numbers(chain, f"EVM{arguments}", view, whole) == every[kept]
    assert numbers(chain, f"Tron{arguments}", view) == every[kept]
    assert numbers(chain, f"EVM{arguments}") == every


def test_a_window_rolls_on_with_the_head() -> None:
    chain = mined(20)
    view = View(realtime_window=5.0)
    floor = numbers(chain, "EVM", view)[0]
    chain.mine()
    assert numbers(chain, "EVM", view)[0] == floor + 1
    assert answered(Chain(), NUMBERS % ("EVM", ""), view) == []


def test_the_window_can_be_probed_as_the_service_s_pages_say() -> None:
    chain = mined(20)
    probe = "oldest: Time(minimum: Block_Time) newest: Time(maximum: Block_Time)"
    document = f"{{ EVM {{ Transfers(limit: {{count: 1}}) {{ Block {{ {probe} }} }} }} }}"
    (row,) = answered(chain, document, View(realtime_window=5.0))
    assert chain.head is not None
    oldest, newest = moment(chain.head.time - timedelta(seconds=5)), moment(chain.head.time)
    assert row == {"Block": {"oldest": oldest, "newest": newest}}


@pytest.mark.parametrize(
    ("root", "cube", "fails"),
    [
        ("Solana", "Transfers", True),
        ("Solana", "Blocks", True),
        ("EVM", "Events", True),
        ("EVM", "Calls", True),
        ("EVM", "Transfers", False),
        ("Tron", "Events", False),
    ],
)
def test_the_combined_dataset_fails_where_the_service_s_does(root: str, cube: str, fails: bool) -> None:
    chain = mined(3)

    def ask(dataset: str) -> Prepared:
        return prepare(f"{{ {root}(dataset: {dataset}) {{ {cube} {{ Block {{ Time }} }} }} }}", None, None)

    for dataset in ("realtime", "archive"):
        assert ask(dataset).answer(chain)["data"][root][cube]
    if fails:
        with pytest.raises(Failure, match="500"):
            ask("combined").answer(chain)
    else:
        assert ask("combined").answer(chain)["data"][root][cube]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("query { EVM(trigger_on: head) { Blocks { Block { Number } } } }", "argument 'trigger_on'"),
        ("query { EVM(trigger_on: null) { Blocks { Block { Number } } } }", "argument 'trigger_on'"),
        ("query { EVM(dataset: yesterday) { Blocks { Block { Number } } } }", "invalid value (yesterday)"),
        ("subscription { EVM(dataset: archive) { Blocks { Block { Number } } } }", "argument 'dataset'"),
        ("subscription { EVM(dataset: combined) { Blocks { Block { Number } } } }", "argument 'dataset'"),
    ],
)
def test_an_argument_that_a_root_does_not_take_is_refused(document: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        prepare(document, None, None)
    assert message in refused.value.errors[0]["message"]


def test_a_subscription_may_name_the_dataset_that_it_has_anyway() -> None:
    document = "subscription { EVM(dataset: realtime, trigger_on: head) { Blocks { Block { Number } } } }"
    assert prepare(document, None, None).kind == "subscription"


# --- half blocks --------------------------------------------------------------------------------------------------


def test_a_query_sees_of_a_half_block_the_portions_that_were_emitted() -> None:
    chain = mined(5, transactions=40, portions=4)
    last = list(chain.blocks())[-1]
    below = View(upto=last.number - 1)
    whole = transfers(chain, view=below)
    subscription = prepare(f"subscription {{ EVM {{ Transfers {{ {FIELDS} }} }} }}", None, None)
    sent: list[Any] = []
    for index in range(last.portions):
        seen = transfers(chain, view=View(upto=last.number - 1, portions=index))
        assert counted(seen) == counted(whole + sent)
        data = subscription.portion(last, index)
        sent += [row for _, row in rows_of(data)] if data else []
    assert counted(transfers(chain)) == counted(whole + sent)
    head = transfers(chain, "limit: {count: 1}, orderBy: {descending: Block_Number}", below)
    assert head[0]["Block"]["Number"] == str(last.number - 1)


# --- prices -------------------------------------------------------------------------------------------------------


def floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from floats(inner)


def without_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_floats(inner) for key, inner in value.items()}
    return "float" if isinstance(value, float) else value


def test_floats_are_priced_anew_by_a_query_and_nothing_else_is() -> None:
    chain = mined(6)
    streamed = answered(chain, FLOATS % "")
    queried = answered(chain, FLOATS % "", View(reprice=0.01))
    assert [without_floats(row) for row in streamed] == [without_floats(row) for row in queried]
    pairs = list(zip(floats(streamed), floats(queried), strict=True))
    assert all(one != other and abs(other / one - 1) <= 0.01 for one, other in pairs)
    assert {other > one for one, other in pairs} == {True, False}
    assert len({round(other / one, 9) for one, other in pairs}) > len(pairs) / 2


def test_a_row_s_price_is_the_same_in_every_query() -> None:
    chain = mined(6)
    view = View(reprice=0.5)
    queried = answered(chain, FLOATS % "", view)
    assert answered(chain, FLOATS % "", view) == queried
    slot = queried[0]["Block"]["Slot"]
    ranged = answered(chain, FLOATS % f'(where: {{Block: {{Slot: {{eq: "{slot}"}}}}}})', view)
    assert ranged == [row for row in queried if row["Block"]["Slot"] == slot]


def test_a_filter_asks_of_the_price_that_was_streamed_and_an_order_goes_by_the_one_that_is_shown() -> None:
    chain = mined(6)
    view = View(reprice=0.5)
    dear = FLOATS % "(where: {Trade: {Buy: {PriceInUSD: {gt: 100}}}})"
    assert len(answered(chain, dear, view)) == len(answered(chain, dear)) > 0
    ordered = answered(chain, FLOATS % "(orderBy: {ascending: Trade_Buy_PriceInUSD})", view)
    prices = [row["Trade"]["Buy"]["PriceInUSD"] for row in ordered]
    assert prices == sorted(prices)


# --- order and pages ----------------------------------------------------------------------------------------------


def at(block: Block) -> str:
    return moment(block.time)


def test_a_range_is_paged_without_losing_or_repeating_a_row() -> None:
    chain = mined(40, transactions=20, block_interval=0.4)
    blocks = list(chain.blocks())[8:30]
    bounds = f'Number: {{ge: "{blocks[0].number}", le: "{blocks[-1].number}"}}'
    times = f'Time: {{since: "{at(blocks[0])}", till: "{at(blocks[-1])}"}}'
    inside = f"where: {{Block: {{{bounds}, {times}}}}}"
    order = (
        "orderBy: [{ascending: Block_Number}, {ascending: Transaction_Hash}, {ascending: Log_Index}, "
        "{ascending: Transfer_Amount}]"
    )
    pages = []
    for offset in itertools.count(0, 50):
        page = transfers(chain, f"{inside}, {order}, limit: {{count: 50, offset: {offset}}}")
        pages.append(page)
        if len(page) < 50:
            break
    paged = [row for page in pages for row in page]
    every = transfers(chain, inside)
    assert counted(paged) == counted(every)
    assert len(pages) > 5
    assert {int(row["Block"]["Number"]) for row in every} == {block.number for block in blocks}

    def key(row: Any) -> tuple[int, str, int, float]:
        index, amount = row["Log"]["Index"], float(row["Transfer"]["Amount"])
        return int(row["Block"]["Number"]), row["Transaction"]["Hash"], index, amount

    assert list(map(key, paged)) == sorted(map(key, every))


def test_a_range_may_be_of_slots_heights_or_starts_of_intervals() -> None:
    chain = mined(40)
    blocks = list(chain.blocks())
    first, last = blocks[10], blocks[19]
    slots = f'(where: {{Block: {{Slot: {{ge: "{first.number}", le: "{last.number}"}}}}}})'
    document = "{ Solana { Transfers%s { Block { Slot Height } Transaction { Signature } } } }"
    by_slot = answered(chain, document % slots)
    assert {row["Block"]["Slot"] for row in by_slot} == {str(block.number) for block in blocks[10:20]}
    heights = [int(row["Block"]["Height"]) for row in by_slot]
    higher = f'(where: {{Block: {{Height: {{ge: "{min(heights)}", le: "{max(heights)}"}}}}}})'
    assert answered(chain, document % higher) == by_slot

    tokens = "{ Trading { Tokens%s { Interval { Time { Start End Duration } } Token { Id } } } }"
    every = answered(chain, tokens % "")
    span = f'(where: {{Interval: {{Time: {{Start: {{since: "{at(first)}", till: "{at(last)}"}}}}}}}})'

    def start(row: Any) -> str:
        return str(row["Interval"]["Time"]["Start"])

    inside = answered(chain, tokens % span)
    assert inside == [row for row in every if at(first) <= start(row) <= at(last)]
    assert len({row["Interval"]["Time"]["Duration"] for row in inside}) > 2
    head = answered(chain, tokens % "(limit: {count: 3}, orderBy: {descending: Interval_Time_Start})")
    assert list(map(start, head)) == sorted(map(start, every), reverse=True)[:3]


def test_several_aliases_of_a_cube_have_each_its_own_range_order_and_limit() -> None:
    chain = mined(20, transactions=4)
    blocks = list(chain.blocks())
    number = blocks[7].number
    document = f"""{{ EVM {{
      bqs_head_x: Transfers(limit: {{count: 1}}, orderBy: {{descending: Block_Number}}) {{ Block {{ Number Time }} }}
      bqs_floor: Transfers(limit: {{count: 1}}, orderBy: {{ascending: Block_Time}}) {{ Block {{ Number Time }} }}
      one: Transfers(where: {{Block: {{Number: {{eq: "{number}"}}}}}}) {{ {FIELDS} }}
      rest: Transfers(where: {{Block: {{Number: {{gt: "{number}"}}}}}}) {{ {FIELDS} }}
      Blocks(where: {{Block: {{Number: {{lt: "{number}"}}}}}}) {{ Block {{ Number }} }}
    }} }}"""
    data = prepare(document, None, None).answer(chain)["data"]["EVM"]
    assert data["bqs_head_x"] == [{"Block": {"Number": str(blocks[-1].number), "Time": at(blocks[-1])}}]
    assert data["bqs_floor"] == [{"Block": {"Number": str(blocks[0].number), "Time": at(blocks[0])}}]
    assert data["one"] + data["rest"] == transfers(chain, f'where: {{Block: {{Number: {{ge: "{number}"}}}}}}')
    assert len(data["Blocks"]) == 7


@pytest.mark.parametrize("order", ["", "orderBy: {ascending: Transfer_Currency_Symbol}"])
def test_equal_rows_stay_as_many_as_they_are_through_order_and_pages(order: str) -> None:
    chain = mined(10, transactions=30)
    document = "{ EVM { Transfers(%s) { Transfer { Currency { Symbol } } } } }"
    every = answered(chain, document.replace("(%s)", ""))
    paged = []
    for offset in range(0, len(every), 40):
        paged += answered(chain, document % f"{order} limit: {{count: 40, offset: {offset}}}")
    assert max(counted(every).values()) > 10
    assert counted(paged) == counted(every)


@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_null_stands_last_in_any_order_and_empty_strings_are_equal(direction: str) -> None:
    chain = mined(6, transactions=20)
    document = f"{{ EVM {{ Calls(orderBy: {{{direction}: Value_bool}}) {{ Value {{ bool }} }} }} }}"
    found = [row["Value"]["bool"] for row in answered(chain, document)]
    some = [one for one in found if one is not None]
    assert 0 < len(some) < len(found)
    assert found == sorted(some, reverse=direction == "descending") + [None] * (len(found) - len(some))
    order = f"[{{{direction}: Call_Error}}, {{descending: Call_Index}}]"
    rows = answered(chain, f"{{ EVM {{ Calls(orderBy: {order}) {{ Call {{ Error Index }} }} }} }}")
    indices = [row["Call"]["Index"] for row in rows]
    assert {row["Call"]["Error"] for row in rows} == {""}
    assert indices == sorted(indices, reverse=True)


def test_amounts_are_ordered_by_their_whole_length() -> None:
    wide = ["-1", "10", "9007199254740993.000000000000000001", "9007199254740993.000000000000000002"]
    some = f"where: {{Transfer: {{Amount: {{in: {msgspec.json.encode(wide).decode()}}}}}}}"
    chain = Chain(transactions=40)
    transfers(chain, some)  # taught
    chain.mine()
    found = transfers(chain, f"{some}, orderBy: {{ascending: Transfer_Amount}}")
    assert list(dict.fromkeys(row["Transfer"]["Amount"] for row in found)) == wide


# --- how little is looked at --------------------------------------------------------------------------------------


class Looks:
    """Which blocks of a long chain a query makes rows of, and how many it looks at at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chain = mined(1000)
        self.rows: list[int] = []
        self.bare = 0
        make, bare = Content.rows, Block.bare

        def rows(content: Content, block: Block, cube: Cube) -> Any:
            self.rows.append(block.number)
            return make(content, block, cube)

        def look(block: Block) -> Any:
            self.bare += 1
            return bare(block)

        monkeypatch.setattr(Content, "rows", rows)
        monkeypatch.setattr(Block, "bare", look)


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [
        ('where: {Block: {Number: {ge: "N500", le: "N504"}}}', range(500, 505)),
        ('where: {Block: {Time: {since: "T500", till: "T504"}}}', range(500, 505)),
        (
            'where: {Block: {Number: {gt: "N1", lt: "N900"}, Time: {after: "T499", before: "T505"}}}',
            range(500, 505),
        ),
        ('where: [{Block: {Number: {ge: "N500", le: "N504"}}, Transfer: {Success: true}}]', range(500, 505)),
        ('where: {Block: {Number: {eq: "N7"}}}', range(7, 8)),
        ('where: {Block: {Time: {is: "T7"}}}', range(7, 8)),
        ('where: {Block: {Number: {in: ["N7", "N8"]}}}', range(7, 9)),
        ("limit: {count: 1}, orderBy: {descending: Block_Number}", range(999, 1000)),
        ("limit: {count: 1}, orderBy: {descending: Block_Time}", range(999, 1000)),
        ("limit: {count: 1}, orderBy: {ascending: Block_Number}", range(1)),
        ("limit: {count: 1}", range(1)),
        ('where: {Block: {Number: {ge: "N500"}}}, limit: {count: 1}', range(500, 501)),
        ('where: {Interval: {Time: {Start: {since: "T990"}}}}', range(990, 1000)),
        ("limit: {count: 1}, orderBy: {descending: Interval_Time_Start}", range(999, 1000)),
    ],
)
def test_a_query_makes_no_rows_of_blocks_that_it_can_do_without(
    monkeypatch: pytest.MonkeyPatch, arguments: str, blocks: range
) -> None:
    looks = Looks(monkeypatch)
    every = list(looks.chain.blocks())
    for n in sorted({1, 7, 8, 499, 500, 504, 505, 900, 990}, reverse=True):
        arguments = arguments.replace(f"N{n}", str(every[n].number)).replace(f"T{n}", at(every[n]))
    if "Interval" in arguments:
        document = (
            f"{{ Trading {{ Tokens({arguments}) {{ Interval {{ Time {{ Start }} }} Token {{ Id }} }} }} }}"
        )
    else:
        document = f"{{ EVM {{ Transfers({arguments}) {{ {FIELDS} }} }} }}"
    looks.rows.clear()
    prepared = prepare(document, None, None)
    assert [*rows_of(prepared.answer(looks.chain)["data"])]
    head = {999}  # is looked at for what may be asked beside the cubes
    assert {number - every[0].number for number in looks.rows} - head == set(blocks) - head
    assert looks.bare < 100


def test_a_probe_of_the_window_looks_at_its_two_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    answered(
        looks.chain,
        "{ EVM { Transfers { Block { a: Time(minimum: Block_Time) b: Number(maximum: Block_Time) } } } }",
    )
    assert len(set(looks.rows)) == 2
