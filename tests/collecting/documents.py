"""What is collected, and how a row that was read back from columns is put together again as the service sent it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

# Two cubes, whose rows have keys, and what each kind of column holds: numbers as text, times, doubles, lists.
DOCUMENT = """subscription { EVM(network: eth) {
    Transfers {
        Block { Number Time Hash } Transaction { Hash From } Call { Index } Log { Index }
        Transfer { Index Type Amount AmountInUSD Success Currency { Symbol Fungible } }
    }
    Calls {
        Block { Number Time Hash } Transaction { Hash } Call { Index Success Signature { Name } }
        Arguments { Name Type }
    }
} }"""
TABLES = ("Transfers", "Calls")


def nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by columns, as the service nests it."""
    made: dict[str, Any] = {}
    for name, value in row.items():
        inside = made
        *above, last = name.split("_")
        for key in above:
            inside = inside.setdefault(key, {})
        inside[last] = _as_sent(name, value)
    return made


def rows_of(tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[tuple[str, Any]]:
    """What the ledger compares: each row with its cube."""
    return [(cube, nested(row)) for cube, rows in tables.items() for row in rows]


def _as_sent(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("Time"):
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if name == "Block_Number":
        return str(value)
    if name == "Arguments":
        return json.loads(value) if isinstance(value, str) else value
    if name.endswith(("Success", "Fungible")):
        return bool(value)
    return value
