"""What a run does, drawn from a seed: the service, the client, the documents and twenty faults within half a minute,
in which some subscriptions are paused for a while.

A `Schedule` is a frozen value whose text says all of it; the same seed gives the same one.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bqstream import Backoff, Buffer, Timeouts
from bqstream.simulator import Behaviour
from bqstream.simulator.settings import Settings

from .zoo import DOCUMENTS, Doc

SECONDS = 30.0  # in which faults begin
FAULTS = 20
MODERN, LEGACY = "graphql-transport-ws", "graphql-ws"
KINDS = ("plain", "fork")
Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong ``at`` so many seconds; ``lasts`` so long, where it is a state and no event.

    ``on`` is which socket: "all", "newest" or "oldest". With ``after_link`` it waits for the next link that connects
    after ``at``, and comes so many seconds later: in the midst of a hand-over, or of a gap that is being closed.
    """

    at: float
    name: str
    arguments: Options = ()
    on: str = "all"
    lasts: float = 0.0
    after_link: float | None = None

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        when = (
            f"{self.at:6.2f}"
            if self.after_link is None
            else f"{self.at:6.2f} + next link + {self.after_link:.2f}"
        )
        lasts = f" for {self.lasts:.2f} s" if self.lasts else ""
        return f"{when}  {self.name}({given}){lasts}" + (f" on the {self.on}" if self.on != "all" else "")


@dataclass(frozen=True)
class Reading:
    """One subscription: its document, when it is subscribed, and its own buffer (None: the client's)."""

    document: Doc
    at: float = 0.0
    buffer: Buffer | None = None

    def __str__(self) -> str:
        own = f", {self.buffer.messages} messages, {self.buffer.overflow}" if self.buffer else ""
        return f"{self.document.name} from {self.at:.2f}{own}"


@dataclass(frozen=True)
class Schedule:
    """All that a run does. ``latency`` is the range of one way through the network, in seconds."""

    seed: int
    kind: str = "plain"
    service: Options = ()
    client: Options = ()
    readings: tuple[Reading, ...] = ()
    faults: tuple[Fault, ...] = ()
    latency: tuple[float, float] = (0.0, 0.0)
    short_term: float | None = None  # tokens are exchanged for ones that live so long
    seconds: float = SECONDS
    slow_machine: float = 0.0  # in real time, what comes in later for that

    def __str__(self) -> str:
        return "\n".join(
            (
                f"seed {self.seed}, {self.kind}, {self.seconds:g} s, latency {self.latency}, "
                f"short-term tokens {self.short_term}",
                *(f"  service  {name} = {value!r}" for name, value in self.service),
                *(f"  client   {name} = {value!r}" for name, value in self.client),
                *(f"  reads    {reading}" for reading in self.readings),
                *(f"  fault    {fault}" for fault in self.faults),
            )
        )

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """Those of all sockets that there may ever be."""
        later = (one for fault in self.faults for one in dict(fault.arguments).get("behaviours", ()))
        return (*dict(self.service).get("behaviours", ()), *later)

    @property
    def caps_by_error(self) -> bool:
        """Whether the plan's cap may refuse a subscription that has not been live yet, which ends it (PlanError)."""
        return any(
            fault.name == "cap" and dict(fault.arguments).get("over") == "error" for fault in self.faults
        )

    @property
    def is_orderly(self) -> bool:
        """Whether every socket brings rows in the order in which they were published."""
        return not any(one.reorder or one.shuffle for one in self.behaviours)

    @property
    def late(self) -> float:
        """By how many seconds at most a row comes in after it was published."""
        service, client = dict(self.service), dict(self.client)
        behaviours = self.behaviours
        lag = max((one.lag for one in behaviours), default=0.0)
        held = any(one.reorder or one.shuffle or one.cut is not None for one in behaviours)
        pressed = any(fault.name == "park" for fault in self.faults)
        timeouts = client.get("timeouts", Timeouts())
        return float(
            lag
            + 2 * self.latency[1]
            + held * service.get("block_interval", 1.0)
            + pressed * (timeouts.block + 0.1)
            + self.slow_machine
            + 0.05
        )

    def orderly(self) -> Schedule:
        """The same, but every socket brings rows in the order in which they were published."""

        def plain(options: Options) -> Options:
            return tuple((name, _in_order(value)) for name, value in options)

        faults = tuple(dataclasses.replace(fault, arguments=plain(fault.arguments)) for fault in self.faults)
        return dataclasses.replace(self, service=plain(self.service), faults=faults)

    def scaled(self, factor: float) -> Schedule:
        """The same with every time shortened by ``factor``, for real sockets; rounding apart."""

        def times(options: Options, names: tuple[str, ...]) -> Options:
            return tuple(
                (n, v * factor if n in names and v is not None else _shorter(v, factor)) for n, v in options
            )

        return dataclasses.replace(
            self,
            service=times(self.service, ("block_interval", "keepalive", "token_ttl", "query_lag")),
            client=times(self.client, ()),
            readings=tuple(dataclasses.replace(r, at=r.at * factor) for r in self.readings),
            faults=tuple(
                dataclasses.replace(
                    fault,
                    at=fault.at * factor,
                    lasts=fault.lasts * factor,
                    after_link=None if fault.after_link is None else fault.after_link * factor,
                    arguments=times(fault.arguments, ("seconds",)),
                )
                for fault in self.faults
            ),
            short_term=None if self.short_term is None else self.short_term * factor,
            latency=(0.0, 0.0),
            seconds=self.seconds * factor,
            slow_machine=0.3,
        )


