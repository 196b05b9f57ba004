"""``bqstream simulator``, as another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("cyclopts")
_RUN = [sys.executable, "-m", "bqstream.cli", "simulator"]
_ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_line_of_json_and_serves_until_it_is_told_to_stop(number: int) -> None:
    environment = {**_ENVIRONMENT, "BQSTREAM_SIMULATOR_TOKEN_TTL": "7", "BQSTREAM_SIMULATOR_PORT": "0"}
    with subprocess.Popen(
        [*_RUN, "--client-id", "me"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            says = json.loads(process.stdout.readline())
            assert list(says) == [
                "endpoint",
                "token_url",
                "client_id",
                "client_secret",
                "control_url",
                "ledger_url",
            ]
            form = f"grant_type=client_credentials&client_id=me&client_secret={says['client_secret']}"
            with urllib.request.urlopen(says["token_url"], form.encode()) as response:
                assert json.load(response)["expires_in"] == 7
            with urllib.request.urlopen(says["ledger_url"]) as response:
                assert json.load(response)["documents"] == {}
            process.send_signal(number)
            assert process.wait(20) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", "::"])
def test_it_serves_this_machine_alone(host: str) -> None:
    result = subprocess.run(
        [*_RUN, "--host", host], env=_ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "loopback" in result.stderr
