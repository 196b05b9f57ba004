"""A client and a collector that say what a test wants them to, for those who only look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bqstream import Status
from bqstream.collect.status import CollectorStatus
from bqstream.status import LinkStatus, SubscriptionStatus
from tests.virtual_time import WALL_AT_START

AT = datetime.fromtimestamp(WALL_AT_START, UTC)
SUBSCRIPTION = SubscriptionStatus(
    operation=1,
    messages=0,
    merged=0,
    dropped=0,
    waiting_messages=0,
    waiting_bytes=0,
    gaps=0,
    parked=False,
    paused=False,
    unproven=False,
    closing=False,
    queries=0,
    backfilled=0,
    truncated=0,
)


class StandInClient:
    def __init__(self, *links: int) -> None:
        self.links = list(links)
        self.subscriptions = [SUBSCRIPTION]
        self.expires: datetime | None = None
        self.state = "live"
        self.rotations = 0

    def status(self) -> Status:
        return Status(
            state=self.state,
            token_expires_at=self.expires,
            rotations=self.rotations,
            reconnects=0,
            unproven=0,
            links=tuple(LinkStatus(number=n, state="live", operations=1, messages=5) for n in self.links),
            subscriptions=tuple(self.subscriptions),
        )


class StandInCollector:
    def __init__(self, name: str = "trades", **values: Any) -> None:
        start: dict[str, Any] = {"operation": 1, "sink": "sqlite:rows.db", "state": "collecting"}
        self.now = CollectorStatus(name=name, **(start | values))
        self.last_rows: list[tuple[str, Mapping[str, Any]]] = []

    def status(self) -> CollectorStatus:
        return self.now

    def set(self, **values: Any) -> None:
        self.now = replace(self.now, **values)
