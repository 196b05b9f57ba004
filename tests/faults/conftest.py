"""Adds up what the schedules of a run came to, whichever process played them."""

from __future__ import annotations

from collections import Counter

import pytest

FIGURES = "figures of faults"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total = Counter[str]()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, figures in getattr(report, "user_properties", ()):
                if name == FIGURES:
                    total.update(figures)
    if total:
        seconds = total.pop("milliseconds") / 1000
        told = ", ".join(f"{value:,} {name}" for name, value in total.items())
        terminalreporter.section("faults")
        terminalreporter.write_line(f"{told}; {seconds:.1f} s of work")
