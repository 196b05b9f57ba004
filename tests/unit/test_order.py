"""What ``resume`` and ``since`` stand for, and what they cannot."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from bqstream import Checkpoint, UsageError
from bqstream.checkpoint import Mark
from bqstream.clock import Clock
from bqstream.config import Buffer
from bqstream.delivery.backfill import Window
from bqstream.delivery.closing import Start
from bqstream.delivery.cursor import Cursor
from bqstream.delivery.document import Document
from bqstream.order import Order, check_variables, fingerprint_of
from tests.unit.test_client import DOCUMENT, client_of, service_of
from tests.virtual_time import virtual_time

NOW, WALL = 1_000.0, 1_700_000_000.5
CLOCK = Clock(monotonic=lambda: NOW, wall=lambda: WALL)
HTTP = "https://service.test/graphql"
TRANSFERS = "subscription { EVM { Transfers { Transfer { Amount } } } }"
TWO = "subscription { EVM { Transfers { Transfer { Amount } } Calls { Call { To } } } }"
SOLANA = "subscription { Solana { Transfers { Transfer { Amount } } } }"
FILLS = "subscription { Hyperliquid { Fills { Fill { Px } } } }"
AGGREGATE = "subscription { EVM { Transfers { count } n: Calls { Call { To } } } }"
NUMBERED = """
    subscription ($n: Int = 3) { EVM { Transfers(where: {Transfer: {Index: {ge: $n}}}) { Transfer { Amount } } } }
