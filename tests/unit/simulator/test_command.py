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


def test_a_program_is_run_beside_it_and_knows_where_it_is_and_nothing_of_other_accounts() -> None:
    script = """
import json, os, sys, urllib.request
form = f"grant_type=client_credentials&client_id=me&client_secret={os.environ['BITQUERY_CLIENT_SECRET']}"
answer = json.load(urllib.request.urlopen(os.environ["BITQUERY_TOKEN_URL"], form.encode()))
counters = urllib.request.urlopen(os.environ["BQSTREAM_SIMULATOR_CONTROL_URL"]).status
print(answer["expires_in"], counters, os.environ["BITQUERY_ENDPOINT"], os.environ.get("BITQUERY_TOKEN"), sys.argv[1:])
sys.exit(7)
"""
    result = subprocess.run(
        [*_RUN, "--client-id", "me", "--token-ttl", "9", "--", sys.executable, "-c", script, "--port", "-h"],
        env={
            **_ENVIRONMENT,
            "BITQUERY_TOKEN": "of-another-account",
            "BITQUERY_CLIENT_SECRET_FILE": "/nowhere",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (7, "")
    ttl, counters, endpoint, token, arguments = result.stdout.strip().split(" ", 4)
    assert (ttl, counters, token, arguments) == ("9", "200", "None", "['--port', '-h']")
    assert endpoint.startswith("http://127.0.0.1:")
    assert ":8787/" not in endpoint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on_to_the_program_which_ends_in_its_own_way(number: int) -> None:
    script = """
import signal, sys
signal.signal(int(sys.argv[1]), lambda number, frame: sys.exit(40 + number))
print("ready", flush=True)
while True:
    signal.pause()
"""
    with subprocess.Popen(
        [*_RUN, "--", sys.executable, "-c", script, str(number)],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.wait(20) == 40 + number
        finally:
            process.kill()


def test_ctrl_c_on_a_terminal_reaches_the_program_once() -> None:
    script = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
print("ready", flush=True)
while not got:
    time.sleep(0.01)
signal.sigtimedwait([], 0.5)
sys.exit(40 + len(got))
"""
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    with subprocess.Popen(
        [sys.executable, "-c", spawn, *_RUN, "--", sys.executable, "-c", script],
        env=_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"ready"
            process.stdin.write(b"\x03")
            process.stdin.flush()
            assert process.wait(20) == 41
        finally:
            process.kill()


def test_a_program_that_a_signal_ended_ends_it_as_shells_tell_it() -> None:
    ends = [[sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"], ["no-such-program"], ["/"]]
    codes = [
        subprocess.run([*_RUN, "--", *end], env=_ENVIRONMENT, capture_output=True, check=False).returncode
        for end in ends
    ]
    assert codes == [128 + signal.SIGTERM, 127, 126]
