"""Operations spread over a fixed number of supervisors."""

from __future__ import annotations

import anyio

from .links import Shared
from .operation import Operation
from .supervisor import Supervisor


class Session:
    """What a client holds of the session: add an operation, and it is served until it is removed."""

    def __init__(self, shared: Shared, connections: int) -> None:
        self.supervisors = tuple(Supervisor(shared) for _ in range(connections))

    async def run(self) -> None:
        """Own every supervisor until cancelled; cancelling drops all links."""
        async with anyio.create_task_group() as tasks:
            for supervisor in self.supervisors:
                tasks.start_soon(supervisor.run)

    def add(self, operation: Operation) -> None:
        """Serve ``operation`` on the supervisor that has the fewest."""
        min(self.supervisors, key=lambda supervisor: len(supervisor.operations)).add(operation)

    def remove(self, operation: Operation) -> None:
        """Unsubscribe ``operation``. Idempotent."""
        self._of(operation).remove(operation)

    def has_room(self, operation: Operation) -> None:
        """``operation``'s buffer is half empty again: its links may read on."""
        self._of(operation).has_room(operation)

    def _of(self, operation: Operation) -> Supervisor:
        for supervisor in self.supervisors:
            if operation.key in supervisor.operations:
                return supervisor
        return self.supervisors[0]

    async def aclose(self) -> None:
        """Close every link politely, each within ``timeouts.close``."""
        async with anyio.create_task_group() as tasks:
            for supervisor in self.supervisors:
                tasks.start_soon(supervisor.aclose)
