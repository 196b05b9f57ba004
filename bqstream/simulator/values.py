"""What stands in a field: one table from a field's path to the function that makes its value.

There is no schema. A leaf (``EVM.DEXTrades.Trade.Buy.Amount``) is looked up by its path, the first rule that matches
wins, and the value follows from 64 random bits that belong to that leaf of that row. Forms are those of the service:
block numbers, gas and amounts as strings, USD prices as JSON floats, times in whole seconds (cubes/EVM, schema/evm).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from math import exp, sin
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .chain import Row

Path = tuple[str, ...]
Kind = Callable[["Row", "Leaf", int], Any]

BLOCK, TRANSACTION, ROW = range(3)  # whose random bits a leaf takes: Row.seeds is indexed by it
_SCOPES = {"Block": BLOCK} | dict.fromkeys(
    ("Transaction", "TransactionHeader", "TransactionStatus", "Receipt", "ChainId"), TRANSACTION
)
_MONOTONIC = {(name,) for name in ("Number", "Slot", "Height", "Time", "Date", "Timestamp")}
_OBJECT_LISTS = {"Arguments", "Accounts", "Topics", "Outcomes", "Returns"}
_VALUE_LISTS = {"CallPath", "AncestorIndexes", "Logs", "AccountNames", "Signatures", "OutcomeTokenIds"}


def mix(bits: int) -> int:
    """Scatter 64 bits (splitmix64): the only source of chance here."""
    bits = (bits + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return bits ^ (bits >> 31)


def salt(*parts: object) -> int:
    """64 bits that stand for these names or numbers, the same in every process."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


class Cube(NamedTuple):
    """Where rows stand: one network's cube, on the chain or in its mempool."""

    root: str
    network: str
    mempool: bool
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Leaf:
    """A field of a cube by its path from the row, below any root and network."""

    root: str
    cube: str
    path: Path
    kind: Kind = field(repr=False)
    salt: int = field(repr=False)
    parent: int = field(repr=False)  # salt of the enclosing object: its fields tell of one thing
    scope: int = field(repr=False)
    objects: bool = False  # a list of objects by nature
    values: bool = False  # a list of scalars by nature

    def __str__(self) -> str:
        return ".".join((self.root, self.cube, *self.path))

    @property
    def learnable(self) -> bool:
        """Whether a filter may pin it: not what follows from the block, and not the field that is kept uniform."""
        return self.scope != BLOCK and self.path[-1] != "Nonce" and self.kind is not interval

    @property
    def monotonic(self) -> bool:
        """Whether it never falls from one block to the next."""
        return self.path[0] == "Block" and self.path[1:] in _MONOTONIC

    @property
    def behind(self) -> bool:
        """Whether it is a time that is never after the block's own, as the start of an interval is."""
        return self.kind is interval and self.path[-1] == "Start"


@lru_cache(maxsize=65_536)
def leaf(root: str, cube: str, path: Path) -> Leaf:
    if len(path) > 1 and path[-2] == "Value":  # filters say Address where selections say address
        path = (*path[:-1], path[-1][:1].lower() + path[-1][1:])
    dotted = ".".join((root, cube, *path))
    kind = next(make for pattern, make in _RULES if pattern.search(dotted))
    return Leaf(
        root,
        cube,
        path,
        kind,
        salt(path),
        salt(path[:-1]),
        _SCOPES.get(path[0], ROW),
        objects=path[-1] in _OBJECT_LISTS,
        values=path[-1] in _VALUE_LISTS,
    )


# --- strings ------------------------------------------------------------------------------------------------------

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_TO_BASE58 = bytes(ord(_BASE58[byte % 58]) for byte in range(256))


def hexadecimal(bits: int, size: int = 32) -> str:
    return blake2b(bits.to_bytes(8, "big"), digest_size=size).hexdigest()


def base58(bits: int, length: int = 44) -> str:
    digest = blake2b(bits.to_bytes(8, "big")).digest() + blake2b(bits.to_bytes(9, "big")).digest()
    return digest[:length].translate(_TO_BASE58).decode()


