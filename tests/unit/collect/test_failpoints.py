"""A failpoint kills when it was asked for, and at no other time."""

from __future__ import annotations

import os
import signal

import pytest

from bqstream.collect import failpoints


def test_it_kills_at_the_time_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: killed.append(call))
    monkeypatch.setattr(failpoints, "_asked", "staged")
    monkeypatch.setattr(failpoints, "_left", 2)
    failpoints.failpoint("staged")
    failpoints.failpoint("committed")
    assert killed == []
    failpoints.failpoint("staged")
    assert killed == [(os.getpid(), signal.SIGKILL)]
    failpoints.failpoint("staged")
    assert len(killed) == 1


def test_it_does_nothing_where_nothing_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *call: pytest.fail("killed"))
    monkeypatch.setattr(failpoints, "_asked", "")
    failpoints.failpoint("written")
