"""``nats://HOST[:PORT]/STREAM/SUBJECT``, ``tls://…``: JSON lines in a stream of JetStream's; a commit is a message.

Any nats-server with JetStream will do. A stream that is not there is made: SUBJECT alone, in files, without limits. One
that is there stays as it is, and must take SUBJECT and keep what was read (retention ``limits``). Each subscription
needs a subject of its own, to which nobody else publishes; several may be in one stream.

**Body.** One JSON value a line::

    {"table": "Trades", "row": {…}}     a row, as the service nests it
    {"table": "Trades", "undo": {…}}    a row taken back: as many equal ones came before, and one of them is void
    {"gap": {"id": …, "closed": …}}     a gap; the newest record with an id takes the place of the former
    {"state": "…"}                      the collector's own, always the last line of a commit: pass over it

**Headers.** A commit that is larger than a message may be (``max_payload``, 1 MiB unless configured; the stream's
``max_msg_size``) is cut into parts, whose bodies joined are its lines.

    Bqstream-Subscription   whose, percent-encoded
    Bqstream-Commit         its number: 1, 2, 3, …
    Bqstream-Part           "2/3": the second part of three; "1/1" where it was not cut
    Bqstream-Previous       at which sequence of the stream the commit before it ends; 0: there is none
    Bqstream-State          of the last part: the sequence of that in which the state begins, if it is an earlier one
    Bqstream-Writer         differs between processes

A collector that dies between two parts leaves a commit without its last part. It is void: the same number begins again,
perhaps with other rows. So a reader drops what it has gathered when a part 1 comes. What it gathers whole is in order
and never repeated; it gets each row exactly once if it keeps the sequence together with what it makes of the rows::

    config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=kept + 1)
    parts = []
    async for message in (await js.subscribe(SUBJECT, config=config, ordered_consumer=True)).messages:
        part, of = map(int, message.headers["Bqstream-Part"].split("/"))
        parts = [message.data] if part == 1 else [*parts, message.data]
        if len(parts) == part == of:
            lines = [json.loads(line) for line in b"".join(parts).splitlines()]
            with database:                  # rows and sequence in one transaction
                save([line["row"] for line in lines if "row" in line])
                keep(message.metadata.sequence.stream)

**Exactly once** rests on the stream's order, not on its duplicate window: each part is stored only if the subject's
last message is the one that the collector knows, and the state is read from there. What the server has acknowledged it
may still lose with the machine's power, unless it has replicas or ``sync_interval: always``; limits of the stream must
keep a commit for longer than the collector may be down, or it begins anew.

**Credentials** are never in the address: NATS_CREDS (the path of a credentials file), or NATS_TOKEN, or NATS_USER and
NATS_PASSWORD, each of the last three also as ``…_FILE``; read again whenever it connects. ``nats://`` goes to this
machine only, unless ``?plaintext=yes`` says that the network itself is trusted; ``tls://`` never falls back to it, and
takes a CA of one's own from SSL_CERT_FILE. The user publishes to SUBJECT and to
``$JS.API.STREAM.{INFO,CREATE,MSG.GET}.STREAM``, and subscribes to ``_INBOX.>``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec
from nats import errors
from nats.aio.client import Client
from nats.js.api import RawStreamMsg, RetentionPolicy, StorageType, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from ...endpoints import is_loopback
from ...errors import BqstreamError, SinkFailed, SinkLocked, SinkUnavailable, UsageError
from ...tables.table import Rows
from ..commit import Commit, Stored
from ..failpoints import failpoint
from ..sink import Address

T = TypeVar("T")

# For the server to answer, and to be reached; seconds.
_ANSWER = 5.0
_CONNECT = 5.0
# For a connection to end cleanly.
_LEAVE = 0.5
# Of each message: the headers, but for the names in them.
_HEADERS = 360
_FORBIDDEN = set(" \t\r\n*>")
# JetStream's own codes (nats-server, server/errors.json).
_WRONG_SEQUENCE = (10071, 10164)
_NO_JETSTREAM = (10039, 10076)
_NO_ROOM = (10002, 10023, 10028, 10047, 10077)
_ADVICE = "its credentials come from NATS_CREDS, NATS_TOKEN, or NATS_USER and NATS_PASSWORD (or …_FILE)"

_encode = msgspec.json.Encoder()


def sink(address: Address) -> NATSSink:
    """``nats://`` or ``tls://HOST[:PORT]/STREAM/SUBJECT``; ``plaintext=yes`` allows ``nats://`` to other machines."""
    address.only("plaintext")
    shape = f"{address.scheme}: give {address.scheme}://HOST[:PORT]/STREAM/SUBJECT"
    slashes, place = address.place[:2], address.place[2:]
    server, _, rest = place.partition("/")
    stream, _, subject = rest.partition("/")
    if "@" in server:
        raise UsageError(f"{address.scheme}: no user, password or token in the address: {_ADVICE}")
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        raise UsageError(shape) from None
    if slashes != "//" or not host or not stream or not all(subject.split(".")):
        raise UsageError(shape)
    if _FORBIDDEN & set(stream + subject) or set(stream) & set(".\\"):
        raise UsageError(f"{shape}; neither has spaces or wildcards, and STREAM no full stop")
    plaintext = address.options.get("plaintext", "no")
    if plaintext not in ("yes", "no"):
        raise UsageError(f"{address.scheme}: plaintext is yes or no")
    if address.scheme == "nats" and plaintext == "no" and not is_loopback(host):
        raise UsageError(
            f"nats: plain nats:// would show rows and credentials to everybody on the way to {host}: "
            "use tls://, or ?plaintext=yes where the network itself is trusted"
        )
    shown = f"[{host}]" if ":" in host else host
    return NATSSink(f"{address.scheme}://{shown}:{port}", stream, subject)


