"""Runs the example trainer once where replicas would run: in a container of the engine, or in an environment.

A container that only writes: no network, no capabilities, read-only but for the output directory, as that
directory's owner, and removed whatever happens.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from orchestrator.adapters._build_context import worker_package
from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters.docker_engine import DockerEngine
from orchestrator.adapters.engine import Progress
from orchestrator.adapters.environments import Environments
from orchestrator.core.errors import FleetError

MODULE = "worker_image.examples.train"
TRAINING_TIMEOUT_S = 600.0
LABELS = {"modelfleet.cluster": "examples", "modelfleet.role": "training"}


class TrainingFailed(FleetError):  # noqa: N818
    """The trainer ended with an error; the message has its last lines."""


def train_in_container(out: Path, state_dir: Path, base_image: str | None, say: Progress) -> None:
    """Raises `FleetError`: the engine is away, the image cannot be built, or training failed."""
    engine = DockerEngine("examples", state_dir, base_image)
    calls = DockerCalls()
    try:
        say("building the image that trains the example models")
        image = engine.images.ensure_examples(say)
        say("training the example models")
        with calls.during("train the example models"):
            _run(calls.with_timeout(TRAINING_TIMEOUT_S), image, out)
    finally:
        calls.close()
        engine.close()


def train_in_environment(out: Path, state_dir: Path, say: Progress) -> None:
    """Raises `FleetError`: the environment cannot be made, or training failed."""
    environments = Environments(state_dir / "environments")
    say("preparing what trains the example models")
    environment = environments.ensure_examples(say)
    say("training the example models")
    # By its path: an environment holds the code of workers alone, and the working directory may be any.
    command = [environment.python, str(worker_package() / "examples" / "train.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _failed(done.returncode, done.stderr)


def _run(client: Any, image: str, out: Path) -> None:
    owner = out.stat()
    host = client.create_host_config(
        binds={str(out): {"bind": "/out", "mode": "rw"}},
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=256m"},
        pids_limit=256,
    )
    container = client.create_container(
        image, entrypoint=["python", "-m", MODULE], command=["--out", "/out"], host_config=host, labels=LABELS,
        user=f"{owner.st_uid}:{owner.st_gid}",
    )["Id"]  # fmt: skip
    try:
        client.start(container)
        code = client.wait(container)["StatusCode"]
        if code:
            raise _failed(code, client.logs(container, stdout=False, tail=20).decode(errors="replace"))
    finally:
        client.remove_container(container, force=True)


def _failed(code: int, output: str) -> TrainingFailed:
    tail = " | ".join(output.strip().splitlines()[-3:])
    return TrainingFailed(f"example models: training ended with code {code}: {tail}; nothing half-trained was kept")
