"""One way to drive every engine in tests: launches a small model with a chosen behaviour, and does it harm from outside.

`EngineLab` is what the contract tests see; the three classes below say how harm is done to each kind of engine.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import docker
import httpx

from orchestrator.adapters.docker_engine import DockerEngine
from orchestrator.adapters.engine import Engine, EngineEvent, EngineReplica, Launch, RuntimeRequest
from orchestrator.adapters.process_engine import ProcessEngine
from orchestrator.core.entities import ReplicaSpec, Resources
from tests.fakes import models
from tests.fakes.fake_engine import FakeEngine

T = TypeVar("T")

MODEL = """
import os, sys, threading, time

def tick():
    number = 0
    while True:
        print("tick", number, flush=True)
        number += 1
        time.sleep(0.05)

class Model:
    def load(self, path):
        act = os.environ.get("ACT", "serve")
        print("first words", flush=True)
        print("on the error stream", file=sys.stderr, flush=True)
        if act == "raise":
            raise RuntimeError("the weights are cursed")
        if act == "hog":
            hoard = []
            while True:
                hoard.append(bytearray(os.urandom(4096)) * 1024)
        if act == "stubborn":
            import signal
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(3600)
        if act == "parent":
            import subprocess
            subprocess.Popen(["sleep", "300"])
        if act == "busy_child":
            import subprocess
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
        if act == "chatter":
            threading.Thread(target=tick, daemon=True).start()

    def predict(self, inputs):
        return [1.0]
"""


def until(what: str, ask: Callable[[], T | None], timeout_s: float = 30.0) -> T:
    """The first answer that is neither None nor false. Fails with `what` when none came in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


