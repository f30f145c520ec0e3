"""Starts what is compared, one at a time: a peer in its own environment, or a cluster of ours on the Docker engine.

Owns processes, ports and scratch directories: everything listens on 127.0.0.1 and ends with its context, also what a
peer detached from itself. What is sent is `load.py`'s; what each peer is, `peers.py`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.fleet import ROOT, Cluster
from benchmarks.server.peers import APPS, Peer, Place

PEERS_DIR: Final = Path(os.environ.get("MODELFLEET_PEERS_DIR") or ROOT / ".bench-peers")
OURS: Final = "Modelfleet"
_MARK: Final = "MODELFLEET_BENCH_MARK"
_START_S: Final = 120.0
# Ports of a peer follow each other from its first.
_PORTS: Final = 6


class StartError(Exception):
    """A peer that does not answer; the sentence says which, and where its log is."""


@dataclass(frozen=True)
class Running:
    """What is measured. `cold_s` is from its start to its first answer, `memory` bytes now, shared pages shared out."""

    name: str
    port: int
    path: str
    body: bytes
    cold_s: float
    memory: Callable[[], int]
    fields: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def peer_running(peer: Peer, model: str = "iris", body: bytes = b"") -> Iterator[Running]:
    """The peer, once it has answered its request, or `body` in its place. Raises `StartError`."""
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as scratch:
        directory = Path(scratch)
        binaries = PEERS_DIR / peer.environment / "bin"
        if model == "iris":
            subprocess.run(
                [binaries / "python", APPS / "train.py", directory / "model.joblib"], check=True, capture_output=True
            )
        place = Place(binaries, directory, free_ports())
        command = peer.command(place)
        request = body or command.body
        mark = f"{os.getpid()}-{time.monotonic_ns()}"
        environ = _environ() | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(APPS),
            "BENCH_PORT": str(place.port),
            "BENCH_MODEL": model,
            "BENCH_MODEL_FILE": str(directory / "model.joblib"),
            _MARK: mark,
            **command.environ,
        }
        log = directory / "peer.log"
        began = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command.argv, cwd=APPS, env=environ, stdout=output, stderr=output, start_new_session=True
            )
        try:
            _await_answer(peer.name, process, place.port, command.path, request, log)
            cold_s = time.monotonic() - began
            yield Running(peer.name, place.port, command.path, request, cold_s, lambda: _pss(_marked(mark)))
        finally:
            _end(process, mark)


@contextlib.contextmanager
def ours_running(model: dict[str, Any], path: str, body: bytes, directory: Path) -> Iterator[Running]:
    """A cluster with one model in one container, behind the gateway, as `modelfleet apply` makes it.

    What a start takes is the business of `cold_start.py`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as scratch:
        cluster = Cluster(Path(scratch), "docker")
        try:
            cluster.apply(_manifest(cluster, model), directory)  # builds the image where it is not there yet
            replica = cluster.replicas("iris")[0]["id"]
            yield Running(OURS, cluster.gateway_port, path, body, 0.0, lambda: _pss(_in_container(replica)))
        finally:
            cluster.close()


def _manifest(cluster: Cluster, model: dict[str, Any]) -> str:
    return json.dumps({"cluster": cluster.name, "models": {"iris": model}})  # JSON is YAML


def free_ports() -> int:
    """The first of several free ports in a row."""
    while True:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in range(first + 1, first + _PORTS):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return int(first)


def _environ() -> dict[str, str]:
    """As usual, with one thread for each library: there is one core for each server."""
    usual = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE" and not k.startswith("OPENBLAS_")}
    return usual | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _await_answer(name: str, process: subprocess.Popen[bytes], port: int, path: str, body: bytes, log: Path) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"})
    ends = time.monotonic() + _START_S
    said = "it never answered"
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError as exc:
            said = str(exc)
        time.sleep(0.05)
    raise StartError(f"{name}: {said}; the end of its log:\n{log.read_text(errors='replace')[-1500:]}")


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def _in_container(replica: str) -> list[psutil.Process]:
    import docker

    client = docker.from_env()
    try:
        container = client.containers.list(filters={"label": f"modelfleet.replica={replica}"})[0]
        first = psutil.Process(client.api.inspect_container(container.name or "")["State"]["Pid"])
        return [first, *first.children(recursive=True)]
    finally:
        client.close()


def _pss(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """The peer itself first; then, by the mark they inherited, those that it left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        left = _marked(mark)
        for each in left:
            with contextlib.suppress(psutil.Error):
                end(each)
        psutil.wait_procs(left, timeout=5)
    process.wait()


def missing_tools(*names: str) -> list[str]:
    return [name for name in names if shutil.which(name) is None]
