"""One connection from dial to close, on a socket in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bqstream.config import Timeouts
from bqstream.credentials.token import HeldToken, Token
from bqstream.protocol import LEGACY, MODERN, Action, Verdict, machine_for, request
from bqstream.session.link import BLOCK_STEPS, STRAY_FRAMES, Ending, Entry, Link
from bqstream.session.operation import Operation
from bqstream.transport.base import Target
from tests.virtual_time import VirtualTimeLoop, virtual_clock, virtual_time

from .service import TIMEOUTS, Frame, Recorder, Script, Socket, mute, polite, recorder, settle

EITHER = pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])


class Owner:
    """What a link told."""

    def __init__(self) -> None:
        self.errored: list[tuple[int, tuple[dict[str, Any], ...]]] = []
        self.completed: list[int] = []

    def changed(self) -> None:
        """Nobody waits here."""

    def operation_errored(self, link: Link, entry: Entry, errors: tuple[dict[str, Any], ...]) -> None:
        self.errored.append((entry.operation.key, errors))

    def operation_completed(self, link: Link, entry: Entry) -> None:
        self.completed.append(entry.operation.key)

    def blame(self, link: Link, verdict: Verdict) -> Verdict:
        return verdict


class Bench:
    """One running link, its socket and its owner."""

    def __init__(self, subprotocol: str, script: Script, timeouts: Timeouts) -> None:
        clock = virtual_clock()
        held = HeldToken(Token("token-1", 600), 1, clock.monotonic(), clock.wall())
        self.owner = Owner()
        self.socket = Socket(1, Target(url="wss://service.test/graphql"), subprotocol, script)
        machine = machine_for(subprotocol)
        self.link = Link(1, held, self.socket, machine, self.owner, timeouts=timeouts, clock=clock)
        self.running: asyncio.Task[Ending] = asyncio.create_task(self.link.run({"a": 1}))
        self._started: list[Operation] = []

    @property
    def parks(self) -> list[int]:
        """The operations that were parked."""
        return [one.key for one in self._started if ("park",) in recorder(one).calls]

    def start(self) -> Operation:
        key = len(self._started) + 1
        operation = Operation(key, request(f"subscription {{ cube{key} }}"), Recorder())
        self._started.append(operation)
        self.link.start(operation, grace=5)
        return operation

    async def fill(self, operation: Operation) -> None:
        """A payload comes in for which there is no room."""
        recorder(operation).room = False
        self.socket.data(operation)
        await settle()

    async def ended(self) -> tuple[float, Ending]:
        """When the link ended, and how."""
        ending = await self.running
        return asyncio.get_running_loop().time(), ending


@contextlib.asynccontextmanager
async def linked(
    subprotocol: str = MODERN, script: Script = polite, timeouts: Timeouts = TIMEOUTS
) -> AsyncIterator[Bench]:
    bench = Bench(subprotocol, script, timeouts)
    await settle()
    try:
        yield bench
    finally:
        bench.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await bench.running
        assert not bench.socket.open


def stand_still(seconds: float) -> None:
    """The program stands still for so long: nothing runs, not even a timer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.now += seconds


def acks(payload: Any) -> Script:
    """A service that acknowledges with ``payload`` and never speaks again."""

    def script(socket: Socket, frame: Frame) -> None:
        if frame["type"] == "connection_init":
            socket.say("connection_ack", payload=payload)

    return script


# ---------------------------------------------------------------------- init and ack


@EITHER
@virtual_time
async def test_connection_init_is_the_first_frame_and_comes_once(subprotocol: str) -> None:
    async with linked(subprotocol) as bench:
        bench.start()
        await asyncio.sleep(30)
        assert bench.socket.heard[0] == {"type": "connection_init", "payload": {"a": 1}}
        assert bench.socket.words.count("connection_init") == 1


