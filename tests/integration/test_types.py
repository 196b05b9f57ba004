"""Typed rows over real sockets: models that `bqstream types` writes, and a reader's own types of each kind.

The documented subscriptions are read typed too, where they are; all of them are `pytest -m soak -n 0`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, Field
from strawberry.printer import print_schema

from bqstream import Client, DocumentRefused, OperationFailed, Timeouts
from bqstream.delivery.document import Document
from bqstream.message import cubes_of
from bqstream.models.model import model_of
from bqstream.models.seen import Seen
from bqstream.models.writer import module
from bqstream.simulator import Simulator
from bqstream.simulator.answers import prepare
from bqstream.simulator.chain import Chain
from bqstream.simulator.habits import habit
from bqstream.subscription import Subscription
from tests.documents import contradicts_itself, documented, needs_documents
from tests.models import differences, imported, untyped
from tests.virtual_time import virtual_time

from .harness import Reader, client_for, settled, until
from .strawberry_server import SCHEMA, TOKEN, serving
from .test_cli import bqstream, environment

DOCUMENT = """
subscription ($network: evm_network, $more: Boolean = true) {
  EVM(network: $network) {
    trades: DEXTrades {
      Block { Number Time Hash }
      Trade { Buy { Amount from: Buyer Currency { ...Asset } } Sell { Amount Currency { Symbol } } }
      Transaction @include(if: $more) { Hash Index }
    }
    Events {
      __typename
      Arguments { Name Value { __typename ... on EVM_ABI_Address_Value_Arg { address }
                                          ... on EVM_ABI_BigInt_Value_Arg { bigInteger } } }
      Log { Index Signature { Name Parsed } }
    }
  }
}
fragment Asset on EVM_Currency { Symbol Decimals Fungible }
"""
AT_ONCE = 40
Compare = Callable[[Any, Any], Iterable[str]]


class Typed(Reader):
    """Reads typed messages, each beside its bytes: what they do not say alike is in ``wrong``, by ``compare``."""

    def __init__(
        self, subscription: Subscription[Any], document: str, variables: Any, client: Client, compare: Compare
    ) -> None:
        super().__init__(subscription, document, variables, client)
        self.compare = compare
        self.wrong: list[str] = []
        self.kinds: Counter[type] = Counter()  # of typed rows

    async def _read(self) -> None:
        try:
            async for message in self.subscription:
                data = msgspec.json.decode(message.raw)["data"]
                self.wrong += self.compare(data, message.data)
                self.kinds.update(type(row) for _, rows in message.by_cube() for row in rows)
                several = len(message.cubes) > 1
                self.rows += [{key: row} if several else row for key, rows in cubes_of(data) for row in rows]
                self.messages += 1
                self.links.add(message.link)
        except Exception as error:  # noqa: BLE001 - the test asks for it
            self.error = error


@contextlib.asynccontextmanager
async def typed(
    client: Client, document: str, variables: Any, into: Any, compare: Compare = differences
) -> AsyncIterator[Typed]:
    async with client.subscribe(document, variables, type=into) as subscription:
        reader = Typed(subscription, document, variables, client, compare)
        try:
            yield reader
        finally:
            reader.task.cancel()
            await asyncio.wait({reader.task})


# ---------------------------------------------------------------------- models as they are written


@pytest.mark.parametrize(
    "options", [("--rows", "100"), ("--rows", "100", "--decimals"), ("--no-sample", "--decimals")]
)
@pytest.mark.asyncio
async def test_models_as_written_decode_all_that_is_streamed(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    path, variables = tmp_path / "models.py", {"network": "eth"}
    async with Simulator(block_interval=0.1, seed=1) as simulator:
        arguments = ("types", "-", "--var", "network=eth", *options)
        end = await bqstream(*arguments, env=environment(simulator), stdin=DOCUMENT)
    assert end.code == 0, end
    assert ("rows of trades and " in end.err) is ("--no-sample" not in options), end.err
    path.write_text(end.out, encoding="utf-8")
    assert untyped(end.out) == set()
    models = imported(path)
    async with (
        Simulator(block_interval=0.1, seed=2) as simulator,
        client_for(simulator) as client,
        typed(client, DOCUMENT, variables, models.Data) as reader,
    ):
        await until(lambda: len(reader.rows) > 500 or reader.error)
        (verdict,) = await settled(simulator, reader)
        assert reader.error is None
        assert verdict.exact, verdict
        assert reader.wrong == []
        assert reader.kinds.keys() == {models.TradesRow, models.EventsRow}
        assert reader.kinds.total() == len(reader.rows)


@pytest.mark.asyncio
async def test_what_a_sample_does_not_show_goes_by_the_fields_names() -> None:
    async with Simulator(block_interval=0.1) as simulator:
        silent = "subscription { EVM { Balances { Balance { Amount } } } }"  # the service never sends it
        end = await bqstream("types", "--query", silent, "--for", "1s", env=environment(simulator))
        assert end.code == 0, end
        assert "sampled 0 rows of Balances" in end.err
        assert "Amount: str\n" in end.out


@pytest.mark.asyncio
async def test_models_by_a_schema_that_another_server_prints_fit_what_it_sends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "strawberry")
    schema = tmp_path / "schema.graphql"
    schema.write_text(print_schema(SCHEMA), encoding="utf-8")
    document = "subscription { halves { whole broken } }"
    end = await bqstream("types", "--query", document, "--schema", str(schema), env=environment())
    assert end.code == 0, end
    path = tmp_path / "models.py"
    path.write_text(end.out, encoding="utf-8")
    models = imported(path)
    async with serving() as server, server.client() as client:
        async with client.subscribe(document, type=models.Data) as stream:
            first = await anext(aiter(stream))
            assert first.data == models.Data(halves=models.HalvesData(whole=1, broken=None))
            assert first.errors
        lists = await bqstream(
            "types", "--query", "subscription { lists(to: 3) }", "--schema", str(schema), env=environment()
        )
        path.write_text(lists.out, encoding="utf-8")
        async with client.subscribe("subscription { lists(to: 3) }", type=imported(path).Data) as stream:
            found = [message.data.lists async for message in stream]
    assert "lists: list[str]\n" in lists.out
    assert found
    assert all(isinstance(text, str) for texts in found for text in texts)


@pytest.mark.asyncio
async def test_what_is_null_beside_an_error_tells_a_sample_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "strawberry")
    async with serving() as server:
        env = environment() | {
            "BITQUERY_TOKEN": TOKEN,
            "BITQUERY_ENDPOINT": f"http://127.0.0.1:{server.port}/graphql",
        }
        end = await bqstream("types", "--query", "subscription { halves { whole broken } }", env=env)
    assert end.code == 0, end
    assert "the service says: this half is broken" in end.err
    assert "nothing is known of 2 fields, which may be any scalar: halves.whole, halves.broken" in end.err


# ---------------------------------------------------------------------- a reader's own types


class StructAmount(msgspec.Struct):
    amount: str = msgspec.field(name="Amount")


class StructRow(msgspec.Struct):
    Transfer: StructAmount


class StructCubes(msgspec.Struct):
    Transfers: list[StructRow]


class StructData(msgspec.Struct):
    EVM: StructCubes


@dataclass
class PlainAmount:
    Amount: str


@dataclass
class PlainRow:
    Transfer: PlainAmount


@dataclass
class PlainCubes:
    Transfers: list[PlainRow]


@dataclass
class PlainData:
    EVM: PlainCubes


class ModelAmount(BaseModel):
    amount: str = Field(alias="Amount")


class ModelRow(BaseModel, extra="forbid"):
    Transfer: ModelAmount


class ModelCubes(BaseModel):
    transfers: list[ModelRow] = Field(alias="Transfers")


class ModelData(BaseModel):
    EVM: ModelCubes


TRANSFERS = "subscription { EVM(network: eth) { Transfers { Transfer { Amount } } } }"


@pytest.mark.parametrize(
    ("into", "row", "dump"),
    [
        (StructData, StructRow, msgspec.to_builtins),
        (PlainData, PlainRow, msgspec.to_builtins),
        (ModelData, ModelRow, lambda data: data.model_dump(by_alias=True)),
    ],
)
def test_rows_of_each_kind_come_once_through_handovers(into: Any, row: type, dump: Any) -> None:
    def compare(data: Any, found: Any) -> Iterable[str]:
        return [] if dump(found) == data and type(found) is into else [f"{data} is {found}"]

    @virtual_time
    async def run() -> None:
        async with (
            Simulator(token_ttl=6, block_interval=0.5) as simulator,
            client_for(simulator, timeouts=Timeouts(grace=1.0)) as client,
            typed(client, TRANSFERS, None, into, compare) as reader,
        ):
            await until(lambda: len(reader.links) > 2 or reader.error)
            (verdict,) = await settled(simulator, reader)
            assert reader.error is None
            assert verdict.exact, verdict
            assert reader.wrong == []
            assert reader.kinds == {row: len(reader.rows)}
            assert reader.rows

    run()


@pytest.mark.asyncio
async def test_a_message_that_does_not_fit_says_where_and_the_next_is_read() -> None:
    class Few(BaseModel, extra="forbid"):
        amount: float = Field(alias="Amount", lt=0)

    class FewRow(BaseModel):
        Transfer: Few

    class FewCubes(BaseModel):
        Transfers: list[FewRow]

    class FewData(BaseModel):
        EVM: FewCubes

    async with (
        Simulator(block_interval=0.1) as simulator,
        client_for(simulator) as client,
        client.subscribe(TRANSFERS, type=FewData) as stream,
    ):
        messages = aiter(stream)
        for _ in range(2):
            message = await anext(messages)
            at = r"type=FewData.*less than 0 - at `\$\.data\.EVM\.Transfers\[0\]\.Transfer\.Amount`"
            with pytest.raises(OperationFailed, match=at):
                _ = message.data
            assert b"Amount" in message.raw


# ---------------------------------------------------------------------- documented subscriptions


def entries() -> list[dict[str, Any]]:
    """Those that parse, and that the service does not shed the asker for."""
    found = []
    for entry in documented():
        with contextlib.suppress(DocumentRefused):
            Document.parse(entry["document"])
            if habit(entry["document"]) != "shed":
                found.append(entry)
    return found


def models_of(batch: Sequence[dict[str, Any]], folder: Path) -> list[Any]:
    """For each the type of its data, made of a sample of another chain than the one that is read afterwards."""
    prepared = [prepare(entry["document"], entry["variables"], None) for entry in batch]
    samples = [Seen() for _ in batch]
    chain = Chain(seed=11)
    for block in [chain.mine() for _ in range(16)]:
        for asked, seen in zip(prepared, samples, strict=True):
            for number in range(block.portions):
                if (data := asked.portion(block, number)) is not None:
                    seen.add(data)
    made = []
    for number, (entry, seen) in enumerate(zip(batch, samples, strict=True)):
        model = model_of(Document.parse(entry["document"]), sample=seen, decimals=number % 2 == 1)
        path = folder / f"models_{number}.py"
        path.write_text(module(model, origin="a sample"), encoding="utf-8")
        made.append(imported(path).Data)
    return made


async def read_typed(batch: Sequence[dict[str, Any]], folder: Path) -> Counter[str]:
    """Read all of these documents typed, through a hand-over, and ask the ledger about each. Gives figures."""
    figures: Counter[str] = Counter(documents=len(batch))
    async with (
        Simulator(token_ttl=6.0, block_interval=0.5) as simulator,
        client_for(simulator, connections=2, timeouts=Timeouts(grace=1.0)) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        readers = [
            await stack.enter_async_context(typed(client, entry["document"], entry["variables"], into))
            for entry, into in zip(batch, models_of(batch, folder), strict=True)
        ]
        sending = [reader for reader in readers if not contradicts_itself(reader.document)]
        await until(lambda: all(len(r.links) > 1 or r.error for r in sending), within=120)
        verdicts = await settled(simulator, *readers)
        for entry, reader, verdict in zip(batch, readers, verdicts, strict=True):
            assert reader.error is None, (entry["source"], reader.error)
            assert reader.wrong == [], entry["source"]
            figures["messages"] += reader.messages
            figures["rows"] += reader.kinds.total()
            figures["lost"] += verdict.lost
            figures["repeated"] += verdict.repeated + verdict.foreign
            figures["early"] += (
                verdict.early
            )  # where a gap opened in the first minute: neither owed nor wrong
    return figures


@needs_documents
def test_a_sample_of_the_documents_is_read_typed_and_nothing_is_lost(tmp_path: Path) -> None:
    asked = entries()
    figures: Counter[str] = Counter()

    @virtual_time
    async def run() -> None:
        figures.update(await read_typed(asked[:: len(asked) // 20], tmp_path))

    run()
    assert figures["documents"] >= 20
    assert figures["rows"] > 1000
    assert (figures["lost"], figures["repeated"]) == (0, 0)


@needs_documents
@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.asyncio
async def test_all_documents_are_read_typed_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures: Counter[str] = Counter()
    asked = entries()
    with capsys.disabled():
        for start in range(0, len(asked), AT_ONCE):
            figures.update(await read_typed(asked[start : start + AT_ONCE], tmp_path))
            print(f"\n{', '.join(f'{count:,} {what}' for what, count in figures.items())}", end="")
    assert figures["documents"] == len(asked)
    assert (figures["lost"], figures["repeated"]) == (0, 0)
