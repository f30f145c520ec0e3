"""The `Engine` protocol: what the control plane needs from whatever runs replicas.

Its adapters (`docker_engine.py`, `process_engine.py`) pass the same contract tests. Every call blocks: the loops
run them on threads, never on the event loop. A call that cannot know raises `EngineUnavailable`; it never answers
with an empty list. Only what carries our cluster's labels is seen or touched.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.core.entities import Exit, ReplicaSpec, VersionKey
from orchestrator.core.errors import FleetError, UnavailableError


class EngineUnavailable(UnavailableError):  # noqa: N818
    """The engine did not answer, or not in time. What it runs is unknown, not absent."""


class StartFailed(FleetError):  # noqa: N818
    """The engine refused to start this replica (image gone, no memory, name taken): its sentence says why."""


class RuntimeBuildFailed(FleetError):  # noqa: N818
    """An image or environment could not be built or found; the message has the last lines of the build."""

    exit_code = 1
    status = 422
    code = "RUNTIME"


@dataclass(frozen=True, slots=True)
class RuntimeRequest:
    """What a version wants to run in: a backend of ours with optional requirements, or an image of the user's.

    `base`: the image that ours are built on, where the manifest names one ("": the engine finds one).
    """

    backend: str = ""
    requirements: bytes = b""
    image: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """One replica to start. `secrets` holds values and is never logged; `artifact_dir` is mounted read-only."""

    replica_id: str
    spec: ReplicaSpec
    digest: str
    revision: int
    artifact_dir: Path | None
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class EngineReplica:
    """A replica as the engine lists it. `running` is its process' state; `exit` is set once it ended. One that is
    `paused` runs and is given no time: by us, or by anybody.

    Neither running nor ended is one that this process is starting right now. `engine_id` is the engine's own name.
    """

    id: str
    key: VersionKey
    digest: str
    revision: int
    created_at: float
    running: bool
    paused: bool = False
    host: str = ""
    port: int = 0
    exit: Exit | None = None
    engine_id: str = ""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to one of our replicas (`die`, `oom`, `start`, `pause`, `unpause`), or `resync`: events may
    have been missed.

    The first of every subscription is `resync`: what happens from then on is reported.
    """

    kind: str
    replica_id: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a replica's output. `at` in seconds since the epoch."""

    at: float
    replica_id: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplicaUsage:
    """What a replica used since its start, and what it may use at most. None: nobody says, or nothing limits it.

    `at` in monotonic seconds. `throttled_s` is the time that it had to wait at its CPU limit, `memory_bytes` its
    working set: what the kernel could not take back at once.
    """

    id: str
    at: float
    cpu_s: float | None
    throttled_s: float | None
    memory_bytes: int | None
    cpu_limit_cores: float | None
    memory_limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """For `doctor`: name and version of the engine, its limits, and what is wrong with it in sentences."""

    name: str
    version: str
    cpus: int
    memory_bytes: int
    problems: tuple[str, ...] = ()


class Engine(Protocol):
    """Starts, lists and ends replicas of one cluster."""

    name: str

    def status(self) -> EngineStatus:
        """Raises `EngineUnavailable`."""

    def prepare(self) -> None:
        """Makes what replicas share (networks, directories). Idempotent."""

    def runtime_id(self, request: RuntimeRequest) -> str:
        """The id for `ReplicaSpec.runtime`: a content address, cheap, known before anything is built.

        For an image of the user's it is the image's id where the image is present, else its name.
        """

    def ensure_runtime(self, request: RuntimeRequest, progress: Progress | None = None) -> str:
        """Builds or pulls the runtime, once per content, and returns its id (see `runtime_id`).

        Raises `RuntimeBuildFailed`. Concurrent calls for the same content build it once.
        """

    def start(self, launch: Launch) -> None:
        """Creates and starts; idempotent by `replica_id`. Raises `StartFailed` and leaves nothing behind."""

    def stop(self, replica_id: str, grace_s: float) -> None:
        """SIGTERM, SIGKILL after `grace_s`, then removes it; a paused one gets its time to end back. Idempotent;
        absence is success."""

    def pause(self, replica_id: str) -> None:
        """Takes the replica's time away, and leaves its memory and sockets as they are. Returns when none of its
        processes runs. Idempotent; raises `NotFoundError` for one that does not run."""

    def unpause(self, replica_id: str) -> None:
        """Gives it its time back. Idempotent; raises `NotFoundError` for one that does not run."""

    def replicas(self) -> list[EngineReplica]:
        """All of the cluster's, ended ones too. An ended one has `exit` with its last log lines."""

    def usage(self) -> list[ReplicaUsage]:
        """What those use that the last `replicas` listed and that run, paused ones too. One that ends meanwhile is left
        out. Raises `EngineUnavailable`."""

    def logs(
        self, replica_id: str, tail: int = 100, follow: bool = False, stopped: threading.Event | None = None
    ) -> Iterator[LogLine]:
        """Raises `NotFoundError` for an unknown replica, at the call. Following ends with the replica or `stopped`."""

    def events(self, stopped: threading.Event) -> Iterator[EngineEvent]:
        """Blocks and yields until `stopped`; reconnects by itself and yields `resync` after a gap."""

    def teardown(self) -> None:
        """Ends every replica of the cluster and removes networks and directories made by `prepare`."""

    def close(self) -> None: ...


class Progress(Protocol):
    """Called with one sentence for people when a long step begins."""

    def __call__(self, sentence: str, /) -> None: ...
