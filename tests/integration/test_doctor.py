"""The examination behind ``bqstream doctor``, on a real service over sockets: broken set-ups and healthy ones.

``pytest -n0 -s tests/integration/test_doctor.py`` prints what was said of each.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from bqstream import ClientCredentials, ShortTermToken, StaticToken, Token
from bqstream.cli.examine import examine
from bqstream.cli.findings import Cause, Finding, exit_code_of
from bqstream.cli.setup import Setup
from bqstream.simulator import Behaviour, Simulator

from .harness import client_for, reading, until
from .test_cli import BLOCKS, bqstream, environment

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"
NETWORK = {"network": "eth"}
TRADES, CHAIN, TRANSFERS, SOLANA = (
    (DOCUMENTS / f"{name}.graphql").read_text()
    for name in ("trades", "chain", "transfers", "solana_transfers")
)
UNMATCHED = 'subscription { EVM { Transfers(where: {Block: {Number: {lt: "5"}}}) { Transfer { Amount } } } }'
MEMPOOL = "subscription { EVM(mempool: true) { Transfers { Transfer { Amount } } } }"
AGGREGATE = "subscription { EVM { Transfers { count } } }"
TWO = BLOCKS.replace("subscription", "subscription A") + BLOCKS.replace("subscription", "subscription B")
Broken = AbstractAsyncContextManager[Setup]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine that runs the tests is none of theirs."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def pair(simulator: Simulator, **changes: Any) -> ClientCredentials:
    return ClientCredentials(
        simulator.client_id,
        **{"client_secret": simulator.client_secret, "token_url": simulator.token_url} | changes,
    )


def setup(simulator: Simulator, **changes: Any) -> Setup:
    usual = Setup(
        credentials=pair(simulator),
        endpoint=simulator.endpoint,
        document=BLOCKS,
        within=1.0,
        idle=1.0,
        patience=4.0,
    )
    return dataclasses.replace(usual, **changes)


def listed(name: str, findings: list[Finding]) -> None:
    """A row of the table that ``-s`` shows."""
    last = findings[-1]
    print(f"\n{name:<44} {last.cause or 'healthy':<20} {last.check}: {last.says}", end="")


def service(**options: Any) -> Simulator:
    return Simulator(**{"block_interval": 0.1} | options)


# ---------------------------------------------------------------------- broken


@asynccontextmanager
async def wrong_secret() -> AsyncIterator[Setup]:
    async with service() as simulator:
        yield setup(simulator, credentials=pair(simulator, client_secret="not-the-secret-at-all"))


@asynccontextmanager
async def wrong_url() -> AsyncIterator[Setup]:
    async with service() as simulator:
        yield setup(simulator, endpoint=simulator.endpoint.replace("/graphql", "/nowhere"))


@asynccontextmanager
async def wrong_token_url() -> AsyncIterator[Setup]:
    async with service() as simulator:
        yield setup(simulator, credentials=pair(simulator, token_url=f"{simulator.token_url}/nowhere"))


@asynccontextmanager
async def plain_http() -> AsyncIterator[Setup]:
    yield Setup(credentials=StaticToken("ory_at_x"), endpoint="http://service.example/graphql")


@asynccontextmanager
async def closed_port() -> AsyncIterator[Setup]:
    async with service() as simulator:
        gone = setup(simulator)
    yield dataclasses.replace(gone, credentials=StaticToken("ory_at_x"))


@asynccontextmanager
async def closed_port_of_tokens() -> AsyncIterator[Setup]:
    async with service() as gone:
        credentials = pair(gone)
    async with service() as simulator:
        yield setup(simulator, credentials=credentials)


@asynccontextmanager
async def expired_token(refusal: str) -> AsyncIterator[Setup]:
    async with service(refusal=refusal) as simulator:
        value = simulator.token()
        simulator.faults.expire(value)
        yield setup(simulator, credentials=StaticToken(value))


@asynccontextmanager
async def clock_off(seconds: float) -> AsyncIterator[Setup]:
    async with service() as simulator:
        yield setup(simulator, wall=lambda: time.time() + seconds)


@asynccontextmanager
async def no_rows() -> AsyncIterator[Setup]:
    async with service() as simulator:
        yield setup(simulator, document=UNMATCHED)


@asynccontextmanager
async def cap_reached(over: str) -> AsyncIterator[Setup]:
    async with (
        service(cap=1, over_cap=over) as simulator,
        client_for(simulator) as client,
        reading(client, BLOCKS),
    ):
        yield setup(simulator)


@asynccontextmanager
async def bad_document(text: str, **options: Any) -> AsyncIterator[Setup]:
    async with service(**options) as simulator:
        yield setup(simulator, document=text)


@asynccontextmanager
async def untrusted() -> AsyncIterator[Setup]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with service(tls=context) as simulator:
        yield setup(simulator, credentials=StaticToken(simulator.token()))


@asynccontextmanager
async def dead_socket() -> AsyncIterator[Setup]:
    async with service(block_interval=60) as simulator:

        async def stall() -> None:
            await until(lambda: any(opened.operations for opened in simulator._service.open.values()))
            simulator.faults.stall()

        stalling = asyncio.create_task(stall())
        yield setup(simulator)
        await stalling


@asynccontextmanager
async def stalled_chain() -> AsyncIterator[Setup]:
    async with service() as simulator:
        await simulator.blocks(3)
        simulator.pause()
        await simulator.drained()
        yield setup(simulator, document=TRADES, variables=NETWORK, stalled_after=1.0, patience=2.0)


@asynccontextmanager
async def faulty(act: Callable[[Simulator], None], **changes: Any) -> AsyncIterator[Setup]:
    async with service() as simulator:
        act(simulator)
        yield setup(simulator, **changes)


@asynccontextmanager
async def points_used_up() -> AsyncIterator[Setup]:
    async with service() as simulator:
        simulator.faults.refuse_queries(100, message="points limit exceeded")
        yield setup(simulator, document=UNMATCHED)


BROKEN: dict[str, tuple[Callable[[], Broken], Cause]] = {
    "wrong secret": (wrong_secret, "credentials-refused"),
    "wrong URL": (wrong_url, "wrong-address"),
    "wrong token URL": (wrong_token_url, "token-endpoint"),
    "no endpoint at all": (lambda: faulty(lambda _: None, endpoint="mars"), "wrong-address"),
    "plain http to another machine": (plain_http, "plaintext"),
    "closed port": (closed_port, "closed-port"),
    "closed port of the token endpoint": (closed_port_of_tokens, "closed-port"),
    "expired static token, HTTP 401": (lambda: expired_token("401"), "token-refused"),
    "expired static token, close 4403": (lambda: expired_token("4403"), "token-refused"),
    "expired static token, connection_error": (lambda: expired_token("connection_error"), "token-refused"),
    "expired static token, error on the operation": (lambda: expired_token("operation"), "token-refused"),
    "clock an hour ahead": (lambda: clock_off(3600), "clock"),
    "clock an hour behind": (lambda: clock_off(-3600), "clock"),
    "filter that matches nothing": (no_rows, "filter"),
    "filter that matches nothing, no points": (points_used_up, "silent"),
    "cap reached, in silence": (lambda: cap_reached("silent"), "over-cap"),
    "cap reached, with an error": (lambda: cap_reached("error"), "over-cap"),
    "document: syntax": (lambda: bad_document("subscription { EVM { Blocks {"), "document"),
    "document: a query": (lambda: bad_document("query { EVM { Blocks { Block { Number } } } }"), "document"),
    "document: refused by the service": (
        lambda: bad_document("subscription { EVM { Blocks(where: {Block: {Number: {isnt: 1}}}) { a } } }"), "document",
    ),
    "document: a cube that needs a filter": (
        lambda: bad_document("subscription { Solana { Instructions { Block { Slot } } } }"), "needs-filter",
    ),
    "document: a cube that never sends": (
        lambda: bad_document("subscription { EVM { Balances { Balance { Amount } } } }"), "query-only",
    ),
    "TLS refused": (untrusted, "tls"),
    "dead socket": (dead_socket, "dead-socket"),
    "chain stalled": (stalled_chain, "chain-stalled"),
    "acknowledgement never comes": (
        lambda: faulty(lambda s: s.faults.refuse_acks(9, "silence"), patience=1.0), "no-ack",
    ),
    "no active billing period": (
        lambda: faulty(lambda s: s.faults.refuse_dials(9, 402, body="No active billing period")), "plan",
    ),
    "too many sessions": (lambda: faulty(lambda s: s.faults.refuse_dials(9, 429)), "rate-limit"),
    "service down": (lambda: faulty(lambda s: s.faults.refuse_dials(9, 503)), "server-fails"),
    "token endpoint down": (lambda: faulty(lambda s: s.faults.token_endpoint("refuse", status=503)), "token-endpoint"),
    "no common subprotocol": (lambda: bad_document(BLOCKS, subprotocols=("nothing",)), "subprotocol"),
}  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BROKEN)
async def test_of_a_broken_set_up_the_cause_is_named_with_what_to_do(name: str) -> None:
    broken, cause = BROKEN[name]
    told: list[Finding] = []
    async with broken() as broken_setup:
        found = await examine(broken_setup, told.append)
    listed(name, [next((one for one in found if not one.good), found[-1])])
    assert told == found
    assert [one.cause for one in found if not one.good] == [cause], found
    assert all(one.advice for one in found if not one.good)
    refused = cause in ("credentials-refused", "token-refused", "plan", "over-cap")
    assert exit_code_of(found) == (3 if refused else 1)


# ---------------------------------------------------------------------- healthy


def trusted() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def vault(simulator: Simulator) -> Callable[[], Any]:
    async def fetch() -> Token:
        return Token(simulator.token(), expires_in=60)

    return fetch


Made = Callable[[Simulator], dict[str, Any]]
HEALTHY: dict[str, tuple[dict[str, Any], Made]] = {
    "the usual": ({}, lambda s: {}),
    "trades": ({"seed": 1}, lambda s: {"document": TRADES, "variables": NETWORK}),
    "two cubes": ({"seed": 2}, lambda s: {"document": CHAIN, "variables": NETWORK}),
    "a filter that matches": (
        {"seed": 3}, lambda s: {"document": TRANSFERS, "variables": {"network": "eth", "contract": "0x" + "ab" * 20}},
    ),
    "Solana": ({"seed": 4}, lambda s: {"document": SOLANA}),
    "one of two operations": ({"seed": 5}, lambda s: {"document": TWO, "operation_name": "B"}),
    "an aggregate": ({"seed": 6}, lambda s: {"document": AGGREGATE}),
    "the mempool": ({"seed": 7}, lambda s: {"document": MEMPOOL}),
    "legacy by choice": ({"seed": 8}, lambda s: {"options": {"subprotocol": "graphql-ws"}, "idle": 10.0}),
    "legacy alone": ({"seed": 9, "subprotocols": ("graphql-ws",)}, lambda s: {"idle": 10.0}),
    "modern alone": ({"seed": 10, "subprotocols": ("graphql-transport-ws",)}, lambda s: {}),
    "no keep-alives of the server's own": ({"seed": 11, "keepalive": None}, lambda s: {}),
    "a static token": ({"seed": 12}, lambda s: {"credentials": StaticToken(s.token())}),
    "the pair, by form": ({"seed": 13}, lambda s: {"credentials": pair(s, auth="form")}),
    "short-term tokens": ({"seed": 14}, lambda s: {"credentials": ShortTermToken(pair(s), expires_in=60)}),
    "a vault": ({"seed": 15}, lambda s: {"credentials": vault(s)}),
    "the token in the URL alone": (
        {"seed": 16, "token_in": ("query",)}, lambda s: {"options": {"token_in": ("query",)}},
    ),
    "the token in connection_init": (
        {"seed": 17, "token_in": ("init",)}, lambda s: {"options": {"token_in": ("init",)}},
    ),
    "the plan's last subscription": ({"seed": 18, "cap": 1}, lambda s: {}),
    "tokens of seconds": ({"seed": 19, "token_ttl": 3}, lambda s: {}),
    "slow answers": ({"seed": 20, "slow": 0.2}, lambda s: {}),
    "data that lags, reordered": (
        {"seed": 21, "behaviours": (Behaviour(lag=0.3, reorder=True, shuffle=True, cut=3),)}, lambda s: {},
    ),
    "blocks two seconds apart": ({"seed": 22, "block_interval": 2.0}, lambda s: {"within": 8.0, "idle": 1.5}),
    "a clock 20 s off": ({"seed": 23}, lambda s: {"wall": lambda: time.time() + 20}),
    "compression": ({"seed": 24, "compression": True}, lambda s: {"options": {"compression": True}}),
}  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("name", [*HEALTHY, "TLS by a private CA"])
async def test_a_healthy_set_up_raises_no_alarm(name: str) -> None:
    options, made = HEALTHY.get(name, ({}, lambda s: {}))
    tls = {}
    if name not in HEALTHY:
        options, tls = {"tls": (contexts := trusted())[0]}, {"tls": contexts[1]}
    async with service(**options) as simulator:
        found = await examine(setup(simulator, **{"within": 5.0} | made(simulator) | tls))
    listed(name, [next((one for one in found if not one.good), found[-1])])
    assert [one for one in found if not one.good] == []
    assert [one.check for one in found][-3:] == ["first row", "keep-alive", "plan"]
    assert exit_code_of(found) == 0


# ---------------------------------------------------------------------- the command


@pytest.mark.asyncio
async def test_the_command_says_line_by_line_what_is_well(simulator: Simulator) -> None:
    end = await bqstream("doctor", env=environment(simulator, PYTHONIOENCODING="utf-8"))
    assert end.code == 0, end
    *lines, last = end.out.splitlines()
    assert last == "healthy"
    assert len(lines) == 12
    assert all(line.startswith("✓ ") for line in lines)
    assert "\x1b" not in end.out
    assert simulator.client_secret not in end.out + end.err


@pytest.mark.asyncio
async def test_the_command_says_what_to_do_and_ends_with_3_for_credentials(simulator: Simulator) -> None:
    wrong = environment(simulator, BITQUERY_CLIENT_SECRET="not-the-secret-at-all", PYTHONIOENCODING="ascii")
    nobody = environment(BITQUERY_ENDPOINT=simulator.endpoint)
    ends = await asyncio.gather(
        bqstream("doctor", env=wrong),
        bqstream("doctor", env=nobody),
        bqstream("doctor", "--json", "--query", "subscription { EVM {", env=environment(simulator)),
        bqstream("doctor", "--within", "soon", env=environment(simulator)),
    )
    assert [end.code for end in ends] == [3, 3, 1, 2], ends
    assert "FAULT exchange: " in ends[0].out
    assert "  credentials-refused: compare client id and secret" in ends[0].out
    assert "BITQUERY_CLIENT_SECRET" in ends[1].out
    told = json.loads(ends[2].out)
    assert told["healthy"] is False
    assert [finding["cause"] for finding in told["findings"]] == ["document"]
    assert not any("not-the-secret" in end.out + end.err for end in ends)
