"""Documents of every kind that a user may subscribe, each with response keys of its own.

The ledger tells by those keys which document a client has changed on its way (fields added); so no two may share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Doc:
    """One document.

    ``open_because`` is why its gaps can never be closed by a query, ``None`` where they can (design: closing a gap).
    ``sparse``: a row now and then, so that a hand-over mostly finds it quiet.
    """

    name: str
    text: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    open_because: str | None = None
    sparse: bool = False

    @property
    def closable(self) -> bool:
        return self.open_because is None

    def __repr__(self) -> str:
        return self.name


def _evm(selection: str, arguments: str = "network: eth") -> str:
    return f"subscription {{ EVM({arguments}) {{ {selection} }} }}"


_MOVE = (
    "Block { Number Time } Transfer { Amount Currency { Symbol } Sender Receiver } Transaction { Hash From }"
)
_SWAP = "Block { Number Hash } Trade { Buy { Amount Price PriceInUSD Currency { Symbol } } Sell { Amount } }"

DOCUMENTS: tuple[Doc, ...] = (
    Doc("transfers", _evm(f"Transfers {{ {_MOVE} }}")),
    Doc("trades", _evm(f"DEXTrades {{ {_SWAP} Transaction {{ Hash }} }}")),
    Doc("blocks", _evm("Blocks { Block { Number Hash Time } }")),
    Doc("two aliases of one cube", _evm(f"one: Transfers {{ {_MOVE} }} other: Transfers {{ {_MOVE} }}")),
    Doc(
        "several cubes",
        _evm(
            f"Moves: Transfers {{ {_MOVE} }} Swaps: DEXTrades {{ {_SWAP} }} Heads: Blocks {{ Block {{ Number }} }}"
        ),
    ),
    Doc(
        "a sparse filter",
        _evm(
            "Rare: Transactions(where: {Transaction: {Nonce: {lt: 10}}}) { Block { Number } Transaction { Hash } }"
        ),
        sparse=True,
    ),
    Doc("rows all alike", _evm("Alike: Transfers { Transfer { Success } }")),
    Doc("no cursor selected", _evm("Bare: DEXTrades { Trade { Buy { Amount } } Transaction { Hash } }")),
    Doc("an aliased cursor", _evm("Aliased: Transfers { at: Block { n: Number } Transfer { Amount } }")),
    Doc("a time for cursor", _evm("Timed: Transfers { Block { Time } Transfer { Amount Sender } }")),
    Doc(
        "slots",
        "subscription { Solana { Slots: Transfers {"
        " Block { Slot Time } Transfer { Amount } Transaction { Signature } } } }",
    ),
    Doc(
        "Trading by time",
        """subscription { Trading { Trades(where: {Block: {Time: {since_relative: {hours_ago: 1}}}}) {
             Block { Time } Side Price Amounts { Base Quote } Pair { Token { Symbol Address } } Trader { Address }
           } } }""",
    ),
    Doc(
        "no identity",
        _evm(
            "DEXTradeByTokens { Block { Number } Trade { Amount Price Side { Type } Currency { Symbol } }"
            " Transaction { Hash } }"
        ),
    ),
    Doc(
        "fragments and variables",
        """subscription Spread($network: evm_network!, $least: String) {
             EVM(network: $network) { ...cubes }
           }
           fragment cubes on EVM {
             Spread: Transfers(where: {Transfer: {Amount: {gt: $least}}}) { ...row Block { Number } }
           }
           fragment row on Transfer { Transfer { Amount Sender } Transaction { Hash } }""",
        {"network": "eth", "least": "1000"},
    ),
    Doc(
        "an aggregate",
        _evm("Counted: Transfers { Block { Number } Transfer { Currency { Symbol } } count }"),
        open_because="it aggregates",
    ),
    Doc(
        "the mempool",
        _evm("Pending: Transactions { Transaction { Hash From Nonce } }", "network: eth, mempool: true"),
        open_because="no query reaches the mempool",
    ),
    Doc(
        "a limit of its own",
        _evm(
            "Few: Transfers(limit: {count: 3}) { Block { Number } Transfer { Amount } Transaction { Hash } }"
        ),
        open_because="it has a limit of its own",
    ),
)
BY_NAME: Mapping[str, Doc] = {document.name: document for document in DOCUMENTS}