def moment(time: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=65_536)
def address_of(root: str, number: int) -> str:
    bits = salt("address", number)
    if root == "Solana":
        return base58(bits)
    return "T" + base58(bits, 33) if root == "Tron" else "0x" + hexadecimal(bits, 20)


# --- kinds: how one value is made; bits are this leaf's own in this row ---------------------------------------------


def address(row: Row, leaf: Leaf, bits: int) -> str:
    return address_of(leaf.root, bits % 4096)


def digest(row: Row, leaf: Leaf, bits: int) -> str:
    if leaf.root == "Solana":
        return base58(bits)
    return hexadecimal(bits) if leaf.root == "Tron" else "0x" + hexadecimal(bits)


def signature(row: Row, leaf: Leaf, bits: int) -> str:
    return base58(bits, 88)


def block_hash(row: Row, leaf: Leaf, bits: int) -> str:
    found = row.block.parent_hash if leaf.path[-1] == "ParentHash" else row.block.hash
    if leaf.root == "Solana":
        return base58(int(found[2:18], 16))
    return found[2:] if leaf.root == "Tron" else found


def number(row: Row, leaf: Leaf, bits: int) -> str:
    return str(row.block.number)


def height(row: Row, leaf: Leaf, bits: int) -> str:
    return str(row.block.number - 1_234_567)  # skipped slots: on Solana a height is less than its slot


def counter(row: Row, leaf: Leaf, bits: int) -> int:
    return row.block.number


def transaction_count(row: Row, leaf: Leaf, bits: int) -> int:
    return row.block.content.transactions


def transaction_index(row: Row, leaf: Leaf, bits: int) -> int | str:
    return row.transaction if leaf.cube == "Transfers" else str(row.transaction)  # Int or String by cube


def ordinal(row: Row, leaf: Leaf, bits: int) -> int:
    return row.ordinal


def time(row: Row, leaf: Leaf, bits: int) -> str:
    return moment(row.block.time)


def date(row: Row, leaf: Leaf, bits: int) -> str:
    return row.block.time.strftime("%Y-%m-%d")


def timestamp(row: Row, leaf: Leaf, bits: int) -> int:
    return int(row.block.time.timestamp())


def earlier(row: Row, leaf: Leaf, bits: int) -> str:
    return moment(row.block.time - timedelta(seconds=bits % 86_400))


def interval(row: Row, leaf: Leaf, bits: int) -> str:
    """Start or end of the interval that the block's time falls in."""
    duration = int(row.get(_sibling(leaf, "Duration")))
    start = row.block.time - timedelta(seconds=int(row.block.time.timestamp()) % max(duration, 1))
    return moment(start if leaf.path[-1] == "Start" else start + timedelta(seconds=duration))


def amount(row: Row, leaf: Leaf, bits: int) -> str:
    """A decimal string, mostly with more digits than a double holds."""
    whole = (bits >> 24) % 10 ** (1 + bits % 10)
    fraction = mix(bits) % 10**18
    return f"{whole}.{fraction:018d}" if leaf.root == "EVM" else f"{whole}.{fraction // 10**9:09d}"


def integral(row: Row, leaf: Leaf, bits: int) -> str:
    return str(21_000 + bits % 30_000_000)


def price(row: Row, leaf: Leaf, bits: int) -> float:
    return round((1 + bits % 9_999_999) / 10.0 ** (1 + (bits >> 32) % 7), 9)


@lru_cache(maxsize=4096)
def _market(token: str) -> tuple[float, float]:
    """What a token costs, about, and where in its waves it is at block 0."""
    bits = salt("market", token)
    return (1 + bits % 900 / 100) * 10.0 ** (bits % 5 - 2), bits % 628 / 100


def market(row: Row, leaf: Leaf, bits: int) -> float:
    """A token's price: it wanders from block to block, and the trades of a block stand close to each other."""
    token = "MintAddress" if leaf.root == "Solana" else "SmartContract"
    base, phase = _market(row.get(_sibling(leaf, "Currency", token)))
    at = row.block.number
    wave = 0.03 * sin(at / 41 + phase) + 0.01 * sin(at / 7 + 2 * phase) + 0.004 * (bits % 1000 / 500 - 1)
    return round(base * exp(wave), 9)