def _in_order(value: Any) -> Any:
    match value:
        case (Behaviour(), *_):
            return tuple(dataclasses.replace(one, reorder=False, shuffle=False) for one in value)
    return value


def _shorter(value: Any, factor: float) -> Any:
    match value:
        case Timeouts():
            return Timeouts(**{f.name: getattr(value, f.name) * factor for f in dataclasses.fields(value)})
        case Backoff():
            return dataclasses.replace(value, initial=value.initial * factor, maximum=value.maximum * factor)
        case (Behaviour(), *_):
            return tuple(dataclasses.replace(one, lag=one.lag * factor) for one in value)
    return value


def schedule_of(seed: int) -> Schedule:
    """The schedule of this seed; every tenth has forks, which no other has."""
    chance = random.Random(f"bqstream faults {seed}")
    kind = "fork" if seed % 10 == 9 else "plain"
    lag = chance.choice((0.0, 0.0, 0.2, 0.5, 1.0))
    service = _service(chance, lag)
    latency = chance.choice((0.0, 0.0, 0.01, 0.08))
    client = _client(chance, lag + 2 * latency, dict(service))
    short_term = chance.choice((None, None, None, 6.0, 12.0))
    if short_term is not None:
        service = tuple((n, v) if n != "token_ttl" else (n, 17_999.0) for n, v in service)
    readings = _readings(chance)
    faults = _faults(chance, kind, lag, without=("revoke", "expire") if short_term is not None else ())
    return Schedule(
        seed=seed,
        kind=kind,
        service=service,
        client=client,
        readings=readings,
        faults=tuple(sorted((*faults, *_pauses(seed)), key=lambda fault: fault.at)),
        latency=(0.0, latency),
        short_term=short_term,
    )


# ---------------------------------------------------------------------- the service


def _behaviours(chance: random.Random, lag: float) -> tuple[Behaviour, ...]:
    """How sockets carry their data, in turn; the first one plain in most runs."""

    def behaviour() -> Behaviour:
        return Behaviour(
            lag=chance.choice((0.0, lag / 2, lag)),
            reorder=chance.random() < 0.2,
            shuffle=chance.random() < 0.15,
            cut=chance.choice((None, None, None, 1, 3, 20)),
        )

    return tuple(Behaviour() if chance.random() < 0.4 else behaviour() for _ in range(chance.randint(1, 3)))


