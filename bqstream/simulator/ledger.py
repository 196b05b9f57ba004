"""What was emitted, and how what a client delivered compares with it.

The ledger keeps which portion of which block went out, in order, and computes rows when it is asked: a portion
gives the same rows for a document whenever it is asked for. So a document costs nothing while it streams, and an
outage is on record like anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from .answers import Prepared, prepare, rows_of
from .chain import Block

Row = tuple[str, bytes]
_EXAMPLES = 5
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Emission:
    """One portion of a block, as it went out. ``sequence`` counts from 1; ``time`` is in the loop's seconds."""

    sequence: int
    time: float
    block: Block
    portion: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many rows were owed and delivered, and what is wrong.

    ``emitted``   rows owed: emitted since the document first went live.
    ``lost``      owed and not delivered; ``repeated`` delivered more often than emitted; ``foreign`` never emitted.
    ``early``     delivered, and emitted before the document went live: neither owed nor wrong.
    ``examples``  a few rows of each kind of wrong, as text.
    """

    emitted: int
    delivered: int
    lost: int
    repeated: int
    foreign: int
    early: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether each row came exactly once."""
        return not (self.lost or self.repeated or self.foreign)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "exact": self.exact}


@dataclass(slots=True)
class _Account:
    """What one document is owed since it went live, counted so far."""

    prepared: Prepared
    started: int
    counted_to: int = 0
    rows: Counter[Row] = field(default_factory=Counter)


def canonical(cube: str, row: Any) -> Row:
    """A row as it is compared: sorted keys, and without JSON floats, which the query side prices anew."""
    return cube, _encode(_without_floats(row))


def _without_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_floats(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_floats(inner) for inner in value]
    return "float" if isinstance(value, float | Decimal) else value


