"""Containers of the worker images, as the engine would run them and as a workshop: what the tests of backends need that
cannot be installed beside the project.

A workshop trains and exports with the image's own frameworks, and runs the backend's unit tests there. A served one is
hardened as every replica is.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import httpx
from docker.models.containers import Container

from tests.fakes.replica import until_deadline

ROOT = Path(__file__).parents[2]
LABEL = {"modelfleet.test": "worker"}
# On top of an image, to run its backend's unit tests in it.
TEST_TOOLS = b"pytest>=8.3\n"


def work(client: docker.DockerClient, image: str, directory: Path, *command: str) -> str:
    """What a Python command prints; `directory` is /out, the project lies in /project. Asserts that it ends with 0."""
    owner = directory.stat()
    container = client.containers.run(
        image,
        list(command),
        entrypoint=["/opt/venv/bin/python"],
        detach=True,
        labels=LABEL,
        network_mode="none",
        user=f"{owner.st_uid}:{owner.st_gid}",
        environment={"PYTHONPATH": "/project", "MODELFLEET_CPUS": "2", "OMP_NUM_THREADS": "2"},
        volumes={str(ROOT): {"bind": "/project", "mode": "ro"}, str(directory): {"bind": "/out", "mode": "rw"}},
        working_dir="/out",
    )
    try:
        code = container.wait(timeout=300)["StatusCode"]
        said = container.logs().decode()
        assert code == 0, said
        _make_readable(directory)
        return str(said)
    finally:
        container.remove(force=True)


def run_unit_tests(client: docker.DockerClient, image: str, directory: Path, file: str) -> str:
    """The last line of pytest."""
    options = ["-c", "/dev/null", "--rootdir=/out", "--noconftest", "-p", "no:cacheprovider", "--import-mode=importlib"]
    said = work(client, image, directory, "-m", "pytest", "-q", *options, f"/project/tests/unit/{file}")
    return said.strip().splitlines()[-1]


@contextmanager
def served(
    client: docker.DockerClient, image: str, directory: Path, *, memory: str = "512m", **environ: str
) -> Iterator[tuple[Container, str]]:
    """A replica that is ready, and its address. It sees `directory` alone, reads only, and reaches nothing."""
    name = f"modelfleet-test-{os.getpid()}-{secrets.token_hex(4)}"
    network = client.networks.create(name, internal=True, labels=LABEL)
    container = client.containers.run(
        image,
        detach=True,
        labels=LABEL,
        network=name,
        environment={"MODELFLEET_MODEL": "m", "MODELFLEET_VERSION": "1", "MODELFLEET_CPUS": "1", **environ},
        volumes={str(directory): {"bind": "/model", "mode": "ro"}},
        read_only=True,
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=64m"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        user="65534:65534",
        pids_limit=256,
        nano_cpus=1_000_000_000,
        mem_limit=memory,
        memswap_limit=memory,
    )
    try:
        container.reload()
        address = container.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]
        _wait_ready(container, f"http://{address}:8000")
        yield container, f"http://{address}:8000"
    finally:
        container.remove(force=True)
        network.remove()


def ask(url: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The outputs by name, flat."""
    answer = httpx.post(f"{url}/v2/models/m/infer", json={"inputs": list(inputs), **more}, timeout=60)
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def _make_readable(directory: Path) -> None:
    """As the control plane does with what it serves: safetensors lets a file's owner alone read it."""
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _wait_ready(container: Container, url: str) -> None:
    for _ in until_deadline():
        container.reload()
        assert container.status == "running", container.logs().decode()
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            continue
    raise AssertionError(container.logs().decode())