class NATSSink:
    """A subject of a stream; ``url`` is that of the server."""

    flat = False
    lock = None

    def __init__(self, url: str, stream: str, subject: str) -> None:
        self.name = f"{url}/{stream}/{subject}"
        self._url = url
        self._stream = stream
        self._subject = subject
        self._writer = secrets.token_hex(8)
        self._client: _Client | None = None
        self._subscription = ""
        self._room = 0  # bytes of a body
        # The last commit's number and where it ends in the stream; where the subject ends: later, if parts are void.
        self._number = 0
        self._previous = 0
        self._tail: int | None = None

    def __repr__(self) -> str:
        return f"<NATSSink {self.name}>"

    async def open(self, subscription: str) -> Stored | None:
        return await self._opened(subscription, make=True)

    async def peek(self, subscription: str) -> Stored | None:
        try:
            return await self._opened(subscription, make=False)
        except _NotFound:
            return None

    async def _opened(self, subscription: str, *, make: bool) -> Stored | None:
        await self.aclose()
        self._client = client = _Client(self.name)
        await client.ask(client.connect_to(self._url), _CONNECT)
        limits = await self._limits(client, make)
        self._subscription = quote(subscription)
        self._room = min(limits) - _HEADERS - len(self._subscription) - len(self._stream)
        last = await self._message(client)
        self._number, self._previous, self._tail = 0, 0, last.seq or 0 if last else 0
        if last and not _is_whole(headers := self._headers(last)):
            # What the commit before it left is behind the void parts.
            last = await self._message(client, int(headers["Bqstream-Previous"]))
        if last is None:
            return None
        self._number, self._previous = int(self._headers(last)["Bqstream-Commit"]), last.seq or 0
        return Stored(self._number, await self._state(client, last))

    async def commit(self, commit: Commit) -> None:
        client, tail, self._tail = self._client, self._tail, None  # known again when the commit is there
        if client is None or tail is None:
            raise SinkUnavailable(f"{self.name} is not open")
        if commit.number != self._number + 1:
            raise SinkLocked(f"{self.name}: holds {self._number} commits; {commit.number} is not the next")
        parts, before = await self._parts(commit)
        state: int | None = None  # where it begins, once that is known
        for part, body in enumerate(parts, 1):
            if part == len(parts):
                failpoint("written")
                failpoint("staged")
            headers = {
                "Bqstream-Subscription": self._subscription,
                "Bqstream-Commit": str(commit.number),
                "Bqstream-Part": f"{part}/{len(parts)}",
                "Bqstream-Previous": str(self._previous),
                "Bqstream-Writer": self._writer,
                "Nats-Expected-Stream": self._stream,
                **({} if state is None or part < len(parts) else {"Bqstream-State": str(state)}),
            }
            try:
                tail = await self._publish(client, body, headers, tail)
            except _WrongSequence:
                if await self._overtaken(client) or part > 1:
                    raise SinkLocked(
                        f"{self.name}: another collector writes {commit.subscription!r} there, or somebody deletes"
                    ) from None
                tail = await self._publish(client, body, headers, 0)
            before -= len(body)
            state = tail if state is None and before < 0 else state
        failpoint("committed")
        self._number, self._previous, self._tail = commit.number, tail, tail

    async def aclose(self) -> None:
        client, self._client, self._tail = self._client, None, None
        if client is not None:
            await client.leave()

    async def _limits(self, client: _Client, make: bool) -> list[int]:
        """Find the stream, or ``make`` it; and say what a message may have at most, by the server and by the stream."""
        try:
            info = await client.ask(client.js.stream_info(self._stream))
        except _NotFound:
            if not make:
                raise
            config = StreamConfig(
                name=self._stream,
                subjects=[self._subject],
                storage=StorageType.FILE,
                retention=RetentionPolicy.LIMITS,
            )
            info = await client.ask(client.js.add_stream(config))
        config = info.config
        if not any(_takes(pattern, self._subject) for pattern in config.subjects or ()):
            raise SinkFailed(
                f"{self.name}: the stream takes {', '.join(config.subjects or ()) or 'no subject'}: name one of "
                f"these, or add it: nats stream edit {self._stream} --subjects=…"
            )
        if config.retention not in (None, RetentionPolicy.LIMITS) or config.no_ack:
            raise SinkFailed(
                f"{self.name}: the stream deletes what was read, or does not acknowledge, so that nothing could go on "
                "from it: use one with the retention limits, from which a work queue may take its messages"
            )
        return [client.max_payload, *(size for size in (config.max_msg_size or 0,) if size > 0)]

    async def _message(self, client: _Client, sequence: int | None = None) -> RawStreamMsg | None:
        """The subject's last message, or that with a sequence. The stream's leader answers: it has all of them."""
        try:
            if sequence is None:
                return await client.ask(client.js.get_last_msg(self._stream, self._subject))
            return await client.ask(client.js.get_msg(self._stream, sequence)) if sequence else None
        except _NotFound:
            if sequence is None:
                return None
        raise SinkFailed(
            f"{self.name}: ends with half a commit, and the stream's limits have dropped the one before it: "
            f"nats stream purge {self._stream} --subject={self._subject} begins anew"
        )

    def _headers(self, message: RawStreamMsg) -> Mapping[str, str]:
        headers: Mapping[str, str] = message.headers or {}
        theirs = headers.get("Bqstream-Subscription")
        if theirs is None:
            raise SinkFailed(f"{self.name}: others publish there: give the collector a subject of its own")
        if theirs != self._subscription:
            raise SinkFailed(
                f"{self.name} has the rows of {unquote(theirs)!r}: give each subscription a subject of its own"
            )
        return headers

    async def _state(self, client: _Client, last: RawStreamMsg) -> str:
        """The state of the commit that ends with ``last``; it may begin in an earlier part."""
        end = last.seq or 0
        begin = at = int(self._headers(last).get("Bqstream-State", end))
        text = b""
        while at <= end:
            call = client.js.get_msg(self._stream, at, subject=self._subject, next=True)
            message = await client.ask(call)
            if at == begin != message.seq:
                raise SinkFailed(
                    f"{self.name}: the stream's limits have dropped a part of the last commit: "
                    f"nats stream purge {self._stream} --subject={self._subject} begins anew"
                )
            text += message.data or b""
            at = (message.seq or end) + 1
        state: str = msgspec.json.decode(text.splitlines()[-1])["state"]
        return state

    async def _parts(self, commit: Commit) -> tuple[list[bytes], int]:
        """The commit's lines, cut at their ends where that is possible; and how many bytes come before the state."""
        lines = []
        for rows in commit.steps:
            lines.append(_rows(rows))
            await asyncio.sleep(0)  # others wait for the loop
        lines += [_line({"gap": gap}) for gap in commit.gaps]
        return list(_cut(b"".join((*lines, _line({"state": commit.state}))), self._room)), sum(
            map(len, lines)
        )

    async def _publish(self, client: _Client, body: bytes, headers: dict[str, Any], tail: int) -> int:
        """Add a message where the subject ends with that of sequence ``tail``, and give its own."""
        headers = {**headers, "Nats-Expected-Last-Subject-Sequence": str(tail)}
        call = client.js.publish(self._subject, body, timeout=2 * _ANSWER, headers=headers)
        return (await client.ask(call)).seq

    async def _overtaken(self, client: _Client) -> bool:
        """Whether another has committed; if nothing is there, all has expired while there was nothing to commit."""
        last = await self._message(client)
        if last and (last.headers or {}).get("Bqstream-Writer") == self._writer:
            # Sent over a connection that was given up.
            raise SinkUnavailable(f"{self.name}: what was sent before has arrived after all")
        return last is not None