class Ledger:
    """The record of all emissions. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._emissions: list[Emission] = []
        self._live: dict[str, tuple[Prepared, int]] = {}  # by fingerprint: since which emission
        self._alike: dict[str, list[tuple[Prepared, int]]] = {}  # the same, by what they ask for
        self._accounts: dict[str, _Account] = {}  # of the documents that were asked about

    @property
    def sequence(self) -> int:
        """How many portions were emitted."""
        return len(self._emissions)

    @property
    def fingerprints(self) -> list[str]:
        """The documents that ever went live."""
        return list(self._live)

    def emitted(self, block: Block, portion: int, time: float) -> None:
        """Record a portion, just before it is sent."""
        self._emissions.append(Emission(len(self._emissions) + 1, time, block, portion))

    def went_live(self, prepared: Prepared) -> None:
        """An operation with this document is live; only the first one counts."""
        if prepared.fingerprint not in self._live:
            self._live[prepared.fingerprint] = live = prepared, self.sequence
            self._alike.setdefault(prepared.frame, []).append(live)

    def started(
        self, document: str, variables: dict[str, Any] | None = None, *, operation_name: str | None = None
    ) -> int | None:
        """After which emission the document (or fingerprint) first went live, as it stands or enlarged by hidden
        fields; ``None`` if it never did.
        """
        prepared = self._prepared(document, variables, operation_name)
        return min(self._starts(prepared, Prepared.is_enlarged_by), default=None)

    def rows(
        self, document: str, variables: dict[str, Any] | None = None, *, since: int | None = None
    ) -> Iterator[tuple[Emission, str, Any]]:
        """Every owed row with the emission that carried it, oldest first; or every one after emission ``since``."""
        account = self._account(document, variables, None, since)
        for emission in self._emissions[account.started :]:
            for cube, row in _rows(account.prepared, emission):
                yield emission, cube, row

    def verdict(
        self,
        document: str,
        delivered: Iterable[Any],
        variables: dict[str, Any] | None = None,
        *,
        operation_name: str | None = None,
        since: int | None = None,
    ) -> Verdict:
        """Compare delivered rows with what was emitted since the document first went live.

        A row is ``(cube, row)``; or as a client hands it out, the row alone where the document has one cube, else
        ``{cube: row}``.
        ``document`` is a document's text or a fingerprint. What it is owed begins when it first went live, be it in the
        form that a client has enlarged: with fields added to its cubes under aliases. Failing both, with the first
        document that asks for all that it asks for, of the same rows; or in any case with the emission ``since``.

        Raises:
            LookupError: nothing like it ever went live.
        """
        account = self._account(document, variables, operation_name, since)
        owed = self._count(account)
        came = Counter(canonical(*pair) for pair in _pairs(account.prepared.cubes, delivered))
        lost, spare = owed - came, came - owed
        again = Counter({row: count for row, count in spare.items() if row in owed})
        unknown = spare - again
        early = unknown & self._before(account) if unknown else Counter[Row]()
        foreign = unknown - early
        # Of the second in which the document went live, an early row may be equal to one that is owed.
        early += again & self._before(account, same_second=True) if again else Counter[Row]()
        repeated = again - early
        wrong = {"lost": lost, "repeated": repeated, "foreign": foreign}
        return Verdict(
            emitted=owed.total(),
            delivered=came.total(),
            early=early.total(),
            examples={kind: _some(rows) for kind, rows in wrong.items() if rows},
            **{kind: rows.total() for kind, rows in wrong.items()},
        )

    def _prepared(self, document: str, variables: dict[str, Any] | None, name: str | None = None) -> Prepared:
        live = self._live.get(document)
        return live[0] if live else prepare(document, variables or {}, name)

    def _account(
        self,
        document: str,
        variables: dict[str, Any] | None = None,
        operation_name: str | None = None,
        since: int | None = None,
    ) -> _Account:
        prepared = self._prepared(document, variables, operation_name)
        start = self._owed_from(prepared) if since is None else since
        account = self._accounts.get(prepared.fingerprint)
        if account is None or account.started != start:
            account = _Account(prepared, start, start)
            if since is None:
                self._accounts[prepared.fingerprint] = account
        return account

    def _owed_from(self, prepared: Prepared) -> int:
        for is_in in (Prepared.is_enlarged_by, Prepared.is_held_by):
            if starts := self._starts(prepared, is_in):
                return min(starts)
        raise LookupError("no document that asks for these rows ever went live")

    def _starts(self, prepared: Prepared, is_in: Callable[[Prepared, Prepared], bool]) -> list[int]:
        return [start for live, start in self._alike.get(prepared.frame, ()) if is_in(prepared, live)]

    def _count(self, account: _Account) -> Counter[Row]:
        end = self.sequence
        for emission in self._emissions[account.counted_to : end]:
            account.rows.update(canonical(cube, row) for cube, row in _rows(account.prepared, emission))
        account.counted_to = end
        return account.rows

    def _before(self, account: _Account, *, same_second: bool = False) -> Counter[Row]:
        """Rows from before the start: all, or those of blocks that are no older than the first that is owed."""
        owed = self._emissions[account.started : account.started + 1]
        counted: Counter[Row] = Counter()
        for emission in self._emissions[: account.started]:
            if not same_second or (owed and emission.block.time >= owed[0].block.time):
                counted.update(canonical(cube, row) for cube, row in _rows(account.prepared, emission))
        return counted


def _rows(prepared: Prepared, emission: Emission) -> Iterator[tuple[str, Any]]:
    data = prepared.portion(emission.block, emission.portion)
    if data is not None:
        yield from rows_of(data)


def _pairs(cubes: tuple[str, ...], delivered: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for row in delivered:
        if isinstance(row, tuple | list) and len(row) == 2 and row[0] in cubes:
            yield row[0], row[1]
        elif len(cubes) == 1:
            yield cubes[0], row
        elif isinstance(row, dict) and len(row) == 1:
            yield next(iter(row.items()))
        else:
            yield "", row


def _some(rows: Counter[Row]) -> list[str]:
    return [f"{count} x {cube} {text.decode()}" for (cube, text), count in rows.most_common(_EXAMPLES)]
