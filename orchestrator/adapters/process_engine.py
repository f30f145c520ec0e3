"""Replicas as local processes, for a laptop or a host without Docker: the same promises but for isolation.

Each runs under a small supervisor (`_launcher.py`) in a session of its own, so that it outlives the control plane;
its directory under the state directory is the record (`_replica_process.py`). What this engine does not isolate stands
in docs/ENGINES.md, and `status` says it too.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from orchestrator.adapters import _launcher, _process_table
from orchestrator.adapters._docker_create import environment
from orchestrator.adapters._replica_dir import ReplicaDirs
from orchestrator.adapters._replica_process import ReplicaProcess, Server
from orchestrator.adapters.engine import (
    EngineEvent,
    EngineReplica,
    EngineStatus,
    EngineUnavailable,
    Launch,
    LogLine,
    Progress,
    ReplicaUsage,
    RuntimeRequest,
    StartFailed,
)
from orchestrator.adapters.environments import Environment, Environments
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import NotFoundError

# Below the range that the kernel takes for outgoing connections: one of those could hold the port when the server
# binds it.
PORTS = range(20_000, 32_000)
LAUNCH_TIMEOUT_S = 20.0
EVENT_POLL_S = 0.2
TEARDOWN_GRACE_S = 5.0
DISK_LOW_BYTES = 1024**3
# All that a replica gets of the control plane's environment, which may hold credentials.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


class ProcessEngine:
    """See `Engine`. `allow_own_interpreter` as in `environments.py`."""

    name = "process"

    def __init__(self, cluster: str, state_dir: Path, *, allow_own_interpreter: bool = True) -> None:
        self.cluster = cluster
        self._state_dir = state_dir
        self._dirs = ReplicaDirs(state_dir / "processes" / cluster)
        self._environments = Environments(state_dir / "environments", allow_own=allow_own_interpreter)
        # Ids that this process has begun to start: one of them that does not run yet was not abandoned.
        self._started: set[str] = set()
        # Guards the choice of ports: two starts at once must not take the same one.
        self._lock = threading.Lock()
        self._ports: dict[str, int] = {}

    # -- the engine itself ---------------------------------------------------------------------------------------

    def status(self) -> EngineStatus:
        memory = int(psutil.virtual_memory().total)
        return EngineStatus(self.name, platform.python_version(), os.cpu_count() or 1, memory, tuple(self._problems()))

    def prepare(self) -> None:
        with self._local("make its directory"):
            self._dirs.prepare()

    def runtime_id(self, request: RuntimeRequest) -> str:
        return self._environments.id(request)

    def ensure_runtime(self, request: RuntimeRequest, progress: Progress | None = None) -> str:
        with self._local("install an environment"):
            return self._environments.ensure(request, progress)

    # -- replicas --------------------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> None:
        self._started.add(launch.replica_id)
        with self._local("start a replica"):
            if self._exists(launch.replica_id):
                return
            environment_found = self._environments.find(launch.spec.runtime)
            if environment_found is None:
                raise StartFailed(
                    f"{launch.spec.key}: cannot start: environment {launch.spec.runtime} is not there; apply again"
                )
            try:
                self._write_launch(launch, environment_found)
                self._launch(launch)
            except BaseException:
                self._forget(launch.replica_id)
                raise

    def stop(self, replica_id: str, grace_s: float) -> None:
        with self._local("stop a replica"):
            ReplicaProcess(self._dirs.of(replica_id)).end(grace_s)
            self._forget(replica_id)

    def pause(self, replica_id: str) -> None:
        with self._local("pause a replica"):
            self._running(replica_id).pause()

    def unpause(self, replica_id: str) -> None:
        with self._local("wake a replica"):
            self._running(replica_id).unpause()

    def replicas(self) -> list[EngineReplica]:
        with self._local("list the replicas"):
            found = [self._observe(process) for process in self._processes()]
            return [replica for replica in found if replica is not None]

    def usage(self) -> list[ReplicaUsage]:
        """With the children of each. Nothing limits their CPU here, so that nothing throttles them."""
        with self._local("ask what replicas use"):
            known = {process.id: process.server() for process in self._processes() if process.alive()}
            servers = {id_: server for id_, server in known.items() if server is not None}
            now = time.monotonic()
            used = _process_table.with_children(_process_table.read(), (each.pid for each in servers.values()))
            return [_usage(id_, each, used[each.pid], now) for id_, each in servers.items() if each.pid in used]

    def logs(
        self, replica_id: str, tail: int = 100, follow: bool = False, stopped: threading.Event | None = None
    ) -> Iterator[LogLine]:
        process = ReplicaProcess(self._dirs.of(replica_id))
        if not process.directory.is_dir():
            raise NotFoundError(f"replica {replica_id!r}: not found; it ended and was removed; see `modelfleet events`")
        return process.follow(tail, stopped) if follow else iter(process.lines(tail))

    def events(self, stopped: threading.Event) -> Iterator[EngineEvent]:
        """Compares what lives and what is paused, five times a second: a lock and a file per replica are asked for,
        which costs 40 µs each."""
        known = self._alive()
        yield EngineEvent("resync")
        while not stopped.wait(EVENT_POLL_S):
            alive = self._alive()
            for replica_id in sorted(known.keys() - alive.keys()):
                yield EngineEvent("die", replica_id)
            for replica_id in sorted(alive.keys() - known.keys()):
                yield EngineEvent("start", replica_id)
            for replica_id in sorted(alive.keys() & known.keys()):
                if alive[replica_id] != known[replica_id]:
                    yield EngineEvent("pause" if alive[replica_id] else "unpause", replica_id)
            known = alive

    def teardown(self) -> None:
        ids = [process.id for process in self._processes()]
        with ThreadPoolExecutor(16, thread_name_prefix="teardown") as pool:
            list(pool.map(lambda replica_id: self.stop(replica_id, TEARDOWN_GRACE_S), ids))

    def close(self) -> None:
        """Nothing is held open: the replicas live on."""

    # -- below -------------------------------------------------------------------------------------------------------

    def _problems(self) -> Iterator[str]:
        yield (
            "replicas are local processes: they share this user's files and network, and CPU and process limits are "
            "not enforced; use `engine: docker` for models that you do not trust"
        )
        free = shutil.disk_usage(self._state_dir if self._state_dir.exists() else Path.home()).free
        if free < DISK_LOW_BYTES:
            yield f"disk under {self._state_dir}: {free / 1024**3:.1f} GiB free; environments need 1 GiB; free some"

    def _processes(self) -> list[ReplicaProcess]:
        return [ReplicaProcess(self._dirs.of(replica_id)) for replica_id in self._dirs.ids()]

    def _alive(self) -> dict[str, bool]:
        """Those that live, each with whether it is paused."""
        alive = (process for process in self._processes() if process.alive() and process.was_started())
        return {process.id: process.is_paused() for process in alive}

    def _running(self, replica_id: str) -> ReplicaProcess:
        process = ReplicaProcess(self._dirs.of(replica_id))
        if not process.alive() or not process.was_started():
            raise NotFoundError(f"replica {replica_id!r}: it does not run; see `modelfleet events`")
        return process

    def _observe(self, process: ReplicaProcess) -> EngineReplica | None:
        """None for one that was removed while we looked."""
        try:
            return process.observe(starting=process.id in self._started)
        except FileNotFoundError:
            return None

    def _exists(self, replica_id: str) -> bool:
        """Whether it was started, now or before. What a killed control plane left half made is cleared away."""
        process = ReplicaProcess(self._dirs.of(replica_id))
        if process.was_started():
            return True
        if process.directory.exists():
            process.end(grace_s=0)
            self._dirs.remove(replica_id)
        return False

    def _write_launch(self, launch: Launch, environment_found: Environment) -> None:
        self._dirs.prepare()
        directory = self._dirs.of(launch.replica_id)
        directory.mkdir(mode=0o700)
        secrets_dir = self._dirs.write_secrets(launch.replica_id, launch.secrets)
        with self._lock:
            port = self._ports[launch.replica_id] = self._free_port(launch.spec.key)
        record = self._record(launch, environment_found, directory, secrets_dir, port)
        temporary = directory / "launch.tmp"
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(record))
        os.replace(temporary, directory / "launch.json")

    def _record(
        self, launch: Launch, environment_found: Environment, directory: Path, secrets_dir: Path | None, port: int
    ) -> dict[str, Any]:
        spec = launch.spec
        variables = environment(
            launch,
            model_dir=str(launch.artifact_dir or directory),
            secrets_dir=str(secrets_dir or ""),
            host="127.0.0.1",
            port=port,
        )
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        path = os.pathsep.join(filter(None, [str(environment_found.code), variables.get("PYTHONPATH", "")]))
        bytecode = str(environment_found.bytecode)
        ours = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": bytecode}
        return {
            "model": spec.model,
            "version": spec.version,
            "revision": launch.revision,
            "spec": launch.digest,
            "created_at": time.time(),
            "port": port,
            "memory_bytes": spec.resources.memory_bytes,
            "command": [environment_found.python, "-m", "worker_image.server"],
            "env": {**inherited, **variables, **ours},
            "cwd": str(directory),
        }

    def _free_port(self, key: VersionKey) -> int:
        taken = set(self._ports.values()) | {replica.port for replica in self.replicas()}
        for port in random.sample(PORTS, len(PORTS)):
            if port not in taken and _can_bind(port):
                return port
        raise StartFailed(
            f"{key}: cannot start: no free port in {PORTS.start}..{PORTS.stop - 1} on 127.0.0.1; free some"
        )

    def _launch(self, launch: Launch) -> None:
        """Returns when the server's process runs; the launcher's first process ends then, its second stays."""
        command = [sys.executable, "-I", "-S", str(Path(_launcher.__file__)), str(self._dirs.of(launch.replica_id))]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LAUNCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as exc:
            raise StartFailed(f"{launch.spec.key}: cannot start: no sign of life in {LAUNCH_TIMEOUT_S:g} s") from exc
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
            raise StartFailed(f"{launch.spec.key}: cannot start: {said[0]}; apply again, see `modelfleet doctor`")

    def _forget(self, replica_id: str) -> None:
        ReplicaProcess(self._dirs.of(replica_id)).end(grace_s=0)
        self._dirs.remove(replica_id)
        self._started.discard(replica_id)
        with self._lock:
            self._ports.pop(replica_id, None)

    @contextlib.contextmanager
    def _local(self, action: str) -> Iterator[None]:
        """What the operating system refuses is an engine that cannot be asked: never an empty answer."""
        try:
            yield
        except (OSError, TimeoutError) as exc:
            raise EngineUnavailable(f"process engine: could not {action}: {exc}; see `modelfleet doctor`") from exc


def _usage(replica_id: str, server: Server, used: _process_table.Process, now: float) -> ReplicaUsage:
    return ReplicaUsage(
        id=replica_id,
        at=now,
        cpu_s=used.cpu_s,
        throttled_s=None,
        memory_bytes=used.resident_bytes,
        cpu_limit_cores=None,
        memory_limit_bytes=server.memory_limit_bytes,
    )


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
