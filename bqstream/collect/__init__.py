"""From a subscription to a table, for months, exactly once: the collector and its sinks.

    await Collector(client, document, "sqlite:rows.db").run()

It needs the extra ``collect``, and a sink's own: ``duckdb``, ``nats``, ``parquet``, ``postgresql``.
"""

try:
    from ..tables.table import Column, Rows, Table
    from .collector import Collected, Collector
    from .commit import Commit, GapRecord, Stored
    from .monitor import Monitor
    from .reading import Batching
    from .sink import Address, BlockingSink, Sink, open_sink
    from .status import CollectorStatus
except ModuleNotFoundError as error:
    if (error.name or "bqstream").partition(".")[0] == "bqstream":
        raise
    raise ModuleNotFoundError(
        f"bqstream.collect needs {error.name}: pip install 'bqstream[collect]'", name=error.name
    ) from None

__all__ = [
    "Address",
    "Batching",
    "BlockingSink",
    "Collected",
    "Collector",
    "CollectorStatus",
    "Column",
    "Commit",
    "GapRecord",
    "Monitor",
    "Rows",
    "Sink",
    "Stored",
    "Table",
    "open_sink",
]
