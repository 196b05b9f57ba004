"""What a user opens, over a service in memory and in virtual time."""

from __future__ import annotations

import asyncio
import gc
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from gql import gql

from bqstream import Buffer, Client, ConnectionGivenUp, GapFound, Timeouts, Token, UsageError
from bqstream.events import Connected, Event, Parked, TokenRefreshed
from bqstream.transport.base import UpgradeRefused
from tests.unit.session.service import Script, Service, Socket, mute, polite, settle
from tests.virtual_time import virtual_clock, virtual_time

DOCUMENT = "subscription { EVM { Transfers { Hash } } }"
AGGREGATE = "subscription { EVM { Transfers { count Hash } } }"
DATA = '{"EVM":{"Transfers":[{"Hash":"0x1"}]}}'


def client_of(script: Script = polite, credentials: Any = "a-token-of-the-test", **options: Any) -> Client:
    """The service in memory takes no queries: gaps are not closed."""
    client = Client(credentials, endpoint="wss://service.test/graphql", **{"backfill": "off", **options})
    client._engine = Service(script)
    client._clock = virtual_clock()
    return client


async def credentials() -> Token:
    return Token("a-token-of-the-test", expires_in=100)


class Connections:
    """``on_event``: waits until a second link is there beside the first."""

    def __init__(self) -> None:
        self._second = asyncio.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Connected) and event.link == 2:
            self._second.set()

    async def overlap(self, service: Service) -> list[Socket]:
        await self._second.wait()
        await settle()
        return service.open


def service_of(client: Client) -> Service:
    service = client._engine
    assert isinstance(service, Service)
    return service


@pytest.mark.parametrize("proxy", ["user:a-secret@proxy.test:3128", 3])
def test_a_proxy_that_is_no_url_is_an_error_that_does_not_show_it(proxy: Any) -> None:
    with pytest.raises(UsageError, match="proxy is True") as caught:
        Client("a-token-of-the-test", proxy=proxy)
    assert "a-secret" not in str(caught.value)


@virtual_time
async def test_a_subscribe_that_waits_ends_with_an_error_when_the_client_is_closed() -> None:
    client = await client_of(mute).open()
    waiting = asyncio.ensure_future(client.subscribe(DOCUMENT))
    await settle()
    await client.aclose()
    with pytest.raises(ConnectionGivenUp, match="closed"):
        await waiting


@virtual_time
async def test_nothing_is_subscribed_or_executed_while_the_client_closes() -> None:
    client = await client_of().open()
    stream = await client.subscribe(DOCUMENT)
    service_of(client).newest.answers_close = False  # so that closing takes a while
    closing = asyncio.create_task(client.aclose())
    await settle()
    with pytest.raises(UsageError, match="not open"):
        await client.subscribe(DOCUMENT)
    with pytest.raises(UsageError, match="not open"):
        await client.execute("{ EVM { Blocks { Hash } } }")
    await closing
    await stream.aclose()
    assert len(service_of(client).sockets) == 1


@virtual_time
async def test_a_subscription_that_is_let_go_unclosed_warns_and_is_unsubscribed() -> None:
    async with client_of() as client:
        stream = await client.subscribe(DOCUMENT)
        await settle()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del stream
            gc.collect()
        assert [one.category for one in caught] == [ResourceWarning]
        await settle()
        assert client.status().subscriptions == ()
        assert "complete" in service_of(client).newest.words


@virtual_time
async def test_a_bug_reaches_readers_as_a_typed_error_and_who_closes_as_itself_and_in_no_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await client_of().open()
    stream = await client.subscribe(DOCUMENT)

    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(client._open[1][1], "payloads", fail)
    service_of(client).publish(DATA)
    with pytest.raises(ConnectionGivenUp, match=r"bug .*ZeroDivisionError"):
        await anext(stream)
    with pytest.raises(ZeroDivisionError):
        await client.aclose()
    assert client.status().state == "closed"


@virtual_time
async def test_a_token_may_live_longer_than_the_calendar() -> None:
    async def credentials() -> Token:
        return Token("a-token-of-the-test", expires_in=1e15)

    told: list[object] = []
    async with client_of(credentials=credentials, on_event=told.append) as client:
        expires = client.status().token_expires_at
        assert expires is not None
        assert expires.year == 9999
    assert [event.expires_at for event in told if isinstance(event, TokenRefreshed)] == [expires]


