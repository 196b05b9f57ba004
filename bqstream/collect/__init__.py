"""From a subscription to a table, for months, exactly once: the collector and its sinks.

    await Collector(client, document, "sqlite:rows.db").run()

It needs the extra ``collect``, and a sink's own: ``duckdb``, ``nats``, ``parquet``, ``postgresql``.
"""

from .collector import Collected, Collector
from .monitor import Monitor
from .reading import Batching
from .sink import Address, BlockingSink, Sink, open_sink
from .status import CollectorStatus
from .table import Column, Commit, GapRecord, Rows, Stored, Table

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
