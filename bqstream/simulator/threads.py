"""A simulator in a thread of its own, for code that has no loop or blocks the one it has."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from .counters import Counters
from .faults import Faults
from .ledger import Ledger
from .server import Simulator

P = ParamSpec("P")
T = TypeVar("T")
_START = 30.0


class SimulatorThread:
    """A simulator whose loop runs in a thread; every call here blocks until it is done there.

    A context manager; ``stop`` may be called twice. ``faults`` and ``ledger`` have the methods of the simulator's own,
    carried out in its thread.

    Raises:
        OSError: the port is taken.
        TypeError: there is no such option.
    """

    def __init__(self, **options: Any) -> None:
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._simulator = Simulator(**options)
        self._thread = threading.Thread(target=self._run, name="bqstream-simulator", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START):
            raise TimeoutError("the simulator did not start")
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return self._simulator.endpoint

    @property
    def token_url(self) -> str:
        return self._simulator.token_url

    @property
    def control_url(self) -> str:
        return self._simulator.control_url

    @property
    def ledger_url(self) -> str:
        return self._simulator.ledger_url

    @property
    def client_id(self) -> str:
        return self._simulator.client_id

    @property
    def client_secret(self) -> str:
        return self._simulator.client_secret

    @property
    def ledger(self) -> Ledger:
        return cast(Ledger, _Elsewhere(self, self._simulator.ledger))

    @property
    def counters(self) -> Counters:
        return self._simulator.counters

    @property
    def faults(self) -> Faults:
        return cast(Faults, _Elsewhere(self, self._simulator.faults))

    def token(self) -> str:
        """A new static token."""
        return str(self.call(self._simulator.token))

    def pause(self) -> None:
        """As `Simulator.pause`."""
        self.call(self._simulator.pause)

    def resume(self) -> None:
        """As `Simulator.resume`."""
        self.call(self._simulator.resume)

    def drained(self, timeout: float | None = 30.0) -> None:
        """As `Simulator.drained`, for at most ``timeout`` seconds."""
        self.call(self._simulator.drained, timeout=timeout)

    def blocks(self, count: int = 1, timeout: float | None = 30.0) -> None:
        """As `Simulator.blocks`, for at most ``timeout`` seconds."""
        self.call(lambda: self._simulator.blocks(count), timeout=timeout)

    def call(self, function: Callable[[], Any], timeout: float | None = 30.0) -> Any:
        """Run a function, or await what it gives, in the simulator's thread.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds; it is cancelled.
        """

        async def there() -> Any:
            async with asyncio.timeout(timeout):
                result = function()
                return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result()

    def stop(self) -> None:
        """Stop it and wait for its thread.

        Raises whatever the simulator failed with.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - handed over to the thread that waits
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with self._simulator:
            self._ready.set()
            await self._end.wait()


class _Elsewhere:
    """Carries out an object's methods in the simulator's thread; what is no method is read here."""

    def __init__(self, thread: SimulatorThread, target: object) -> None:
        self._thread = thread
        self._target = target

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not callable(method):
            return method
        return lambda *args, **kwargs: self._thread.call(lambda: method(*args, **kwargs))


def start_in_thread(**options: Any) -> SimulatorThread:
    """Start a simulator in a thread: ``with start_in_thread(token_ttl=5) as simulator: …``."""
    return SimulatorThread(**options)
