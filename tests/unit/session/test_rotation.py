"""Handing over from link to link: make before break, and what may go wrong on the way."""

from __future__ import annotations

import asyncio

import pytest

from bqstream import events
from bqstream.errors import OperationFailed
from bqstream.session.handover import OVERLAP_MAXIMUM
from bqstream.session.operation import Operation
from bqstream.session.rotation import OVERLAP_AGAIN
from bqstream.session.supervisor import START_ATTEMPTS, State
from bqstream.transport.base import DialError, UpgradeRefused
from tests.virtual_time import virtual_time

from .service import LIFETIME, TIMEOUTS, Frame, Script, Socket, World, mute, polite, recorder, settle, world

CAP = "Too many concurrent subscriptions"


def deaf_to_starts(socket: Socket, frame: Frame) -> None:
    """The plan's cap: an operation is taken, and stays silent."""
    polite(socket, frame)
    if frame["type"] == "subscribe":
        del socket.live[frame["id"]]


def refusing(message: str) -> Script:
    """Answers every start by an error."""

    def script(socket: Socket, frame: Frame) -> None:
        polite(socket, frame)
        if frame["type"] == "subscribe":
            del socket.live[frame["id"]]
            socket.say("error", frame["id"], [{"message": message}])

    return script


def dawdling(socket: Socket, frame: Frame) -> None:
    """Answers a second later."""
    asyncio.get_running_loop().call_later(1, polite, socket, frame)


def modes(w: World) -> list[str]:
    return [event.mode for event in w.told(events.HandedOver)]


def crossed(*operations: Operation, yes: bool = True) -> None:
    for operation in operations:
        recorder(operation).has_crossed = yes


async def busy(w: World, seconds: float) -> None:
    """Time passes, and every half second each live operation brings something."""
    for _ in range(int(2 * seconds)):
        w.service.publish()
        await asyncio.sleep(0.5)


async def overlap(w: World) -> None:
    """A newer token is there, and both links serve."""
    w.keeper.renew()
    await settle()
    assert len(w.service.open) == 2


# ---------------------------------------------------------------------- overlap


@virtual_time
async def test_a_newer_token_is_handed_over_to_with_nothing_stopped_on_the_old_link() -> None:
    async with world() as w:
        operations = [w.add(), w.add()]
        await asyncio.sleep(100)
        await overlap(w)
        old, new = w.service.sockets
        assert w.supervisor.state is State.ROTATING
        assert new.target.headers["Authorization"] == "Bearer token-2"
        assert list(new.live.values()) == list(old.live.values())
        await busy(w, 3)
        assert all(recorder(operation).sources == [1, 2] for operation in operations)
        assert {source for source, _ in recorder(operations[0]).brought} == {1, 2}
        crossed(*operations)
        await asyncio.sleep(0.1)
        assert [socket.number for socket in w.service.open] == [2]
        assert "complete" not in old.words
        assert old.goodbye == 1000
        for operation in operations:
            assert recorder(operation).calls == [("joined", 1), ("joined", 2), ("cross", 2)]
        (event,) = w.told(events.HandedOver)
        assert (event.old, event.new, event.mode, event.operations, event.unproven) == (1, 2, "overlap", 2, 0)
        assert w.supervisor.rotations == 1
        assert w.told(events.Lost) == []
        assert w.supervisor.reconnects == 0


@virtual_time
async def test_the_old_link_goes_only_when_every_operation_has_crossed() -> None:
    async with world() as w:
        one, two = w.add(), w.add()
        await asyncio.sleep(100)
        await overlap(w)
        crossed(one)
        await asyncio.sleep(20)
        assert len(w.service.open) == 2
        crossed(two)
        await asyncio.sleep(0.1)
        assert len(w.service.open) == 1


@virtual_time
async def test_receivers_learn_when_both_links_answered_a_ping() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        await asyncio.sleep(1)
        source, beaten = recorder(operation).asked[-1]
        assert source == 2
        assert beaten == pytest.approx(100, abs=0.1)


@virtual_time
async def test_a_link_that_answers_no_ping_leaves_the_crossing_unproven() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.newest.answers_pings = False
        await overlap(w)
        await asyncio.sleep(3)
        assert {beaten for _, beaten in recorder(operation).asked} == {None}


