"""A collector process in Prometheus's words: its client's metrics under the collectors' names, and their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from ..prometheus import LABELS, families, labelled
from .monitor import Monitor, Watched

Value = Callable[[Watched], float | None]


def registry_of(monitor: Monitor) -> CollectorRegistry:
    """A registry that shows what ``monitor`` watches, and this process's memory and processor time."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OfMonitor(monitor))
    ProcessCollector(registry=registry)
    return registry


class _OfMonitor(Collector):
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        picture = self._monitor.picture()
        watched = picture.collectors
        own = _COUNTERS | _GAUGES
        if picture.client is not None:
            names = {
                one.status.operation: one.status.name for one in watched if one.status.operation is not None
            }
            # A collector counts across its subscriptions, of which a sink that failed makes a new one.
            yield from (one for one in families(picture.client, names) if one.name not in own)
        yield CounterMetricFamily(
            "bqstream_slow_consumer_closes", "Links that the service closed with 1013.", picture.shed
        )
        for kind, metrics in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for name, (value, words) in metrics.items():
                yield labelled(
                    kind(name, words, labels=LABELS), ((one.status.name, value(one)) for one in watched)
                )
        durations = SummaryMetricFamily(
            "bqstream_commit_duration_seconds", "How long the sink took for each commit.", labels=LABELS
        )
        for one in watched:
            status = one.status
            durations.add_metric([status.name], status.commits, status.committing_seconds)
        yield durations


def _timestamp(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None


_COUNTERS: dict[str, tuple[Value, str]] = {
    "bqstream_rows": (lambda one: one.status.rows, "Rows committed to the sink."),
    "bqstream_rows_taken_back": (lambda one: one.status.taken_back, "Committed rows that a fork took back."),
    "bqstream_misfits": (lambda one: one.status.misfits, "Rows that went to the dead-letter file."),
    "bqstream_commits": (lambda one: one.status.commits, "Commits to the sink."),
    "bqstream_gaps": (lambda one: one.status.gaps, "Gaps that were named, whether they were closed or not."),
    "bqstream_holes": (lambda one: one.status.holes, "Gaps that will not be closed: rows are missing."),
    "bqstream_backfilled_rows": (lambda one: one.status.backfilled, "Rows that queries brought."),
}
_GAUGES: dict[str, tuple[Value, str]] = {
    "bqstream_lag_seconds": (lambda one: one.lag, "How far the newest row committed is behind now."),
    "bqstream_pending_rows": (
        lambda one: one.status.pending_rows,
        "Rows read that wait to be committed.",
    ),
    "bqstream_last_commit_timestamp_seconds": (
        lambda one: _timestamp(one.status.committed_at),
        "When the last commit ended, in seconds since the epoch.",
    ),
    "bqstream_commit_overdue": (
        lambda one: one.status.overdue,
        "1 while something has waited to be committed for longer than it may.",
    ),
    "bqstream_subscribed": (lambda one: one.subscribed, "1 while rows are being collected."),
}
