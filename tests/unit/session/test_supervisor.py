"""One link kept alive under a set of operations: dialling, starting, recovering."""

from __future__ import annotations

import asyncio

import pytest

from bqstream import events
from bqstream.config import Backoff
from bqstream.errors import (
    ConnectionGivenUp,
    CredentialsRefused,
    DocumentRefused,
    OperationFailed,
    PlanError,
    TokenRefused,
)
from bqstream.protocol import LEGACY, MODERN
from bqstream.session.operation import Operation
from bqstream.session.supervisor import FEW, START_ATTEMPTS, State
from bqstream.transport.base import DialError, UpgradeRefused
from tests.virtual_time import WALL_AT_START, virtual_time

from .service import TIMEOUTS, Frame, Script, Socket, World, mute, polite, recorder, settle, world


def shuts(code: int, reason: str = "") -> Script:
    """A service that acknowledges and then closes."""

    def script(socket: Socket, frame: Frame) -> None:
        polite(socket, frame)
        socket.shut(code, reason)

    return script


def refuses(message: str, *, times: int) -> Script:
    """A service that answers so many starts by an error."""
    left = times

    def script(socket: Socket, frame: Frame) -> None:
        nonlocal left
        polite(socket, frame)
        if frame["type"] == "subscribe" and left:
            left -= 1
            del socket.live[frame["id"]]
            socket.say("error", frame["id"], [{"message": message}])

    return script


def connection_error(socket: Socket, frame: Frame) -> None:
    socket.say("connection_error", payload={"message": "Unauthorized"})


def starts(socket: Socket) -> int:
    return sum(word in ("subscribe", "start") for word in socket.words)


def error_of(operation: Operation) -> Exception | None:
    ended = recorder(operation).ended
    assert ended != "completed"
    return ended if isinstance(ended, Exception) else None


def waits(w: World) -> list[float]:
    """The seconds of every wait that was announced."""
    return [event.until.timestamp() - event.at.timestamp() for event in w.told(events.Waiting)]


# ---------------------------------------------------------------------- idle, live, idle


@virtual_time
async def test_without_operations_nothing_is_dialled() -> None:
    async with world() as w:
        await asyncio.sleep(1000)
        assert w.service.targets == []
        assert w.supervisor.state is State.IDLE


@virtual_time
async def test_the_first_operation_dials_and_is_started_once_after_the_ack() -> None:
    async with world() as w:
        operation = w.add()
        assert not operation.settled.done()
        await settle()
        assert w.service.newest.words == ["connection_init", "subscribe"]
        assert operation.settled.done()
        assert operation.error is None
        assert w.supervisor.state is State.LIVE
        assert [event.subprotocol for event in w.told(events.Connected)] == [MODERN]
        w.service.publish("7")
        await settle()
        assert recorder(operation).brought == [(1, "7")]


@virtual_time
async def test_operations_share_one_link() -> None:
    async with world() as w:
        first = w.add()
        await settle()
        second = w.add()
        await settle()
        assert len(w.service.sockets) == 1
        assert starts(w.service.newest) == 2
        w.remove(first)
        await settle()
        assert list(w.service.newest.live) == [w.service.newest.id_of(second)]


@virtual_time
async def test_with_the_last_operation_the_link_is_closed() -> None:
    async with world() as w:
        operation = w.add()
        await settle()
        w.remove(operation)
        await asyncio.sleep(0.1)
        assert w.service.open == []
        assert w.service.newest.words[-1] == "complete"
        assert w.service.newest.goodbye == 1000
        assert w.supervisor.state is State.IDLE
        assert w.told(events.Lost) == []
        await asyncio.sleep(100)
        w.add()
        await settle()
        assert len(w.service.sockets) == 2


@pytest.mark.parametrize("turns", range(12))
@virtual_time
async def test_an_operation_added_while_the_last_link_closes_is_served_by_the_next(turns: int) -> None:
    async with world() as w:
        first = w.add()
        await settle()
        w.service.newest.answers_close = False
        w.remove(first)
        for _ in range(turns):
            await asyncio.sleep(0)
        second = w.add()
        await asyncio.sleep(TIMEOUTS.close + 1)
        assert recorder(second).sources == [2], "one source, and none that nobody will ever end"
        w.service.publish()
        await settle()
        assert recorder(second).brought == [(2, "1")]