@pytest.mark.parametrize("document", [DOCUMENT, AGGREGATE], ids=["facts", "an aggregate"])
@virtual_time
async def test_a_gap_that_a_look_at_the_hand_over_finds_ends_that_subscription_alone(document: str) -> None:
    """With ``on_gap="raise"`` it goes at once, in the midst of what was looking at all of them."""
    async with client_of(credentials=credentials, on_event=(told := Connections())) as client:
        streams = [await client.subscribe(document, on_gap="raise") for _ in range(3)]
        old, new = await told.overlap(service_of(client))
        for number, name in enumerate(sorted(old.live)):
            old.say("next", name, {"data": {"EVM": {"Transfers": [{"Hash": f"old {number}"}]}}})
            new.say("next", name, {"data": {"EVM": {"Transfers": [{"Hash": f"new {number}"}]}}})
        for stream in streams:
            with pytest.raises(GapFound):
                async for _ in stream:
                    pass
        await asyncio.sleep(1)
        assert client.status().state == "idle"


@pytest.mark.parametrize("odd", ["print", asyncio.sleep])
def test_on_event_takes_what_can_be_called_and_need_not_be_awaited(odd: Any) -> None:
    with pytest.raises(UsageError, match="plain function"):
        client_of(on_event=odd)


@virtual_time
async def test_variables_that_are_none_are_refused_whatever_the_document_brings_along() -> None:
    asked = gql("subscription ($n: Int) { EVM { Transfers(limit: {count: $n}) { Hash } } }")
    with_values = SimpleNamespace(document=getattr(asked, "document", asked), variable_values={"n": 1})
    async with client_of() as client:
        with pytest.raises(UsageError, match="mapping"):
            await client.subscribe(with_values, [1])  # type: ignore[arg-type]
        async with client.subscribe(with_values, {"n": 2}):
            await settle()
            (start,) = [f for f in service_of(client).newest.heard if f["type"] == "subscribe"]
            assert start["payload"]["variables"] == {"n": 2}


@virtual_time
async def test_status_shows_no_expiry_of_a_token_that_was_refused() -> None:
    fetched = iter([Token("a-token-of-the-test", expires_in=100)])

    async def credentials() -> Token:
        token = next(fetched, None)
        if token is None:
            raise OSError("the endpoint is down")
        return token

    async with client_of(credentials=credentials) as client:
        assert client.status().token_expires_at is not None
        service_of(client).refusals.append(UpgradeRefused(401, {}, ""))
        waiting = asyncio.ensure_future(client.subscribe(DOCUMENT))
        await settle()
        assert client.status().token_expires_at is None
        assert client.status().state == "connecting"
        waiting.cancel()
    assert client.status().token_expires_at is None


@virtual_time
async def test_parking_and_its_end_are_told_whoever_saw_that_the_buffer_was_full() -> None:
    told: list[Event] = []
    small = Buffer(messages=4)
    async with client_of(on_event=told.append, buffer=small) as client, client.subscribe(DOCUMENT) as stream:
        await settle()
        for _ in range(2):
            for _ in range(small.messages):
                service_of(client).publish(DATA)
            await asyncio.sleep(3)  # longer than timeouts.block
            for _ in range(small.messages):
                await anext(stream)
    parked = [(event.operation, event.resumed) for event in told if isinstance(event, Parked)]
    assert parked == [(1, False), (1, True)] * 2


@pytest.mark.parametrize("document", [DOCUMENT, AGGREGATE], ids=["facts", "an aggregate"])
@virtual_time
async def test_a_link_that_a_full_buffer_kept_from_reading_repeats_no_row(document: str) -> None:
    """What is only counted, since the links brought different rows, is waited for as long as lag and pause take."""
    timeouts = Timeouts(grace=5, block=2)
    async with client_of(
        credentials=credentials, timeouts=timeouts, on_event=(told := Connections())
    ) as client:
        stream = await client.subscribe(document)
        old, new = await told.overlap(service_of(client))

        def bring(socket: Socket, text: str) -> None:
            (name,) = socket.live
            socket.say("next", name, {"data": {"EVM": {"Transfers": [{"Hash": text}]}}})

        bring(old, "of the old one alone")
        bring(new, "of the new one alone")
        await asyncio.sleep(8)
        assert [gap.cause for gap in stream.gaps] == (["handover"] if document == AGGREGATE else [])
        bring(old, "of both")
        await asyncio.sleep(6)
        bring(new, "of both")
        await settle()
        await client.aclose()
        rows = [row["Hash"] async for row in stream.rows()]
        assert rows.count("of both") == 1


@pytest.mark.parametrize("call", [Client, Client("a-static-token").subscribe], ids=["Client", "subscribe"])
def test_an_option_that_there_is_not_is_an_error_that_names_those_there_are(call: Any) -> None:
    known = "endpoint" if call is Client else "on_gap"
    with pytest.raises(UsageError, match=f"there is no option wrong; there are .*{known}"):
        call("subscription { a }", wrong=1)
