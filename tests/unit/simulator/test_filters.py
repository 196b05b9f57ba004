"""Every operator, asked of rows and taught to a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bqstream.simulator.answers import prepare, rows_of
from bqstream.simulator.chain import Chain

CALLS = """{ EVM { Calls%s {
  Call { Index Value Success Depth CallPath From Signature { Name } }
  Arguments { Index Name Type Value {
    ... on EVM_ABI_Address_Value_Arg { address } ... on EVM_ABI_BigInt_Value_Arg { bigInteger }
  } }
} } }"""
Row = dict[str, Any]


def answered(chain: Chain, where: str) -> list[Row]:
    document = CALLS % (f"(where: {where})" if where else "")
    return [row for _, row in rows_of(prepare(document, None, None).answer(chain)["data"])]


def name(row: Row) -> str:
    return str(row["Call"]["Signature"]["Name"])


def value(row: Row) -> float:
    return float(row["Call"]["Value"])


def names(row: Row) -> list[str]:
    return [argument["Name"] for argument in row["Arguments"]]


CASES: list[tuple[str, Callable[[Row], bool]]] = [
    ('{Call: {Signature: {Name: {is: "swap"}}}}', lambda r: name(r) == "swap"),
    ('{Call: {Signature: {Name: {not: "swap"}}}}', lambda r: name(r) != "swap"),
    ('{Call: {Signature: {Name: {in: ["swap", "mint"]}}}}', lambda r: name(r) in ("swap", "mint")),
    ('{Call: {Signature: {Name: {notIn: ["swap", "mint"]}}}}', lambda r: name(r) not in ("swap", "mint")),
    ('{Call: {Signature: {Name: {includes: "p"}}}}', lambda r: "p" in name(r)),
    ('{Call: {Signature: {Name: {notIncludes: "p"}}}}', lambda r: "p" not in name(r)),
    ('{Call: {Signature: {Name: {includesCaseInsensitive: "AP"}}}}', lambda r: "ap" in name(r).lower()),
    ('{Call: {Signature: {Name: {startsWith: "tr"}}}}', lambda r: name(r).startswith("tr")),
    ('{Call: {Signature: {Name: {endsWith: "t"}}}}', lambda r: name(r).endswith("t")),
    ('{Call: {Signature: {Name: {like: "_wa%"}}}}', lambda r: name(r)[1:3] == "wa"),
    ('{Call: {Signature: {Name: {like: "swap.*"}}}}', lambda r: name(r) == "swap.*"),
    ("{Call: {Signature: {Name: {isNull: false}}}}", lambda r: True),
    ("{Call: {Success: true}}", lambda r: bool(r["Call"]["Success"])),
    ("{Call: {Success: {eq: false}}}", lambda r: not r["Call"]["Success"]),
    ("{Call: {Depth: {eq: 3}}}", lambda r: r["Call"]["Depth"] == 3),
    ("{Call: {Depth: {ne: 3}}}", lambda r: r["Call"]["Depth"] != 3),
    ('{Call: {Depth: {gt: "2", le: 5}}}', lambda r: 2 < r["Call"]["Depth"] <= 5),
    ("{Call: {Depth: {in: [1, 2]}}}", lambda r: r["Call"]["Depth"] in (1, 2)),
    ('{Call: {Value: {ge: "1000", lt: "9000000"}}}', lambda r: 1000 <= value(r) < 9_000_000),
    ("{Call: {Value: {gt: 0.5}}}", lambda r: value(r) > 0.5),
    ("{Call: {CallPath: {length: {eq: 2}}}}", lambda r: len(r["Call"]["CallPath"]) == 2),
    ("{Call: {CallPath: {includes: {eq: 5}}}}", lambda r: 5 in r["Call"]["CallPath"]),
    ("{Call: {CallPath: {excludes: {eq: 5}}}}", lambda r: 5 not in r["Call"]["CallPath"]),
    ("{Call: {CallPath: {startsWith: {eq: 5}}}}", lambda r: r["Call"]["CallPath"][:1] == [5]),
    ("{Call: {CallPath: {notEndsWith: {ge: 2}}}}", lambda r: not r["Call"]["CallPath"][-1:] >= [2]),
    ('{Arguments: {includes: {Name: {is: "amber"}}}}', lambda r: "amber" in names(r)),
    (
        '{Arguments: {includes: [{Name: {is: "amber"}}, {Name: {is: "iris"}}]}}',
        lambda r: {"amber", "iris"} <= set(names(r)),
    ),
    (
        '{Arguments: {startsWith: {Index: {eq: 0}, Name: {is: "amber"}}}}',
        lambda r: names(r)[:1] == ["amber"],
    ),
    ("{Arguments: {length: {ge: 4}}}", lambda r: len(names(r)) >= 4),
    (
        '{Arguments: {includes: {Value: {Address: {is: "0xcafe"}}}}}',
        lambda r: any(a["Value"].get("address") == "0xcafe" for a in r["Arguments"]),
    ),
    (
        '{Arguments: {includes: {Value: {BigInteger: {ge: "20000000"}}}}}',
        lambda r: any(int(a["Value"].get("bigInteger", 0)) >= 20_000_000 for a in r["Arguments"]),
    ),
    (
        '{any: [{Call: {Depth: {eq: 1}}}, {Call: {Signature: {Name: {is: "swap"}}}}], Call: {Success: true}}',
        lambda r: r["Call"]["Success"] and (r["Call"]["Depth"] == 1 or name(r) == "swap"),
    ),
    (
        "[{Call: {Depth: {eq: 1}}}, {Call: {Success: true}}]",
        lambda r: r["Call"]["Depth"] == 1 and r["Call"]["Success"],
    ),
    ("{Call: {Depth: {gt: null}, Signature: null}}", lambda r: True),
]


@pytest.fixture(scope="module")
def chain() -> Chain:
    chain = Chain(transactions=20)
    for where, _ in CASES:
        answered(chain, where)  # taught before the blocks are mined
    for _ in range(16):
        chain.mine()
    return chain


@pytest.mark.parametrize(("where", "passes"), CASES, ids=[where for where, _ in CASES])
def test_a_filter_brings_just_the_rows_that_pass_it(
    chain: Chain, where: str, passes: Callable[[Row], bool]
) -> None:
    found = answered(chain, where)
    assert found == [row for row in answered(chain, "") if passes(row)]
    assert found


@pytest.mark.parametrize(
    "where",
    [
        '{Call: {From: {is: "0xaa"}, Value: {ge: "123456789012345678901234567890.5"}}}',
        '{Call: {From: {startsWith: "0xabc"}, Signature: {Name: {endsWith: "Swap"}}}}',
        '{Call: {Signature: {Name: {includes: "very rare"}}, Depth: {eq: 77}, CallPath: {includes: {eq: 9}}}}',
        '{Arguments: {length: {eq: 9}, includes: [{Name: {is: "a"}, Value: {Address: {is: "b"}}}, {Index: {eq: 7}}]}}',
        '{any: [{Call: {From: {is: "a"}}}, {Call: {Signature: {Name: {is: "b"}}}}], Call: {Value: {lt: "0.001"}}}',
        '{Call: {Value: {gt: "5", lt: "5.1"}, Success: false}}',
    ],
)
def test_what_chance_would_never_bring_comes_by_itself_within_a_few_blocks(where: str) -> None:
    chain = Chain()
    assert answered(chain, where) == []
    for _ in range(10):
        chain.mine()
    assert len(answered(chain, where)) > 10


def test_what_was_mined_before_a_filter_was_asked_for_stays_as_it_was() -> None:
    chain = Chain()
    for _ in range(5):
        chain.mine()
    before = answered(chain, "")
    assert answered(chain, '{Call: {From: {is: "0xnew"}}}') == []
    assert answered(chain, "") == before


def test_the_same_filter_with_another_range_is_not_learned_twice() -> None:
    chain = Chain()
    chain.mine()
    for number in range(5):
        answered(chain, f'{{Block: {{Number: {{ge: "{number}"}}}}, Call: {{From: {{is: "0xaa"}}}}}}')
    assert sum(len(known) for known in chain.lessons.profiles.values()) == 1