@virtual_time
async def test_removing_the_last_operation_ends_a_dial_and_a_wait() -> None:
    async with world() as w:
        w.service.latency = 5
        operation = w.add()
        await asyncio.sleep(1)
        w.remove(operation)
        await settle()
        assert w.supervisor.state is State.IDLE
        await asyncio.sleep(60)
        assert w.service.sockets == []
        w.service.latency = 0
        w.service.refusals.append(DialError("nobody there"))
        operation = w.add()
        await settle()
        assert len(w.told(events.Waiting)) == 1
        w.remove(operation)
        await settle()
        assert w.supervisor.state is State.IDLE


@virtual_time
async def test_a_link_that_waits_for_its_ack_is_dropped_with_the_last_operation() -> None:
    async with world() as w:
        w.service.script = mute
        operation = w.add()
        await settle()
        w.service.newest.answers_close = False
        w.remove(operation)
        await settle()
        assert w.service.open == []


@virtual_time
async def test_aclose_unsubscribes_and_closes_and_dials_no_more() -> None:
    async with world(connections=2) as w:
        for _ in range(3):
            w.add()
        await settle()
        await w.session.aclose()
        assert w.service.open == []
        assert [socket.goodbye for socket in w.service.sockets] == [1000, 1000]
        await asyncio.sleep(100)
        assert len(w.service.targets) == 2
        assert w.told(events.Lost) == []


@virtual_time
async def test_aclose_takes_no_longer_than_its_limit() -> None:
    async with world(connections=3) as w:
        for _ in range(3):
            w.add()
        await settle()
        for socket in w.service.sockets:
            socket.answers_close = False
        before = asyncio.get_running_loop().time()
        await w.session.aclose()
        assert asyncio.get_running_loop().time() - before == pytest.approx(TIMEOUTS.close, abs=0.01)


@virtual_time
async def test_operations_are_spread_over_the_links() -> None:
    async with world(connections=3) as w:
        operations = [w.add() for _ in range(7)]
        await settle()
        assert sorted(starts(socket) for socket in w.service.sockets) == [2, 2, 3]
        for operation in operations:
            w.remove(operation)
        await asyncio.sleep(0.1)
        assert w.service.open == []


# ---------------------------------------------------------------------- tokens


@virtual_time
async def test_a_refused_token_is_refreshed_and_redialled_without_delay() -> None:
    async with world() as w:
        w.service.refusals.append(UpgradeRefused(401, {}, ""))
        operation = w.add()
        await settle()
        assert [generation for generation, _ in w.keeper.refusals] == [1]
        assert w.service.newest.target.headers["Authorization"] == "Bearer token-2"
        assert recorder(operation).sources == [1]
        assert [event.what for event in w.told(events.Refused)] == ["token"]
        assert w.told(events.Waiting) == []


@virtual_time
async def test_a_token_refused_on_the_socket_is_refreshed_as_well() -> None:
    async with world() as w:
        w.service.scripts.append(connection_error)
        operation = w.add()
        await settle()
        assert len(w.keeper.refusals) == 1
        assert recorder(operation).sources == [2]
        assert w.told(events.Waiting) == []


@virtual_time
async def test_without_a_token_it_waits_for_one() -> None:
    async with world() as w:
        w.keeper.held = None
        w.add()
        await asyncio.sleep(100)
        assert w.service.targets == []
        w.keeper.renew()
        await settle()
        assert len(w.service.sockets) == 1


@virtual_time
async def test_a_refusal_that_may_mean_the_token_once_ends_all_the_second_time_in_a_row() -> None:
    async with world() as w:
        w.service.refusals.extend(UpgradeRefused(403, {}, "") for _ in range(2))
        operation = w.add()
        await settle()
        assert isinstance(error_of(operation), TokenRefused)
        assert isinstance(operation.error, TokenRefused)
        assert len(w.keeper.refusals) == 1


@virtual_time
async def test_a_link_that_worked_between_two_refusals_makes_them_two_firsts() -> None:
    async with world() as w:
        w.service.refusals.append(UpgradeRefused(403, {}, ""))
        operation = w.add()
        await asyncio.sleep(60)
        w.service.publish()
        w.service.refusals.append(UpgradeRefused(403, {}, ""))
        w.service.newest.shut(1006)
        await asyncio.sleep(60)
        assert error_of(operation) is None
        assert len(w.keeper.refusals) == 2


