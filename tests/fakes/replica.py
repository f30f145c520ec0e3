"""A real model server in a process of its own, started as the control plane starts it, for tests that talk to it over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.fakes.ports import free_port

DEADLINE_S = 40.0


class Replica:
    """`url` answers as soon as the process listens. Use it as a context manager: it never outlives the test."""

    def __init__(self, directory: Path, *, backend: str = "sklearn", model: str = "iris", **environ: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.model = model
        self._log = directory.parent / f"{directory.name}-{self.port}.log"
        variables = {
            "MODELFLEET_MODEL": model,
            "MODELFLEET_VERSION": "1",
            "MODELFLEET_BACKEND": backend,
            "MODELFLEET_MODEL_DIR": str(directory),
            "MODELFLEET_HOST": "127.0.0.1",
            "MODELFLEET_PORT": str(self.port),
            "MODELFLEET_CPUS": "1",
            **environ,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker_image.server"], env={**os.environ, **variables}, stdout=log, stderr=log
            )

    def __enter__(self) -> Replica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def wait_until(self, path: str, status: int) -> httpx.Response:
        for _ in until_deadline():
            try:
                answer = httpx.get(self.url + path)
            except httpx.TransportError:
                assert self.process.poll() is None, self.log
                continue
            if answer.status_code == status:
                return answer
        raise AssertionError(f"{path} never answered {status}:\n{self.log}")

    def ready(self) -> Replica:
        self.wait_until("/v2/health/ready", 200)
        return self

    def wait_for_line(self, text: str) -> None:
        for _ in until_deadline():
            if text in self.log:
                return
        raise AssertionError(f"{text!r} was never printed:\n{self.log}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_until_closed(self) -> None:
        """Until nobody can connect, while the process lives: it drains."""
        for _ in until_deadline():
            assert self.process.poll() is None, self.log
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                return
        raise AssertionError(f"it never stopped to listen:\n{self.log}")

    def exit_code(self) -> int:
        return self.process.wait(DEADLINE_S)

    def infer(self, tensor: dict[str, Any], **fields: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v2/models/{self.model}/infer", json={"inputs": [tensor], **fields}, timeout=DEADLINE_S
        )


def until_deadline(pause_s: float = 0.02) -> Iterator[None]:
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        yield
        time.sleep(pause_s)


@contextmanager
def ready_replica(directory: Path, **arguments: Any) -> Iterator[Replica]:
    with Replica(directory, **arguments) as replica:
        yield replica.ready()