@pytest.mark.parametrize("lifetime", [3.0, 8.0, 30.0, 600.0])
@virtual_time
async def test_the_old_link_is_closed_before_its_token_expires_proven_or_not(lifetime: float) -> None:
    async with world(lifetime=lifetime) as w:
        operation = w.add()
        await asyncio.sleep(0.6 * lifetime)
        await overlap(w)
        await asyncio.sleep(0.4 * lifetime)
        old = w.service.sockets[0]
        assert old.ended_at is not None
        assert old.ended_at < lifetime
        (event,) = w.told(events.HandedOver)
        assert event.unproven == 1
        assert recorder(operation).sources == [2]


@virtual_time
async def test_an_overlap_has_an_end_though_the_token_never_expires() -> None:
    async with world(lifetime=None) as w:
        w.add()
        await asyncio.sleep(100)
        await overlap(w)
        await asyncio.sleep(OVERLAP_MAXIMUM + 1)
        assert len(w.service.open) == 1


@virtual_time
async def test_many_hand_overs_follow_each_other_and_start_each_operation_once_a_link() -> None:
    async with world(lifetime=30) as w:
        operations = [w.add() for _ in range(3)]
        crossed(*operations)
        for _ in range(20):
            await busy(w, 15)
            w.keeper.renew()
        await busy(w, 2)
        assert modes(w) == ["overlap"] * 20
        assert len(w.service.sockets) == 21
        assert all(socket.words.count("subscribe") == 3 for socket in w.service.sockets)
        assert [socket.number for socket in w.service.open] == [21]


@virtual_time
async def test_frames_of_stopped_operations_bring_a_hand_over_to_a_link_without_them() -> None:
    async with world() as w:
        stays, gone = w.add(), w.add()
        crossed(stays)
        await asyncio.sleep(10)
        name = w.service.newest.id_of(gone)
        w.remove(gone)
        for _ in range(100):
            w.service.sockets[0].say("next", name, {"data": 1})
            await asyncio.sleep(0.1)
        assert modes(w) == ["overlap"]
        assert w.service.newest.words.count("subscribe") == 1
        assert recorder(stays).sources == [2]


# ---------------------------------------------------------------------- a link is lost on the way


@virtual_time
async def test_when_the_new_link_is_lost_the_old_one_goes_on_and_it_is_tried_again() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.service.newest.shut(1006)
        await asyncio.sleep(0.5)
        assert recorder(operation).calls == [("joined", 1), ("joined", 2), ("lost", 2, "lost")]
        w.service.publish()
        await settle()
        assert recorder(operation).brought == [(1, "1")]
        assert w.supervisor.state is State.LIVE
        await asyncio.sleep(1)
        assert recorder(operation).sources == [1, 3]
        crossed(operation)
        await asyncio.sleep(0.1)
        assert recorder(operation).sources == [3]
        assert w.supervisor.reconnects == 0


@pytest.mark.parametrize(
    "refusal", [DialError("nobody there"), UpgradeRefused(503, {}, ""), UpgradeRefused(402, {}, "")]
)
@virtual_time
async def test_when_the_new_link_cannot_be_had_the_old_one_goes_on_and_it_is_tried_again(
    refusal: DialError,
) -> None:
    async with world() as w:
        operation = w.add()
        crossed(operation)
        await asyncio.sleep(100)
        w.service.refusals.append(refusal)
        w.keeper.renew()
        await settle()
        assert recorder(operation).calls == [("joined", 1)]
        assert [event.what for event in w.told(events.Refused)] == ["handover"]
        await asyncio.sleep(20)
        assert modes(w) == ["overlap"]
        assert recorder(operation).ended is None


@virtual_time
async def test_an_old_link_without_a_successor_is_read_on_though_its_token_has_expired() -> None:
    async with world(lifetime=30) as w:
        operation = w.add()
        crossed(operation)
        await asyncio.sleep(20)
        w.service.refusals.extend(DialError("nobody there") for _ in range(5))
        w.keeper.renew(LIFETIME)
        await busy(w, 20)
        assert recorder(operation).calls == [("joined", 1)]
        assert len(recorder(operation).brought) == 40
        await busy(w, 30)
        assert modes(w) == ["overlap"]


