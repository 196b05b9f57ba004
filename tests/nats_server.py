"""A nats-server with JetStream of a test's own: on a free port, with its store in the test's directory."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import threading
from pathlib import Path
from typing import Self

_LISTENING = re.compile(r"Listening for client connections on [^ ]+:(\d+)")


class NatsServer:
    """A context manager; within, ``kill`` and ``start`` again keep the port and the store.

    ``settings`` are lines of its configuration, such as ``max_payload: 4096``.
    """

    def __init__(self, directory: Path, settings: str = "", *, jetstream: bool = True) -> None:
        self.port = -1
        self.said: list[str] = []  # what it logs
        self._directory = directory
        self._settings = settings
        self._jetstream = jetstream
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Come back when it takes connections."""
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "server.conf"
        store = f'jetstream {{ store_dir: "{self._directory / "store"}" }}' if self._jetstream else ""
        configuration.write_text(f"listen: 127.0.0.1:{self.port}\n{store}\n{self._settings}\n")
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        process = subprocess.Popen([program, "-c", configuration], stderr=subprocess.PIPE, text=True)
        self._process = process
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if found := _LISTENING.search(line):
                self.port = int(found[1])
            if "Server is ready" in line:
                break
        else:
            raise RuntimeError("nats-server does not start:\n" + "".join(self.said))
        self._reader = threading.Thread(target=self.said.extend, args=(process.stderr,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if self._reader is not None:
                self._reader.join()
            assert process.stderr is not None
            process.stderr.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
