"""One entry for each thing that goes wrong alone: what happens, to which documents, and what shows that it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from bqstream import Backoff, Buffer, Timeouts
from bqstream.simulator import Behaviour

from .schedule import LEGACY, MODERN, Fault, Options, Reading, Schedule, known_options
from .zoo import BY_NAME, DOCUMENTS, Doc

BOTH = (MODERN, LEGACY)
SERVICE: Mapping[str, Any] = {"block_interval": 0.5, "transactions": 4, "portions": 2, "keepalive": 1.0}
TIMEOUTS = Timeouts(idle=2.0, grace=1.2, block=0.5, connect=2.0, ack=1.0, close=0.5)
BACKOFF = Backoff(initial=0.2, maximum=2.0, jitter=0.0)


@dataclass(frozen=True)
class Case:
    """``at_least`` and ``at_most`` are bounds of the outcome's figures: that the fault was there at all."""

    name: str
    faults: tuple[Fault, ...] = ()
    documents: tuple[str | Doc, ...] = ("transfers",)
    service: Mapping[str, Any] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)
    buffer: Buffer | None = None
    seconds: float = 12.0
    subprotocols: tuple[str, ...] = (MODERN,)
    at_least: Mapping[str, int] = field(default_factory=dict)
    at_most: Mapping[str, int] = field(default_factory=dict)
    needs_queries: bool = False  # what is lost here is not even named until a query brings it

    def schedule(self, subprotocol: str) -> Schedule:
        service = {**SERVICE, **self.service, "subprotocols": (subprotocol,)}
        client = {"timeouts": TIMEOUTS, "backoff": BACKOFF, "subprotocol": subprotocol, **self.client}
        documents = (BY_NAME[one] if isinstance(one, str) else one for one in self.documents)
        return Schedule(
            seed=crc32(f"{self.name}, {subprotocol}".encode()),
            kind=self.name,
            service=known_options(service),
            client=tuple(client.items()),
            readings=tuple(Reading(document, buffer=self.buffer) for document in documents),
            faults=self.faults,
            seconds=self.seconds,
        )


def fault(
    at: float,
    name: str,
    *,
    on: str = "all",
    lasts: float = 0.0,
    after_link: float | None = None,
    **arguments: Any,
) -> Fault:
    given: Options = tuple(arguments.items())
    return Fault(at, name, given, on, lasts, after_link)


LOST = {"links": 2, "gaps": 1}
ROTATED = {"hand-overs": 1}
OUTAGE = (fault(4, "down", seconds=3.0),)
ROTATING: Mapping[str, Any] = {"token_ttl": 6.0}


def _of_sockets() -> tuple[Case, ...]:
    return (
        Case("a drop", (fault(4.3, "abort"),), at_least=LOST, subprotocols=BOTH),
        *(
            Case(f"close code {code}", (fault(4.3, "close", code=code),), at_least=LOST, subprotocols=BOTH)
            for code in (1001, 1011, 1012, 1013)
        ),
        Case(
            "a close without a frame (1006)",
            (fault(4.3, "abort"), fault(7.1, "abort")),
            at_least={"links": 3},
        ),
        Case("a stall", (fault(4.3, "stall"),), at_least=LOST, subprotocols=BOTH),
        Case("a stall of data alone", (fault(4.3, "silence"),), seconds=14, at_least=LOST, subprotocols=BOTH),
        *(
            Case(
                f"garbage: {kind}",
                (fault(4.3, "garbage", kind=kind),),
                subprotocols=BOTH,
                at_least=LOST if kind in ("json", "list", "binary") else {},
                at_most={} if kind in ("json", "list", "binary") else {"links": 1},
            )
            for kind in ("json", "list", "binary", "type", "id", "error")
        ),
        Case("a message of two megabytes", (fault(4.3, "oversize"),), at_most={"links": 1}),
        Case(
            "an error on every operation",
            (fault(4.3, "errors", message="rate limit exceeded"),),
            at_least={"gaps": 1},
            subprotocols=BOTH,
        ),
        Case(
            "a reader so slow that the service sheds it (1013)",
            (fault(4.3, "park", reader=0, lasts=6.0),),
            service={"send_buffer": 2048, "queue_messages": 20, "block_interval": 0.2, "transactions": 30},
            client={"timeouts": Timeouts(idle=2.0, grace=1.2, block=5.0)},
            buffer=Buffer(messages=3),
            seconds=14,
            at_least=LOST,
        ),
    )