@virtual_time
async def test_tries_to_hand_over_are_spaced_like_reconnects() -> None:
    async with world() as w:
        w.add()
        await asyncio.sleep(100)
        w.service.refusals.extend(DialError("nobody there") for _ in range(100))
        w.keeper.renew()
        await asyncio.sleep(30.5)
        assert len(w.service.targets) == 1 + 5, "at 0, 1, 3, 7 and 15 s"


@virtual_time
async def test_a_new_token_that_is_refused_at_a_hand_over_is_refreshed_and_the_old_link_goes_on() -> None:
    async with world() as w:
        operation = w.add()
        crossed(operation)
        await asyncio.sleep(100)
        w.service.refusals.append(UpgradeRefused(401, {}, ""))
        w.keeper.renew()
        await asyncio.sleep(1.5)
        assert [generation for generation, _ in w.keeper.refusals] == [2]
        assert w.service.newest.target.headers["Authorization"] == "Bearer token-3"
        assert recorder(operation).sources == [2]
        assert w.told(events.Lost) == []


@virtual_time
async def test_when_the_old_link_is_lost_in_the_overlap_the_new_one_is_promoted() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.service.sockets[0].shut(1006)
        await settle()
        assert recorder(operation).calls == [("joined", 1), ("joined", 2), ("lost", 1, "lost")]
        assert [event.link for event in w.told(events.Lost)] == [1]
        await asyncio.sleep(100)
        assert len(w.service.sockets) == 2
        assert w.supervisor.state is State.LIVE


@virtual_time
async def test_when_the_old_link_is_lost_while_the_new_one_is_dialled_it_is_promoted_at_its_ack() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.latency = 3
        w.keeper.renew()
        await asyncio.sleep(1)
        w.service.sockets[0].shut(1006)
        await asyncio.sleep(2.1)
        assert recorder(operation).calls == [("joined", 1), ("lost", 1, "lost"), ("joined", 2)]
        assert len(w.service.targets) == 2


@virtual_time
async def test_when_both_links_are_lost_it_begins_anew() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        for socket in w.service.sockets:
            socket.shut(1006)
        await asyncio.sleep(3)
        assert recorder(operation).sources == [3]
        assert sorted(event.link for event in w.told(events.Lost)) == [1, 2]


@virtual_time
async def test_when_the_old_link_is_lost_and_the_dial_fails_too_it_begins_anew() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.latency = 3
        w.keeper.renew()
        await asyncio.sleep(1)
        w.service.sockets[0].shut(1006)
        w.service.refusals.append(DialError("nobody there"))
        await asyncio.sleep(10)
        assert recorder(operation).sources == [2]


@virtual_time
async def test_a_new_link_that_is_never_acknowledged_is_given_up_and_tried_again() -> None:
    async with world() as w:
        operation = w.add()
        crossed(operation)
        await asyncio.sleep(100)
        w.service.scripts.append(mute)
        w.keeper.renew()
        await busy(w, 20)
        assert modes(w) == ["overlap"]
        assert recorder(operation).sources == [3]
        assert len(recorder(operation).brought) == 40


# ---------------------------------------------------------------------- the plan's cap


@virtual_time
async def test_a_new_link_that_stays_silent_is_taken_for_the_cap_and_replaces_the_old() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.scripts.append(deaf_to_starts)
        w.keeper.renew()
        await busy(w, 2 * TIMEOUTS.grace + 3)
        assert modes(w) == ["replace"]
        assert [event.what for event in w.told(events.Refused)] == ["overlap"]
        assert recorder(operation).calls == [
            ("joined", 1),
            ("joined", 2),
            ("lost", 2, "lost"),
            ("lost", 1, "replaced"),
            ("joined", 3),
        ]
        assert [socket.number for socket in w.service.open] == [3]
        old, new = w.service.sockets[0], w.service.sockets[2]
        assert old.goodbye == 1000
        assert new.live