@EITHER
@virtual_time
async def test_without_an_ack_in_time_the_link_closes_with_4504(subprotocol: str) -> None:
    async with linked(subprotocol, mute) as bench:
        at, ending = await bench.ended()
        assert at == pytest.approx(TIMEOUTS.ack, abs=0.01)
        assert bench.socket.goodbye == 4504
        assert ending.verdict.action is Action.RETRY
        assert ending.verdict.code == 4504
        assert not bench.link.acked


@EITHER
@virtual_time
async def test_an_ack_that_came_while_the_program_stood_still_is_in_time(subprotocol: str) -> None:
    async with linked(subprotocol, mute) as bench:
        bench.socket.say("connection_ack")
        stand_still(3 * TIMEOUTS.ack)
        await settle()
        assert bench.link.acked
        assert not bench.link.ended


@virtual_time
async def test_a_service_that_answers_neither_init_nor_close_is_dropped() -> None:
    async with linked(script=mute) as bench:
        bench.socket.answers_close = False
        at, _ = await bench.ended()
        assert at == pytest.approx(TIMEOUTS.ack + TIMEOUTS.close, abs=0.01)


@virtual_time
async def test_frames_before_the_ack_are_life_and_a_ping_is_answered_at_once() -> None:
    async with linked(script=mute) as bench:
        for word in ("ka", "pong", "start_ack", "next"):
            bench.socket.say(word)
        bench.socket.say("ping", payload={"n": 1})
        await settle()
        assert bench.socket.heard[-1] == {"type": "pong", "payload": {"n": 1}}
        assert not bench.link.acked
        bench.socket.say("connection_ack")
        await settle()
        assert bench.link.acked
        assert not bench.link.ended


@EITHER
@virtual_time
async def test_a_connection_error_closes_the_link_and_asks_for_a_new_token(subprotocol: str) -> None:
    async with linked(subprotocol, mute) as bench:
        bench.socket.say("connection_error", payload={"message": "Unauthorized"})
        _, ending = await bench.ended()
        assert ending.verdict.action is Action.REFRESH
        assert bench.socket.goodbye == 1000


@virtual_time
async def test_a_second_ack_starts_nothing_again() -> None:
    async with linked() as bench:
        bench.start()
        bench.socket.say("connection_ack")
        await settle()
        assert bench.socket.words.count("subscribe") == 1


# ---------------------------------------------------------------------- the idle watchdog


@EITHER
@virtual_time
async def test_a_link_that_is_quiet_from_its_ack_on_is_asked_half_way_and_lives(subprotocol: str) -> None:
    async with linked(subprotocol) as bench:
        await asyncio.sleep(100)
        assert not bench.link.ended
        asked = bench.socket.words.count("ping") if subprotocol == MODERN else bench.socket.pings
        assert asked == pytest.approx(100 / (TIMEOUTS.idle / 2), abs=1)


@virtual_time
async def test_legacy_is_never_sent_a_ping_of_the_other_subprotocol() -> None:
    async with linked(LEGACY) as bench:
        await asyncio.sleep(100)
        assert "ping" not in bench.socket.words


@EITHER
@virtual_time
async def test_a_link_without_a_sign_of_life_is_dropped_without_a_word(subprotocol: str) -> None:
    async with linked(subprotocol, acks(None)) as bench:
        bench.socket.answers_pings = False
        at, ending = await bench.ended()
        assert at == pytest.approx(TIMEOUTS.idle, abs=0.01)
        assert ending.stalled == pytest.approx(TIMEOUTS.idle, abs=0.01)
        assert ending.verdict.action is Action.RETRY
        assert bench.socket.goodbye is None


@EITHER
@virtual_time
async def test_the_limit_counts_from_the_last_sign_of_life(subprotocol: str) -> None:
    async with linked(subprotocol, acks(None)) as bench:
        bench.socket.answers_pings = False
        operation = bench.start()
        await asyncio.sleep(7)
        bench.socket.data(operation)
        at, _ = await bench.ended()
        assert at == pytest.approx(7 + TIMEOUTS.idle, abs=0.01)


