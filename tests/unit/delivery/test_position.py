"""How the merge joins two sources: each behaviour on its own, told as a little story."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bqstream.clock import Clock
from bqstream.delivery.gaps import Gaps
from bqstream.delivery.history import History
from bqstream.delivery.position import Position
from bqstream.message import Arrival, Gap

GRACE = 5.0


def message(*rows: object, **cubes: list[object]) -> bytes:
    """A payload with these rows of ``Trades``, or with the cubes that are named."""
    return json.dumps({"data": {"EVM": cubes or {"Trades": list(rows)}}}).encode()


class Story:
    """One merge, its time, and what came out of it."""

    def __init__(self, hold: int = 10**6, cubes: tuple[str, ...] = (), lag: float = 0.0) -> None:
        self.now = 0.0
        self.out: list[bytes] = []
        self.sources: list[int] = []
        clock = Clock(monotonic=lambda: self.now, wall=lambda: self.now)
        self.told: list[Gap] = []
        self.ledger = Gaps(clock, self.told.append)
        self.history = History()
        self.merge = Position(
            self._deliver, self.ledger, self.history, started=0.0, hold=hold, lag=lag, cubes=cubes
        )

    def _deliver(self, source: int, raw: bytes, at: float) -> None:
        self.history.add(Arrival(raw, at, 1))
        self.history.take(Arrival(raw, at, 1))
        self.out.append(raw)
        self.sources.append(source)

    def at(self, now: float) -> Story:
        self.now = now
        return self

    def join(self, source: int, grace: float = GRACE) -> Story:
        self.merge.joined(source, self.now, grace)
        return self

    def bring(self, source: int, *rows: object, **cubes: list[object]) -> Story:
        self.merge.payload(source, message(*rows, **cubes), self.now)
        return self

    def lose(self, source: int) -> Story:
        self.merge.lost(source, self.now, "it broke")
        return self

    def crossed(self, source: int, beaten: float | None = None) -> bool:
        return self.merge.crossed(source, self.now, beaten)

    def crosses_in_time(self, source: int) -> bool:
        """Whether it crosses though there is too little content to prove it: when all has come, and the old source
        has shown by not being lost that it was alive."""
        assert not self.crossed(source)
        self.at(self.now + GRACE).crossed(source)
        assert not self.at(self.now + GRACE).crossed(source)
        return self.at(self.now + GRACE).crossed(source)

    @property
    def rows(self) -> list[Any]:
        return self.cube("Trades")

    def cube(self, key: str) -> list[Any]:
        return [row for raw in self.out for row in json.loads(raw)["data"]["EVM"][key]]

    @property
    def gaps(self) -> list[tuple[str, float, float | None]]:
        return [
            (gap.cause, gap.start.timestamp(), gap.end.timestamp() if gap.end else None)
            for gap in self.ledger.all()
        ]


def started() -> Story:
    """Source 1 has brought a, b and c; source 2 was started at 10."""
    return Story().join(1).at(9).bring(1, "a", "b", "c").at(10).join(2)


# ---------------------------------------------------------------------- one source


def test_with_one_source_a_payload_passes_through_untouched() -> None:
    story = Story().join(1)
    raw = b'{ "data" : not even JSON'
    story.merge.payload(1, raw, 1.0)
    assert story.out[0] is raw


def test_rows_that_are_equal_within_one_source_stay_as_many_as_they_were() -> None:
    assert Story().join(1).bring(1, "a", "a").bring(1, "a").rows == ["a", "a", "a"]


def test_a_source_that_was_never_started_is_not_listened_to() -> None:
    assert Story().join(1).bring(7, "a").rows == []


def test_an_older_source_alone_may_go_at_once_when_there_is_none() -> None:
    story = Story().join(1)
    assert story.crossed(1)
    assert story.merge.cross(1, 1.0).proven
    assert not story.crossed(2)


def test_a_source_that_is_started_twice_goes_on_as_it_was() -> None:
    assert Story().join(1).bring(1, "a").join(1).bring(1, "b").rows == ["a", "b"]


# ---------------------------------------------------------------------- two sources


def test_rows_that_both_bring_are_delivered_once() -> None:
    story = started().bring(1, "d", "e").bring(2, "e", "f").bring(1, "f", "g").at(16).bring(2, "g", "h")
    assert story.rows == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert story.merge.merged == 3


def test_what_the_new_source_is_ahead_with_waits_until_its_place_is_known() -> None:
    story = started().bring(2, "d").at(11).bring(2, "e").at(12)
    assert story.rows == ["a", "b", "c"]
    story.bring(1, "d").at(15)
    assert not story.crossed(2)
    assert story.rows == ["a", "b", "c", "d", "e"]
    assert story.bring(1, "e", "f").rows == ["a", "b", "c", "d", "e", "f"]


def test_content_places_rows_before_time_does() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many).at(10.1).bring(2, *many[2:], "ahead")
    assert story.rows == ["a", "b", "c", *many, "ahead"]


def test_rows_that_repeat_as_a_whole_are_not_placed_by_content() -> None:
    snapshot = [f"row {number}" for number in range(12)]
    story = Story().join(1).at(9).bring(1, *snapshot).at(10).join(2)
    story.bring(1, *snapshot).at(10.1).bring(2, *snapshot, "ahead")
    assert "ahead" not in story.rows


def test_rows_are_equal_whatever_their_spacing_and_order_of_fields() -> None:
    story = started()
    story.merge.payload(1, b'{"data":{"EVM":{"Trades":[{"b":1,"a":{"x":1.50,"y":2}}]}}}', 10.0)
    story.merge.payload(2, b'{"data": {"EVM": {"Trades": [{"a": {"y": 2, "x": 1.5}, "b": 1}]}}}', 10.0)
    assert story.crosses_in_time(2)
    assert story.merge.merged == 1


def test_rows_that_are_all_equal_cross_in_a_pause() -> None:
    story = started().bring(1, "x", "x", "x").at(10.5).bring(2, "x")
    assert story.crosses_in_time(2)
    assert story.merge.cross(2, story.now).proven
    assert story.bring(2, "x").rows == ["a", "b", "c", "x", "x", "x", "x"]
    assert story.gaps == []


def test_an_operation_crosses_once_nothing_has_spoken_against_it_for_half_a_grace() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().at(11).bring(1, *many).bring(2, *many)
    assert not story.at(13.4).crossed(2)
    assert story.at(13.5).crossed(2)


def test_an_operation_does_not_cross_to_a_source_that_has_fallen_behind() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many).bring(2, *many).at(12).bring(1, "more")
    assert story.at(16.9).crossed(2)
    assert not story.at(17).crossed(2)


def test_an_operation_does_not_cross_while_only_the_old_source_brings_rows() -> None:
    story = started().bring(1, "d")
    assert not story.at(100).crossed(2, beaten=10.5)


def test_what_the_old_source_is_ahead_with_when_it_goes_is_dropped_from_the_new_one() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many, "x", "y").bring(2, *many).at(13)
    assert story.crossed(2)
    crossed = story.merge.cross(2, 13.0)
    assert crossed.proven
    assert crossed.merged == 12
    story.bring(1, "late").bring(2, "x").bring(2, "y", "z")
    assert story.rows == ["a", "b", "c", *many, "x", "y", "z"]
    assert story.gaps == []


def test_after_a_hand_over_payloads_pass_through_untouched_again() -> None:
    story = started().bring(1, "d").bring(2, "d")
    assert story.crosses_in_time(2)
    story.merge.cross(2, story.now)
    story.bring(2, "e")
    raw = message("f")
    story.merge.payload(2, raw, 17.0)
    assert story.out[-1] is raw


def test_a_third_source_takes_over_from_the_second() -> None:
    story = started().bring(1, "d").bring(2, "d")
    assert story.crosses_in_time(2)
    story.merge.cross(2, story.now)
    story.bring(2, "e").join(3).bring(2, "f").bring(3, "f").bring(3, "g").bring(2, "g")
    assert story.crosses_in_time(3)
    story.merge.cross(3, story.now)
    assert story.bring(3, "h").rows == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert story.gaps == []


def test_what_the_second_source_still_owes_is_dropped_while_a_third_joins() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many, "x").bring(2, *many).at(13)
    story.merge.cross(2, 13.0)
    story.join(3).bring(2, "x", "y").bring(3, "y").at(18.5).bring(2, "z").bring(3, "z")
    assert story.crossed(3)
    assert story.rows == ["a", "b", "c", *many, "x", "y", "z"]


# ---------------------------------------------------------------------- disagreement


def test_sources_that_bring_different_orders_disagree_and_a_gap_says_so() -> None:
    story = started().bring(1, "d", "e").bring(2, "e", "d").at(15)
    assert not story.crossed(2)
    assert story.rows == ["a", "b", "c", "d", "e"]
    assert [(cause, start) for cause, start, _ in story.gaps] == [("handover", 9)]
    assert not story.merge.cross(2, 15.0).proven


def test_a_disagreement_is_noticed_after_the_place_was_known() -> None:
    many = [f"row {number}" for number in range(12)]
    story = (
        started()
        .bring(1, *many)
        .bring(2, *many)
        .bring(1, "x", "y")
        .bring(2, "y", "x", "z")
        .bring(1, "z")
        .at(16)
    )
    assert not story.crossed(2)
    assert story.rows == ["a", "b", "c", *many, "x", "y", "z"]
    assert [cause for cause, _, _ in story.gaps] == ["handover"]


def test_a_row_that_only_the_new_source_has_is_a_disagreement_once_the_old_one_should_have_brought_it() -> (
    None
):
    story = started().bring(2, "extra").at(14.9)
    assert not story.crossed(2)
    assert story.gaps == []
    assert not story.at(15).crossed(2)
    assert story.rows[-1] == "extra"
    assert [cause for cause, _, _ in story.gaps] == ["handover"]


def test_a_cube_that_the_new_source_never_brings_is_a_disagreement() -> None:
    story = Story().join(1).bring(1, A=[1], B=[1]).at(10).join(2)
    for step in range(12):
        story.at(11 + step).bring(1, A=[step], B=[step]).bring(2, A=[step])
    assert not story.at(30).crossed(2)
    (gap,) = story.ledger.all()
    assert (gap.cause, gap.cubes) == ("handover", ("B",))


def test_a_disagreement_ends_with_the_source_that_goes() -> None:
    story = started().bring(1, "d", "e").bring(2, "e", "d").at(15)
    assert not story.crossed(2)
    story.lose(2)
    assert story.gaps == [("handover", 9, 15)]
    assert story.bring(1, "f").rows[-1] == "f"


# ---------------------------------------------------------------------- what cannot be proven


def test_a_hold_that_fills_forces_a_decision() -> None:
    story = Story(hold=400).join(1).bring(1, *["x"] * 3).at(10).join(2).bring(1, "x", "x").bring(2, "x")
    assert story.gaps == []
    story.bring(2, *["x"] * 100)
    assert [cause for cause, _, _ in story.gaps] == ["handover"]
    assert len(story.rows) == 3 + 101
    assert not story.crossed(2)


def test_crossing_by_force_takes_the_largest_overlap_and_names_the_gap() -> None:
    story = started().bring(1, "x", "x", "x").at(12).bring(2, "x", "x")
    crossed = story.merge.cross(2, 12.0)
    assert not crossed.proven
    assert story.bring(2, "x", "y").rows[3:] == ["x", "x", "x", "y"]
    assert story.gaps[0][:2] == ("handover", 9)


def test_crossing_by_force_is_proven_by_rare_content() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many).at(10.1).bring(2, *many[5:])
    assert story.merge.cross(2, 10.2).proven
    assert story.bring(2, "z").rows == ["a", "b", "c", *many, "z"]
    assert story.gaps == []


def test_a_new_source_that_has_brought_nothing_is_placed_by_its_first_rows() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many).at(11)
    assert not story.merge.cross(2, 11.0).proven
    assert story.gaps == [("handover", 9, None)]
    story.at(12).bring(2, *many[3:], "z")
    assert story.rows == ["a", "b", "c", *many, "z"]
    assert story.gaps == [("handover", 9, 12)]
    assert story.told[-1].closed
    assert not story.told[-1].is_hole
    assert "nothing is missing" in story.told[-1].how


def test_a_new_source_whose_first_rows_are_none_of_the_old_ones_leaves_the_gap() -> None:
    story = started().bring(1, "d").at(11)
    story.merge.cross(2, 11.0)
    assert story.at(12).bring(2, "f").at(17).bring(2, "g").rows == ["a", "b", "c", "d", "f", "g"]
    assert [gap[:2] for gap in story.gaps] == [("handover", 9)]
    assert story.gaps[0][2] is not None
    assert story.told[-1].is_hole
    assert not story.told[-1].closed


def test_a_quiet_operation_crosses_a_grace_after_both_links_answered_and_names_a_gap() -> None:
    story = started()
    assert not story.at(30).crossed(2, beaten=None)
    assert not story.at(35).crossed(2, beaten=30.1)
    assert story.at(35.1).crossed(2, beaten=30.1)
    assert not story.merge.cross(2, 35.1).proven
    assert story.merge.unproven
    assert story.gaps == [("quiet", 10, None)]
    story.at(40).bring(2, "d")
    assert story.gaps == [("quiet", 10, 40)]
    assert not story.merge.unproven


def test_a_quiet_operation_that_is_handed_over_many_times_has_one_gap() -> None:
    story = started()
    for source in range(2, 6):
        story.merge.cross(source, story.now)
        story.at(story.now + 100).join(source + 1)
    assert len(story.gaps) == 1
    assert story.bring(5, "d").gaps[0][2] == story.now


def test_a_message_on_the_old_source_ends_the_quiet() -> None:
    story = started().bring(1)
    assert not story.at(100).crossed(2, beaten=20)


def test_a_cube_that_is_quiet_beside_a_busy_one_is_proven_a_grace_after_the_new_source_was_live() -> None:
    many = [f"row {number}" for number in range(12)]
    story = Story().join(1).bring(1, A=["a"], B=["b"]).at(10).join(2)
    story.bring(1, A=list(many)).bring(2, A=list(many))
    assert not story.at(14.9).bring(1, A=["more"]).bring(2, A=["more"]).crossed(2)
    assert story.at(15).bring(1, A=["yet more"]).bring(2, A=["yet more"]).crossed(2)
    assert story.merge.cross(2, 15.0).proven
    assert story.gaps == []


def test_a_cube_whose_first_rows_are_not_placed_yet_keeps_the_old_link() -> None:
    many = [f"row {number}" for number in range(12)]
    story = Story().join(1).bring(1, A=["a"], B=["b"]).at(10).join(2)
    story.bring(1, A=list(many)).bring(2, A=list(many)).at(15).bring(1, A=["x"]).bring(2, A=["x"])
    assert story.crossed(2)
    assert not story.bring(1, B=["late"]).crossed(2)
    assert not story.bring(2, B=["late"]).crossed(2)


@pytest.mark.parametrize("late", [[], ["late"]])
def test_a_cube_that_is_quiet_beside_a_busy_one_is_named_when_the_crossing_comes_sooner(
    late: list[object],
) -> None:
    many = [f"row {number}" for number in range(12)]
    story = Story().join(1).bring(1, A=["a"], B=["b"]).at(10).join(2)
    story.bring(1, A=list(many), B=late).bring(2, A=list(many))
    assert not story.merge.cross(2, 12.0).proven
    assert [gap.cubes for gap in story.ledger.all()] == [("B",)]


def test_a_cube_of_which_nothing_has_come_yet_is_named_when_the_old_source_goes_too_soon() -> None:
    many = [f"row {number}" for number in range(12)]
    story = Story(cubes=("A", "B")).join(1).bring(1, A=["a"]).at(10).join(2)
    story.bring(1, A=list(many)).bring(2, A=list(many))
    assert not story.at(14.9).bring(1, A=["more"]).bring(2, A=["more"]).crossed(2)
    story.lose(1)
    assert [gap.cubes for gap in story.ledger.all()] == [("B",)]


@pytest.mark.parametrize("cubes", [("A",), ("A", "B")])
def test_a_hand_over_in_a_hurry_takes_no_quiet_shorter_than_the_lag_for_proof(cubes: tuple[str, ...]) -> None:
    many = [f"row {number}" for number in range(12)] if "B" in cubes else []
    story = Story(cubes=cubes, lag=GRACE).join(1).bring(1, A=["a"]).at(10).join(2, grace=0.3)
    story.bring(1, A=list(many)).bring(2, A=list(many)).at(11).bring(1, A=[]).bring(2, A=[])
    assert not story.crossed(2)
    assert not story.merge.cross(2, 11.0).proven
    assert [gap.cubes for gap in story.ledger.all()] == [cubes[-1:]]


def test_fields_of_data_that_has_no_cubes_are_not_waited_for() -> None:
    story = Story(cubes=("number", "hash")).join(1).at(10).join(2)
    for number in range(12):
        raw = json.dumps({"data": {"block": {"number": number, "hash": f"{number:x}"}}}).encode()
        story.merge.payload(1, raw, 10.0)
        story.merge.payload(2, raw, 10.0)
    assert story.at(12.5).crossed(2)
    assert story.merge.cross(2, 12.5).proven


# ---------------------------------------------------------------------- losing a source


def test_a_joining_source_that_is_lost_is_forgotten_with_what_it_brought() -> None:
    story = started().bring(2, "d", "e").lose(2).bring(1, "d").bring(1, "e")
    assert story.rows == ["a", "b", "c", "d", "e"]
    assert story.gaps == []


def test_a_source_that_was_ahead_when_it_was_lost_leaves_nothing_twice() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many).bring(2, *many, "x", "y")
    assert story.rows[-1] == "y"
    story.lose(2).bring(1, "x").bring(1, "y", "z")
    assert story.rows == ["a", "b", "c", *many, "x", "y", "z"]
    assert story.gaps == []


def test_an_old_source_that_is_lost_when_the_place_is_known_leaves_no_gap() -> None:
    many = [f"row {number}" for number in range(12)]
    story = started().bring(1, *many, "x").bring(2, *many[4:]).lose(1).bring(2, "x", "y")
    assert story.rows == ["a", "b", "c", *many, "x", "y"]
    assert story.gaps == []


def test_an_old_source_that_is_lost_too_soon_leaves_a_gap() -> None:
    story = started().bring(1, "d").at(11).lose(1)
    assert story.gaps == [("lost", 9, None)]
    story.at(12).bring(2, "f").at(18).bring(2, "g")
    assert story.rows[3:] == ["d", "f", "g"]
    assert story.gaps[0][2] is not None


def test_time_proves_at_once_when_the_old_source_is_heard_of_later() -> None:
    story = started().bring(1, "d").bring(2, "d").at(15)
    assert not story.crossed(2)
    story.at(15.1).bring(1, "e")
    assert story.crossed(2)


def test_time_proves_nothing_if_the_old_source_had_long_been_silent_when_it_was_lost() -> None:
    # The new link's x may be one that the old one, dead by then, never brought.
    story = Story().join(1).bring(1, *["x"] * 50).at(10).join(2).bring(1, "x").bring(2, "x")
    assert story.crosses_in_time(2)
    story.lose(1)
    assert [cause for cause, _, _ in story.gaps] == ["lost"]


def test_time_proves_nothing_if_the_new_source_is_lost_before_the_old_one_is_heard_of_again() -> None:
    silent, heard = (
        Story().join(1).bring(1, "x").at(10).join(2).bring(1, "x").bring(2, "x") for _ in range(2)
    )
    silent.at(15).bring(2, "x").lose(2)
    assert [gap.cubes for gap in silent.ledger.all()] == [("Trades",)]
    heard.at(15).bring(2, "x").bring(1, "x").lose(2)
    assert heard.gaps == []


def test_the_gap_of_a_source_begins_when_that_source_was_last_heard_of() -> None:
    # The second one, which brought rows later, is lost first; what the first one missed is older than those.
    many = [f"row {number}" for number in range(12)]
    story = Story().join(1).at(10).join(2).bring(1, *many).bring(2, *many)
    story.at(14).bring(2, "later").lose(2).at(19).lose(1)
    assert ("lost", 10, None) in story.gaps


def test_the_only_source_that_is_lost_opens_a_gap_that_the_next_ones_first_payload_closes() -> None:
    story = Story().join(1).at(5).bring(1, "a").at(8).lose(1)
    assert story.gaps == [("lost", 5, None)]
    story.at(9).join(2)
    assert story.gaps == [("lost", 5, None)]
    story.at(11).bring(2, "b")
    assert story.gaps == [("lost", 5, 11)]


def test_after_an_outage_no_row_is_compared_with_one_from_before() -> None:
    assert Story().join(1).bring(1, "a").lose(1).join(2).bring(2, "a").rows == ["a", "a"]


def test_a_subscription_that_is_lost_before_its_first_message_has_a_gap_from_its_start() -> None:
    assert Story().at(3).join(1).at(4).lose(1).gaps == [("lost", 0, None)]


def test_a_link_that_was_closed_before_its_successor_was_opened_is_a_gap_of_that_cause() -> None:
    story = Story().join(1).bring(1, "a")
    story.merge.lost(1, 2.0, "the plan's cap", "replaced")
    assert story.ledger.all()[0].cause == "replaced"


def test_outages_one_after_another_without_a_message_are_one_gap() -> None:
    story = Story().join(1).bring(1, "a").lose(1).join(2).lose(2).join(3).lose(3)
    assert len(story.gaps) == 1


def test_a_source_that_is_lost_twice_is_lost_once() -> None:
    story = Story().join(1).bring(1, "a").lose(1).lose(1)
    assert len(story.told) == 1


# ---------------------------------------------------------------------- payloads


def test_a_message_whose_rows_are_all_dropped_is_not_delivered() -> None:
    story = started().bring(1, "d", "e").bring(2, "d").bring(2, "e")
    assert story.crosses_in_time(2)
    assert len(story.out) == 2


def test_a_message_that_loses_rows_keeps_the_key_of_every_cube_and_all_else() -> None:
    story = Story().join(1).bring(1, A=["a"], B=["b"]).at(10).join(2)
    many: list[object] = [f"row {number}" for number in range(12)]
    story.bring(1, A=many, B=many).bring(2, A=many, B=many)
    story.bring(1, A=["x"], B=["y"])
    raw = (
        b'{"data":{"EVM":{"A":["x"],"B":["y", {"n":1.10, "big":123456789012345678901234567890}]}},'
        b'"errors":[{"message":"partial"}],"extensions":{"t":1}}'
    )
    story.merge.payload(2, raw, 10.2)
    assert story.out[-1] == (
        b'{"data":{"EVM":{"A":[],"B":[{"n":1.10, "big":123456789012345678901234567890}]}},'
        b'"errors":[{"message":"partial"}],"extensions":{"t":1}}'
    )


def test_a_payload_without_rows_is_delivered_from_the_older_source_alone() -> None:
    story = started()
    raw = b'{"data":null,"errors":[{"message":"timeout"}]}'
    story.merge.payload(1, raw, 10.0)
    story.merge.payload(2, raw, 10.1)
    assert story.out[1:] == [raw]


def test_data_without_cubes_crosses_as_well() -> None:
    story = Story().join(1)

    def tick(source: int, number: int) -> None:
        story.merge.payload(source, json.dumps({"data": {"tick": number}}).encode(), story.now)

    tick(1, 1)
    story.at(10).join(2)
    tick(1, 2)
    tick(2, 2)
    story.at(16)
    tick(2, 3)
    tick(1, 3)
    assert story.crossed(2)
    assert [json.loads(raw)["data"]["tick"] for raw in story.out] == [1, 2, 3]


def test_a_row_with_a_number_that_no_double_holds_is_compared_byte_by_byte() -> None:
    story = started()
    for source in (1, 2):
        story.merge.payload(source, b'{"data":{"EVM":{"Trades":[{"v":1e999}]}}}', 10.0)
    assert story.crosses_in_time(2)
    assert story.merge.merged == 1