def quantity(row: Row, leaf: Leaf, bits: int) -> float:
    return round((bits % 10**12) / 10.0 ** (2 + (bits >> 48) % 5), 6)


def fraction(row: Row, leaf: Leaf, bits: int) -> float:
    return bits % 10_000 / 10_000


def uniform(row: Row, leaf: Leaf, bits: int) -> int:
    return bits % 1000  # `lt: 10` lets one row in a hundred pass


def small(row: Row, leaf: Leaf, bits: int) -> int:
    return bits % 8


def identifier(row: Row, leaf: Leaf, bits: int) -> str:
    return str(bits % 10**15)


def flag(row: Row, leaf: Leaf, bits: int) -> bool:
    return bool(bits & 1)


def mostly(row: Row, leaf: Leaf, bits: int) -> bool:
    return bits % 16 != 0


def seldom(row: Row, leaf: Leaf, bits: int) -> bool:
    return bits % 16 == 0


def nothing(row: Row, leaf: Leaf, bits: int) -> str:
    return ""


def data(row: Row, leaf: Leaf, bits: int) -> str:
    return hexadecimal(bits, 4 + bits % 60)


def link(row: Row, leaf: Leaf, bits: int) -> str:
    return f"ipfs://{base58(bits)}"


def word(row: Row, leaf: Leaf, bits: int) -> str:
    return _WORDS[bits % len(_WORDS)]


def text(row: Row, leaf: Leaf, bits: int) -> str:
    return " ".join(_WORDS[(bits >> shift) % len(_WORDS)] for shift in range(0, 40, 8)).capitalize()


def numbers(row: Row, leaf: Leaf, bits: int) -> list[int]:
    return [(bits >> shift) % 8 for shift in range(0, 4 * (bits % 4), 4)]


def texts(row: Row, leaf: Leaf, bits: int) -> list[str]:
    return [text(row, leaf, mix(bits + n)) for n in range(bits % 4)]


def tokens(row: Row, leaf: Leaf, bits: int) -> list[str]:
    return [identifier(row, leaf, mix(bits + n)) for n in range(1 + bits % 2)]


def typename(row: Row, leaf: Leaf, bits: int) -> str:
    if leaf.path[-2:-1] == ("Value",):
        return f"{leaf.root}_ABI_{_UNION[bits % (6 if leaf.root != 'Solana' else 8)]}_Value_Arg"
    return "_".join((leaf.root, leaf.cube, *leaf.path[:-1]))


def argument_type(row: Row, leaf: Leaf, bits: int) -> str:
    chosen = row.get(_sibling(leaf, "Value", "__typename")).split("_")[2]
    return _ABI_TYPES.get(chosen, "bytes")


def objects(row: Row, leaf: Leaf, bits: int) -> int:
    return 1 + bits % 4  # how many; the row makes them


def one_of(*choices: Any) -> Kind:
    return lambda row, leaf, bits: choices[bits % len(choices)]


def when(union: str, kind: Kind) -> Kind:
    """The value of an ABI argument, null unless the argument is of that type."""

    def make(row: Row, leaf: Leaf, bits: int) -> Any:
        chosen = row.get(_sibling(leaf, "__typename"))
        return kind(row, leaf, bits) if chosen.split("_")[2] == union else None

    return make


def asset(column: str) -> Kind:
    """A field of a currency: symbol, name, address and decimals of one object agree."""

    def make(row: Row, leaf: Leaf, bits: int) -> Any:
        which = mix(row.seeds[leaf.scope] ^ leaf.parent) % len(_ASSETS)
        symbol, name, decimals = _ASSETS[which]
        if column == "address":
            return address_of(leaf.root, 10_000 + which)
        if column == "id":
            known = address_of("EVM", 10_000 + which) if leaf.path[-2].endswith("Token") else None
            return f"bid:eth:{known}" if known else f"bid:{symbol.lower()}"
        told = {"symbol": symbol, "name": name, "decimals": decimals}
        return (told | {"native": which == 0, "fungible": which < 28})[column]

    return make