@virtual_time
async def test_an_error_that_names_the_cap_replaces_at_once() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.scripts.append(refusing(CAP))
        w.keeper.renew()
        await asyncio.sleep(0.5)
        assert modes(w) == ["replace"]
        assert recorder(operation).sources == [3]
        assert recorder(operation).ended is None


@virtual_time
async def test_what_was_added_in_the_overlap_goes_to_the_old_link_until_that_is_replaced() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        added = w.add()
        await settle()
        w.service.latency = 2
        w.service.newest.error(operation, CAP)
        await asyncio.sleep(1)
        assert recorder(added).calls == [("joined", 2), ("lost", 2, "lost"), ("joined", 1)]
        await asyncio.sleep(2)
        assert recorder(added).sources == recorder(operation).sources == [3]


@virtual_time
async def test_silence_while_the_old_link_is_quiet_too_is_not_the_cap() -> None:
    async with world() as w:
        w.add()
        await asyncio.sleep(100)
        w.service.scripts.append(deaf_to_starts)
        w.keeper.renew()
        await asyncio.sleep(OVERLAP_MAXIMUM + 1)
        assert modes(w) == ["overlap"]


@virtual_time
async def test_after_the_cap_has_shown_overlap_is_tried_again_an_hour_later() -> None:
    async with world(lifetime=None) as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.scripts.append(refusing(CAP))
        w.keeper.renew()
        await asyncio.sleep(10)
        crossed(operation)
        w.keeper.renew()
        await asyncio.sleep(OVERLAP_AGAIN - 20)
        w.keeper.renew()
        await asyncio.sleep(15)
        w.keeper.renew()
        await asyncio.sleep(15)
        assert modes(w) == ["replace", "replace", "replace", "overlap"]


@virtual_time
async def test_an_operation_that_is_started_late_on_the_new_link_is_given_its_grace_before_the_cap() -> None:
    async with world() as w:
        late, neighbour = w.add(), w.add()
        await asyncio.sleep(100)
        await overlap(w)
        new = w.service.newest
        await busy(w, 2)
        new.error(late, "not yet")
        crossed(neighbour)
        new.script = deaf_to_starts  # the next start will be silent for a while
        await busy(w, 1 + TIMEOUTS.grace)
        await busy(w, 1)  # two messages more: not enough
        assert len(w.service.open) == 2
        assert modes(w) == []
        await busy(w, 2 + TIMEOUTS.grace)
        assert modes(w) == ["replace"]


@virtual_time
async def test_a_burst_that_the_new_link_brings_a_little_later_is_not_the_cap() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        await asyncio.sleep(TIMEOUTS.grace + 1)  # quiet for longer than grace, as between two blocks
        old, new = w.service.open
        for _ in range(3):
            old.data(operation)
        await asyncio.sleep(TIMEOUTS.grace - 1)  # a lag within grace
        for _ in range(3):
            new.data(operation)
        crossed(operation)
        await asyncio.sleep(1)
        assert w.told(events.Refused) == []
        assert modes(w) == ["overlap"]


async def crossed_in_haste(w: World) -> Operation:
    """A hand-over whose time was too short to tell silence from lag."""
    operation = w.add()
    await asyncio.sleep(6)
    w.service.scripts.append(deaf_to_starts)
    w.keeper.renew(LIFETIME)
    await busy(w, 3.5)
    assert modes(w) == ["overlap"]
    assert recorder(operation).sources == [2]
    return operation


@virtual_time
async def test_silence_in_a_short_overlap_is_looked_at_once_more_and_then_taken_for_the_cap() -> None:
    async with world(lifetime=10) as w:
        operation = await crossed_in_haste(w)
        assert w.told(events.Refused) == []
        await asyncio.sleep(5)
        assert [event.what for event in w.told(events.Refused)] == ["overlap"]
        assert modes(w) == ["overlap", "replace"]
        assert recorder(operation).sources == [3]


@virtual_time
async def test_a_link_that_speaks_after_a_short_overlap_was_only_late() -> None:
    async with world(lifetime=10) as w:
        operation = await crossed_in_haste(w)
        w.service.newest.live["1"] = f"subscription {{ cube{operation.key} }}"
        await busy(w, 10)
        assert w.told(events.Refused) == []
        assert modes(w) == ["overlap"]