@virtual_time
async def test_credentials_that_are_refused_fail_every_operation() -> None:
    async with world() as w:
        w.keeper.fail(CredentialsRefused("invalid_client"))
        operations = [w.add(), w.add()]
        await settle()
        for operation in operations:
            assert isinstance(error_of(operation), CredentialsRefused)
            assert operation.error is error_of(operation)
        assert w.supervisor.operations == {}


@virtual_time
async def test_a_keeper_that_fails_for_good_leaves_alone_what_an_open_link_serves() -> None:
    async with world() as w:
        served = w.add()
        await settle()
        w.keeper.fail(CredentialsRefused("invalid_client"))
        await asyncio.sleep(30)
        w.service.publish()
        await settle()
        assert recorder(served).brought
        later = w.add()
        await settle()
        assert recorder(later).sources == [1], "the link that is open serves on"
        w.service.newest.shut(1006)
        await asyncio.sleep(5)
        assert isinstance(error_of(served), CredentialsRefused)
        assert isinstance(error_of(later), CredentialsRefused)


@virtual_time
async def test_a_keeper_that_fails_while_a_rotation_is_due_leaves_the_live_link_alone() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.refusals.append(UpgradeRefused(401, {}, ""))
        w.keeper.renews = False
        w.keeper.renew()  # the new token is refused, and no other can be had
        await asyncio.sleep(5)
        w.keeper.fail(CredentialsRefused("invalid_client"))
        await asyncio.sleep(100)
        w.service.publish()
        await settle()
        assert error_of(operation) is None
        assert recorder(operation).brought == [(1, "1")]
        assert w.supervisor.state is State.LIVE
        w.service.newest.shut(1006)
        await asyncio.sleep(5)
        assert isinstance(error_of(operation), CredentialsRefused)


@virtual_time
async def test_the_keeper_is_told_of_a_token_that_worked() -> None:
    async with world() as w:
        w.add()
        await asyncio.sleep(6)
        w.service.publish()
        await settle()
        w.service.newest.shut(1006)
        await settle()
        assert w.keeper.proved == [1]
        await asyncio.sleep(1)
        w.service.newest.shut(1006)
        await settle()
        assert w.keeper.proved == [1], "one that brought nothing and ended at once proves nothing"


# ---------------------------------------------------------------------- waiting and giving up


@virtual_time
async def test_failures_are_waited_out_by_the_schedule_and_each_wait_is_told() -> None:
    async with world() as w:
        w.service.refusals.extend(DialError("nobody there") for _ in range(4))
        operation = w.add()
        await asyncio.sleep(0.5)
        assert w.supervisor.state is State.WAITING
        await asyncio.sleep(15)
        assert waits(w) == [1, 2, 4, 8]
        assert [event.attempt for event in w.told(events.Waiting)] == [1, 2, 3, 4]
        assert w.told(events.Waiting)[0].at.timestamp() == pytest.approx(WALL_AT_START, abs=0.01)
        assert recorder(operation).sources == [1]


@virtual_time
async def test_from_the_second_failure_in_a_row_on_the_log_warns_of_why_nothing_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world() as w:
        w.service.refusals.extend(DialError("nobody there") for _ in range(3))
        w.add()
        await asyncio.sleep(15)
    warned = [record for record in caplog.records if record.name == "bqstream.session"]
    assert [record.getMessage().partition(": ")[2] for record in warned] == [
        "nobody there; attempt 2, the next in 2.0 s",
        "nobody there; attempt 3, the next in 4.0 s",
    ]


@virtual_time
async def test_what_the_server_asks_for_is_waited() -> None:
    async with world() as w:
        w.service.refusals.append(UpgradeRefused(503, {"retry-after": "30"}, ""))
        w.add()
        await asyncio.sleep(29.9)
        assert w.service.sockets == []
        await asyncio.sleep(0.2)
        assert len(w.service.sockets) == 1


@virtual_time
async def test_a_server_that_acknowledges_and_closes_is_waited_for_longer_each_time() -> None:
    async with world() as w:
        w.service.scripts.extend([shuts(1000)] * 4)
        w.service.scripts[0] = shuts(1012)
        w.add()
        await asyncio.sleep(60)
        assert waits(w)[:3] == [1, 2, 4]