def _is_whole(headers: Mapping[str, str]) -> bool:
    part, _, of = headers["Bqstream-Part"].partition("/")
    return part == of


def _rows(rows: Rows) -> bytes:
    if not rows.count:
        return b""
    head = b'{"table":%b,"%b":' % (_encode.encode(rows.table.name), b"undo" if rows.undo else b"row")
    plain = _encode.encode_lines(rows.nested)  # a line end stands nowhere else in JSON
    return head + plain[:-1].replace(b"\n", b"}\n" + head) + b"}\n"


def _line(value: object) -> bytes:
    return _encode.encode(value) + b"\n"


def _cut(text: bytes, size: int) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            end = text.rfind(b"\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def _takes(pattern: str, subject: str) -> bool:
    """Whether a stream's subject, which may have wildcards, takes ``subject``."""
    ours = subject.split(".")
    theirs = pattern.split(".")
    if theirs[-1] == ">":
        theirs = theirs[:-1]
        ours = ours[: len(theirs)] if len(ours) > len(theirs) else []
    return len(ours) == len(theirs) and all(
        one in ("*", other) for one, other in zip(theirs, ours, strict=True)
    )


class _NotFound(SinkFailed):
    """There is no such stream or message."""


class _WrongSequence(SinkLocked):
    """The subject does not end where this collector thinks."""


class _Client(Client):
    """One connection, which is never taken up again: ``open`` makes a new one, and asks what has become of the former.

    Whatever is asked ends with the answer, with the connection, or after a time; nats-py's own bounds are wider. It has
    nothing to log here, since errors come to ``_failed``, but for a fault of its own in reading.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._lost: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.js: JetStreamContext = self.jetstream(timeout=2 * _ANSWER)

    async def connect_to(self, url: str) -> None:
        options = _credentials(self._name)
        if url.startswith("tls:"):
            options["tls"] = ssl.create_default_context()
        await self.connect(
            url,
            name="bqstream",
            error_cb=self._failed,
            closed_cb=self._closed,
            allow_reconnect=False,
            connect_timeout=60,
            pending_size=0,  # nothing waits for a server that is away
            **options,
        )

    async def ask(self, call: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Raises what an error of the library means for a collector."""
        seconds = _ANSWER if seconds is None else seconds
        task = asyncio.ensure_future(call)
        try:
            ends: set[asyncio.Future[Any]] = {task, self._lost}
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                error = task.exception()
                if error is None:
                    return task.result()
            elif self._lost.done():
                error = self._lost.result()
            else:
                error = TimeoutError(f"no answer within {seconds:g} s")
            if isinstance(error, BqstreamError):
                raise error
            raise _meaning(self._name, error) from error
        finally:
            await _end(task)

    async def leave(self) -> None:
        """Close, within bounds even where the server does not read."""
        closing = asyncio.ensure_future(self.close())
        await asyncio.wait({closing}, timeout=_LEAVE)
        await _end(closing)
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _failed(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_result(error)

    async def _closed(self) -> None:
        await self._failed(errors.ConnectionClosedError())

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """With tls:// nats-py would send credentials in plain text to a server, or to somebody in between, that asks
        for no TLS."""
        if initial_connection and "tls" in self.options:
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)


async def _end(task: asyncio.Future[Any]) -> None:
    """Cancel, and look at what came of it: nats-py swallows cancellation here and there, but ends soon."""
    task.cancel()
    await asyncio.wait({task}, timeout=_LEAVE)
    if task.done() and not task.cancelled():
        task.exception()


def _credentials(name: str) -> dict[str, Any]:
    if path := os.environ.get("NATS_CREDS"):
        # nats-py reads a file without these marks for ever.
        text = _secret_file(name, "NATS_CREDS", path)
        if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
            raise SinkFailed(
                f"{name}: NATS_CREDS names no credentials file: it holds no JWT and seed of a user"
            )
        return {"user_credentials": path}
    if token := _given(name, "NATS_TOKEN"):
        return {"token": token}
    user, password = _given(name, "NATS_USER"), _given(name, "NATS_PASSWORD")
    if bool(user) != bool(password):
        raise SinkFailed(f"{name}: the environment holds half of a pair: set NATS_USER and NATS_PASSWORD")
    return {"user": user, "password": password} if user else {}


def _given(name: str, variable: str) -> str:
    if path := os.environ.get(f"{variable}_FILE"):
        return _secret_file(name, f"{variable}_FILE", path).strip()
    return os.environ.get(variable, "")


def _secret_file(name: str, variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        # A decoding error holds the file's bytes. A mounted secret that is being replaced may be away for a moment.
        why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    raise SinkUnavailable(f"{name}: the file that {variable} names cannot be read: {why}")


def _meaning(name: str, error: BaseException) -> BqstreamError:
    if isinstance(error, APIError):
        return _answered(name, error)
    said = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
    lower = said.lower()
    if "permissions violation" in lower:
        return SinkFailed(f"{name}: {said}: let the user publish to SUBJECT and use JetStream's API")
    if "authorization" in lower or "authentication" in lower:
        return SinkFailed(f"{name}: the server refuses the user ({said}): {_ADVICE}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return SinkFailed(
            f"{name}: the server's certificate is not trusted ({error.verify_message}): SSL_CERT_FILE names a CA"
        )
    if isinstance(error, ModuleNotFoundError):
        return SinkFailed(f'{name}: NATS_CREDS needs {error.name}: pip install "bqstream[nats]"')
    if isinstance(error, (OSError, errors.Error, TimeoutError)):
        return SinkUnavailable(f"{name}: {said}")
    return SinkFailed(f"{name}: {type(error).__name__}: {said}")  # such as a seed in NATS_CREDS that is none


def _answered(name: str, error: APIError) -> BqstreamError:
    """What JetStream answered."""
    said = error.description or "no JetStream answers"
    if error.err_code in _WRONG_SEQUENCE:
        return _WrongSequence(f"{name}: {said}")
    if isinstance(error, NotFoundError):
        return _NotFound(f"{name}: {said}")
    if error.err_code in _NO_JETSTREAM:
        return SinkFailed(f"{name}: {said}: nats-server needs -js, and the user's account must have it")
    if error.err_code is None:
        return SinkUnavailable(f"{name}: {said}: it is starting, or nats-server needs -js")
    if error.err_code in _NO_ROOM:
        return SinkUnavailable(f"{name}: {said}: make room, or raise the limit; nothing is lost")
    passing = error.code in (500, 503)
    return SinkUnavailable(f"{name}: {said}") if passing else SinkFailed(f"{name}: {said}")