@virtual_time
async def test_a_link_that_is_lost_after_a_short_overlap_says_nothing_about_the_cap() -> None:
    async with world(lifetime=10) as w:
        await crossed_in_haste(w)
        w.service.newest.shut(1006)
        await asyncio.sleep(20)
        assert w.told(events.Refused) == []


@virtual_time
async def test_an_operation_that_starts_again_after_a_short_overlap_says_nothing_about_the_cap() -> None:
    async with world(lifetime=10) as w:
        operation = await crossed_in_haste(w)
        socket = w.service.newest
        socket.script = polite
        socket.say("error", "1", [{"message": "something broke"}])
        await busy(w, 10)
        assert [event.what for event in w.told(events.Refused)] == [f"operation {operation.key}"]


# ---------------------------------------------------------------------- replace


@virtual_time
async def test_replacing_closes_the_old_link_before_anything_is_started_on_the_new() -> None:
    async with world(mode="replace") as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.sockets[0].answers_close = False
        w.keeper.renew()
        await asyncio.sleep(TIMEOUTS.close / 2)
        assert recorder(operation).calls == [("joined", 1), ("lost", 1, "replaced")]
        assert w.service.sockets[1].words == ["connection_init"]
        await asyncio.sleep(TIMEOUTS.close)
        assert recorder(operation).sources == [2]
        assert modes(w) == ["replace"]
        assert w.told(events.Lost) == []


@virtual_time
async def test_replacing_keeps_the_old_link_until_another_is_acknowledged() -> None:
    async with world(mode="replace") as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.refusals.append(DialError("nobody there"))
        w.keeper.renew()
        await asyncio.sleep(0.5)
        assert recorder(operation).calls == [("joined", 1)]
        await asyncio.sleep(1)
        assert recorder(operation).sources == [2]


@virtual_time
async def test_an_operation_added_while_the_old_link_closes_is_started_on_the_new_one_alone() -> None:
    async with world(mode="replace") as w:
        w.add()
        await asyncio.sleep(100)
        w.service.sockets[0].answers_close = False
        w.keeper.renew()
        await asyncio.sleep(TIMEOUTS.close / 2)
        added = w.add()
        await asyncio.sleep(TIMEOUTS.close)
        assert recorder(added).calls == [("joined", 2)]


@virtual_time
async def test_an_old_link_that_is_lost_before_it_could_be_replaced_is_told_as_lost() -> None:
    async with world(mode="replace") as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.latency = 3
        w.keeper.renew()
        await asyncio.sleep(1)
        w.service.sockets[0].shut(1006)
        await asyncio.sleep(3)
        assert recorder(operation).calls == [("joined", 1), ("lost", 1, "lost"), ("joined", 2)]
        assert [event.link for event in w.told(events.Lost)] == [1]
        assert modes(w) == []


@virtual_time
async def test_a_new_link_that_is_lost_while_the_old_one_closes_is_dialled_again() -> None:
    async with world(mode="replace") as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.sockets[0].answers_close = False
        w.keeper.renew()
        await asyncio.sleep(TIMEOUTS.close / 2)
        w.service.sockets[1].shut(1006)
        await asyncio.sleep(TIMEOUTS.close + 1)
        assert recorder(operation).sources == [3]


# ---------------------------------------------------------------------- several links


@virtual_time
async def test_links_rotate_one_at_a_time() -> None:
    async with world(connections=3) as w:
        operations = [w.add() for _ in range(3)]
        await asyncio.sleep(100)
        w.keeper.renew()
        for turn in range(3):
            await asyncio.sleep(1)
            assert len(w.service.sockets) == 3 + turn + 1
            assert len(w.service.open) == 4
            joining = next(o for o in operations if len(recorder(o).sources) == 2)
            crossed(joining)
            await asyncio.sleep(0.2)
            crossed(joining, yes=False)
        assert len(w.service.open) == 3
        assert modes(w) == ["overlap"] * 3


@virtual_time
async def test_nobody_waits_for_a_turn_until_its_token_has_expired() -> None:
    async with world(connections=4, lifetime=60) as w:
        operations = [w.add() for _ in range(4)]
        await asyncio.sleep(20)
        w.keeper.renew()
        await asyncio.sleep(41)
        assert all(socket.ended_at is not None and socket.ended_at < 60 for socket in w.service.sockets[:4])
        assert all(recorder(operation).calls[-1][0] == "cross" for operation in operations)


