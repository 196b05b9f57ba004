"""Which fields name a row of a cube for certain: the table of key fields.

A false identity would drop rows, a missing one only costs a comparison by content. So a cube stands here only where
the docs name a field that counts the rows of one transaction (or block), and the cube is seen there with every field
of its key. Not here, and why:

- ``DEXTradeByTokens``: several rows of one swap, no documented counter of them (cubes/dextradesbyTokens);
- ``DEXPoolEvents``, ``DEXPoolSlippages``, ``Prediction*``, Tron's cubes of logs and transfers, Solana's ``DEXPools``,
  ``TokenSupplyUpdates`` and ``InstructionBalanceUpdates``: no documented counter;
- ``TransactionBalances``: one address may change for one reason more than once in a transaction;
- ``Trading.Trades``: what blockchain/robinhood/pools-trade-api names is content, and true copies occur under it;
- ``Trading.Tokens``, ``Pairs``, ``Currencies``: a row of an interval is sent again each time it changes;
- Hyperliquid's cubes: its blocks have no documented hash, so a key would not tell a row from the same one on another
  branch.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cursor import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """The key fields of a cube.

    Attributes:
        of: paths that say whose row it is, the block's hash first: in every row of the cube there is a value.
        within: paths that tell apart the rows that agree in those; null is a value (a transfer of the native
            currency stands in no log).
        inferred: the docs show the counter but do not say that it tells all rows apart.
    """

    of: tuple[Path, ...]
    within: tuple[Path, ...] = ()
    inferred: bool = False

    @property
    def fields(self) -> tuple[Path, ...]:
        """Every path, in the order of a key."""
        return self.of + self.within


def identity_of(root: str, cube: str, *, mempool: bool = False) -> Identity | None:
    """The identity of a cube's rows; None where they have none.

    A row of the mempool stands in no block, and its transaction comes once (subscriptions/mempool-subscriptions): its
    key is that of the same cube less what belongs to the block.
    """
    known = _TABLE.get((root, cube))
    if known is None or not mempool:
        return known
    of = tuple(path for path in known.of if path[0] != "Block")
    return Identity(of, known.within, known.inferred) if of else None


def _paths(dotted: str) -> tuple[Path, ...]:
    return tuple(tuple(path.split(".")) for path in dotted.split())


def _key(of: str, within: str = "", *, inferred: bool = False) -> Identity:
    return Identity(_paths(of), _paths(within), inferred)


_TRANSACTION = "Block.Hash Transaction.Hash"
_SIGNATURE = "Block.Hash Transaction.Signature"
_SEQUENCE = "Instruction.ExternalSeqNumber Instruction.InternalSeqNumber"

_TABLE: dict[tuple[str, str], Identity] = {
    ("EVM", "Blocks"): _key("Block.Hash"),
    ("EVM", "Transactions"): _key(_TRANSACTION),
    # schema/evm/calls, cubes/EVM: a call's Index is its position in the transaction.
    ("EVM", "Calls"): _key(_TRANSACTION, "Call.Index"),
    # schema/evm/events: whether a log is counted in its call or in the transaction, both together tell it.
    ("EVM", "Events"): _key(_TRANSACTION, "Call.Index Log.Index"),
    # blockchain/Ethereum/transfers/erc20-token-transfer-api: this order positions every transfer uniquely.
    ("EVM", "Transfers"): _key(_TRANSACTION, "Call.Index Log.Index Transfer.Index Transfer.Type"),
    # cubes/dextrades: the trades of a transaction follow Trade_Index.
    ("EVM", "DEXTrades"): _key(_TRANSACTION, "Call.Index Log.Index Trade.Index", inferred=True),
    ("Solana", "Blocks"): _key("Block.Hash Block.Slot"),
    ("Solana", "Transactions"): _key(_SIGNATURE),
    # cubes/solana: Index is the instruction's position in the transaction; the sequence numbers place inner ones.
    ("Solana", "Instructions"): _key(_SIGNATURE, f"Instruction.Index {_SEQUENCE}"),
    ("Solana", "Transfers"): _key(_SIGNATURE, "Instruction.Index Transfer.Index", inferred=True),
    ("Solana", "DEXTrades"): _key(_SIGNATURE, f"{_SEQUENCE} Trade.Index", inferred=True),
    # A transaction's balances before and after are listed once for each account, of one mint.
    ("Solana", "BalanceUpdates"): _key(
        _SIGNATURE, "BalanceUpdate.Account.Address BalanceUpdate.Currency.MintAddress", inferred=True
    ),
    ("Solana", "Rewards"): _key("Block.Hash Block.Slot", "Reward.Index Reward.Address", inferred=True),
    ("Solana", "DEXOrders"): _key(
        _SIGNATURE, "Instruction.Index OrderEvent.Index OrderEvent.Type", inferred=True
    ),
    ("Tron", "Blocks"): _key("Block.Hash"),
    ("Tron", "Transactions"): _key(_TRANSACTION),
}