"""
TAGS = [b"first row", b"second ro", b"third row"]


def order(document: str = TRANSFERS, **asked: Any) -> Order:
    options: dict[str, Any] = {
        "variables": None,
        "buffer": Buffer(),
        "on_gap": "continue",
        "resume": None,
        "since": None,
        "identity": None,
        "backfill": True,
        "dataset": "realtime",
        "undo": False,
    }
    return Order(document=Document.parse(document), **{**options, **asked})


def start(document: str = TRANSFERS, **asked: Any) -> Start | None:
    ordered = order(document, **asked)
    return ordered.start(
        ordered.plan(hidden=True), fingerprint_of(ordered.document, ordered.variables, HTTP), CLOCK
    )


def checkpoint(
    document: str = TRANSFERS, cubes: Mapping[str, Mark] | None = None, *, ago: float = 90
) -> Checkpoint:
    """As a subscription of ``document`` gave it, so many seconds ago."""
    taken = fingerprint_of(Document.parse(document), None, HTTP)
    return Checkpoint(taken, datetime.fromtimestamp(WALL - ago, UTC), cubes or {})


def encoded(*tags: bytes) -> str:
    return base64.b64encode(b"".join(tags)).decode()


# ---------------------------------------------------------------------- since


def test_without_either_nothing_is_missing() -> None:
    assert start() is None


@pytest.mark.parametrize(
    ("since", "seconds"),
    [
        (timedelta(hours=1), 3600.0),
        (timedelta(milliseconds=1), 0.001),
        (datetime.fromtimestamp(WALL - 7.25, UTC), 7.25),
        (datetime.fromtimestamp(WALL - 60, timezone(timedelta(hours=-5))), 60.0),
        (datetime.fromtimestamp(WALL + 60, UTC), 0.0),
    ],
)
def test_a_time_or_an_age_is_a_time_of_a_block_in_whole_seconds_that_holds_it(
    since: Any, seconds: float
) -> None:
    found = start(TWO, since=since)
    assert found is not None
    assert set(found.windows) == {"Transfers", "Calls"}
    (window,) = set(found.windows.values())
    assert window == Window(since=window.since)
    assert window.since is not None
    asked = WALL - since.total_seconds() if isinstance(since, timedelta) else since.timestamp()
    assert window.since <= asked < window.since + 1
    assert found.at == pytest.approx(NOW - seconds, abs=1e-4)
    assert (found.cause, found.known) == ("since", {})


@pytest.mark.parametrize(("document", "kind"), [(TRANSFERS, "number"), (SOLANA, "slot")])
@pytest.mark.parametrize("block", [0, 21_000_000, 10**30])
def test_a_block_is_a_place_of_the_chain(document: str, kind: Any, block: int) -> None:
    found = start(document, since=block)
    assert found is not None
    assert found.windows == {"Transfers": Window(low=Cursor(kind, block))}
    assert found.at == NOW


def test_a_block_is_refused_where_a_cube_counts_by_time() -> None:
    with pytest.raises(
        UsageError, match=r"since=7: Fills is not followed by such a number; give a time or an age"
    ):
        start(FILLS, since=7)
    assert start(FILLS, since=timedelta(minutes=1)) is not None


@pytest.mark.parametrize(
    "since",
    [-1, True, False, 1.5, "2026-01-01", b"7", [], object(), Window()],
)
def test_what_is_no_time_no_age_and_no_block_is_refused(since: Any) -> None:
    with pytest.raises(UsageError, match="give a time, an age"):
        start(since=since)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=-1)])
def test_an_age_is_positive(age: timedelta) -> None:
    with pytest.raises(UsageError, match="an age is positive"):
        start(since=age)


def test_a_time_that_is_yet_to_come_is_refused() -> None:
    with pytest.raises(UsageError, match=r"that is yet to come; it is .* now"):
        start(since=datetime.fromtimestamp(WALL + 3600, UTC))


def test_since_is_refused_where_nothing_can_be_asked_for() -> None:
    with pytest.raises(UsageError, match="nothing of the document can be asked for from before: the mempool"):
        start("subscription { EVM(mempool: true) { Transfers { Transfer { Amount } } } }", since=7)


@pytest.mark.parametrize(
    ("told", "refused"), [("", False), ("other", True)], ids=["not said", "other fields"]
)
def test_a_checkpoint_that_tells_rows_apart_by_other_fields_is_refused(told: str, refused: bool) -> None:
    ordered = checkpoint(cubes={"Transfers": Mark(low=("number", "21"), told=told)})
    if not refused:
        assert start(resume=ordered) is not None
        return
    with pytest.raises(UsageError, match="tells rows apart by other fields: give the identity="):
        start(resume=ordered)


def test_a_time_without_its_zone_is_refused_since_nobody_knows_which() -> None:
    with pytest.raises(UsageError, match=r"give a time with its zone, such as datetime\(…, tzinfo=UTC\)"):
        start(since=datetime(2026, 1, 1))


def test_only_cubes_that_can_be_told_row_by_row_are_asked_for() -> None:
    found = start(AGGREGATE, since=7)
    assert found is not None
    assert set(found.windows) == {"n"}


# ---------------------------------------------------------------------- resume


def test_a_checkpoint_says_from_where_on_rows_are_missing_and_which_are_known() -> None:
    marks = {
        "Transfers": Mark(
            low=("number", "21"), beyond={"21": encoded(*TAGS), "22": encoded(TAGS[0]), "": ""}
        ),
        "Calls": Mark(since=1_600_000_000, beyond={"": encoded(TAGS[1])}),
    }
    found = start(TWO, resume=checkpoint(TWO, marks))
    assert found is not None
    assert found.windows == {
        "Transfers": Window(low=Cursor("number", 21)),
        "Calls": Window(since=1_600_000_000, about=1_600_000_060),
    }
    assert found.known == {
        "Transfers": [*((21, tag, 1) for tag in TAGS), (22, TAGS[0], 1)],
        "Calls": [(None, TAGS[1], 1)],
    }
    assert found.cause == "resumed"
    assert found.at == pytest.approx(NOW - 90, abs=1e-4)


def test_a_cube_that_the_checkpoint_does_not_know_is_missing_since_it_was_taken() -> None:
    found = start(TWO, resume=checkpoint(TWO, {"Transfers": Mark(low=("number", "21"))}))
    assert found is not None
    assert found.windows["Calls"] == Window(since=int(WALL - 90))


def test_a_checkpoint_of_the_future_begins_now() -> None:
    """Another machine's clock may be ahead of this one's."""
    found = start(resume=checkpoint(TRANSFERS, {"Transfers": Mark(low=("number", "21"))}, ago=-90))
    assert found is not None
    assert found.at == NOW


@pytest.mark.parametrize(
    ("document", "asked", "http"),
    [
        (TRANSFERS.replace("Amount", "Amount Sender"), {}, HTTP),
        (TRANSFERS, {"variables": {"n": 1}}, HTTP),
        (TRANSFERS, {}, "https://other.test/graphql"),
        (f"{TRANSFERS} ", {}, HTTP),
    ],
    ids=["another document", "other variables", "another endpoint", "another spelling"],
)
def test_a_checkpoint_of_something_else_is_refused(document: str, asked: Any, http: str) -> None:
    ordered = order(document, resume=checkpoint(), **asked)
    with pytest.raises(UsageError, match="another document, other variables or another endpoint"):
        ordered.start(
            ordered.plan(hidden=True), fingerprint_of(ordered.document, ordered.variables, http), CLOCK
        )


def test_the_fingerprint_knows_variables_by_their_values_whoever_gives_them() -> None:
    def of(variables: Any, document: str = NUMBERED) -> str:
        return fingerprint_of(Document.parse(document), variables, HTTP)

    assert of(None) == of({})
    assert of({"n": 4, "m": [1, {"a": 1, "b": 2}]}) == of({"m": [1, {"b": 2, "a": 1}], "n": 4})
    assert len({of(None), of({"n": 4}), of({"n": "4"}), of({"n": None})}) == 4


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (Mark(low=("number", "many")), "place of Transfers cannot be read: number many"),
        (Mark(low=("parsecs", "12")), "place of Transfers cannot be read: parsecs 12"),
        (Mark(low=("number", "21"), beyond={"21": "no base64!"}), "rows cannot be read"),
        (Mark(low=("number", "21"), beyond={"a block": encoded(TAGS[0])}), "rows cannot be read"),
    ],
)
def test_a_checkpoint_that_somebody_has_changed_is_refused(mark: Mark, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        start(resume=checkpoint(TRANSFERS, {"Transfers": mark}))


def test_a_resume_says_more_than_a_since() -> None:
    found = start(resume=checkpoint(TRANSFERS, {"Transfers": Mark(low=("number", "21"))}), since=7)
    assert found is not None
    assert found.cause == "resumed"


# ---------------------------------------------------------------------- by way of the client


@pytest.mark.parametrize("since", [-1, "yesterday", timedelta(0), datetime(2026, 1, 1)])
@virtual_time
async def test_a_since_that_means_nothing_is_refused_before_anything_is_sent(since: Any) -> None:
    async with client_of() as client:
        with pytest.raises(UsageError, match="since="):
            await client.subscribe(DOCUMENT, since=since)
        assert client.status().subscriptions == ()
        assert not service_of(client).sockets


@virtual_time
async def test_a_checkpoint_of_another_document_is_refused_before_anything_is_sent() -> None:
    async with client_of() as client, client.subscribe(DOCUMENT) as stream:
        taken = stream.checkpoint
        dials = len(service_of(client).sockets)
        for other in (DOCUMENT.replace("Hash", "Index"), f"{DOCUMENT} "):
            with pytest.raises(UsageError, match="another document"):
                await client.subscribe(other, resume=taken)
        with pytest.raises(UsageError, match="resume takes a Checkpoint, not str"):
            await client.subscribe(DOCUMENT, resume=taken.dumps())  # type: ignore[arg-type]
        assert len(service_of(client).sockets) == dials
        async with client.subscribe(DOCUMENT, resume=Checkpoint.loads(taken.dumps())) as again:
            assert again.checkpoint.fingerprint == taken.fingerprint
        changed = replace(taken, cubes={"Transfers": Mark(low=("number", "?"))})
        with pytest.raises(UsageError, match="cannot be read"):
            await client.subscribe(DOCUMENT, resume=changed)


# ---------------------------------------------------------------------- variables and identity


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"netwrk": "eth"}, r"declares no variable \$netwrk; it declares \$network"),
        ({1: "eth"}, "by name, not by 1"),
    ],
)
def test_a_variable_that_is_not_declared_is_refused(variables: Any, said: str) -> None:
    document = Document.parse(
        "subscription ($network: evm_network) { EVM(network: $network) { Blocks { Block { Number } } } }"
    )
    with pytest.raises(UsageError, match=said):
        check_variables(document, variables)


def test_an_identity_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(UsageError, match="identity=True: give key fields by cube, or False for none"):
        order(identity=True).plan(hidden=True)


def test_a_variable_that_is_needed_and_not_given_is_named_before_anything_is_sent() -> None:
    document = Document.parse(
        "subscription ($a: Int!, $b: Int! = 1, $c: Int) { E { T(a: $a, b: $b, c: $c) { d } } }"
    )
    with pytest.raises(UsageError, match=r"needs a value for \$a: Int!"):
        check_variables(document, {"c": 1})
    with pytest.raises(UsageError, match=r"\$a: Int!"):
        check_variables(document, {"a": None})
    check_variables(document, {"a": 1})
