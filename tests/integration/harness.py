"""A real client against a real simulator: opening one, reading on, and asking the ledger when all has been read.

    async with Simulator(token_ttl=3, block_interval=0.2) as simulator:
        seen = Events()
        async with client_for(simulator, on_event=seen.append) as client, reading(client, DOCUMENT) as reader:
            await simulator.blocks(50)
            (verdict,) = await settled(simulator, reader)
            assert verdict.exact, verdict
            assert seen.of(HandedOver)

It works in real time and, with ``@virtual_time`` on the test, in virtual time: the sockets are real in both.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from bqstream import Client, ClientCredentials, Gap
from bqstream.events import Event
from bqstream.simulator import Simulator
from bqstream.simulator.ledger import Verdict
from bqstream.subscription import Subscription
from tests.virtual_time import VirtualTimeLoop, virtual_clock

TRANSFERS = """subscription {
  EVM(network: eth) {
    Transfers {
      Block { Number Time }
      Transfer { Amount Currency { Symbol } Sender Receiver }
      Transaction { Hash }
    }
  }
}"""
POLL = 0.01
CALM = 0.3
E = TypeVar("E", bound=Event)


class Events(list[Event]):
    """What ``on_event`` was told: ``Client(on_event=seen.append)``."""

    def of(self, kind: type[E]) -> list[E]:
        """Those of one kind, oldest first."""
        return [event for event in self if isinstance(event, kind)]


@contextlib.asynccontextmanager
async def client_for(simulator: Simulator, credentials: Any = None, **options: Any) -> AsyncIterator[Client]:
    """An open client of ``simulator``, with the simulator's own client credentials unless others are given."""
    credentials = credentials or ClientCredentials(
        simulator.client_id, simulator.client_secret, token_url=simulator.token_url
    )
    client = Client(credentials, endpoint=simulator.endpoint, **options)
    if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
        client._clock = virtual_clock()
    async with client:
        yield client


class Reader:
    """Reads one subscription to its end, or until it is left; keeps all that came and the error that ended it."""

    def __init__(
        self,
        subscription: Subscription,
        document: str,
        variables: dict[str, Any] | None = None,
        client: Client | None = None,
    ) -> None:
        self.subscription = subscription
        self.client = client
        self.document = document
        self.variables = variables
        self.rows: list[Any] = []
        self.data: list[Any] = []  # of each message
        self.links: set[int] = set()  # that brought a message
        self.messages = 0
        self.error: Exception | None = None
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.subscription:
                self.messages += 1
                self.data.append(message.data)
                self.links.add(message.link)
                self.rows.extend(message.rows())
        except Exception as error:  # noqa: BLE001 - the test asks for it
            self.error = error

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps that the subscription has named."""
        return self.subscription.gaps

    @property
    def unclosed(self) -> list[Gap]:
        """Those of them whose rows may be missing."""
        return [gap for gap in self.gaps if not gap.closed]

    @property
    def calm(self) -> bool:
        """Whether no gap is being closed, and no link is about to be handed over, by which another would be named."""
        if self.task.done():
            return True
        status = self.client.status() if self.client is not None else None
        expires = status.token_expires_at if status is not None else None
        if self.subscription.closing or (status is not None and status.state != "live"):
            return False
        assert self.client is not None or expires is None
        return expires is None or expires.timestamp() > self.client._clock.wall() + 60  # type: ignore[union-attr]

    def verdict(self, simulator: Simulator) -> Verdict:
        """How what was read compares with what was emitted."""
        return simulator.ledger.verdict(self.document, self.rows, self.variables)


@contextlib.asynccontextmanager
async def reading(
    client: Client, document: str = TRANSFERS, variables: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Reader]:
    """Subscribe, and read in a task of its own until the block is left."""
    async with client.subscribe(document, variables, **options) as subscription:
        reader = Reader(subscription, document, variables, client)
        try:
            yield reader
        finally:
            reader.task.cancel()
            await asyncio.wait({reader.task})


async def until(condition: Callable[[], object], *, within: float = 30.0) -> None:
    """Wait until ``condition`` holds. Raises TimeoutError after ``within`` seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - whatever it is that changes, nobody tells of it
            await asyncio.sleep(POLL)


async def settled(
    simulator: Simulator, *readers: Reader, within: float = 10.0, closing: float = 60.0
) -> list[Verdict]:
    """Let gaps be closed, then the chain stand still; wait until all was sent and read, and ask the ledger about each.

    Closing a gap takes a chain that goes on, and no hand-over that names the next one before: tokens that are fetched
    from now on live an hour. Gaps that are not closed after ``closing`` seconds never are.

    What is still missing ``within`` seconds after the last frame was sent is lost, and the verdict says so. What is
    too much comes before half a second of silence, or never.
    """
    simulator.settings.token_ttl = 3600
    await _calm(CALM, readers, within=closing)
    simulator.pause()
    await simulator.drained()
    owed = [simulator.ledger.verdict(r.document, [], r.variables).emitted for r in readers]
    with contextlib.suppress(TimeoutError):
        await until(
            lambda: all(len(r.rows) >= count for r, count in zip(readers, owed, strict=True)), within=within
        )
    await _silence(0.5, readers)
    return [reader.verdict(simulator) for reader in readers]


async def _calm(seconds: float, readers: tuple[Reader, ...], *, within: float) -> None:
    """Wait until no reader has known a gap that is being closed for so long."""
    time = asyncio.get_running_loop().time
    begun = since = time()
    while time() - since < seconds:
        await asyncio.sleep(POLL)
        if not all(reader.calm for reader in readers):
            since = time()
            unclosed = [gap for reader in readers for gap in reader.unclosed]
            assert since - begun < within, f"not calm after {within:g} s: {[str(gap) for gap in unclosed]}"


async def _silence(seconds: float, readers: tuple[Reader, ...]) -> None:
    time = asyncio.get_running_loop().time
    since, before = time(), -1
    while time() - since < seconds:
        await asyncio.sleep(POLL)
        if (now := sum(reader.messages for reader in readers)) != before:
            since, before = time(), now