@virtual_time
async def test_attempts_are_given_up_when_they_are_used_up() -> None:
    async with world(backoff=Backoff(initial=1, maximum=60, jitter=0, attempts=3)) as w:
        w.service.refusals.extend(DialError("nobody there") for _ in range(3))
        operation = w.add()
        await asyncio.sleep(100)
        assert isinstance(error_of(operation), ConnectionGivenUp)
        assert "nobody there" in str(error_of(operation))
        assert len(w.service.targets) == 3


@virtual_time
async def test_a_server_that_merely_fails_is_given_up_after_a_few_in_a_row() -> None:
    async with world() as w:
        w.service.script = shuts(4500, "oops")
        operation = w.add()
        await asyncio.sleep(1000)
        assert isinstance(error_of(operation), ConnectionGivenUp)
        assert len(w.service.targets) == FEW


@virtual_time
async def test_failures_between_which_links_served_are_not_in_a_row() -> None:
    async with world() as w:
        operation = w.add()
        await settle()
        for _ in range(2 * FEW):
            w.service.publish()
            await settle()
            w.service.newest.shut(4500, "oops")
            await asyncio.sleep(61)
        assert recorder(operation).ended is None
        assert recorder(operation).sources == [2 * FEW + 1]


@virtual_time
async def test_slowness_is_told_and_lengthens_the_wait_though_there_was_data() -> None:
    async with world() as w:
        w.add()
        for _ in range(3):
            await settle()
            w.service.publish()
            await settle()
            w.service.newest.shut(1013)
            await settle()
            await asyncio.sleep(waits(w)[-1])
        assert waits(w) == [1, 2, 4]
        assert [event.link for event in w.told(events.SlowConsumer)] == [1, 2, 3]


@virtual_time
async def test_data_starts_the_schedule_anew() -> None:
    async with world() as w:
        w.add()
        for _ in range(3):
            await asyncio.sleep(6)
            w.service.publish()
            await settle()
            w.service.newest.shut(1006)
            await asyncio.sleep(1.1)
        assert waits(w) == [1, 1, 1]


@virtual_time
async def test_a_server_that_greets_with_data_and_closes_is_waited_for_longer_each_time() -> None:
    def greeting(socket: Socket, frame: Frame) -> None:
        polite(socket, frame)
        if frame["type"] == "subscribe":
            socket.say("next", frame["id"], {"data": 1})
            socket.shut(1011)

    async with world() as w:
        w.service.script = greeting
        w.add()
        await asyncio.sleep(14)
        assert waits(w) == [1, 2, 4, 8]


@virtual_time
async def test_a_normal_close_before_the_ack_is_refreshed_once_and_then_waited_out() -> None:
    def closing(socket: Socket, frame: Frame) -> None:
        socket.shut(1000)

    async with world() as w:
        w.service.scripts.extend([closing] * 4)
        operation = w.add()
        await asyncio.sleep(100)
        assert len(w.keeper.refusals) == 1
        assert len(waits(w)) == 3
        assert recorder(operation).sources == [5]


@virtual_time
async def test_an_operation_that_is_refused_again_and_again_waits_once_at_a_time() -> None:
    def limited(socket: Socket, frame: Frame) -> None:
        polite(socket, frame)
        if frame["type"] == "subscribe":
            socket.say("next", frame["id"], {"data": 1})  # so that no refusal is the second in a row
            del socket.live[frame["id"]]
            socket.say("error", frame["id"], [{"message": "too many requests"}])

    async with world() as w:
        w.service.script = limited
        w.add()
        await asyncio.sleep(100)
        w.keeper.renew()  # the hand-over starts it on the new link as well
        await asyncio.sleep(100)
        starts = [
            frame for socket in w.service.sockets for frame in socket.heard if frame["type"] == "subscribe"
        ]
        assert 30 <= len(starts) <= 200 / 5 + 3


@virtual_time
async def test_attempts_bound_refusals_of_the_token_too() -> None:
    async with world(backoff=Backoff(initial=1, jitter=0, attempts=4)) as w:
        w.service.refusals.extend(UpgradeRefused(401, {}, "") for _ in range(10))
        operation = w.add()
        await asyncio.sleep(1000)
        assert isinstance(error_of(operation), TokenRefused)
        assert len(w.service.targets) == 4


