"""Every example notebook runs in a real kernel, its outputs are small, and its figures are those of the ledger."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from bqstream.simulator import Simulator

from .test_examples import ROOT, environment

NOTEBOOKS = ROOT / "examples" / "notebooks"
LARGEST = 150_000  # bytes of a notebook with its outputs: the more trades, the more of its picture is ink
Rows = Callable[..., list[Any]]  # the first so many rows that the ledger has for a document


def frame_is_right(told: dict[str, Any], rows: Rows) -> None:
    assert told["hashes"] == [row["Transaction"]["Hash"] for row in rows(told["document"], 105)[5:]]


def place(row: Any) -> list[int]:
    return [int(row["Block"]["Number"]), *(int(row[of]["Index"]) for of in ("Transaction", "Log", "Trade"))]


def candles_are_right(told: dict[str, Any], rows: Rows) -> None:
    prices: dict[str, list[float]] = defaultdict(list)
    trades = rows(told["document"], told["trades"], {"token": told["token"]})
    for row in sorted(trades, key=place):
        prices[row["Block"]["Time"][11:19]].append(row["Trade"]["PriceInUSD"])
    assert told["candles"] == [[t, p[0], max(p), min(p), p[-1], len(p)] for t, p in prices.items()]
    assert len(prices) == 5


def whales_are_right(told: dict[str, Any], rows: Rows) -> None:
    amounts = [
        row["Transfer"]["AmountInUSD"] for row in rows(told["document"], told["count"], {"least": "1000000"})
    ]
    assert min(map(Decimal, amounts)) >= 1_000_000
    assert [*map(Decimal, told["largest"])] == sorted(map(Decimal, amounts), reverse=True)[:5]


def chains_are_right(told: dict[str, Any], rows: Rows) -> None:
    for network, per_block in told["blocks"].items():
        trades = rows(told["document"], sum(per_block.values()), {"network": network})
        assert Counter(per_block) == Counter(row["Block"]["Number"] for row in trades)
        assert len(per_block) > 5


def file_is_right(told: dict[str, Any], rows: Rows) -> None:
    transfers = rows(told["document"], told["rows"])
    assert told["rows"] == told["streamed"] >= 300
    assert told["transactions"] == len({row["Transaction"]["Hash"] for row in transfers})
    amounts: dict[str, Fraction] = defaultdict(Fraction)
    for row in transfers:
        amounts[row["Transfer"]["Currency"]["Symbol"]] += Fraction(row["Transfer"]["Amount"])
    assert {symbol: Fraction(amount) for symbol, amount in told["amounts"].items()} == {
        symbol: amounts[symbol] for symbol in told["amounts"]
    }
    assert len(told["amounts"]) == 10


CHECKS: dict[str, tuple[str, Callable[[dict[str, Any], Rows], None]]] = {
    "candles": (
        """{"document": TRADES, "token": WETH, "trades": len(trades),
            "candles": candles.with_columns(time=pl.col("time").dt.strftime("%H:%M:%S")).rows()}""",
        candles_are_right,
    ),
    "first_stream": (
        '{"document": TRADES, "hashes": frame["Transaction_Hash"].to_list()}',
        frame_is_right,
    ),
    "parquet_duckdb": (
        """{"document": TRANSFERS, "rows": rows, "streamed": streamed, "transactions": transactions,
            "amounts": {name: str(amount) for name, _, amount in symbols.fetchall()}}""",
        file_is_right,
    ),
    "two_chains": (
        """{"document": TRADES, "blocks": {network: {str(number): trades for _, number, trades
            in per_block.filter(network=network).iter_rows()} for network in NETWORKS}}""",
        chains_are_right,
    ),
    "whales": (
        """{"document": WHALES, "count": len(whales),
            "largest": [str(usd) for usd in largest["Transfer_AmountInUSD"]]}""",
        whales_are_right,
    ),
}


def kept(name: str) -> str:
    return (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")


def parsed(text: str) -> Any:
    return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]


def written(notebook: Any) -> str:
    return str(nbformat.writes(notebook))  # type: ignore[no-untyped-call]


async def run(name: str, env: dict[str, str], asked: str) -> tuple[Any, dict[str, Any]]:
    """The notebook with its outputs; and what ``asked``, an expression, is once it has run."""
    notebook = parsed(kept(name))
    asking = f"import json\nprint(json.dumps({asked}))"
    notebook.cells.append(nbformat.v4.new_code_cell(asking))  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=60,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        store_widget_state=False,  # a view's script; JupyterLab does not keep it in the file either
    )
    await client.async_execute(env=env)
    told = json.loads(notebook.cells.pop().outputs[0].text)
    return notebook, told


def test_every_notebook_is_known_here() -> None:
    assert sorted(CHECKS) == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", CHECKS)
def test_the_notebook_is_kept_clean(name: str) -> None:
    notebook = parsed(text := kept(name))
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)
    assert text == written(notebook) + "\n", "written otherwise than nbformat does"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", CHECKS)
async def test_the_notebook_runs_and_its_figures_are_the_ledgers(name: str, seed: int) -> None:
    asked, right = CHECKS[name]
    async with Simulator(seed=seed, block_interval=0.1) as simulator:
        env = environment() | {
            "BITQUERY_ENDPOINT": simulator.endpoint,
            "BITQUERY_TOKEN_URL": simulator.token_url,
            "BITQUERY_CLIENT_ID": simulator.client_id,
            "BITQUERY_CLIENT_SECRET": simulator.client_secret,
        }
        notebook, told = await run(name, env, asked)

        def rows(document: str, count: int, variables: dict[str, Any] | None = None) -> list[Any]:
            found = [row for _, _, row in islice(simulator.ledger.rows(document, variables), count)]
            assert len(found) == count
            return found

        right(told, rows)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if {"image/png", "image/svg+xml"} & {*output.get("data", ())}]
    assert len(pictures) == 1 or name == "first_stream"
    text = written(notebook)
    assert len(text.encode()) < LARGEST
    assert simulator.client_secret not in text


@pytest.mark.asyncio
async def test_a_notebook_runs_without_an_account() -> None:
    notebook, told = await run("first_stream", environment(), '{"rows": len(frame)}')
    assert told == {"rows": 100}
    assert len(written(notebook).encode()) < LARGEST
