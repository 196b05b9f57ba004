"""A network in the loop's own memory: no kernel socket, one order of events, the same in every run.

    loop = MemoryLoop()                       # time jumps, as on a VirtualTimeLoop
    loop.latency = lambda: 0.02               # seconds for each piece, in each direction; None: none
    with in_memory():                         # aiohttp's client, too, dials through the loop
        ...

``create_server`` and ``create_connection`` pair two transports, so that ``websockets`` and aiohttp run on them as they
are. A direction carries its bytes in order, a part of them "in the kernel" (``CAPACITY``, or what ``SO_SNDBUF`` says)
and the rest in the writer's buffer, which pauses its protocol at the high-water mark. A reader that is paused gets
nothing, so that back-pressure reaches the writer. ``abort`` resets: what was on its way is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import aiohappyeyeballs

from tests.virtual_time import VirtualTimeLoop

CAPACITY = 128 * 1024  # bytes of one direction that count as sent though nobody has read them
PIECE = 256 * 1024  # bytes handed to a protocol at once, as asyncio reads them
HIGH_WATER = 64 * 1024
MOMENT, MOST_TURNS = (
    0.1,
    20_000,
)  # so many turns of the loop within so many seconds do not come from anything useful
HOST = "127.0.0.1"
Address = tuple[str, int]
Factory = Callable[[], asyncio.BaseProtocol]
_EOF, _RESET = b"", None


class _Socket:
    """What stands in for a socket: addresses and options, for those who ask."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, own: Address, peer: Address | None = None, wire: _Wire | None = None) -> None:
        self._own, self._peer, self._wire = own, peer, wire

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address | None:
        return self._peer

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_SNDBUF) and self._wire is not None:
            self._wire.capacity = value

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """There is nothing to close."""


class _Wire:
    """One direction: what ``source`` has written and ``target`` has not read."""

    def __init__(self, loop: MemoryLoop) -> None:
        self.source: MemoryTransport
        self.target: MemoryTransport
        self.capacity = CAPACITY
        self.size = 0
        self._loop = loop
        self._pieces: deque[tuple[float, bytes | None]] = deque()
        self._arrival = 0.0
        self._due: asyncio.Handle | None = None

    @property
    def unsent(self) -> int:
        """Bytes that wait in the writer's buffer."""
        return max(0, self.size - self.capacity)

    def send(self, piece: bytes | None) -> None:
        """Bytes, the end (`_EOF`) or a reset (`_RESET`), which overtakes what it makes void."""
        if piece is _RESET:
            self._pieces.clear()
            self.size = 0
        elif piece:
            self.size += len(piece)
        latency = self._loop.latency
        self._arrival = max(self._arrival, self._loop.time() + (latency() if latency is not None else 0.0))
        self._pieces.append((self._arrival, piece))
        self.wake()

    def wake(self) -> None:
        """Hand over what has arrived, in a turn of the loop of its own."""
        if self._due is None and self._pieces:
            arrival = self._pieces[0][0]
            if arrival > self._loop.time():
                self._due = self._loop.call_at(arrival, self._hand_over)
            else:
                self._due = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._due = None
        if not self._pieces or not self.target.takes(self._pieces[0][1]):
            return
        if self._pieces[0][0] > self._loop.time():
            self.wake()
            return
        piece = self._pieces[0][1]
        if not piece:
            self._pieces.popleft()
            self.target.ended(piece)
            return
        self.target.receive(self._arrived())
        self.source.sent()
        self.wake()

    def _arrived(self) -> bytes:
        taken: list[bytes] = []
        length, now = 0, self._loop.time()
        while self._pieces and length < PIECE:
            arrival, piece = self._pieces[0]
            if not piece or arrival > now:
                break
            self._pieces.popleft()
            if length + len(piece) > PIECE:
                cut = PIECE - length
                self._pieces.appendleft((arrival, piece[cut:]))
                piece = piece[:cut]
            taken.append(piece)
            length += len(piece)
        self.size -= length
        return b"".join(taken)


class MemoryTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self,
        loop: MemoryLoop,
        protocol: asyncio.BaseProtocol,
        out: _Wire,
        into: _Wire,
        own: Address,
        peer: Address,
    ) -> None:
        super().__init__({"sockname": own, "peername": peer, "socket": _Socket(own, peer, out)})
        self._loop = loop
        self._protocol = protocol
        self._out, self._in = out, into
        out.source = into.target = self
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._reading = True
        self._writing_paused = False
        self._eof_written = False
        self._was_reset = False  # the peer's reset has come in, though reading is paused
        self._closing = False
        self._lost = False  # connection_lost is on its way, or was called
        self._gone = False  # it was called
        loop.open[self] = None

    def __repr__(self) -> str:
        state = "closed" if self._gone else "closing" if self._closing else "open"
        return f"<MemoryTransport {self.get_extra_info('sockname')}, {state}, {self._out.unsent} unsent>"

    # what the protocol asks for

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost:
            return
        if self._was_reset:
            self._force_close(_reset_error())
            return
        self._out.send(bytes(data))
        if not self._writing_paused and self._out.unsent > self._high:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not (self._closing or self._eof_written):
            self._eof_written = True
            self._out.send(_EOF)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._out.unsent:
                self._finish(None)

    def abort(self) -> None:
        self._force_close(None)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._closing and not self._reading:
            self._reading = True
            if self._was_reset:
                self._force_close(_reset_error())
            self._in.wake()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else HIGH_WATER if low is None else 4 * low
        self._low = low if low is not None else self._high // 4

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._out.unsent

    # what the wires tell

    def takes(self, piece: bytes | None) -> bool:
        """Whether a piece can be handed over now: a paused reader gets only a reset, and notices it later."""
        return self._reading or self._closing or piece is _RESET

    def receive(self, data: bytes) -> None:
        if self._gone:  # nobody is there any more, which a peer learns when it writes
            self._out.send(_RESET)
            return
        if self._closing:
            return
        try:
            self._protocol.data_received(data)  # type: ignore[attr-defined]
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does it
            context = {"message": "Fatal error: protocol.data_received() call failed.", "exception": error}
            self._loop.call_exception_handler({**context, "transport": self, "protocol": self._protocol})
            self._force_close(error)

    def ended(self, piece: bytes | None) -> None:
        """The peer has written its last byte, or reset the connection."""
        if self._lost:
            return
        if piece is _RESET:
            if self._reading or self._closing or self._out.unsent:
                self._force_close(_reset_error())
            else:
                self._was_reset = True
        elif not self._closing and not self._protocol.eof_received():  # type: ignore[attr-defined]
            self.close()

    def sent(self) -> None:
        """Some bytes were read at the other end."""
        if self._lost:
            return
        if self._writing_paused and self._out.unsent <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._out.unsent:
            self._finish(None)

    def _force_close(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._closing = True
        if not (self._was_reset or isinstance(error, ConnectionResetError)):
            self._out.send(_RESET)
        self._finish(error, silent=True)

    def _finish(self, error: BaseException | None, *, silent: bool = False) -> None:
        if self._lost:
            return
        self._lost = True
        if not (silent or self._eof_written):
            self._out.send(_EOF)
        self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: BaseException | None) -> None:
        self._gone = True
        self._loop.open.pop(self, None)
        self._protocol.connection_lost(error)  # type: ignore[arg-type]


def _reset_error() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class MemoryServer(asyncio.AbstractServer):
    """A listener; closing it leaves connections alone, as asyncio does."""

    def __init__(self, loop: MemoryLoop, factory: Factory, address: Address) -> None:
        self.factory = factory
        self._loop = loop
        self._address = address

    @property
    def sockets(self) -> tuple[_Socket, ...]:
        return (_Socket(self._address),) if self.is_serving() else ()

    def is_serving(self) -> bool:
        return self._loop.listeners.get(self._address) is self

    def close(self) -> None:
        if self.is_serving():
            del self._loop.listeners[self._address]

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)

    async def start_serving(self) -> None:
        """It serves from the start."""

    async def serve_forever(self) -> None:
        await self._loop.create_future()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop


class _NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that a set of tasks has the same order in every process."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class MemoryLoop(VirtualTimeLoop):
    """A ``VirtualTimeLoop`` whose TCP is memory. ``latency`` is asked for each piece that is sent, in seconds.

    Code that asks, is answered at once and asks again would go on for ever, since no time passes: ``on_spin``.
    """

    def __init__(self) -> None:
        super().__init__()
        numbers = itertools.count(1)
        self.set_task_factory(
            lambda loop, coro, **options: _NumberedTask(next(numbers), coro, loop=loop, **options)
        )
        self.latency: Callable[[], float] | None = None
        self.listeners: dict[Address, MemoryServer] = {}
        self.open: dict[MemoryTransport, None] = {}  # ends of connections that were not closed yet
        self.on_spin: Callable[[], object] | None = None  # called once, when work never lets time pass
        self._ports = itertools.count(40_001)
        self._turns, self._moved = 0, 0.0

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self.now > self._moved + MOMENT:
            self._turns, self._moved = 0, self.now
        self._turns += 1
        if self._turns > MOST_TURNS and self.on_spin is not None:
            on_spin, self.on_spin = self.on_spin, None
            on_spin()

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Factory, host: str = HOST, port: int = 0, *, ssl: Any = None, **_: Any
    ) -> MemoryServer:
        if ssl is not None:
            raise NotImplementedError("no TLS in memory")
        address = (_numeric(host), port or next(self._ports))
        if address in self.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        server = self.listeners[address] = MemoryServer(self, protocol_factory, address)
        return server

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: str | None = None,
        port: int | None = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        **_: Any,
    ) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
        if ssl:
            raise NotImplementedError("no TLS in memory")
        address = sock.getpeername() if sock is not None else (_numeric(host or HOST), port or 0)
        await asyncio.sleep(2 * self.latency() if self.latency is not None else 0)
        protocol = protocol_factory()
        transport = self._connect(protocol, address)
        try:
            await asyncio.sleep(0)  # both ends have been told by then
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def _connect(self, protocol: asyncio.BaseProtocol, address: Address) -> MemoryTransport:
        """Raises ConnectionRefusedError where nobody listens."""
        server = self.listeners.get(address)
        if server is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address}")
        own = (HOST, next(self._ports))
        there, back = _Wire(self), _Wire(self)
        accepted = server.factory()
        served = MemoryTransport(self, accepted, back, there, address, own)
        transport = MemoryTransport(self, protocol, there, back, own, address)
        self.call_soon(accepted.connection_made, served)
        self.call_soon(protocol.connection_made, transport)
        return transport


def _numeric(host: str) -> str:
    return HOST if host == "localhost" else host


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """Let aiohttp's client dial through the loop where that is a `MemoryLoop`; it makes its sockets by itself."""
    really = aiohappyeyeballs.start_connection

    async def start_connection(addr_infos: Any, **options: Any) -> Any:
        if isinstance(asyncio.get_running_loop(), MemoryLoop):
            host, port = addr_infos[0][4][:2]
            return _Socket((HOST, 0), (host, port))
        return await really(addr_infos, **options)

    with mock.patch.object(aiohappyeyeballs, "start_connection", start_connection):
        yield