@virtual_time
async def test_what_was_given_up_is_tried_anew_for_a_later_operation() -> None:
    async with world(backoff=Backoff(initial=1, jitter=0, attempts=3)) as w:
        w.service.refusals.extend(DialError("nobody there") for _ in range(4))
        first = w.add()
        await asyncio.sleep(100)
        assert isinstance(error_of(first), ConnectionGivenUp)
        later = w.add()
        await asyncio.sleep(100)
        assert recorder(later).sources == [1]


@virtual_time
async def test_a_link_that_was_handed_over_worked_as_well() -> None:
    async with world() as w:
        w.service.refusals.append(UpgradeRefused(403, {}, ""))
        operation = w.add()
        await asyncio.sleep(60)
        recorder(operation).has_crossed = True
        w.keeper.renew()
        await asyncio.sleep(60)
        assert w.keeper.proved == [2]
        w.service.refusals.append(UpgradeRefused(403, {}, ""))
        w.service.newest.shut(1006)
        await asyncio.sleep(60)
        assert recorder(operation).ended is None


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (UpgradeRefused(402, {}, ""), PlanError),
        (UpgradeRefused(404, {}, ""), ConnectionGivenUp),
        (DialError("the certificate does not verify", permanent=True), ConnectionGivenUp),
    ],
)
@virtual_time
async def test_what_nothing_can_mend_fails_all_and_a_later_operation_begins_anew(
    refusal: DialError, error: type[Exception]
) -> None:
    async with world() as w:
        w.service.refusals.append(refusal)
        operations = [w.add(), w.add()]
        await settle()
        for operation in operations:
            assert isinstance(error_of(operation), error)
            assert operation.settled.done()
        assert w.supervisor.state is State.IDLE
        later = w.add()
        await settle()
        assert recorder(later).sources == [1]


@virtual_time
async def test_a_fatal_close_fails_what_ran() -> None:
    async with world() as w:
        operation = w.add()
        await settle()
        w.service.newest.shut(1009)
        await settle()
        assert isinstance(error_of(operation), ConnectionGivenUp)
        assert "max_message_bytes" in str(error_of(operation))


# ---------------------------------------------------------------------- a lost link


@virtual_time
async def test_a_lost_link_is_told_and_each_operation_is_started_exactly_once_on_the_next() -> None:
    async with world() as w:
        operations = [w.add() for _ in range(3)]
        await settle()
        w.service.newest.shut(1006)
        await asyncio.sleep(1.1)
        assert [event.link for event in w.told(events.Lost)] == [1]
        assert starts(w.service.newest) == 3
        for operation in operations:
            assert recorder(operation).calls == [("joined", 1), ("lost", 1, "lost"), ("joined", 2)]
        assert w.supervisor.reconnects == 1


@virtual_time
async def test_a_silent_link_is_told_as_stalled_and_replaced() -> None:
    async with world() as w:
        w.service.scripts.append(
            lambda socket, frame: socket.say("connection_ack") if frame["type"] == "connection_init" else None
        )
        operation = w.add()
        await asyncio.sleep(TIMEOUTS.idle + 2)
        assert [event.link for event in w.told(events.Stalled)] == [1]
        assert recorder(operation).sources == [2]


@virtual_time
async def test_operations_added_and_removed_between_two_links_are_seen_by_the_next_alone() -> None:
    async with world() as w:
        gone, stays = w.add(), w.add()
        await settle()
        w.service.newest.shut(1006)
        await asyncio.sleep(0.5)
        w.remove(gone)
        added = w.add()
        await asyncio.sleep(1)
        assert recorder(gone).sources == []
        assert recorder(stays).sources == [2]
        assert recorder(added).calls == [("joined", 2)]
        assert starts(w.service.newest) == 2


@virtual_time
async def test_an_operation_added_the_moment_a_link_ends_is_not_told_that_it_was_started() -> None:
    async with world() as w:
        w.add()
        await settle()
        link = w.supervisor.links[0]
        w.service.newest.shut(1006)
        while not link.ended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        operation = w.add()
        assert not operation.settled.done()
        await asyncio.sleep(1.1)
        assert recorder(operation).calls == [("joined", 2)]


@virtual_time
async def test_a_normal_close_that_nobody_asked_for_is_a_loss() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(5)
        w.service.newest.shut(1000)
        await asyncio.sleep(1.1)
        assert recorder(operation).sources == [2]


