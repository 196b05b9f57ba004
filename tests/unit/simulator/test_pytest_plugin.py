from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]
_PLUGIN = "bqstream.simulator.pytest_plugin"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other plugin, and ours once, whether the package is installed or not."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))


def test_the_fixture_is_a_running_simulator_with_the_options_of_its_marker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import urllib.request
        import json
        import pytest

        pytestmark = pytest.mark.bqstream_simulator(token_ttl=5, cap=1)
        seen = []

        @pytest.mark.bqstream_simulator(cap=3, block_interval=0.01)
        def test_one(bqstream_simulator):
            seen.append(bqstream_simulator.endpoint)
            bqstream_simulator.blocks(2)
            form = f"grant_type=client_credentials&client_id={bqstream_simulator.client_id}"
            form += f"&client_secret={bqstream_simulator.client_secret}"
            with urllib.request.urlopen(bqstream_simulator.token_url, form.encode()) as response:
                assert json.load(response)["expires_in"] == 5
            assert bqstream_simulator.call(lambda: bqstream_simulator._simulator.settings.cap) == 3

        def test_two(bqstream_simulator):
            assert bqstream_simulator.endpoint not in seen
        """
    )
    result = pytester.runpytest_subprocess("-p", _PLUGIN, "--strict-markers", "-W", "error")
    result.assert_outcomes(passed=2)


def test_the_marker_is_described(pytester: pytest.Pytester) -> None:
    pytester.runpytest_subprocess("-p", _PLUGIN, "--markers").stdout.fnmatch_lines(
        ["@pytest.mark.bqstream_simulator(*"]
    )


def test_the_plugin_imports_no_part_of_the_simulator_before_the_fixture_is_used() -> None:
    code = (
        f"import sys, {_PLUGIN}\n"
        "print([name for name in sys.modules if name.startswith('bqstream.simulator.') and 'pytest' not in name])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
