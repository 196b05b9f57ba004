"""What every sink that keeps a state must do. A sink's own tests make a subclass of `SinkContract` and say how it is
read back, by something that is not the sink."""

from __future__ import annotations

import abc
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from bqstream import SinkFailed, SinkLocked
from bqstream.collect.commit import Stored
from bqstream.collect.sink import Sink, open_sink
from bqstream.tables.table import Column, Rows

from .committing import SUBSCRIPTION, TABLE, TIME, commit, die, gap, odd_rows, rows


class SinkContract(abc.ABC):
    """``target`` is a fixture of the subclass: a fresh place, as text."""

    deletes = True  # whether rows that are taken back are deleted
    evolves = True  # whether it has columns that may be missing
    counts = False  # whether it tells how many rows it has

    @abc.abstractmethod
    def read(self, target: str, table: str = "Transfers") -> list[dict[str, Any]]:
        """The table's rows by column name (or nested, where the sink is not flat), as its readers see them."""

    @abc.abstractmethod
    def read_gaps(self, target: str) -> dict[str, dict[str, Any]]:
        """The newest record of each gap, by id; with ``closed``, ``reason``, ``detail`` and ``cause`` at least."""

    def expected(self, *steps: Rows) -> list[dict[str, Any]]:
        """Rows as ``read`` gives them."""
        return [
            dict(zip(step.table.names, values, strict=True))
            for step in steps
            for values in zip(*step.columns, strict=True)
        ]

    @contextlib.asynccontextmanager
    async def opened(self, target: str) -> AsyncIterator[Sink]:
        sink = open_sink(target)
        try:
            yield sink
        finally:
            await sink.aclose()

    def same(self, target: str, *steps: Rows) -> None:
        assert _counted(self.read(target)) == _counted(self.expected(*steps))

    @pytest.mark.asyncio
    async def test_nothing_is_stored_at_first(self, target: str) -> None:
        async with self.opened(target) as sink:
            assert await sink.open(SUBSCRIPTION) is None

    @pytest.mark.asyncio
    async def test_rows_are_read_back_with_odd_values_and_equal_ones_as_many_as_they_were(
        self, target: str
    ) -> None:
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(3), odd_rows(), rows(3)))
            self.same(target, rows(3), odd_rows(), rows(3))

    @pytest.mark.asyncio
    async def test_the_state_of_the_last_commit_is_found_by_another(self, target: str) -> None:
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(2)))
            await sink.commit(last := commit(2, rows(2, 2)))
        async with self.opened(target) as sink:
            stored = await sink.open(SUBSCRIPTION)
            assert stored is not None
            assert (stored.number, stored.state) == (2, last.state)
            await sink.commit(commit(3, rows(2, 4)))
            self.same(target, rows(6))

    @pytest.mark.asyncio
    async def test_a_commit_without_rows_moves_the_state(self, target: str) -> None:
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1))
            await sink.commit(last := commit(2))
            stored = await sink.open(SUBSCRIPTION)
            assert stored is not None
            assert (stored.number, stored.state) == (2, last.state)

    @pytest.mark.asyncio
    async def test_it_is_looked_into_while_another_is_at_it(self, target: str) -> None:
        async with self.opened(target) as sink, self.opened(target) as looking:
            peek: Any = looking.peek  # type: ignore[attr-defined]
            assert await peek(SUBSCRIPTION) is None
            await sink.open(SUBSCRIPTION)
            assert await peek(SUBSCRIPTION) is None
            for number in (1, 2):
                await sink.commit(last := commit(number, rows(2, number * 2)))
                assert await peek(SUBSCRIPTION) == Stored(number, last.state)
            self.same(target, rows(4, 2))

    @pytest.mark.asyncio
    async def test_rows_are_counted_from_a_block_on(self, target: str) -> None:
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(10), rows(10)))
            count = getattr(sink, "count", None)
            asked = (("Block_Number", 7), ("Block_Time", TIME + timedelta(seconds=7)))
            found = [await count("Transfers", column, value) if count else None for column, value in asked]
            assert found == ([6, 6] if self.counts else [None, None])
            if self.counts:
                with pytest.raises(SinkFailed):
                    await sink.count("Nothing", "Block_Number", 7)  # type: ignore[attr-defined]
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(2))

    @pytest.mark.asyncio
    async def test_two_that_write_the_same_are_told_apart(self, target: str) -> None:
        async with self.opened(target) as one, self.opened(target) as other:
            await one.open(SUBSCRIPTION)
            await one.commit(commit(1, rows(1)))
            await other.open(SUBSCRIPTION)
            await one.commit(commit(2, rows(1, 1)))
            with pytest.raises(SinkLocked):
                await other.commit(commit(2, rows(1, 9)))
            self.same(target, rows(2))

    @pytest.mark.asyncio
    async def test_a_gap_takes_the_place_of_its_former_record(self, target: str) -> None:
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(1), gaps=[gap("a"), gap("b", reason="the mempool")]))
            await sink.commit(commit(2, gaps=[gap("a", closed=True, how="by queries")]))
            gaps = self.read_gaps(target)
            assert gaps.keys() == {"a", "b"}
            assert bool(gaps["a"]["closed"])
            assert gaps["a"]["detail"] == "it's gone"
            assert gaps["b"]["reason"] == "the mempool"

    @pytest.mark.asyncio
    async def test_rows_are_taken_back_one_copy_of_each(self, target: str) -> None:
        if not self.deletes:
            pytest.skip("this sink cannot delete")
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(4), rows(4), odd_rows()))
            taken = replace(odd_rows(), undo=True)
            await sink.commit(commit(2, rows(2, undo=True), taken, rows(1, 50)))
            self.same(target, rows(4), rows(2, 2), rows(1, 50))

    @pytest.mark.asyncio
    async def test_a_column_that_the_table_lacks_is_added_on_request_only(self, target: str) -> None:
        if not self.evolves:
            pytest.skip("this sink has no columns")
        wider = replace(TABLE, columns=(*TABLE.columns, Column("Log_Index", ("Log", "Index"), "integer")))
        async with self.opened(target) as sink:
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(1, rows(1)))
            with pytest.raises(SinkFailed, match="evolve"):
                await sink.commit(commit(2, rows(1, 1, table=wider), table=wider))
            await sink.open(SUBSCRIPTION)
            await sink.commit(commit(2, rows(1, 1, table=wider), table=wider, evolve=True))
            found = {row["Block_Number"]: row for row in self.read(target)}
            assert found.keys() == {0, 1}
            assert found[1]["Log_Index"] is None

    @pytest.mark.soak
    @pytest.mark.asyncio
    @pytest.mark.parametrize("point", ["written", "staged", "committed"])
    @pytest.mark.parametrize("before", [0, 3])
    async def test_a_process_that_is_killed_has_committed_all_of_a_commit_or_nothing(
        self, target: str, point: str, before: int
    ) -> None:
        await die(target, 1, 9, f"{point}:{before + 1}")
        async with self.opened(target) as sink:
            stored = await sink.open(SUBSCRIPTION)
            number = stored.number if stored else 0
            assert number in (before, before + 1)
            if point == "committed":
                assert number == before + 1
            self.same(target, rows(number * 10, 10))
            assert self.read_gaps(target).keys() == {f"g{even}" for even in range(2, number + 1, 2)}
            await sink.commit(commit(number + 1, rows(10, (number + 1) * 10)))
            self.same(target, rows((number + 1) * 10, 10))


def _counted(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(repr(sorted((name, _plain(value)) for name, value in row.items())) for row in found)


def _plain(value: Any) -> Any:
    """Equal values look alike: 0.50 is 0.5, and midnight in another zone is the same moment."""
    if isinstance(value, Decimal):
        return Fraction(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value