# ---------------------------------------------------------------------- subprotocols


@virtual_time
async def test_a_refused_subprotocol_is_switched_once_and_without_delay() -> None:
    async with world() as w:
        w.service.scripts.append(lambda socket, frame: socket.shut(4406))
        w.add()
        await settle()
        assert w.service.newest.subprotocol == LEGACY
        assert w.service.newest.words == ["connection_init", "start"]
        assert w.told(events.Waiting) == []


@virtual_time
async def test_a_server_that_speaks_neither_subprotocol_is_given_up() -> None:
    async with world() as w:
        w.service.script = lambda socket, frame: socket.shut(1002)
        operation = w.add()
        await settle()
        assert isinstance(error_of(operation), ConnectionGivenUp)
        assert len(w.service.sockets) == 2


@virtual_time
async def test_a_subprotocol_that_was_asked_for_and_is_refused_is_given_up() -> None:
    async with world(subprotocol=MODERN) as w:
        w.service.script = lambda socket, frame: socket.shut(4406)
        operation = w.add()
        await settle()
        assert isinstance(error_of(operation), ConnectionGivenUp)
        assert len(w.service.sockets) == 1


@virtual_time
async def test_several_links_may_find_out_at_once_that_a_subprotocol_is_refused() -> None:
    async with world(connections=3) as w:
        w.service.scripts.extend([lambda socket, frame: socket.shut(4406)] * 3)
        operations = [w.add() for _ in range(3)]
        await settle()
        assert all(recorder(operation).sources for operation in operations)
        assert {socket.subprotocol for socket in w.service.open} == {LEGACY}


@virtual_time
async def test_a_protocol_error_on_a_live_link_does_not_change_the_subprotocol() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.newest.shut(1002)
        await asyncio.sleep(1.1)
        assert recorder(operation).sources == [2]
        assert w.service.newest.subprotocol == MODERN


# ---------------------------------------------------------------------- one operation's own end


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ('Cannot query field "x" on type "EVM"', DocumentRefused),
        ("something broke", OperationFailed),
        ("no active billing period", PlanError),
    ],
)
@virtual_time
async def test_an_error_ends_its_operation_alone(message: str, error: type[Exception]) -> None:
    async with world() as w:
        good = w.add()
        await settle()
        bad = w.add()
        await settle()
        w.service.newest.error(bad, message)
        await asyncio.sleep(100)
        assert isinstance(error_of(bad), error)
        assert error_of(good) is None
        assert recorder(good).sources == [1]
        assert [event.what for event in w.told(events.Refused)] == [f"operation {bad.key}"]


@virtual_time
async def test_an_error_after_data_ends_the_operation_too() -> None:
    async with world() as w:
        operation = w.add()
        await settle()
        w.service.newest.data(operation)
        w.service.newest.error(operation, "something broke")
        await settle()
        failed = error_of(operation)
        assert isinstance(failed, OperationFailed)
        assert failed.errors == ({"message": "something broke"},)


@virtual_time
async def test_a_completed_operation_is_over_and_its_neighbours_are_not() -> None:
    async with world() as w:
        done, stays = w.add(), w.add()
        await settle()
        w.service.newest.complete(done)
        await asyncio.sleep(50)
        assert recorder(done).ended == "completed"
        assert recorder(stays).ended is None
        assert "complete" not in w.service.newest.words
        w.service.newest.shut(1006)
        await asyncio.sleep(2)
        assert starts(w.service.newest) == 1


@virtual_time
async def test_a_syntax_error_that_closes_the_socket_ends_the_newest_unanswered_operation_alone() -> None:
    async with world() as w:
        good = w.add()
        await settle()
        w.service.newest.data(good)
        quiet = w.add()
        await settle()
        bad = w.add()
        await settle()
        w.service.newest.shut(4500, "Syntax Error: Unexpected Name")
        await settle()
        assert isinstance(error_of(bad), DocumentRefused)
        assert recorder(good).sources == recorder(quiet).sources == [2], "redialled without delay"
        assert starts(w.service.newest) == 2