@virtual_time
async def test_modern_asks_by_its_own_ping_and_does_not_count_a_websocket_pong() -> None:
    async with linked(MODERN, acks(None)) as bench:
        await bench.ended()
        assert bench.socket.words.count("ping") == 1
        assert bench.socket.pings == 0


@virtual_time
async def test_websocket_pongs_count_on_legacy_until_the_service_has_shown_that_it_beats() -> None:
    async with linked(LEGACY, acks(None)) as bench:
        await asyncio.sleep(35)
        assert not bench.link.ended
        bench.socket.say("ka")
        at, ending = await bench.ended()
        assert at == pytest.approx(35 + TIMEOUTS.idle, abs=0.01)
        assert ending.stalled is not None


@virtual_time
async def test_unasked_pongs_do_not_keep_a_link_from_asking_once_they_stop() -> None:
    async with linked() as bench:
        for _ in range(20):
            bench.socket.say("pong")
            await asyncio.sleep(2)
        assert "ping" not in bench.socket.words
        await asyncio.sleep(20)
        assert bench.socket.words.count("ping") >= 2
        assert not bench.link.ended


@EITHER
@virtual_time
async def test_appsync_says_how_often_it_beats_and_that_is_the_limit(subprotocol: str) -> None:
    async with linked(subprotocol, acks({"connectionTimeoutMs": 300_000})) as bench:
        bench.socket.answers_pings = False
        at, ending = await bench.ended()
        assert at == pytest.approx(300, abs=0.01)
        assert ending.stalled == pytest.approx(300, abs=0.01)


@pytest.mark.parametrize("strange", ["soon", None, 0, -5, [], True, 1, 999])
@virtual_time
async def test_a_limit_that_makes_no_sense_is_not_taken(strange: Any) -> None:
    async with linked(script=acks({"connectionTimeoutMs": strange})) as bench:
        at, _ = await bench.ended()
        assert at == pytest.approx(TIMEOUTS.idle, abs=0.01)


@EITHER
@virtual_time
async def test_the_idle_clock_stands_still_while_reading_is_paused(subprotocol: str) -> None:
    timeouts = Timeouts(idle=10, block=60, close=2)
    async with linked(subprotocol, acks(None), timeouts) as bench:
        bench.socket.answers_pings = False
        operation = bench.start()
        await bench.fill(operation)
        await asyncio.sleep(59)
        assert not bench.link.ended
        recorder(operation).room = True
        bench.link.has_room(operation)
        at, _ = await bench.ended()
        assert at == pytest.approx(59 + 10, abs=0.01)


# ---------------------------------------------------------------------- back-pressure


@virtual_time
async def test_a_full_buffer_stops_the_reading_and_room_lets_it_go_on() -> None:
    async with linked() as bench:
        operation = bench.start()
        await bench.fill(operation)
        assert bench.socket.paused
        bench.socket.data(operation, "2")
        await asyncio.sleep(1)
        assert len(recorder(operation).brought) == 1
        recorder(operation).room = True
        bench.link.has_room(operation)
        await settle()
        assert recorder(operation).brought[-1] == (1, "2")
        await asyncio.sleep(30)
        assert bench.parks == []


@virtual_time
async def test_a_buffer_that_stays_full_parks_its_operation_and_the_link_reads_on() -> None:
    async with linked() as bench:
        slow, quick = bench.start(), bench.start()
        await bench.fill(slow)
        await asyncio.sleep(TIMEOUTS.block - 0.1)
        assert bench.socket.paused
        await asyncio.sleep(0.2)
        assert not bench.socket.paused
        assert bench.parks == [slow.key]
        bench.socket.data(quick)
        await settle()
        assert recorder(quick).brought