@virtual_time
async def test_a_link_that_is_lost_while_it_waits_for_its_turn_is_replaced_at_once() -> None:
    async with world(connections=2) as w:
        operations = [w.add(), w.add()]
        await asyncio.sleep(100)
        w.keeper.renew()
        await asyncio.sleep(1)
        waiting = next(o for o in operations if len(recorder(o).sources) == 1)
        (lost,) = recorder(waiting).sources
        w.service.sockets[lost - 1].shut(1006)
        await asyncio.sleep(0.5)
        assert recorder(waiting).calls == [("joined", lost), ("lost", lost, "lost"), ("joined", 4)]


@virtual_time
async def test_who_waited_for_a_turn_dials_with_the_token_of_that_moment() -> None:
    async with world(connections=2) as w:
        operations = [w.add(), w.add()]
        await asyncio.sleep(100)
        w.keeper.renew()
        await asyncio.sleep(1)
        w.keeper.renew()
        crossed(*operations)
        await asyncio.sleep(0.5)
        assert w.service.sockets[3].target.headers["Authorization"] == "Bearer token-3"


# ---------------------------------------------------------------------- operations come and go


@virtual_time
async def test_an_operation_added_while_the_new_link_is_dialled_runs_on_both() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.latency = 3
        w.keeper.renew()
        await asyncio.sleep(1)
        added = w.add()
        await settle()
        assert recorder(added).calls == [("joined", 1)]
        await asyncio.sleep(3)
        crossed(operation, added)
        await asyncio.sleep(0.1)
        assert recorder(added).calls == [("joined", 1), ("joined", 2), ("cross", 2)]


@virtual_time
async def test_an_operation_added_in_the_overlap_runs_on_the_new_link_and_has_nothing_to_cross() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        added = w.add()
        await asyncio.sleep(1)
        assert recorder(added).calls == [("joined", 2)]
        crossed(operation)
        await asyncio.sleep(0.1)
        assert len(w.service.open) == 1
        assert recorder(added).calls == [("joined", 2)]


@virtual_time
async def test_an_operation_added_in_the_overlap_goes_to_the_old_link_when_the_new_one_is_lost() -> None:
    async with world() as w:
        w.add()
        await asyncio.sleep(100)
        await overlap(w)
        added = w.add()
        await settle()
        w.service.newest.shut(1006)
        await settle()
        assert recorder(added).calls == [("joined", 2), ("lost", 2, "lost"), ("joined", 1)]


@virtual_time
async def test_an_operation_removed_in_the_overlap_is_stopped_on_both_links() -> None:
    async with world() as w:
        stays, gone = w.add(), w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.remove(gone)
        await settle()
        assert [len(socket.live) for socket in w.service.sockets] == [1, 1]
        crossed(stays)
        await asyncio.sleep(0.1)
        assert recorder(stays).sources == [2]


@pytest.mark.parametrize("mode", ["overlap", "replace"])
@virtual_time
async def test_an_operation_removed_while_the_new_link_is_dialled_is_not_started_there(mode: str) -> None:
    async with world(mode=mode) as w:
        stays, gone = w.add(), w.add()
        await asyncio.sleep(100)
        w.service.latency = 3
        w.keeper.renew()
        await asyncio.sleep(1)
        w.remove(gone)
        await asyncio.sleep(3)
        assert list(w.service.newest.live.values()) == [f"subscription {{ cube{stays.key} }}"]
        assert recorder(gone).calls == [("joined", 1)]


@pytest.mark.parametrize("mode", ["overlap", "replace"])
@pytest.mark.parametrize("after", [0.5, 1.5, 2.5, 3.5, 4.5])
@virtual_time
async def test_the_last_operation_may_go_at_any_time_of_a_hand_over(mode: str, after: float) -> None:
    async with world(mode=mode) as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.service.sockets[0].answers_close = False
        w.service.latency = 1
        w.service.scripts.append(dawdling)
        w.keeper.renew()
        await asyncio.sleep(after)
        w.remove(operation)
        await asyncio.sleep(TIMEOUTS.close + 0.1)
        assert w.service.open == []
        assert w.supervisor.state is State.IDLE
        again = w.add()
        await asyncio.sleep(2.2)
        assert len(recorder(again).sources) == 1


