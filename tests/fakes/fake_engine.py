"""An engine in memory: the `Engine` protocol without containers or processes, for tests of the loops.

It passes the same contract tests as the real ones (tests/integration/test_engine_contract.py). Its knobs make happen
what a real engine does at the worst moment: crash a replica, refuse a start, take long to be ready, go away.
Threads may call it at the same time, as the loops do.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from orchestrator.adapters._exits import describe_exit
from orchestrator.adapters.engine import (
    EngineEvent,
    EngineReplica,
    EngineStatus,
    EngineUnavailable,
    Launch,
    LogLine,
    Progress,
    ReplicaUsage,
    RuntimeBuildFailed,
    RuntimeRequest,
    StartFailed,
)
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import NotFoundError


@dataclass
class _Running:
    launch: Launch
    seen: EngineReplica
    ready_at: float
    lines: list[LogLine] = field(default_factory=list)


class FakeEngine:
    """Knobs: `ready_after_s`, `fail_starts`, `fail_builds`, `crash`, `go_away`, `come_back`, `clock`.

    `is_ready` and `phase` are what a fake prober asks; `calls` counts what was asked of the engine, by method.
    """

    name = "fake"

    def __init__(self, cluster: str = "test", clock: Callable[[], float] = time.time) -> None:
        self.cluster = cluster
        self.clock = clock
        self.ready_after_s = 0.0
        self.never_ready: set[VersionKey] = set()
        self.fail_starts: dict[VersionKey, str] = {}
        self.fail_builds: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self.launched: list[Launch] = []
        self.stopped_ids: list[str] = []
        self.prepared = False
        self.built: list[str] = []
        self._away = ""
        self._ports = iter(range(20_001, 60_000))
        self._replicas: dict[str, _Running] = {}
        self._listeners: list[list[EngineEvent]] = []
        # Guards everything above, and wakes those who wait for events or log lines.
        self._changed = threading.Condition()

    # -- knobs ---------------------------------------------------------------------------------------------------

    def crash(self, replica_id: str, code: int = 137, *, oom_killed: bool = False, log: tuple[str, ...] = ()) -> None:
        """The replica's process ends by itself; the engine tells everybody who listens."""
        with self._changed:
            running = self._replicas[replica_id]
            for text in log:
                running.lines.append(LogLine(self.clock(), replica_id, "stderr", text))
            tail = [line.text for line in running.lines]
            end = describe_exit(
                code, tail, oom_killed=oom_killed, memory_bytes=running.launch.spec.resources.memory_bytes
            )
            running.seen = replace(running.seen, running=False, exit=end)
            self._tell(EngineEvent("die", replica_id))

    def remove(self, replica_id: str) -> None:
        """Somebody removed the container behind our back."""
        with self._changed:
            del self._replicas[replica_id]
            self._tell(EngineEvent("die", replica_id))

    def set_paused(self, replica_id: str, paused: bool) -> None:
        """As `pause` and `unpause`, or somebody else did it."""
        with self._changed:
            found = self._replicas.get(replica_id)
            if found is None or not found.seen.running:
                raise NotFoundError(f"replica {replica_id!r}: it does not run")
            if found.seen.paused != paused:
                found.seen = replace(found.seen, paused=paused)
                self._tell(EngineEvent("pause" if paused else "unpause", replica_id))

    def print_line(self, replica_id: str, text: str, stream: str = "stdout") -> None:
        with self._changed:
            self._replicas[replica_id].lines.append(LogLine(self.clock(), replica_id, stream, text))
            self._changed.notify_all()

    def go_away(self, sentence: str = "the engine does not answer; start it") -> None:
        with self._changed:
            self._away = sentence

    def come_back(self) -> None:
        with self._changed:
            self._away = ""
            self._tell(EngineEvent("resync"))

    def is_ready(self, replica_id: str) -> bool:
        with self._changed:
            found = self._replicas.get(replica_id)
            if found is None or not found.seen.running or found.seen.paused or found.seen.key in self.never_ready:
                return False
            return self.clock() >= found.ready_at

    def phase(self, replica_id: str) -> str:
        return "" if self.is_ready(replica_id) else "loading"

    # -- the protocol --------------------------------------------------------------------------------------------

    def status(self) -> EngineStatus:
        self._called("status")
        return EngineStatus(name=self.name, version="1", cpus=2, memory_bytes=8 * 1024**3)

    def prepare(self) -> None:
        self._called("prepare")
        self.prepared = True

    def runtime_id(self, request: RuntimeRequest) -> str:
        self._called("runtime_id")
        if request.image:
            return f"image:{request.image}"
        content = hashlib.sha256(request.backend.encode() + b"\0" + request.requirements).hexdigest()[:12]
        return f"fake/{request.backend}:{content}"

    def ensure_runtime(self, request: RuntimeRequest, progress: Progress | None = None) -> str:
        self._called("ensure_runtime")
        what = request.image or request.backend
        if what in self.fail_builds:
            raise RuntimeBuildFailed(self.fail_builds[what])
        runtime = self.runtime_id(request)
        with self._changed:
            if runtime not in self.built:
                if progress:
                    progress(f"building {runtime}")
                self.built.append(runtime)
        return runtime

    def start(self, launch: Launch) -> None:
        self._called("start")
        with self._changed:
            key = launch.spec.key
            if launch.replica_id in self._replicas:
                return
            if key in self.fail_starts:
                raise StartFailed(f"{key}: cannot start: {self.fail_starts[key]}")
            seen = EngineReplica(
                id=launch.replica_id,
                key=key,
                digest=launch.digest,
                revision=launch.revision,
                created_at=self.clock(),
                running=True,
                host="127.0.0.1",
                port=next(self._ports),
                engine_id=f"fake-{launch.replica_id}",
            )
            self._replicas[launch.replica_id] = _Running(launch, seen, ready_at=self.clock() + self.ready_after_s)
            self.launched.append(launch)
            self._tell(EngineEvent("start", launch.replica_id))

    def stop(self, replica_id: str, grace_s: float) -> None:
        self._called("stop")
        with self._changed:
            found = self._replicas.pop(replica_id, None)
            self.stopped_ids.append(replica_id)
            if found is not None and found.seen.running:
                self._tell(EngineEvent("die", replica_id))

    def pause(self, replica_id: str) -> None:
        self._called("pause")
        self.set_paused(replica_id, True)

    def unpause(self, replica_id: str) -> None:
        self._called("unpause")
        self.set_paused(replica_id, False)

    def replicas(self) -> list[EngineReplica]:
        self._called("replicas")
        with self._changed:
            return [running.seen for running in self._replicas.values()]

    def usage(self) -> list[ReplicaUsage]:
        """Half a core of each since it was made, and a quarter of its memory."""
        self._called("usage")
        with self._changed:
            running = [each for each in self._replicas.values() if each.seen.running]
            return [self._usage(each) for each in running]

    def logs(
        self, replica_id: str, tail: int = 100, follow: bool = False, stopped: threading.Event | None = None
    ) -> Iterator[LogLine]:
        self._called("logs")
        with self._changed:
            if replica_id not in self._replicas:
                raise NotFoundError(f"replica {replica_id!r}: not found; it may have been removed")
            running = self._replicas[replica_id]
        return self._log_lines(running, tail, follow, stopped)

    def events(self, stopped: threading.Event) -> Iterator[EngineEvent]:
        mine: list[EngineEvent] = [EngineEvent("resync")]
        with self._changed:
            self._listeners.append(mine)
        try:
            while not stopped.is_set():
                with self._changed:
                    if not mine:
                        self._changed.wait(0.05)
                    ready, mine[:] = list(mine), []
                yield from ready
        finally:
            with self._changed:
                self._listeners.remove(mine)

    def teardown(self) -> None:
        self._called("teardown")
        for replica in self.replicas():
            self.stop(replica.id, 0)
        self.prepared = False

    def close(self) -> None:
        self._called("close", always=True)

    def _usage(self, running: _Running) -> ReplicaUsage:
        resources, seen = running.launch.spec.resources, running.seen
        return ReplicaUsage(
            id=seen.id, at=self.clock(), cpu_s=(self.clock() - seen.created_at) / 2, throttled_s=0.0,
            memory_bytes=resources.memory_bytes // 4, cpu_limit_cores=resources.cpus,
            memory_limit_bytes=resources.memory_bytes,
        )  # fmt: skip

    # -- below -----------------------------------------------------------------------------------------------------

    def _called(self, method: str, always: bool = False) -> None:
        with self._changed:
            self.calls[method] = self.calls.get(method, 0) + 1
            if self._away and not always:
                raise EngineUnavailable(self._away)

    def _tell(self, event: EngineEvent) -> None:
        for listener in self._listeners:
            listener.append(event)
        self._changed.notify_all()

    def _log_lines(
        self, running: _Running, tail: int, follow: bool, stopped: threading.Event | None
    ) -> Iterator[LogLine]:
        with self._changed:
            position = max(0, len(running.lines) - tail)
        while True:
            with self._changed:
                lines = running.lines[position:]
                alive = running.launch.replica_id in self._replicas and running.seen.running
            yield from lines
            position += len(lines)
            if not follow or not alive or (stopped is not None and stopped.is_set()):
                return
            with self._changed:
                self._changed.wait(0.05)
