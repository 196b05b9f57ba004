"""Python's search for cycles while rows are decoded."""

from __future__ import annotations

import gc
import threading

import pytest

from bqstream.collect.cycles import no_search


def test_it_is_off_within_also_in_another_thread_and_on_when_the_last_has_left() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with no_search():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    assert gc.isenabled()
    with no_search():
        thread.start()
        assert entered.wait(10)
        assert not gc.isenabled()
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), no_search():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_has_turned_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with no_search():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