def _service(chance: random.Random, lag: float) -> Options:
    subprotocols = chance.choice(((MODERN, LEGACY), (MODERN, LEGACY), (MODERN,), (LEGACY,)))
    drawn: dict[str, Any] = {
        "seed": chance.randrange(2**32),
        "block_interval": chance.choice((0.2, 0.4, 1.0, 1.0, 2.0)),
        "transactions": chance.choice((1, 3, 8, 20)),
        "portions": chance.choice((1, 2, 3, 5)),
        "keepalive": chance.choice((0.5, 1.0, None)),
        "token_ttl": chance.choice((5.0, 8.0, 12.0, 20.0, 17_999.0)),
        "subprotocols": subprotocols,
        "token_in": chance.choice((("header", "query"), ("header",), ("query",), ("init",))),
        "refusal": chance.choice(("401", "4401", "4403", "connection_error", "operation")),
        "on_expiry": chance.choice(("nothing", "close", "error", "silence")),
        "honour_complete": chance.random() < 0.8,
        "honour_stop": chance.random() < 0.3,
        "query_lag": chance.choice((0.0, 0.0, 0.5, 2.0, 3.0)),
        "row_cap": chance.choice((25_000, 25_000, 500)),
        "query_partial": chance.random() < 0.3,
        "reprice": chance.choice((0.0, 0.01)),
        "compression": chance.random() < 0.2,
        "behaviours": _behaviours(chance, lag),
    }
    if chance.random() < 0.15:  # a reader that pauses for longer than a second is shed
        drawn["send_buffer"], drawn["queue_messages"] = 4096, int(40 * (lag + 1.0)) * 5
    return known_options(drawn)


def known_options(service: Mapping[str, Any]) -> Options:
    """Those that this simulator has."""
    known = {one.name for one in dataclasses.fields(Settings)}
    return tuple((name, value) for name, value in service.items() if name in known)


# ---------------------------------------------------------------------- the client


def _client(chance: random.Random, lag: float, service: Mapping[str, Any]) -> Options:
    offered = service["subprotocols"]
    places = service["token_in"]
    timeouts = Timeouts(
        connect=chance.choice((2.0, 5.0)),
        ack=chance.choice((1.0, 3.0)),
        idle=chance.choice((2.0, 4.0)),
        # The furthest that data may lag; a block that a socket holds back counts too.
        grace=lag + service["block_interval"] + chance.choice((0.2, 1.0)),
        block=chance.choice((0.3, 1.0, 2.0)),
        query=chance.choice((5.0, 30.0)),
        close=chance.choice((0.5, 2.0)),
    )
    return (
        ("timeouts", timeouts),
        (
            "backoff",
            Backoff(initial=0.2, maximum=chance.choice((2.0, 4.0)), jitter=chance.choice((0.0, 0.5, 1.0))),
        ),
        ("handover", chance.choice(("overlap", "overlap", "overlap", "replace"))),
        ("subprotocol", chance.choice(("auto", "auto", chance.choice(offered)))),
        ("token_in", chance.choice((("header", "query"), places)) if places != ("init",) else places),
        ("connections", chance.choice((1, 1, 2))),
        ("compression", chance.random() < 0.2),
    )


def _readings(chance: random.Random) -> tuple[Reading, ...]:
    documents = chance.sample(DOCUMENTS, chance.randint(3, 5))
    return tuple(
        Reading(
            document,
            at=0.0 if place < 2 else round(chance.uniform(0, 6), 2),
            buffer=_buffer(chance) if chance.random() < 0.4 else None,
        )
        for place, document in enumerate(documents)
    )


def _buffer(chance: random.Random) -> Buffer:
    return Buffer(
        messages=chance.choice((5, 20, 60)),
        overflow=chance.choice(("block", "block", "block", "drop_oldest")),
    )


# ---------------------------------------------------------------------- the faults

# By name: how often, in parts; and whether one socket can be meant.
_WEIGHTS: dict[str, tuple[int, bool]] = {
    "close": (10, True),
    "abort": (10, True),
    "stall": (3, True),
    "silence": (3, True),  # a stall of data alone: the socket beats on
    "garbage": (3, True),
    "oversize": (1, True),
    "errors": (3, True),
    "revoke": (3, False),
    "expire": (3, False),
    "on_expiry": (2, False),
    "token_endpoint": (4, False),
    "down": (4, False),
    "refuse_dials": (3, False),
    "refuse_queries": (4, False),
    "refuse_acks": (3, False),
    "slow": (2, False),
    "cap": (2, False),
    "query_lag": (2, False),
    "behave": (3, False),
    "stand_still": (2, False),  # of the chain
    "park": (4, False),  # a reader stops reading
}
_PASSING_ERRORS = ("Unauthorized", "rate limit exceeded", "the token has expired")


