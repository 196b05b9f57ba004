"""From a subscription to a table, for months, exactly once: the collector and its sinks.

    await Collector(client, document, "sqlite:rows.db").run()

It needs the extra ``collect``, and a sink's own: ``duckdb``, ``nats``, ``parquet``, ``postgresql``.
"""

from ..tables.table import Column, Rows, Table
from .collector import Collected, Collector
from .commit import Commit, GapRecord, Stored
from .monitor import Monitor
from .reading import Batching
from .sink import Address, BlockingSink, Sink, open_sink
from .status import CollectorStatus

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