def _of_tokens() -> tuple[Case, ...]:
    return (
        Case(
            "a revoked token",
            (fault(4, "revoke"), fault(4.3, "close", code=1012)),
            at_least=LOST,
            subprotocols=BOTH,
        ),
        *(
            Case(
                f"a token that expires early, then {what}",
                (fault(4.3, "expire"), *((fault(6.3, "abort"),) if what in ("silence", "nothing") else ())),
                service={"on_expiry": what},
                at_least=LOST,
                subprotocols=BOTH if what == "error" else (MODERN,),
            )
            for what in ("close", "error", "silence", "nothing")
        ),
        Case(
            "the token endpoint is down for longer than a token lives",
            (fault(2, "token_endpoint", mode="down", lasts=8.0),),
            service={"token_ttl": 6.0, "on_expiry": "close"},
            at_least={"gaps": 1},
            seconds=16,
        ),
    )


def _of_the_server() -> tuple[Case, ...]:
    return (
        Case(
            "the server is down for ten seconds", (fault(4, "down", seconds=10.0),), seconds=18, at_least=LOST
        ),
        Case("the query side is late by two seconds", OUTAGE, service={"query_lag": 2.0}, at_least=LOST),
        Case(
            "queries are refused while a gap is being closed",
            (fault(3.9, "refuse_queries", count=2), *OUTAGE),
            seconds=20,
            at_least=LOST,
        ),
        Case(
            "an outage of several pages of 500 rows",
            (fault(4, "down", seconds=10.0),),
            service={"row_cap": 500, "transactions": 60},
            seconds=18,
            at_least=LOST,
        ),
        Case(
            "a block of more than 500 rows",
            (fault(4, "down", seconds=3.0),),
            service={"row_cap": 500, "transactions": 500, "block_interval": 2.0},
            at_least=LOST,
        ),
        Case(
            "messages cut at 800 rows",
            service={"transactions": 700, "block_interval": 2.0, "portions": 1},
            seconds=6,
            needs_queries=True,
            at_least={"truncated": 1},
        ),
        *(
            Case(
                f"the plan's cap, {over}",
                (fault(3, "cap", count=1, over=over, lasts=6.0),),
                service=ROTATING,
                seconds=16,
                at_least=ROTATED,
            )
            for over in ("silent", "error")
        ),
        Case(
            "a drop while the plan's cap lets only one of two through",
            (fault(3, "cap", count=1, over="silent", lasts=4.0), fault(4.1, "abort")),
            ("transfers", "blocks"),
            seconds=16,
            at_least=LOST,
        ),
        Case(
            "rows that the query side prices anew",
            OUTAGE,
            ("trades", "Trading by time", "no identity"),
            service={"reprice": 0.01},
            at_least=LOST,
        ),
    )


def _of_carriage() -> tuple[Case, ...]:
    cut = (Behaviour(cut=1), Behaviour(cut=7))
    other = (
        Behaviour(lag=0.5, shuffle=True),
        Behaviour(reorder=True),
        Behaviour(lag=0.2, reorder=True, shuffle=True),
    )
    grace = {"timeouts": Timeouts(idle=2.0, grace=2.0)}
    many = ("transfers", "several cubes", "rows all alike")
    return (
        Case("messages cut differently, and a drop", OUTAGE, many, {"behaviours": cut}, at_least=LOST),
        Case(
            "messages cut differently, and hand-overs",
            (),
            many,
            {**ROTATING, "behaviours": cut},
            at_least=ROTATED,
        ),
        Case(
            "another order and another lag on every socket, and a drop",
            OUTAGE,
            many,
            {"behaviours": other},
            grace,
            at_least=LOST,
            needs_queries=True,
        ),
        Case(
            "another order and another lag on every socket, and hand-overs",
            (),
            many,
            {"behaviours": other, "token_ttl": 10.0},
            grace,
            seconds=30,
            at_least=ROTATED,
            needs_queries=True,
        ),
    )