def _sibling(here: Leaf, *names: str) -> Leaf:
    return leaf(here.root, here.cube, (*here.path[:-1], *names))


_UNION = ("Address", "BigInt", "Integer", "String", "Boolean", "Bytes", "Float", "Json")
_ABI_TYPES = {
    "Address": "address",
    "BigInt": "uint256",
    "Integer": "int",
    "String": "string",
    "Boolean": "bool",
}
_WORDS = ("alpha", "amber", "birch", "cedar", "coral", "delta", "ember", "fjord", "glade", "grove", "heron", "iris",
          "jade", "kestrel", "larch", "maple", "north", "onyx", "pearl", "quartz", "raven", "sable", "tide", "umber",
          "vale", "willow", "yarrow", "zephyr")  # fmt: skip
_ASSETS = [("ETH", "Ether", 18), ("USDC", "USD Coin", 6), ("USDT", "Tether USD", 6), ("WETH", "Wrapped Ether", 18),
           *((w[:4].upper(), f"{w.capitalize()} Token", 6 + 3 * (n % 5)) for n, w in enumerate(_WORDS))]  # fmt: skip
_METHODS = one_of("transfer", "swap", "approve", "mint", "burn", "deposit", "withdraw", "create")
_PROTOCOLS = one_of("uniswap_v2", "uniswap_v3", "raydium_amm", "orca_whirlpool", "pancake_swap_v3", "curve")
_NETWORKS = one_of("Ethereum", "Solana", "Base", "Binance Smart Chain", "Arbitrum", "Matic", "Optimism")
_OF_ASSET = r"\.(\w*Currency[AB]?|Token|\w+Token|Asset|Pair)\."