@virtual_time
async def test_an_operation_that_completes_on_the_old_link_is_over_on_both() -> None:
    async with world() as w:
        stays, done = w.add(), w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.service.sockets[0].complete(done)
        await settle()
        assert recorder(done).ended == "completed"
        assert [len(socket.live) for socket in w.service.sockets] == [1, 1]
        crossed(stays)
        await asyncio.sleep(0.1)
        assert recorder(stays).sources == [2]


@virtual_time
async def test_an_operation_that_completes_on_the_new_link_goes_on_from_the_old_and_starts_again() -> None:
    async with world() as w:
        stays, done = w.add(), w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.service.sockets[1].complete(done)
        await settle()
        assert recorder(done).calls == [("joined", 1), ("joined", 2), ("lost", 2, "lost")]
        crossed(stays)
        await asyncio.sleep(OVERLAP_MAXIMUM + 1)
        assert recorder(done).sources == [2], "it is started again once the old link has gone"


@virtual_time
async def test_an_error_on_the_new_link_is_tried_again_there_while_the_old_one_serves() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.service.newest.error(operation, "something broke")
        await asyncio.sleep(0.5)
        assert recorder(operation).sources == [1]
        await asyncio.sleep(1)
        assert recorder(operation).sources == [1, 2]
        crossed(operation)
        await asyncio.sleep(0.1)
        assert recorder(operation).sources == [2]


@virtual_time
async def test_a_start_that_is_refused_for_ever_on_the_new_link_ends_its_operation_alone() -> None:
    async with world(lifetime=None) as w:
        refused, neighbour = w.add(), w.add()
        await asyncio.sleep(100)
        await overlap(w)
        for attempt in range(START_ATTEMPTS):
            w.service.newest.error(refused, "something broke")
            await asyncio.sleep(1.1 * 2**attempt)
        assert isinstance(recorder(refused).ended, OperationFailed)
        assert recorder(neighbour).ended is None


@virtual_time
async def test_after_a_new_start_the_ping_of_before_it_proves_nothing() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        await asyncio.sleep(1)
        w.service.newest.error(operation, "something broke")
        await asyncio.sleep(1)
        recorder(operation).asked.clear()
        await asyncio.sleep(1)
        assert {beaten for _, beaten in recorder(operation).asked} == {None}


@virtual_time
async def test_an_operation_that_cannot_be_started_in_time_is_lost_with_the_old_link_and_started_then() -> (
    None
):
    async with world(lifetime=110) as w:
        operation = w.add()
        await asyncio.sleep(100)
        w.keeper.renew()
        await settle()
        w.service.newest.error(operation, "too many requests")
        await asyncio.sleep(0.5)
        w.service.newest.script = refusing("too many requests")
        await asyncio.sleep(8.6)
        (event,) = w.told(events.HandedOver)
        assert event.unproven == 1
        assert ("lost", 1, "lost") in recorder(operation).calls
        w.service.newest.script = polite
        await asyncio.sleep(60)
        assert recorder(operation).sources == [2]


@virtual_time
async def test_an_error_on_the_old_link_leaves_the_operation_to_the_new_one() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        w.service.sockets[0].error(operation, "Unauthorized")
        await asyncio.sleep(1)
        assert recorder(operation).sources == [2]
        assert recorder(operation).ended is None


@virtual_time
async def test_a_bad_document_added_in_the_overlap_that_closes_the_new_link_is_ended_alone() -> None:
    async with world() as w:
        operation = w.add()
        await asyncio.sleep(100)
        await overlap(w)
        bad = w.add()
        await settle()
        w.service.newest.shut(4500, "Syntax Error: Unexpected Name")
        await asyncio.sleep(5)
        assert isinstance(recorder(bad).ended, Exception)
        assert recorder(operation).ended is None
        assert "subscribe" not in w.service.sockets[0].words[3:], "it never reaches the old link"
