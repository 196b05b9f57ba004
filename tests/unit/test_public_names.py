from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import bqstream

EXTRAS = {
    *("cyclopts", "duckdb", "filelock", "gql", "graphql", "nats", "picows", "prometheus_client", "psycopg"),
    *("pandas", "polars", "pyarrow", "pydantic", "pytest", "rich", "strawberry"),
}


def test_all_is_sorted_and_equals_the_namespace() -> None:
    public = {
        name
        for name, value in vars(bqstream).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    modules = {name for name in bqstream.__all__ if isinstance(getattr(bqstream, name), ModuleType)}
    assert list(bqstream.__all__) == sorted(bqstream.__all__)
    assert set(bqstream.__all__) - {"__version__"} == public | modules


def test_every_error_of_the_tree_is_public() -> None:
    def leaves(error: type[BaseException]) -> set[str]:
        return {error.__name__}.union(*(leaves(inner) for inner in error.__subclasses__()))

    ours = {
        name
        for name in leaves(bqstream.BqstreamError)
        if getattr(sys.modules["bqstream.errors"], name, None) is not None
    }
    assert len(ours) > 10
    assert ours <= set(bqstream.__all__)


def test_the_import_loads_no_extra_and_no_graphql() -> None:
    script = "import sys, bqstream; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "bqstream" in loaded
    assert EXTRAS.isdisjoint(loaded)