@pytest.mark.parametrize("share", [0.0, 0.5, 0.85])
@virtual_time
async def test_a_reader_is_not_parked_for_a_time_in_which_the_program_stood_still(share: float) -> None:
    async with linked() as bench:
        operation = bench.start()
        await bench.fill(operation)
        await asyncio.sleep(share * TIMEOUTS.block)
        stand_still(3 * TIMEOUTS.block)
        await settle()
        assert bench.socket.paused
        recorder(operation).room = True
        bench.link.has_room(operation)
        assert not bench.socket.paused
        await asyncio.sleep(30)
        assert bench.parks == []


@virtual_time
async def test_a_reader_that_stays_slow_after_a_standstill_is_parked_in_time() -> None:
    async with linked() as bench:
        operation = bench.start()
        await bench.fill(operation)
        await asyncio.sleep(TIMEOUTS.block / 2)
        stand_still(3 * TIMEOUTS.block)
        await asyncio.sleep(TIMEOUTS.block / 2)
        assert not bench.socket.paused
        assert bench.parks == [operation.key]


@virtual_time
async def test_a_program_that_stands_still_again_and_again_does_not_keep_its_link_from_reading_for_ever() -> (
    None
):
    async with linked() as bench:
        operation = bench.start()
        await bench.fill(operation)
        for _ in range(BLOCK_STEPS):
            assert bench.socket.paused
            stand_still(2 * TIMEOUTS.block)
            await settle()
        assert not bench.socket.paused
        assert bench.parks == [operation.key]


@virtual_time
async def test_two_full_buffers_need_both_to_have_room() -> None:
    async with linked() as bench:
        one, two = bench.start(), bench.start()
        await bench.fill(one)
        bench.link._press(two)
        bench.link.has_room(one)
        assert bench.socket.paused
        bench.link.has_room(two)
        assert not bench.socket.paused
        await asyncio.sleep(10)
        assert bench.parks == []


@virtual_time
async def test_the_time_to_block_counts_from_the_first_full_buffer() -> None:
    async with linked() as bench:
        one, two = bench.start(), bench.start()
        await bench.fill(one)
        await asyncio.sleep(1.5)
        bench.link._press(two)
        await asyncio.sleep(0.6)
        assert not bench.socket.paused
        assert bench.parks == [one.key, two.key]


@virtual_time
async def test_an_operation_that_is_stopped_presses_no_more() -> None:
    async with linked() as bench:
        operation = bench.start()
        await bench.fill(operation)
        bench.link.stop(operation)
        assert not bench.socket.paused
        await asyncio.sleep(10)
        assert bench.parks == []


@virtual_time
async def test_a_link_that_is_closed_while_paused_ends_in_time_and_parks_nobody() -> None:
    async with linked(timeouts=Timeouts(block=1, close=2)) as bench:
        operation = bench.start()
        await bench.fill(operation)
        bench.socket.answers_close = False
        await bench.link.close()
        at, ending = await bench.ended()
        assert ending.expected
        assert at <= TIMEOUTS.close + 0.1
        await asyncio.sleep(10)
        assert bench.parks == []


# ---------------------------------------------------------------------- operations


@virtual_time
async def test_what_is_stopped_is_unsubscribed_and_hears_nothing_more() -> None:
    async with linked() as bench:
        operation = bench.start()
        name = bench.socket.id_of(operation)
        bench.link.stop(operation)
        assert bench.socket.heard[-1] == {"type": "complete", "id": name}
        bench.socket.say("next", name, {"data": 1})
        bench.socket.say("error", name, [{"message": "late"}])
        bench.socket.say("complete", name)
        await settle()
        assert recorder(operation).brought == []
        assert bench.owner.errored == []
        assert bench.owner.completed == []
        bench.link.stop(operation)
        assert bench.socket.words.count("complete") == 1


@virtual_time
async def test_what_is_forgotten_ends_without_a_word_to_the_service() -> None:
    async with linked() as bench:
        operation = bench.start()
        bench.socket.data(operation)
        await settle()
        operation.refusals = 3
        entry = bench.link.forget(operation)
        assert entry is not None
        assert entry.messages == 1
        assert operation.served
        assert operation.refusals == 0, "refusals are counted in a row, and this start was served"
        assert "complete" not in bench.socket.words
        assert bench.link.forget(operation) is None