def _faults(chance: random.Random, kind: str, lag: float, without: tuple[str, ...]) -> tuple[Fault, ...]:
    """``without``: a fresh access token that may not be exchanged ends the client, and rightly."""
    weights = {name: weight for name, (weight, _) in _WEIGHTS.items() if name not in without}
    if kind == "fork":
        weights["fork"] = 20
    faults = []
    for _ in range(FAULTS):
        (name,) = chance.choices(list(weights), list(weights.values()))
        at = round(chance.uniform(0.5, SECONDS), 2)
        after_link = round(chance.choice((0.0, 0.05, 0.3, 1.0, 2.0)), 2) if chance.random() < 0.3 else None
        on = "all"
        if _WEIGHTS.get(name, (0, False))[1]:
            on = chance.choice(("all", "newest", "newest", "oldest"))
        arguments, lasts = _arguments(chance, name, lag)
        faults.append(Fault(at, name, tuple(arguments.items()), on, lasts, after_link))
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _pauses(seed: int) -> tuple[Fault, ...]:
    """Users pause what they read, and go on: drawn apart, so that a seed's faults are what they always were."""
    chance = random.Random(f"bqstream pauses {seed}")
    return tuple(
        Fault(
            round(chance.uniform(0.5, SECONDS), 2),
            "pause",
            (("reader", chance.randrange(5)),),
            lasts=round(chance.choice((0.01, 0.5, 2.0, 8.0)) * chance.uniform(0.5, 1), 2),
            after_link=chance.choice((None, None, 0.0, 0.05, 0.3, 1.0)),
        )
        for _ in range(chance.randrange(5))
    )


def _arguments(chance: random.Random, name: str, lag: float) -> tuple[dict[str, Any], float]:
    """A fault's arguments, and how long it lasts where it is a state."""
    lasts = round(chance.uniform(0.5, 4), 2)
    match name:
        case "close":
            return {"code": chance.choice((1001, 1011, 1012, 1013))}, 0.0
        case "garbage":
            return {"kind": chance.choice(("json", "list", "binary", "type", "id", "error"))}, 0.0
        case "errors":
            return {"message": chance.choice(_PASSING_ERRORS)}, 0.0
        case "on_expiry":
            return {"what": chance.choice(("nothing", "close", "error", "silence"))}, 0.0
        case "token_endpoint":
            mode = chance.choice(("down", "slow", "refuse"))
            drawn: dict[str, Any] = {"mode": mode}
            if mode == "slow":
                drawn["seconds"] = lasts
            elif mode == "refuse":
                drawn["status"] = chance.choice((429, 503))
            return drawn, round(chance.uniform(1, 8), 2)
        case "down":
            return {"seconds": round(chance.choice((0.1, 1, 3, 10)) * chance.uniform(0.5, 1), 2)}, 0.0
        case "refuse_dials" | "refuse_queries":
            return {"count": chance.randint(1, 3), "status": chance.choice((429, 500, 502, 503))}, 0.0
        case "refuse_acks":
            how = chance.choice(("connection_error", "4401", "4403", "silence"))
            return {"count": chance.randint(1, 2), "how": how}, 0.0
        case "slow":
            return {"seconds": round(chance.uniform(0.1, 0.8), 2)}, lasts
        case "cap":
            return {"count": chance.randint(1, 3), "over": chance.choice(("silent", "error"))}, lasts
        case "query_lag":
            return {"seconds": chance.choice((0.0, 1.0, 3.0))}, 0.0
        case "behave":
            return {"behaviours": _behaviours(chance, lag)}, 0.0
        case "park":
            return {"reader": chance.randrange(5)}, round(chance.uniform(1, 8), 2)
        case "fork":
            return {"depth": chance.randint(1, 3)}, 0.0
        case "stand_still":
            return {}, lasts
    return {}, 0.0
