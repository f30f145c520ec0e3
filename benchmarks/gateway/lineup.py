"""Starts the servers that are compared, each on its cores, and reads what they cost.

Owns their configuration (`configs/`), ports and processes: everything listens on 127.0.0.1, lives in one temporary
directory and ends with the context. What is sent to them: `wrk.py`, `openloop.py`; what is made of it: `compare.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from router.contract import Endpoint, ModelRoute, Table, VersionRoute, encode

ROOT: Final = Path(__file__).parents[2]
ENVOY: Final = ROOT / ".bench-venv" / "bin" / "envoy"
CONFIGS: Final = Path(__file__).parent / "configs"
BODY: Final = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}'
ANSWER: Final = '{"model_name":"iris","outputs":[{"name":"predict","datatype":"INT64","shape":[1],"data":[0]}]}'
SERVER_CORE: Final = "0"
LOAD_CORE: Final = "1"
BOTH_CORES: Final = "0,1"
LARGE_BYTES: Final = 1 << 20
_START_S: Final = 30.0


class StartError(Exception):
    """A server that does not run; the sentence says which and what to do."""


@dataclass(frozen=True)
class Server:
    """A running server. `pid` is its first process; workers are its children."""

    name: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """CPU time of all its processes and threads so far, from the scheduler's nanoseconds."""
        return sum(_cpu_s(process.pid) for process in self._processes())

    def resident_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


class Lineup:
    """The back end, and whatever is started in front of it. Use it as a context manager."""

    def __init__(self, directory: Path, backend_cores: str = LOAD_CORE) -> None:
        self.directory = directory
        self._backend_cores = backend_cores
        self._backend_port = free_port()
        self._stack = ExitStack()

    def __enter__(self) -> Lineup:
        self.directory.chmod(0o755)  # nginx's worker is another user when root starts it
        (self.directory / "download").write_bytes(b"x" * LARGE_BYTES)
        command = self._nginx("backend.conf", self._backend_port)
        self._start("backend", command, self._backend_port, self._backend_cores)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def nginx(self, workers: int = 1, cores: str = SERVER_CORE) -> Server:
        port = free_port()
        return self._start("nginx", self._nginx("nginx.conf", port, workers), port, cores)

    def haproxy(self) -> Server:
        port = free_port()
        command = ["haproxy", "-q", "-db", "-f", str(self._configure("haproxy.cfg", port))]
        return self._start("haproxy", command, port, SERVER_CORE)

    def envoy(self) -> Server:
        port = free_port()
        command = [str(ENVOY), "-c", str(self._configure("envoy.yaml", port)), "--concurrency", "1"]
        command += ["--disable-hot-restart", "--log-level", "error"]
        return self._start("envoy", command, port, SERVER_CORE)

    def modelfleet(self, models: int = 1, cores: str = SERVER_CORE, options: tuple[str, ...] = ()) -> Server:
        """A gateway alone, as users may run it, with `models` in its table: iris, model-1, model-2 …"""
        port, metrics_port = free_port(), free_port()
        table = self.directory / f"table-{port}.json"
        table.write_bytes(encode(benchmark_table(models, self._backend_port)))
        command = [sys.executable, "-m", "router", "--table", str(table), "--port", str(port), *options]
        command += [
            "--metrics-port",
            str(metrics_port),
            "--grpc-port",
            "off",
            "--log-file",
            str(self.directory / f"gateway-{port}.log"),
        ]
        return self._start("modelfleet", command, port, cores)

    def _nginx(self, name: str, port: int, workers: int = 1) -> list[str]:
        return ["nginx", "-c", str(self._configure(name, port, workers)), "-p", str(self.directory)]

    def _configure(self, name: str, port: int, workers: int = 1) -> Path:
        values = {
            "dir": self.directory,
            "port": port,
            "backend": self._backend_port,
            "workers": workers,
            "answer": ANSWER,
        }
        path = self.directory / f"{port}-{name}"
        path.write_text(string.Template((CONFIGS / name).read_text()).substitute(values))
        return path

    def _start(self, name: str, command: list[str], port: int, cores: str) -> Server:
        return self._stack.enter_context(running(name, command, port, cores))


def benchmark_table(models: int, backend_port: int) -> Table:
    names = ("iris", *(f"model-{number}" for number in range(1, models)))
    routes = {
        name: ModelRoute({"1": VersionRoute((Endpoint(name, "127.0.0.1", backend_port),), concurrency=512)}, {"1": 1})
        for name in names
    }
    return Table("benchmark", 1, "c", routes)


@contextmanager
def running(name: str, command: list[str], port: int, cores: str) -> Iterator[Server]:
    """A process pinned to `cores` that listens on `port`, until the context ends. Raises `StartError`."""
    process = subprocess.Popen(["taskset", "-c", cores, *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _await_listening(process, port, f"{name} ({' '.join(command)})")
        yield Server(name, port, process.pid)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for who does not listen."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_listening(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise StartError(f"{name}: it does not listen on port {port}; run it by hand")


def missing_tools(*names: str) -> list[str]:
    os.environ["PATH"] += ":/usr/sbin"  # Debian's place for servers
    return [name for name in names if shutil.which(name) is None]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _cpu_s(pid: int) -> float:
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9