RARE = Doc(
    "a row in minutes",
    "subscription { EVM(network: eth) { Rare: Transactions(where: {Transaction: {Nonce: {lt: 10}}})"
    " { Block { Number } Transaction { Hash } } } }",
    sparse=True,
)


def _of_gaps() -> tuple[Case, ...]:
    return (
        Case(
            "an operation that is quiet for longer than the ring remembers",
            tuple(fault(at, "down", seconds=80.0) for at in (100, 280, 420, 560)),
            (RARE,),
            {"transactions": 1, "block_interval": 1.0, "portions": 1},
            seconds=700,
            at_least={"links": 5},
        ),
        Case(
            "a chain that stands still for longer than the ring remembers, and a drop",
            (fault(3, "stand_still", lasts=75.0), fault(77, "down", seconds=3.0)),
            ("transfers", "rows all alike"),
            seconds=85,
            at_least={"links": 2},
        ),
        *(
            Case(
                f"the {which} link drops in the midst of a hand-over",
                (fault(1.5, "abort", on="newest" if which == "new" else "oldest", after_link=after),),
                ("transfers", "a sparse filter", "rows all alike"),
                ROTATING,
                at_least={"links": 3},
                subprotocols=BOTH if after else (MODERN,),
            )
            for which in ("new", "old")
            for after in (0.3,)
        ),
        Case(
            "a drop before the first message",
            (fault(1.0, "down", seconds=2.5),),
            ("transfers", "two aliases of one cube"),
            {"block_interval": 2.0, "portions": 1},
            at_least={"links": 2},
        ),
        Case(
            "a drop while a gap is being closed",
            (
                fault(3.9, "query_lag", seconds=2.0),
                *OUTAGE,
                fault(5, "abort", after_link=0.7),
                fault(9, "abort", after_link=0.1),
            ),
            ("transfers", "rows all alike"),
            seconds=16,
            at_least={"links": 3},
        ),
        Case(
            "a consumer that parks",
            (fault(3, "park", reader=0, lasts=5.0),),
            ("transfers", "blocks"),
            {"block_interval": 0.2},
            buffer=Buffer(messages=5),
            at_least={"gaps": 1},
            at_most={"links": 1},
        ),
        Case(
            "an outage that ends in the middle of a block",
            (fault(4, "down", seconds=2.9),),
            ("transfers", "a time for cursor"),
            {"block_interval": 2.0, "portions": 5},
            at_least=LOST,
        ),
        Case(
            "an outage that begins in the middle of a block",
            (fault(4.9, "down", seconds=3.0),),
            ("transfers", "a time for cursor"),
            {"block_interval": 2.0, "portions": 5},
            at_least=LOST,
        ),
        Case(
            "links that are replaced",
            (),
            ("transfers", "a sparse filter"),
            ROTATING,
            {"handover": "replace"},
            at_least=ROTATED,
        ),
    )


def _of_documents() -> tuple[Case, ...]:
    """Every document of the zoo through a drop in the midst of a second, hand-overs and pauses."""
    return tuple(
        case
        for document in DOCUMENTS
        for case in (
            Case(
                f"an outage: {document.name}",
                (fault(4.1, "down", seconds=3.0),),
                (document,),
                at_least={"links": 2},
            ),
            Case(f"hand-overs: {document.name}", (), (document,), ROTATING, at_least=ROTATED),
            Case(
                f"pauses: {document.name}",
                (
                    fault(2.3, "pause", reader=0, lasts=0.01),
                    fault(4.1, "pause", reader=0, lasts=3.0),
                    fault(7.2, "pause", reader=0, lasts=1.0, after_link=0.05),
                ),
                (document,),
                ROTATING,
                at_least={"pauses": 3, "gaps": 1},
            ),
        )
    )


CASES: tuple[Case, ...] = (
    *_of_sockets(),
    *_of_tokens(),
    *_of_the_server(),
    *_of_carriage(),
    *_of_gaps(),
    *_of_documents(),
)
