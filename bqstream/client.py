"""What a user opens: wires credentials, session and delivery together; the only room that knows all three."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import ssl
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Never, Self, TypeVar

import aiohttp
import anyio
import anyio.abc

from . import events, html, options
from .checkpoint import Checkpoint
from .clock import Clock
from .closer import Closer
from .config import Backoff, Buffer, Timeouts
from .credentials.exchange import Service
from .credentials.keeper import Keeper
from .credentials.providers import Credentials, as_credentials
from .credentials.token import HeldToken
from .delivery.document import Document
from .delivery.plan import Dataset, Identities, Plan
from .delivery.stream import Stream
from .endpoints import Endpoint, TokenPlace, check_token_in
from .errors import BqstreamError, ConnectionGivenUp, GapFound, UsageError
from .message import Gap, T
from .order import Order, check_variables, fingerprint_of, request_of
from .query import Queries
from .session.dialer import Dialer, Network, Subprotocol
from .session.links import Shared
from .session.operation import Operation
from .session.session import Session
from .status import Status
from .subscription import Subscribing, Subscription
from .transport import engine_for

P = TypeVar("P")

_log = logging.getLogger("bqstream")
_RUNNING: set[asyncio.Task[None]] = set()  # the loop itself keeps no task from being collected
RECENT = 200  # events that are kept


class Client:
    """Bitquery's streaming API, for as long as you like, while tokens come and go underneath.

    Use it with ``async with``, or ``await connect(…)`` and ``await client.aclose()``. One that is let go unclosed, with
    every subscription of it, warns (``ResourceWarning``) and is closed by the garbage collector.

    Args:
        credentials: ``StaticToken``, ``ClientCredentials``, ``ShortTermToken``, a token as text, an async callable
            that returns a ``Token``; ``None`` takes them from the environment (``BITQUERY_TOKEN``, or
            ``BITQUERY_CLIENT_ID`` and ``BITQUERY_CLIENT_SECRET``, each also as ``…_FILE``).
        endpoint: "eu", "us", "asia" or an http(s) or ws(s) URL; ``None``: ``BITQUERY_ENDPOINT``, else "eu".
        handover: "overlap" opens the new link before it closes the old; "replace" closes first, where the plan
            allows no two at once, and closes the gap by queries.
        engine: the WebSocket library; there is one, "websockets", which "auto" takes.
        subprotocol: "auto" offers both; or force one.
        token_in: where links bear the token, out of "header", "query" and "init" (the ``connection_init`` payload).
        connections: over how many links operations are spread.
        on_event: called with every lifecycle event (``bqstream.events``), on the event loop; keep it quick.
        timeouts, backoff, buffer: see ``Timeouts``, ``Backoff`` and ``Buffer``.
        backfill: "auto" closes gaps by queries, about 5 points each; "off" names them.
        dataset: where to ask for rows that the "realtime" dataset does not hold any more: "combined" or "archive".
        tls: an ``ssl.SSLContext`` of your own, for a private CA, say; by default the system's CAs are trusted.
        proxy: True takes it from the environment, a URL names one, ``None`` goes without.
        compression: offer permessage-deflate; it saves traffic and costs half the speed.
        max_message_bytes: a larger message ends the link (close code 1009).
        allow_plaintext: allow http:// and ws:// to other machines, which shows the token to the network.

    Raises:
        UsageError: an option that cannot mean anything; nothing was sent.
        MissingCredentials: none given, and none in the environment.
    """

    def __init__(
        self,
        credentials: Credentials | str | Callable[[], Any] | None = None,
        *,
        endpoint: str | None = None,
        handover: Literal["overlap", "replace"] = "overlap",
        engine: Literal["auto", "websockets"] = "auto",
        subprotocol: Subprotocol = "auto",
        token_in: tuple[TokenPlace, ...] = ("header", "query"),
        connections: int = 1,
        on_event: Callable[[events.Event], object] | None = None,
        timeouts: Timeouts | None = None,
        backoff: Backoff | None = None,
        buffer: Buffer | None = None,
        backfill: Literal["auto", "off"] = "auto",
        dataset: Dataset = "realtime",
        tls: ssl.SSLContext | None = None,
        proxy: str | bool | None = True,
        compression: bool = False,
        max_message_bytes: int = 64 * 1024 * 1024,
        allow_plaintext: bool = False,
        **unknown: Never,
    ) -> None:
        options.none_unknown(unknown, Client.__init__)
        options.one_of("handover", handover, ("overlap", "replace"))
        options.one_of("engine", engine, ("auto", "websockets"))
        options.one_of("subprotocol", subprotocol, ("auto", "graphql-transport-ws", "graphql-ws"))
        options.one_of("backfill", backfill, ("auto", "off"))
        options.one_of("dataset", dataset, ("realtime", "combined", "archive"))
        options.whole("connections", connections)
        options.whole("max_message_bytes", max_message_bytes)
        options.kind_of("timeouts", timeouts, Timeouts)
        options.kind_of("backoff", backoff, Backoff)
        options.kind_of("buffer", buffer, Buffer)
        options.kind_of("tls", tls, ssl.SSLContext)
        options.plain_function("on_event", on_event)
        options.proxy(proxy)
        self._endpoint = Endpoint.parse(
            endpoint or os.environ.get("BITQUERY_ENDPOINT") or "eu", allow_plaintext=allow_plaintext
        )
        self._credentials = as_credentials(credentials)
        self._token_in = check_token_in(token_in)
        self._handover = handover
        self._engine = engine_for(engine)
        self._subprotocol: Subprotocol = subprotocol
        self._connections = connections
        self._on_event = on_event
        self._recent: deque[events.Event] = deque(maxlen=RECENT)  # for those who begin to look
        self._listeners: list[Callable[[events.Event], object]] = []
        self._timeouts = timeouts or Timeouts()
        self._backoff = backoff or Backoff()
        self._buffer = buffer or Buffer()
        self._backfill: Literal["auto", "off"] = backfill
        self._dataset: Dataset = dataset
        self._network = Network(
            tls=tls,
            proxy=proxy,
            compression=compression,
            max_message_bytes=max_message_bytes,
            timeout=self._timeouts.connect,
        )
        self._allow_plaintext = allow_plaintext
        self._clock = Clock()
        self._keys = itertools.count(1)
        self._open: dict[int, tuple[Operation, Stream]] = {}
        self._keeper: Keeper | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Event | None = None
        self._session: Session | None = None
        self._queries: Queries | None = None
        self._closer: Closer | None = None
        self._refused_hidden: set[str] = set()  # documents that the service does not take with hidden fields

    def __repr__(self) -> str:
        return f"<Client of {self._endpoint.http}, {self.status().state}, {len(self._open)} subscriptions>"

    def _repr_html_(self) -> str:
        return html.facts("Endpoint", [("queries", self._endpoint.http), ("links", self._endpoint.ws)]) + (
            self.status()._repr_html_()
        )

    # ------------------------------------------------------------------ opening and closing

    async def open(self) -> Self:
        """Start the client's one background task and get the first token; links follow with subscriptions.

        Raises:
            CredentialsRefused, TokenRefused, PlanError: no token can be had; the client is closed again.
            UsageError: it was opened before.

        Cancelling closes what was opened.
        """
        if self._task is not None:
            raise UsageError("this client was opened before: make a new one")
        keeper, session, http = self._wire()
        self._closing, self._loop = asyncio.Event(), asyncio.get_running_loop()
        serving = _run(weakref.ref(self), self._closing, keeper, session, http)
        self._task = asyncio.create_task(serving, name="bqstream client")
        _RUNNING.add(self._task)
        self._task.add_done_callback(_RUNNING.discard)
        try:
            await keeper.current()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Unsubscribe everything, close the links politely within ``timeouts.close``, and end the background task.

        What already waits in a subscription that was not closed itself can still be read.

        Idempotent. Cancelling drops the links instead of closing them, and still leaves nothing behind.
        """
        if self._task is None:
            return
        assert self._closing is not None
        self._closing.set()
        cancelled = False
        while not self._task.done():
            try:
                await asyncio.wait({self._task})
            except asyncio.CancelledError:
                cancelled = True
                self._task.cancel()
        if cancelled:
            raise asyncio.CancelledError
        if not self._task.cancelled() and isinstance(error := self._task.exception(), Exception):
            raise error  # Ctrl-C the loop has raised already

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        closing = getattr(self, "_closing", None)
        if closing is not None and not closing.is_set():
            with contextlib.suppress(RuntimeError):  # its loop has ended, and its task with it
                self._loop.call_soon_threadsafe(closing.set)
            warnings.warn(
                "a Client was never closed: use 'async with' or aclose()", ResourceWarning, stacklevel=2
            )

    def _serve(self, tasks: anyio.abc.TaskGroup) -> None:
        assert self._queries is not None
        self._closer = Closer(self._queries, tasks, self._clock)

    def _served(self, error: BqstreamError) -> None:
        self._end_all(error)
        self._session = self._queries = self._keeper = self._closer = None

    def _wire(self) -> tuple[Keeper, Session, aiohttp.ClientSession]:
        """Make the parts and join them; asyncio objects belong to the running loop, so not before now."""
        http = aiohttp.ClientSession(
            trust_env=self._network.proxy is True,
            proxy=self._network.proxy if isinstance(self._network.proxy, str) else None,
            timeout=aiohttp.ClientTimeout(total=self._timeouts.query),
            connector=aiohttp.TCPConnector(ssl=self._network.tls or True),
        )
        service = Service(
            http=http,
            endpoint=self._endpoint,
            timeout=self._timeouts.query,
            allow_plaintext=self._allow_plaintext,
            clock=self._clock,
        )
        self._keeper = keeper = Keeper(
            self._credentials,
            service,
            clock=self._clock,
            on_refreshed=_weakly(self._refreshed),
            on_failed=_weakly(self._no_token),
        )
        shared = Shared(
            dialer=Dialer(self._engine, self._endpoint, self._token_in, self._subprotocol, self._network),
            keeper=keeper,
            timeouts=self._timeouts,
            backoff=self._backoff,
            clock=self._clock,
            on_event=_weakly(self._emit),
            mode=self._handover,
        )
        self._session = Session(shared, self._connections)
        self._queries = Queries(http, self._endpoint, keeper, self._timeouts, self._backoff)
        return keeper, self._session, http

    def _end_all(self, error: BqstreamError | None) -> None:
        for operation, stream in list(self._open.values()):
            self._forget(operation)
            operation.settle(error or ConnectionGivenUp("the client was closed"))
            if error is None:
                stream.completed(self._clock.monotonic())
            else:
                stream.failed(error, self._clock.monotonic())

    # ------------------------------------------------------------------ subscriptions and queries

    def subscribe(
        self,
        document: str | Path | Any,
        variables: Mapping[str, Any] | None = None,
        *,
        operation_name: str | None = None,
        type: type[T] | None = None,
        buffer: Buffer | None = None,
        on_gap: Literal["continue", "raise"] = "continue",
        resume: Checkpoint | None = None,
        since: datetime | timedelta | int | None = None,
        identity: Identities = None,
        backfill: Literal["auto", "off"] | None = None,
        dataset: Dataset | None = None,
        undo: bool = False,
        **unknown: Never,
    ) -> Subscribing[T]:
        """Subscribe ``document``: await the result, or enter it with ``async with``, to have the subscription.

        Args:
            document: GraphQL text, a ``Path`` of a file that holds it, or a gql document or request.
            variables: for the document; JSON values.
            operation_name: which subscription of the document, where it has several.
            type: what ``message.data`` is decoded into: a msgspec ``Struct``, dataclass, ``TypedDict`` or pydantic
                model of the fields that you want, nested as the document nests them and named as there, or by
                ``msgspec.field(name=…)`` or pydantic's aliases; None: dicts and lists. A field with a default may be
                absent, also for being misspelt, unless the struct has ``forbid_unknown_fields``, or the model
                ``extra="forbid"``. Messages of many rows are decoded into structs in half the time; pydantic takes its
                own. ``bqstream types`` writes such structs.
            buffer: in place of the client's.
            on_gap: "raise" ends the subscription with ``GapFound`` where rows are missing that cannot be brought.
            resume: a checkpoint of this document, variables and endpoint: what came since then is brought first, and
                nothing is repeated.
            since: the same from a moment on: a ``datetime``, an age (``timedelta``), or a block's number (Solana's
                slot). A checkpoint wins.
            identity: by cube, the paths of fields that tell its rows apart (``{"Transfers": ["Transaction.Hash",
                "Log.Index"]}``) in place of those that are known; False: compare rows by their content alone.
            backfill: "off" names gaps and sends no query; in place of the client's.
            dataset: where to ask for rows that the "realtime" dataset does not hold any more: "combined" or "archive".
            undo: tell with each message which rows a fork takes back (``message.undo``); every row is decoded for it.

        It is ready once it was sent on a live link; while none can be had that waits, as ``Backoff`` says.

        Raises:
            DocumentRefused: the document is wrong; before any connection, with the place.
            UsageError: the client is not open, or the call is wrong.
            CredentialsRefused, TokenRefused, PlanError, ConnectionGivenUp: no link can be had.

        Cancelling it unsubscribes.
        """
        options.none_unknown(unknown, Client.subscribe)
        options.one_of("on_gap", on_gap, ("continue", "raise"))
        if backfill is not None:
            options.one_of("backfill", backfill, ("auto", "off"))
        if dataset is not None:
            options.one_of("dataset", dataset, ("realtime", "combined", "archive"))
        options.kind_of("buffer", buffer, Buffer)
        if resume is not None and not isinstance(resume, Checkpoint):
            raise UsageError(
                f"resume takes a Checkpoint, not {resume.__class__.__name__}: Checkpoint.loads(text) or "
                "Checkpoint.load(path) reads one"
            )

        async def opened() -> Subscription[T]:
            parsed = Document.parse(document, operation_name)
            parsed.require("subscription")
            check_variables(parsed, variables)
            order = Order(
                document=parsed,
                variables=variables,
                buffer=buffer or self._buffer,
                on_gap=on_gap,
                resume=resume,
                since=since,
                identity=identity,
                backfill=(backfill or self._backfill) == "auto",
                dataset=dataset or self._dataset,
                undo=undo,
                into=type,
            )
            return await self._subscribe(order)

        return Subscribing(opened)

    async def _subscribe(self, order: Order) -> Subscription[Any]:
        session = self._opened(self._session)
        key = next(self._keys)
        plan = order.plan(hidden=order.document.text not in self._refused_hidden)
        if not order.resumes(plan) and order.resumes(own := order.plan(hidden=False)):
            plan = own  # as when the checkpoint was taken, the service having refused hidden fields
        course = _Course(self, key, order, plan)
        operation, stream = course.operation, course.stream
        subscription: Subscription[Any] = Subscription(stream, course, key)
        course.held = weakref.ref(subscription)
        self._open[key] = (operation, stream)
        session.add(operation)
        try:
            await operation.settled
            if operation.error is not None:
                raise operation.error
        except BaseException:
            await subscription.aclose()
            raise
        return subscription

    def _forget(self, operation: Operation) -> None:
        if self._open.pop(operation.key, None) is not None:
            self._unsubscribe(operation)

    def _unsubscribe(self, operation: Operation) -> None:
        if self._session is not None:
            self._session.remove(operation)

    async def execute(
        self,
        document: str | Path | Any,
        variables: Mapping[str, Any] | None = None,
        *,
        operation_name: str | None = None,
    ) -> dict[str, Any]:
        """Run one query over HTTP and give its ``data``.

        Passing refusals are retried within ``timeouts.query``; a refused token is refreshed. Cancelling drops the
        request.

        Raises:
            DocumentRefused: the document is wrong; where its syntax is, before anything is sent.
            OperationFailed: the service answered with errors; ``data`` holds what it gave beside them.
            TokenRefused, CredentialsRefused, PlanError, ConnectionGivenUp: there is no answer to be had.
            UsageError: the client is not open, or the call is wrong.
        """
        parsed = Document.parse(document, operation_name)
        parsed.require("query")
        data: dict[str, Any] = await self._opened(self._queries).execute(request_of(parsed, variables))
        return data

    def fingerprint(
        self,
        document: str | Path | Any,
        variables: Mapping[str, Any] | None = None,
        *,
        operation_name: str | None = None,
    ) -> str:
        """What a checkpoint of this document, with these variables, at this client's endpoint belongs to."""
        parsed = Document.parse(document, operation_name)
        return fingerprint_of(parsed, variables, self._endpoint.http)

    def _opened(self, part: P | None) -> P:
        if part is None or self._closing is None or self._closing.is_set():
            raise UsageError("the client is not open: use it inside 'async with', or await connect(…)")
        return part

    # ------------------------------------------------------------------ what happens

    @property
    def closed(self) -> bool:
        """Whether ``aclose`` was called, or its ``async with`` left; False before it is opened too."""
        return self._closing is not None and self._closing.is_set()

    def status(self) -> Status:
        """A picture of this moment: state, token, links and per-subscription counters."""
        token = self._keeper.held if self._keeper is not None else None
        return Status.of(self._session, token, self._clock, {key: s for key, (_, s) in self._open.items()})

    def _emit(self, event: events.Event) -> None:
        _log.debug("%s", event)
        self._recent.append(event)
        for listener in tuple(self._listeners):
            listener(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # somebody else's callable must not end the link that told it  # noqa: BLE001
                _log.exception("on_event failed")

    def _refreshed(self, held: HeldToken) -> None:
        expires = held.remaining(self._clock)
        at = events.moment(self._clock.wall() + expires) if expires != float("inf") else None
        self._emit(events.TokenRefreshed(at=events.moment(self._clock.wall()), expires_at=at))

    def _no_token(self, why: str, wait: float, attempt: int) -> None:
        now = self._clock.wall()
        self._emit(
            events.Waiting(
                at=events.moment(now),
                until=events.moment(now + wait),
                attempt=attempt,
                why=f"no token: {why}",
            )
        )


class _Course:
    """One subscription from its start to its end: what its stream asks and tells, passed on to the other parts."""

    __slots__ = ("_client", "_order", "held", "key", "operation", "stream")

    def __init__(self, client: Client, key: int, order: Order, plan: Plan) -> None:
        self._client = client
        self._order = order
        self.key = key
        self.held: Callable[[], Subscription[Any] | None] = lambda: None  # one let go unclosed is to warn
        fingerprint = fingerprint_of(order.document, order.variables, client._endpoint.http)
        self.stream = Stream(
            buffer=order.buffer,
            clock=client._clock,
            on_gap=self._gap_named,
            on_parked=self._parked,
            on_ready=self._ready,
            on_room=self._room,
            on_queries=self._queries,
            plan=plan,
            cubes=order.document.cubes,
            fingerprint=fingerprint,
            start=order.start(plan, fingerprint, client._clock),
            into=order.into,
            undo=order.undo,
            lag=client._timeouts.grace,
            pause=client._timeouts.block,
        )
        request = request_of(order.document, order.variables, plan.text)
        self.operation = Operation(key, request, self.stream, fallback=self._plain if plan.hides else None)

    def closed(self) -> None:
        """The user has closed it: what is still missing is not asked for any more."""
        self._client._forget(self.operation)
        self.stream.completed(self._client._clock.monotonic())

    def pause(self) -> None:
        """A paused operation is none of the session's: no link is kept for it, and no hand-over starts it."""
        if not (self.stream.over or self.stream.paused):
            self._switched(events.Paused)
            self._client._unsubscribe(self.operation)
            self.stream.pause(self._client._clock.monotonic())

    def resume(self) -> None:
        client = self._client
        if self.stream.paused and client._session is not None and not client.closed:
            self.stream.resume()
            self._switched(events.Resumed)
            client._session.add(self.operation)

    def _switched(self, event: type[events.Paused | events.Resumed]) -> None:
        at = events.moment(self._client._clock.wall())
        self._client._emit(event(at=at, operation=self.key))

    def status(self) -> Status:
        return self._client.status()

    def listen(self, listener: Callable[[events.Event], object]) -> Callable[[], None]:
        for event in self._client._recent:
            listener(event)
        self._client._listeners.append(listener)
        return partial(self._client._listeners.remove, listener)

    def _gap_named(self, gap: Gap) -> None:
        client = self._client
        client._emit(events.GapNamed(at=events.moment(client._clock.wall()), operation=self.key, gap=gap))
        if self._order.on_gap == "raise" and gap.is_hole:
            client._forget(self.operation)
            self.stream.failed(GapFound(gap), client._clock.monotonic())

    def _ready(self) -> None:
        if self.stream.over:  # an overflow ends it from inside
            self._client._forget(self.operation)
        if (reader := self.held()) is not None:
            reader._wake()

    def _parked(self, resumed: bool) -> None:
        at = events.moment(self._client._clock.wall())
        self._client._emit(events.Parked(at=at, operation=self.key, resumed=resumed))

    def _room(self) -> None:
        if self._client._session is not None:
            self._client._session.has_room(self.operation)

    def _queries(self) -> None:
        if self._client._closer is not None:
            self._client._closer.close(self.stream)

    def _plain(self) -> bytes | None:
        """The service refused hidden fields: the user's own document is sent, and that is remembered."""
        stream, order = self.stream, self._order
        if stream.messages or stream.waiting_messages:  # brought by queries, so that it is not these fields
            return None
        own = order.plan(hidden=False)
        if not order.resumes(own):  # it would not know what the checkpoint knows
            return None
        self._client._refused_hidden.add(order.document.text)
        stream.replan(own)
        return request_of(order.document, order.variables)


async def connect(credentials: Credentials | str | Callable[[], Any] | None = None, **options: Any) -> Client:
    """Open a client that ``await client.aclose()`` closes, perhaps in another cell of a notebook.

    Takes and raises what ``Client`` and ``Client.open`` do.
    """
    return await Client(credentials, **options).open()


async def _run(
    held: Callable[[], Client | None],
    closing: asyncio.Event,
    keeper: Keeper,
    session: Session,
    http: aiohttp.ClientSession,
) -> None:
    """Own all that runs from ``open`` to ``aclose``, since a cancel scope is left by the task that entered it.

    It is not what keeps a client: one that was let go, as by a notebook's cell that is run again, is closed.
    """
    closed = ConnectionGivenUp("the client was closed")
    try:
        async with http, anyio.create_task_group() as tasks:
            if (client := held()) is not None:
                client._serve(tasks)
            del client
            tasks.start_soon(keeper.run)
            tasks.start_soon(session.run)
            await closing.wait()
            if (client := held()) is not None:
                client._end_all(None)
            await session.aclose()
            tasks.cancel_scope.cancel()
    except Exception as error:  # noqa: BLE001
        _log.exception("the client failed by a bug of its own; please report it")
        bug = _leaf(error)
        closed = ConnectionGivenUp(f"the client failed by a bug of its own ({type(bug).__name__})")
        raise bug from None
    except BaseExceptionGroup as group:  # Ctrl-C struck in a task of the client's: the loop is to raise it
        closed = ConnectionGivenUp("the client was interrupted")
        raise _leaf(group) from None
    finally:
        if (client := held()) is not None:
            client._served(closed)


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """``method`` for as long as its object is there."""
    held = weakref.WeakMethod(method)

    def call(*values: Any, **named: Any) -> None:
        if (found := held()) is not None:
            found(*values, **named)

    return call


def _leaf(error: BaseException) -> BaseException:
    """The one error in a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[-1]
    return error