@virtual_time
async def test_an_operation_that_was_served_before_is_never_blamed_for_a_syntax_error() -> None:
    async with world() as w:
        operation = w.add()
        await settle()
        w.service.newest.data(operation)
        await settle()
        w.service.newest.shut(1006)
        await asyncio.sleep(1.1)
        w.service.newest.shut(4500, "Syntax Error: Unexpected Name")
        await asyncio.sleep(60)
        assert error_of(operation) is None
        assert recorder(operation).sources == [3]
        assert waits(w) == [1, 2], "nobody is to blame, so it is waited"


@virtual_time
async def test_a_resubscribe_answered_by_an_error_is_tried_again_and_waits_longer_each_time() -> None:
    async with world() as w:
        operation = w.add()
        await settle()
        w.service.newest.data(operation)
        await settle()
        w.service.scripts.append(refuses("something broke", times=3))
        w.service.newest.shut(1006)
        await asyncio.sleep(1.5 + 1 + 2)
        assert starts(w.service.newest) == 3
        await asyncio.sleep(4)
        assert starts(w.service.newest) == 4
        assert recorder(operation).sources == [2]
        assert len(w.service.sockets) == 2


@virtual_time
async def test_a_resubscribe_that_is_always_refused_ends_the_operation_at_last() -> None:
    async with world() as w:
        operation, neighbour = w.add(), w.add()
        await settle()
        w.service.newest.data(operation)
        w.service.newest.data(neighbour)
        await settle()
        w.service.newest.shut(1006)
        await asyncio.sleep(1.1)
        for _ in range(START_ATTEMPTS):
            w.service.newest.error(operation, "something broke")
            await asyncio.sleep(61)
        assert isinstance(error_of(operation), OperationFailed)
        assert error_of(neighbour) is None


@virtual_time
async def test_refusals_are_forgotten_by_a_start_that_was_served() -> None:
    async with world() as w:
        operation = w.add()
        for _ in range(3 * START_ATTEMPTS):
            await asyncio.sleep(5)
            w.service.newest.data(operation)
            await settle()
            w.service.newest.shut(1006)
            await asyncio.sleep(1.1)
            w.service.newest.error(operation, "not yet")
            await asyncio.sleep(1.1)
        assert error_of(operation) is None


@virtual_time
async def test_a_first_start_that_is_refused_by_a_rate_limit_is_tried_again_slowly() -> None:
    async with world() as w:
        w.service.scripts.append(refuses("too many requests", times=1))
        operation = w.add()
        await asyncio.sleep(4.9)
        assert starts(w.service.newest) == 1
        await asyncio.sleep(0.2)
        assert starts(w.service.newest) == 2
        assert recorder(operation).sources == [1]


@virtual_time
async def test_an_operation_removed_while_its_start_waits_is_not_started_again() -> None:
    async with world() as w:
        w.service.scripts.append(refuses("too many requests", times=1))
        operation = w.add()
        await settle()
        w.add()
        w.remove(operation)
        await asyncio.sleep(60)
        assert starts(w.service.newest) == 2
        assert len(w.service.newest.live) == 1


@virtual_time
async def test_an_operation_that_is_refused_for_its_token_starts_on_the_link_with_the_next() -> None:
    async with world() as w:
        w.service.scripts.append(refuses("Unauthorized", times=1))
        operation = w.add()
        await asyncio.sleep(30)
        assert [generation for generation, _ in w.keeper.refusals] == [1]
        assert recorder(operation).sources == [2]
        assert [socket.number for socket in w.service.open] == [2]


# ---------------------------------------------------------------------- slow readers


@virtual_time
async def test_a_buffer_that_stays_full_parks_its_operation_and_its_neighbours_are_served_on() -> None:
    async with world() as w:
        slow, quick = w.add(), w.add()
        await settle()
        recorder(slow).room = False
        w.service.publish()
        await asyncio.sleep(TIMEOUTS.block + 0.1)
        assert recorder(slow).calls == [("joined", 1), ("park",)]
        assert recorder(quick).calls == [("joined", 1)]
        w.service.publish("2")
        await settle()
        assert recorder(quick).brought[-1] == (1, "2")


@virtual_time
async def test_room_in_time_parks_nobody() -> None:
    async with world() as w:
        slow = w.add()
        await settle()
        recorder(slow).room = False
        w.service.publish()
        await asyncio.sleep(1)
        recorder(slow).room = True
        w.session.has_room(slow)
        await asyncio.sleep(10)
        assert ("park",) not in recorder(slow).calls
        assert not w.service.newest.paused