@virtual_time
async def test_clearing_gives_all_that_ran_and_passes_nothing_on_afterwards() -> None:
    async with linked() as bench:
        operations = [bench.start(), bench.start()]
        names = [bench.socket.id_of(operation) for operation in operations]
        assert [entry.operation for entry in bench.link.clear()] == operations
        for name in names:
            bench.socket.say("next", name, {"data": 1})
        await settle()
        assert not any(recorder(operation).brought for operation in operations)
        assert "complete" not in bench.socket.words


@virtual_time
async def test_an_operation_starts_once_a_link_and_under_a_new_id_when_it_starts_again() -> None:
    async with linked() as bench:
        operation = bench.start()
        first = bench.socket.id_of(operation)
        bench.link.start(operation, grace=5)
        assert bench.socket.words.count("subscribe") == 1
        bench.link.stop(operation)
        recorder(operation).sources.clear()
        bench.link.start(operation, grace=5)
        assert bench.socket.id_of(operation) != first


@virtual_time
async def test_nothing_is_started_on_a_link_that_is_being_closed_or_has_ended() -> None:
    async with linked() as bench:
        bench.socket.answers_close = False
        closing = asyncio.create_task(bench.link.close())
        await settle()
        assert recorder(bench.start()).calls == []
        await closing
        await bench.running
        assert recorder(bench.start()).calls == []
        assert bench.link.running == {}


@virtual_time
async def test_an_operation_that_its_receiver_removes_as_it_starts_is_not_left_running() -> None:
    async with linked() as bench:
        operation = Operation(9, request("subscription { a }"), Recorder())

        class Leaver(Recorder):
            def joined(self, source: int, now: float, *, grace: float, served: float) -> None:
                bench.link.stop(operation)

        operation.receiver = Leaver()
        bench.link.start(operation, grace=5)
        await settle()
        assert bench.socket.live == {}


@EITHER
@virtual_time
async def test_errors_and_completions_are_told_once_and_end_the_operation_here(subprotocol: str) -> None:
    async with linked(subprotocol) as bench:
        bad, done = bench.start(), bench.start()
        name = bench.socket.id_of(bad)
        bench.socket.error(bad, "no")
        bench.socket.say("complete", name)
        bench.socket.complete(done)
        await settle()
        assert bench.owner.errored == [(bad.key, ({"message": "no"},))]
        assert bench.owner.completed == [done.key]
        assert bench.link.running == {}
        assert not bench.link.ended


@virtual_time
async def test_frames_for_stopped_operations_make_a_rotation_due_once_they_are_many() -> None:
    async with linked() as bench:
        operation = bench.start()
        name = bench.socket.id_of(operation)
        bench.link.stop(operation)
        for _ in range(STRAY_FRAMES - 1):
            bench.socket.say("next", name, {"data": 1})
        await asyncio.sleep(TIMEOUTS.grace)
        assert not bench.link.rotation_due
        bench.socket.say("next", name, {"data": 1})
        await settle()
        assert bench.link.rotation_due


@virtual_time
async def test_frames_that_were_on_their_way_when_an_operation_was_stopped_make_no_rotation_due() -> None:
    async with linked() as bench:
        operation = bench.start()
        name = bench.socket.id_of(operation)
        bench.link.stop(operation)
        for _ in range(5 * STRAY_FRAMES):
            bench.socket.say("next", name, {"data": 1})
        await asyncio.sleep(TIMEOUTS.grace - 1)
        assert not bench.link.rotation_due


@EITHER
@virtual_time
async def test_a_silence_in_which_the_program_stood_still_is_asked_into_first(subprotocol: str) -> None:
    async with linked(subprotocol) as bench:
        await asyncio.sleep(1)
        stand_still(3 * TIMEOUTS.idle)
        await asyncio.sleep(TIMEOUTS.idle)
        assert not bench.link.ended


