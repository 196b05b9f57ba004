"""Checkpoints as text and as files: whole or refused, and for the document alone that they were taken from."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bqstream import Checkpoint, UsageError
from bqstream.checkpoint import VERSION, Mark

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ROW = "QUJDREVGR0hJ"
SAVED = Checkpoint(
    "8f14e45fceea167a5a36dedd4bea2543",
    AT,
    {
        "Transfers": Mark(low=("number", "21000000"), beyond={"21000000": ROW, "21000001": 2 * ROW, "": ROW}),
        "Calls": Mark(since=1_767_323_045),
        "ж 'ключ'": Mark(),
    },
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
MARKS = st.builds(
    Mark,
    low=st.none() | st.tuples(st.sampled_from(["number", "slot", "height", "time"]), TEXT),
    since=st.none() | st.integers(0, 2**40),
    beyond=st.dictionaries(TEXT, st.text(string.ascii_letters + "+/", min_size=12, max_size=36), max_size=4),
)
CHECKPOINTS = st.builds(
    Checkpoint,
    fingerprint=TEXT,
    at=st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
    cubes=st.dictionaries(TEXT, MARKS, max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(CHECKPOINTS)
def test_what_dumps_gives_loads_takes_whatever_it_holds(checkpoint: Checkpoint) -> None:
    text = checkpoint.dumps()
    assert Checkpoint.loads(text) == checkpoint
    assert Checkpoint.loads(text.encode()) == checkpoint
    assert Checkpoint.loads(text).dumps() == text


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_text_that_is_cut_short_or_changed_is_refused_or_another_checkpoint(data: st.DataObject) -> None:
    text = SAVED.dumps().encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(UsageError, match="no checkpoint"):
        Checkpoint.loads(text[:cut])
    changed = text[:cut] + data.draw(st.binary(min_size=1, max_size=1)) + text[cut + 1 :]
    with contextlib.suppress(UsageError):
        assert isinstance(Checkpoint.loads(changed), Checkpoint)


def test_the_text_is_plain_json_with_its_version_and_shows_no_number_that_a_double_would_round() -> None:
    stored = json.loads(SAVED.dumps())
    assert stored["bqstream_checkpoint"] == VERSION == 1
    assert set(stored) == {"bqstream_checkpoint", "fingerprint", "at", "cubes"}
    assert stored["cubes"]["Transfers"]["low"] == ["number", "21000000"]


def test_a_field_that_a_later_one_of_this_version_adds_does_no_harm() -> None:
    stored = {**json.loads(SAVED.dumps()), "note": "mine"}
    assert Checkpoint.loads(json.dumps(stored)) == SAVED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "21000000",
        "{}",
        '{"fingerprint":"x"}',
        '{"bqstream_checkpoint":1}',
        '{"bqstream_checkpoint":true,"fingerprint":"x","at":"2026-01-01T00:00:00Z","cubes":{}}',
        '{"bqstream_checkpoint":1,"fingerprint":"x","at":"yesterday","cubes":{}}',
        '{"bqstream_checkpoint":1,"fingerprint":7,"at":"2026-01-01T00:00:00Z","cubes":{}}',
        '{"bqstream_checkpoint":1,"fingerprint":"x","at":"2026-01-01T00:00:00Z","cubes":[]}',
        '{"bqstream_checkpoint":1,"fingerprint":"x","at":"2026-01-01T00:00:00Z","cubes":{"T":{"low":["number"]}}}',
        '{"bqstream_checkpoint":1,"fingerprint":"x","at":"2026-01-01T00:00:00Z","cubes":{"T":{"low":["number",7]}}}',
        '{"bqstream_checkpoint":1,"fingerprint":"x","at":"2026-01-01T00:00:00Z","cubes":{"T":{"beyond":{"1":7}}}}',
        '{"bqstream_checkpoint":' + "[" * 100_000,
        '{"bqstream_checkpoint":1e999}',
        '{"bqstream_checkpoint":' + "9" * 5000 + "}",
        "[" * 100_000,
        "\ud800",
        b"\xff\xfe{}",
        b'{"bqstream_checkpoint":"\xff"}',
        SAVED.dumps() + SAVED.dumps(),
        SAVED.dumps().encode("utf-16"),
    ],
    ids=lambda text: ascii(text)[:60],
)
def test_what_is_no_checkpoint_is_refused_as_such(text: Any) -> None:
    with pytest.raises(UsageError, match="no checkpoint"):
        Checkpoint.loads(text)


@pytest.mark.parametrize("version", [0, 2, 10**9, "1", None])
def test_another_version_is_refused_by_its_name(version: Any) -> None:
    """Whatever else it holds: a later version may have other fields."""
    stored = {"bqstream_checkpoint": version, "places": 7}
    with pytest.raises(UsageError, match=f"of version {version}; this bqstream reads version 1"):
        Checkpoint.loads(json.dumps(stored))


def test_its_repr_says_where_each_cube_stands_and_shows_no_rows() -> None:
    assert repr(SAVED) == (
        "<Checkpoint at 2026-01-02T03:04:05.678901+00:00: Transfers number 21000000, Calls, ж 'ключ'>"
    )
    assert "no cube that can be resumed" in repr(Checkpoint("x", AT, {}))
    assert ROW not in repr(SAVED) + repr(SAVED.cubes)


# ---------------------------------------------------------------------- files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded_by_any_kind_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "a", str(tmp_path / "b"), "c", Path("d")):
        SAVED.save(path)
        assert Checkpoint.load(path) == SAVED
    assert names(tmp_path) == ["a", "b", "c", "d"]


def test_saving_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    SAVED.save(path)
    later = Checkpoint(SAVED.fingerprint, AT + timedelta(hours=1), {})
    later.save(path)
    assert Checkpoint.load(path) == later
    assert names(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize("fails", ["os.fsync", "os.fdopen", "pathlib.Path.replace"])
def test_where_saving_fails_the_old_one_stays_and_nothing_is_left_beside_it(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    SAVED.save(path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fails, full)
        with pytest.raises(OSError, match="No space left"):
            Checkpoint("another", AT, {}).save(path)
    assert Checkpoint.load(path) == SAVED
    assert names(tmp_path) == ["checkpoint"]


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        SAVED.save(tmp_path / "nowhere" / "checkpoint")
    with pytest.raises(FileNotFoundError):
        Checkpoint.load(tmp_path / "nowhere")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"Hash": "0x1"}\n{"Hash": "0x2"}\n')
    with pytest.raises(UsageError, match="no checkpoint"):
        Checkpoint.load(path)


def _save_for_ever(path: str) -> None:
    number = 0
    while True:
        number += 1
        Checkpoint(str(number), AT, {"T": Mark(beyond={str(n): ROW * 100 for n in range(20)})}).save(path)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_whoever_is_killed_while_saving_leaves_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    SAVED.save(path)
    context = multiprocessing.get_context("spawn")
    killed = context.Process(target=_save_for_ever, args=(str(path),))
    killed.start()
    try:
        while (found := Checkpoint.load(path)) == SAVED:
            assert killed.is_alive()
        for _ in range(200):
            found = Checkpoint.load(path)
    finally:
        killed.kill()
        killed.join()
    assert int(Checkpoint.load(path).fingerprint) >= int(found.fingerprint) > 0