@dataclass
class EngineLab:
    """An engine with an empty cluster of its own, and what tests need around it."""

    engine: Engine
    directory: Path
    runtime: str = ""
    cluster: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")

    # A loopback endpoint and lines of a real process: the fake has neither.
    is_real = True

    def launch(
        self,
        act: str = "serve",
        *,
        replica_id: str = "",
        model: str = "act",
        secrets: dict[str, str] | None = None,
        resources: Resources | None = None,
        runtime: str = "",
        egress: bool = False,
        port: int = 8000,
        artifact: bool = True,
    ) -> Launch:
        spec = ReplicaSpec(
            model=model,
            version="1",
            backend="python",
            artifact="0" * 64 if artifact else "",
            runtime=runtime or self.runtime,
            env=(("ACT", act),),
            resources=resources or Resources(memory_bytes=256 * 1024**2),
            egress=egress,
            port=port,
        )
        replica_id = replica_id or uuid.uuid4().hex[:12]
        artifact_dir = models.python(self.directory / "model", MODEL) if artifact else None
        return Launch(replica_id, spec, spec.digest(), 7, artifact_dir, secrets or {})

    def start(self, act: str = "serve", **options: object) -> str:
        launch = self.launch(act, **options)  # type: ignore[arg-type]
        self.engine.start(launch)
        return launch.replica_id

    def find(self, replica_id: str) -> EngineReplica | None:
        return next((r for r in self.engine.replicas() if r.id == replica_id), None)

    def ended(self, replica_id: str, timeout_s: float = 40.0) -> EngineReplica:
        def look() -> EngineReplica | None:
            found = self.find(replica_id)
            return found if found is not None and found.exit is not None else None

        return until(f"{replica_id} ended", look, timeout_s)

    def ready(self, replica_id: str) -> EngineReplica:
        def look() -> EngineReplica | None:
            found = self.find(replica_id)
            return found if found is not None and found.host and self.answers(found) else None

        return until(f"{replica_id} is ready", look, 60)

    def answers(self, replica: EngineReplica) -> bool:
        try:
            return httpx.get(f"http://{replica.host}:{replica.port}/v2/health/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def listens(self, replica: EngineReplica) -> bool:
        """Before the model is loaded: the server's process is there."""
        try:
            return httpx.get(f"http://{replica.host}:{replica.port}/v2/health/live", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self, replica_id: str) -> None:
        """SIGKILL from outside, as an operator or the kernel would."""
        raise NotImplementedError

    def pause(self, replica_id: str) -> None:
        """As an operator would, without the engine object under test."""
        raise NotImplementedError

    def another_control_plane(self, cluster: str = "") -> Engine:
        """A new engine object, with nothing remembered, on the same state directory."""
        raise NotImplementedError

    @contextmanager
    def listening(self) -> Iterator[list[EngineEvent]]:
        """Collects events on a thread, from the first one (`resync`) on."""
        stopped, told = threading.Event(), list[EngineEvent]()

        def listen() -> None:
            for event in self.engine.events(stopped):
                told.append(event)

        thread = threading.Thread(target=listen, name="events", daemon=True)
        thread.start()
        try:
            until("the subscription stands", lambda: told)
            yield told
        finally:
            stopped.set()
            thread.join(10)
            assert not thread.is_alive(), "events() must return when stopped is set"


class FakeLab(EngineLab):
    is_real = False

    def __init__(self, directory: Path) -> None:
        super().__init__(FakeEngine(), directory)
        self.runtime = self.engine.ensure_runtime(RuntimeRequest(backend="python"))

    def start(self, act: str = "serve", **options: object) -> str:
        replica_id = super().start(act, **options)
        fake = self._fake()
        fake.print_line(replica_id, "first words")
        fake.print_line(replica_id, "on the error stream", "stderr")
        if act == "raise":
            line = '{"event": "model failed", "reason": "model.py: load() raised: the weights are cursed", "code": "X"}'
            fake.crash(replica_id, 70, log=(line,))
        if act == "hog":
            fake.crash(replica_id, 137, oom_killed=True)
        return replica_id

    def answers(self, replica: EngineReplica) -> bool:
        return self._fake().is_ready(replica.id)

    def listens(self, replica: EngineReplica) -> bool:
        return replica.running

    def kill(self, replica_id: str) -> None:
        self._fake().crash(replica_id, 137)

    def pause(self, replica_id: str) -> None:
        self._fake().set_paused(replica_id, True)

    def another_control_plane(self, cluster: str = "") -> Engine:
        return FakeEngine(cluster) if cluster else self.engine

    def _fake(self) -> FakeEngine:
        assert isinstance(self.engine, FakeEngine)
        return self.engine


class ProcessLab(EngineLab):
    def __init__(self, directory: Path, environments: Path) -> None:
        super().__init__(ProcessEngine("unset", directory), directory)
        self.state = directory / "state"
        self.state.mkdir(mode=0o700)
        # One for the whole run: byte code is compiled once, as in a state directory that has been in use.
        (self.state / "environments").symlink_to(environments)
        self.engine = ProcessEngine(self.cluster, self.state)
        self.engine.prepare()
        self.runtime = self.engine.ensure_runtime(RuntimeRequest(backend="python"))

    def kill(self, replica_id: str) -> None:
        found = self.find(replica_id)
        assert found is not None
        os.kill(int(found.engine_id), signal.SIGKILL)

    def pause(self, replica_id: str) -> None:
        found = self.find(replica_id)
        assert found is not None
        os.kill(int(found.engine_id), signal.SIGSTOP)

    def another_control_plane(self, cluster: str = "") -> Engine:
        return ProcessEngine(cluster or self.cluster, self.state)


class DockerLab(EngineLab):
    def __init__(self, directory: Path, runtime: str, client: docker.DockerClient) -> None:
        super().__init__(DockerEngine("unset", directory), directory, runtime)
        self.state = directory / "state"
        self.state.mkdir(mode=0o700)
        self.docker = client
        self.engine = DockerEngine(self.cluster, self.state)
        self.engine.prepare()

    def kill(self, replica_id: str) -> None:
        self.container(replica_id).kill()

    def pause(self, replica_id: str) -> None:
        self.container(replica_id).pause()

    def container(self, replica_id: str) -> docker.models.containers.Container:
        found = self.docker.containers.list(all=True, filters={"label": f"modelfleet.replica={replica_id}"})
        assert len(found) == 1
        return found[0]

    def another_control_plane(self, cluster: str = "") -> Engine:
        return DockerEngine(cluster or self.cluster, self.state)