@virtual_time
async def test_frames_for_ids_that_never_were_make_no_rotation_due() -> None:
    async with linked() as bench:
        for number in range(1000, 1000 + 3 * STRAY_FRAMES):
            bench.socket.say("next", str(number), {"data": 1})
        await settle()
        assert not bench.link.rotation_due


# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("frame", "binary", "code"), [(b"[]", False, 4400), (b"{", False, 4400), (b"{}", True, 1003)]
)
@virtual_time
async def test_a_frame_that_is_none_closes_the_link_with_its_code(
    frame: bytes, binary: bool, code: int
) -> None:
    async with linked() as bench:
        operation = bench.start()
        bench.socket.say_raw(frame, binary)
        bench.socket.data(operation)
        _, ending = await bench.ended()
        assert bench.socket.goodbye == code
        assert ending.verdict.code == code
        assert ending.verdict.few
        assert recorder(operation).brought == [], "nothing is taken from a broken connection"


@pytest.mark.parametrize("code", [1000, 1006, 1012, 1013, 4401])
@virtual_time
async def test_a_close_by_the_service_is_judged_by_its_code(code: int) -> None:
    async with linked() as bench:
        operation = bench.start()
        bench.socket.data(operation)
        bench.socket.shut(code)
        _, ending = await bench.ended()
        assert ending.verdict.code == code
        assert not ending.expected
        assert len(recorder(operation).brought) == 1, "what came before the close is taken"


@EITHER
@virtual_time
async def test_closing_is_polite_and_expected(subprotocol: str) -> None:
    async with linked(subprotocol) as bench:
        await bench.link.close()
        _, ending = await bench.ended()
        assert ending.expected
        assert bench.socket.goodbye == 1000
        assert ("connection_terminate" in bench.socket.words) == (subprotocol == LEGACY)
        await bench.link.close()


@virtual_time
async def test_closing_takes_no_longer_than_its_limit() -> None:
    async with linked() as bench:
        bench.socket.answers_close = False
        await bench.link.close()
        at, ending = await bench.ended()
        assert at == pytest.approx(TIMEOUTS.close, abs=0.01)
        assert ending.expected


@virtual_time
async def test_an_aborted_link_ends_at_once_without_a_word() -> None:
    async with linked() as bench:
        bench.link.abort()
        at, ending = await bench.ended()
        assert at < 0.01
        assert ending.expected
        assert bench.socket.goodbye is None


@virtual_time
async def test_a_round_trip_is_timed_and_is_none_where_the_link_ends_first() -> None:
    async with linked() as bench:
        await asyncio.sleep(3)
        assert await bench.link.round_trip() == pytest.approx(3, abs=0.01)
        bench.socket.answers_pings = False
        waiting = asyncio.create_task(bench.link.round_trip())
        await settle()
        bench.socket.shut()
        assert await waiting is None


async def eventful_life() -> tuple[Bench, asyncio.Task[None]]:
    """A link that goes through all its waits: ack, quiet, pressure, and a close that is not answered."""
    bench = Bench(LEGACY, mute, TIMEOUTS)

    async def drive() -> None:
        await asyncio.sleep(1)
        bench.socket.say("connection_ack")
        await settle()
        operation = bench.start()
        await asyncio.sleep(6)
        await bench.fill(operation)
        await asyncio.sleep(3)
        bench.socket.answers_close = False
        bench.socket.say_raw(b"[]")
        await asyncio.sleep(3)

    return bench, asyncio.create_task(drive())


@pytest.mark.parametrize("at", [step / 4 for step in range(52)])
@virtual_time
async def test_cancelling_a_link_at_any_time_leaves_no_task_and_no_timer(at: float) -> None:
    bench, driver = await eventful_life()
    await asyncio.sleep(at)
    bench.running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bench.running
    driver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await driver
    assert not bench.socket.open
    assert bench.link.ended
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.sleep(100)
    assert bench.parks in ([], [1])
