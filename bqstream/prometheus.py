"""A client's counters for Prometheus (extra ``prometheus``), read when they are scraped.

    from bqstream import prometheus

    async with Client() as client:
        prometheus.register(client)

No token, URL or document is in a metric. The one label is ``subscription``: a number from 1, which the next one takes
over when a subscription is closed, so that there are never more of them than subscriptions that were open at once.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from .errors import UsageError

if TYPE_CHECKING:
    from .client import Client
    from .status import Status

LABELS = ("subscription",)
_registered: weakref.WeakKeyDictionary[CollectorRegistry, _OfClient] = weakref.WeakKeyDictionary()


def register(client: Client, registry: CollectorRegistry = REGISTRY) -> None:
    """Show ``client`` in ``registry`` until it is closed. A scrape may come from any thread.

    Raises UsageError: ``registry`` has an open client already, and nothing would tell the two apart.
    """
    former = _registered.get(registry)
    if former is not None and former.client is not None:
        raise UsageError(
            "this registry shows another client already: close that one, or give each a CollectorRegistry"
        )
    if former is not None:
        registry.unregister(former)
    _registered[registry] = made = _OfClient(client, registry)
    registry.register(made)


class _OfClient(Collector):
    """Reads the client's status at each scrape, and leaves the registry at the first after it was closed."""

    def __init__(self, client: Client, registry: CollectorRegistry) -> None:
        self._client = weakref.ref(client)
        self._registry = weakref.ref(registry)
        self._names: dict[int, str] = {}

    @property
    def client(self) -> Client | None:
        client = self._client()
        return None if client is None or client.closed else client

    def describe(self) -> Iterable[Metric]:
        return ()  # there is one for a registry: names need not be compared

    def collect(self) -> Iterator[Metric]:
        client, registry = self.client, self._registry()
        if client is None:
            if registry is not None and _registered.get(registry) is self:
                del _registered[registry]
                registry.unregister(self)
            return
        status = _read(client)
        self._names = numbered(self._names, [one.operation for one in status.subscriptions])
        yield from families(status, self._names)


def _read(client: Client) -> Status:
    """The status, though the loop's thread may be adding a subscription at this moment."""
    for _ in range(10):
        with contextlib.suppress(RuntimeError):  # "dictionary changed size during iteration"
            return client.status()
    return client.status()


def numbered(names: Mapping[int, str], operations: Sequence[int]) -> dict[int, str]:
    """Name each open operation by the smallest number that is free, and leave the others theirs."""
    kept = {operation: name for operation, name in names.items() if operation in operations}
    free = (name for name in map(str, itertools.count(1)) if name not in kept.values())
    for operation in operations:
        if operation not in kept:
            kept[operation] = next(free)
    return kept


def families(status: Status, names: Mapping[int, str]) -> Iterator[Metric]:
    """A client's metrics; ``names`` gives the label of each operation, and one without is left out."""
    live = sum(link.state == "live" for link in status.links)
    yield GaugeMetricFamily("bqstream_links", "WebSocket links that are live.", live)
    yield CounterMetricFamily(
        "bqstream_handovers",
        "Links that another one took over from, such as for a new token.",
        status.rotations,
    )
    yield CounterMetricFamily(
        "bqstream_reconnects", "Links that ended without having been closed here.", status.reconnects
    )
    if status.token_expires_at is not None:
        yield GaugeMetricFamily(
            "bqstream_token_expiry_timestamp_seconds",
            "When the current token expires, in seconds since the epoch; absent if it never does.",
            status.token_expires_at.timestamp(),
        )
    subscriptions = [(names[one.operation], one) for one in status.subscriptions if one.operation in names]
    for field, name, words in _COUNTERS:
        yield labelled(
            CounterMetricFamily(name, words, labels=LABELS),
            ((n, getattr(one, field)) for n, one in subscriptions),
        )
    for field, name, words in _GAUGES:
        yield labelled(
            GaugeMetricFamily(name, words, labels=LABELS),
            ((n, getattr(one, field)) for n, one in subscriptions),
        )


_COUNTERS = (
    ("messages", "bqstream_messages", "Messages that the reader has taken."),
    ("merged", "bqstream_merged_rows", "Rows that came on two links and were delivered once."),
    (
        "dropped",
        "bqstream_dropped_messages",
        "Messages that were let go for a slow reader; each stands in a gap.",
    ),
    ("gaps", "bqstream_gaps", "Gaps that were named, whether they were closed or not."),
    ("queries", "bqstream_backfill_queries", "Queries that were answered to close gaps."),
    ("backfilled", "bqstream_backfilled_rows", "Rows that queries brought."),
    ("truncated", "bqstream_truncated_messages", "Messages as long as the service's own limit of rows."),
)
_GAUGES = (
    ("waiting_messages", "bqstream_buffer_messages", "Messages that wait to be read."),
    ("waiting_bytes", "bqstream_buffer_bytes", "Bytes of the messages that wait to be read."),
    ("parked", "bqstream_parked", "1 while messages are let go because the reader is slow."),
    ("paused", "bqstream_paused", "1 while it is unsubscribed until it is resumed."),
    ("closing", "bqstream_closing_gap", "1 while a gap is being closed."),
    ("unproven", "bqstream_unproven", "1 while it is not shown that the last hand-over lost nothing."),
)


def labelled(family: Metric, values: Iterable[tuple[str, float | None]]) -> Metric:
    """``family`` with a sample for each (subscription, value); what has no value has no sample."""
    for name, value in values:
        if value is not None:
            family.add_metric([name], float(value))  # type: ignore[attr-defined]
    return family