# Searched in "Root.Cube.Path.To.Leaf", first match wins.
_RULES: list[tuple[re.Pattern[str], Kind]] = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"\.__typename$", typename),
        # a block
        (r"\.Block\.(Number|Slot)$", number),
        (r"\.Block\.Height$", height),
        (r"\.Block\.Time$", time),
        (r"\.Block\.Date$", date),
        (r"\.Block\.(Hash|ParentHash)$", block_hash),
        (r"\.Block\.TxCount$", transaction_count),
        (r"^\w+\.\.(hash|Hash)$", block_hash),
        (r"^\w+\.\.(time|Time)$", time),
        (r"^\w+\.\.\w+$", counter),  # a scalar beside the cubes, or in their place
        (r"Timestamp$", timestamp),
        (r"Interval\.Time\.(Start|End)$", interval),
        (r"Duration$", one_of(1, 3, 5, 10, 30, 60, 300, 900, 1800, 3600)),
        (r"TargetVolume$", one_of(1_000, 10_000, 100_000, 1_000_000)),
        (r"Transaction\.Time$", time),
        (r"(CreatedAt|Time|At)$", earlier),
        (_OF_ASSET + r"Decimals$", asset("decimals")),
        # order and counts
        (r"(Transaction|TransactionHeader)\.Index$", transaction_index),
        (r"(Outcome|Outcomes|CallerIndex|Caller)(\.Index)?$", small),
        (r"(Index|SeqNumber)$", ordinal),
        (r"\.Nonce$", uniform),
        (r"(Count|Calls|Depth|Leverage|Share|Nonce|Standard|Version|Decimals)$", small),
        (r"ReasonCode$", one_of(1, 2, 3, 5, 7, 10, 12, 13, 14)),
        (r"BasisPoints$", one_of(10, 50, 100, 200, 500, 1000)),
        (r"ChainId$", one_of("1")),
        (r"Status$", one_of("1", "1", "1", "0")),
        # lists
        (rf"\.({'|'.join(sorted(_OBJECT_LISTS))})$", objects),
        (r"(CallPath|AncestorIndexes)$", numbers),
        (r"(Logs|AccountNames)$", texts),
        (r"(Signatures|OutcomeTokenIds)$", tokens),
        # the union of argument values
        (r"\.Value\.address$", when("Address", address)),
        (r"\.Value\.bigInteger$", when("BigInt", integral)),
        (r"\.Value\.integer$", when("Integer", uniform)),
        (r"\.Value\.string$", when("String", text)),
        (r"\.Value\.bool(ean)?$", when("Boolean", flag)),
        (r"\.Value\.(hex|bytes)$", when("Bytes", data)),
        (r"\.Value\.float$", when("Float", price)),
        (r"\.Value\.json$", when("Json", lambda row, leaf, bits: f'{{"a":{bits % 1000}}}')),
        (r"\.Arguments\.Type$", argument_type),
        # currencies
        (_OF_ASSET + r"Symbol$", asset("symbol")),
        (_OF_ASSET + r"Name$", asset("name")),
        (_OF_ASSET + r"Native$", asset("native")),
        (_OF_ASSET + r"Fungible$", asset("fungible")),
        (_OF_ASSET + r"(SmartContract|MintAddress|Address|Mint)$", asset("address")),
        (r"^Trading\." + r".*\.(Currency|Token|QuoteToken|QuoteCurrency)\.(Id|Did)$", asset("id")),
        (r"Symbol$", asset("symbol")),
        # yes or no
        (r"(Success|Fungible|IsMutable)$", mostly),
        (r"(Reverted|Removed|Delegated|SelfDestruct|Create|IsCross|Wrapped)$", seldom),
        (r"\.(Is|Has)[A-Z]\w*$", flag),
        (r"(Native|Parsed|Owns|ReduceOnly|VolumeBased|PrimarySaleHappened|VerifiedCollection)$", flag),
        (r"(Error|ErrorMessage|FaultError|Errors|Message)$", nothing),
        # numbers
        (r"^Trading\..*(Supply\.\w+|Volume\.\w+|Amounts\w*\.\w+|Attributed\w+)$", quantity),
        (r"Asymmetry$", fraction),
        (r"(Gas|GasUsed|BaseFee|Tid|Oid|GasPrice|GasFeeCap|GasTipCap)$", integral),
        (r"\.Trade\.(Buy\.|Sell\.)?PriceInUSD$", market),
        (r"(Price|PriceIn\w+|Px|BestAsk|BestBid|Mark|Trigger)$|Price\.(Ohlc|Average)\.\w+$", price),
        (
            r"(Amount\w*|\w+InUSD|Balance|Value|Cost|Fee|Supply|Size\w*|Sz|Base|Quote|Filled|Pnl|Limit\w+|Usd)$",
            amount,
        ),
        # names
        (r"SignatureHash$", lambda row, leaf, bits: hexadecimal(bits % 64, 32)),
        (r"\.Signature\.Signature$", lambda row, leaf, bits: f"{_METHODS(row, leaf, bits)}(address,uint256)"),
        (r"(\.Signature\.Name|Method)$", _METHODS),
        (r"Transaction\.Signature$", signature),
        (r"(Hash|PoolId|ConditionId|QuestionId|MixDigest|Root)$", digest),
        (r"(ProtocolName|Protocol|ProtocolFamily)$", _PROTOCOLS),
        (r"\.Network$", _NETWORKS),
        (r"NetworkBid$", one_of("bid:eth", "bid:solana", "bid:base", "bid:bsc", "bid:robinhood")),
        (r"(Side|Side\.Type|Direction)$", one_of("buy", "sell")),
        (r"Transfer\.Type$", one_of("token", "call", "transfer")),
        (r"Kind$", one_of("perp", "spot")),
        (r"Label$", one_of("Yes", "No", "Up", "Down")),
        (r"(Data|Input|Output|Bloom)$", data),
        (r"(Uri|URI|Image|ResolutionSource)$", link),
        (r"(Title|Description)$", text),
        (
            r"(Address|SmartContract|From|To|Sender|Receiver|Buyer|Seller|Owner|Signer|FeePayer|Payer|Trader|User|Holder"
            r"|Oracle|Coinbase|Authority|Mint|Program|ProgramId|Contract)$",
            address,
        ),
        (r"(Id|Did|Key)$", identifier),
        (r"", word),
    )
]
