"""The worker images on a real engine: hardened as replicas are, trying from inside what is forbidden.

MODELFLEET_BASE_IMAGE names the base (default: the one that the control plane would take); PIP_CERT, when set, is the
CA bundle for pip inside the build.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container
from docker.models.networks import Network

from orchestrator.adapters._base_image import BaseImage
from orchestrator.adapters._docker_calls import DockerCalls
from tests.fakes import models
from tests.fakes.replica import until_deadline

ROOT = Path(__file__).parents[2]
LABEL = {"modelfleet.test": "worker"}
MARKER = "modelfleet.test=worker"
BUILD_NETWORK = f"modelfleet-test-worker-build-{os.getpid()}"
pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

PROBE = """
import os, socket

def attempt(what):
    try:
        what()
        return "allowed"
    except OSError as exc:
        return type(exc).__name__

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        self.path = path

    def predict(self, inputs):
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        seen = {
            "uid": str(os.getuid()),
            "gid": str(os.getgid()),
            "capabilities": status["CapEff"].strip() + status["CapBnd"].strip(),
            "no_new_privs": status["NoNewPrivs"].strip(),
            "write_root": attempt(lambda: open("/opt/x", "w")),
            "write_model": attempt(lambda: open(self.path / "x", "w")),
            "connect": attempt(lambda: socket.create_connection(("1.1.1.1", 53), timeout=3)),
            "become_root": attempt(lambda: os.setuid(0)),
        }
        return {name: [value] * len(inputs["x"]) for name, value in seen.items()}
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException as exc:
        if os.environ.get("CI") or os.environ.get("MODELFLEET_TEST_DOCKER") == "required":
            raise
        pytest.skip(f"no Docker Engine: {exc}")
    # A network of the tests' own: the builds do not depend on what became of the engine's default bridge.
    outward = client.networks.create(BUILD_NETWORK, labels=LABEL)
    yield client
    outward.remove()
    for container in client.containers.list(all=True, filters={"label": MARKER}):
        container.remove(force=True)
    for image in client.images.list(filters={"label": MARKER}):
        client.images.remove(image.id, force=True)
    client.close()


@pytest.fixture(scope="module")
def network(engine: docker.DockerClient) -> Iterator[Network]:
    made = engine.networks.create(f"modelfleet-test-worker-{os.getpid()}", internal=True, labels=LABEL)
    yield made
    for container in engine.containers.list(all=True, filters={"network": made.id}):
        container.remove(force=True)
    made.remove()


@pytest.fixture(scope="module")
def base_image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base that the control plane would take here: named, pulled, or made."""
    calls = DockerCalls()
    base = BaseImage(tmp_path_factory.mktemp("base"), os.environ.get("MODELFLEET_BASE_IMAGE", ""), calls)
    yield base.ensure(print)
    calls.close()


def context(*files: Path) -> io.BytesIO:
    """What the control plane sends: the package, the CA bundle when there is one, and `files`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(
            ROOT / "worker_image",
            "worker_image",
            filter=lambda member: None if "__pycache__" in member.name else member,
        )
        for file in files:
            tar.add(file, file.name)
        if bundle := os.environ.get("PIP_CERT"):
            tar.add(os.path.realpath(bundle), "build-ca.crt")
    archive.seek(0)
    return archive


def build(engine: docker.DockerClient, dockerfile: str, *files: Path, target: str = "", **arguments: str) -> str:
    image, _ = engine.images.build(
        fileobj=context(*files),
        custom_context=True,
        dockerfile=f"worker_image/{dockerfile}",
        target=target or None,
        buildargs=arguments,
        labels=LABEL,
        network_mode=BUILD_NETWORK,
        rm=True,
        forcerm=True,
    )
    return str(image.id)


@pytest.fixture(scope="module")
def python_image(engine: docker.DockerClient, base_image: str) -> str:
    return build(engine, "Dockerfile", target="python", BASE=base_image)


@contextmanager
def replica(
    engine: docker.DockerClient, network: Network, image: str, directory: Path, **options: Any
) -> Iterator[tuple[Container, str]]:
    """A container with the limits that every replica has, and its address."""
    directory.chmod(0o755)
    container = engine.containers.run(
        image,
        detach=True,
        labels=LABEL,
        network=network.name,
        environment={"MODELFLEET_MODEL": "m", "MODELFLEET_VERSION": "1", "MODELFLEET_CPUS": "1"},
        volumes={str(directory): {"bind": "/model", "mode": "ro"}},
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        user="65534:65534",
        pids_limit=128,
        nano_cpus=1_000_000_000,
        **{"mem_limit": "512m", "memswap_limit": "512m", **options},
    )
    try:
        container.reload()
        address = container.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"]
        yield container, f"http://{address}:8000"
    finally:
        container.remove(force=True)


def wait_ready(container: Container, url: str) -> None:
    for _ in until_deadline():
        container.reload()
        assert container.status == "running", container.logs().decode()
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            continue
    raise AssertionError(container.logs().decode())


def ask(url: str, tensor: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{url}/v2/models/m/infer", json={"inputs": [tensor]}, timeout=30)
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def run(engine: docker.DockerClient, image: str, script: str) -> str:
    return str(
        engine.containers.run(
            image, ["-c", script], entrypoint="sh", remove=True, labels=LABEL, network_mode="none"
        ).decode()
    )


class TestSklearnImage:
    def test_predicts_and_drains_with_a_read_only_root_and_no_privileges(
        self, engine: docker.DockerClient, network: Network, tmp_path: Path, base_image: str
    ) -> None:
        image = build(engine, "Dockerfile", target="sklearn", BASE=base_image)
        directory = models.iris(tmp_path / "iris", named_classes=True)
        with replica(engine, network, image, directory) as (container, url):
            wait_ready(container, url)

            answer = ask(url, {"name": "x", "datatype": "FP64", "shape": [1, 4], "data": models.ONE_ROW})
            container.stop(timeout=10)
            ended = container.wait()

        assert answer == {"predict": ["setosa"]}
        assert ended["StatusCode"] == 0


class TestPythonImage:
    def test_the_forbidden_is_refused_from_inside(
        self, engine: docker.DockerClient, network: Network, python_image: str, tmp_path: Path
    ) -> None:
        with replica(engine, network, python_image, models.python(tmp_path / "probe", PROBE)) as (container, url):
            wait_ready(container, url)

            seen = {name: data[0] for name, data in ask(url, ROW).items()}

        assert (seen["uid"], seen["gid"]) == ("65534", "65534")
        assert set(seen["capabilities"]) == {"0"}
        assert seen["no_new_privs"] == "1"
        assert seen["write_root"] == "OSError"
        assert seen["write_model"] == "OSError"
        assert seen["connect"] in ("OSError", "TimeoutError")
        assert seen["become_root"] == "PermissionError"

    def test_a_model_that_needs_more_memory_than_it_has_is_killed_by_the_engine(
        self, engine: docker.DockerClient, network: Network, python_image: str, tmp_path: Path
    ) -> None:
        source = PROBE.replace("self.path = path", "self.all = [bytearray(1 << 20) for _ in range(1 << 10)]")
        limit = {"mem_limit": "128m", "memswap_limit": "128m"}
        directory = models.python(tmp_path / "large", source)
        with replica(engine, network, python_image, directory, **limit) as (container, _):
            ended = container.wait(timeout=60)
            container.reload()

        assert ended["StatusCode"] == 137
        assert container.attrs["State"]["OOMKilled"]

    def test_holds_neither_build_tools_nor_what_only_the_build_needed(
        self, engine: docker.DockerClient, python_image: str
    ) -> None:
        found = run(
            engine, python_image, "ls /build /opt/pip /opt/venv/bin/pip* 2>/dev/null; command -v gcc cc make; id -u"
        )
        history = json.dumps(engine.images.get(python_image).history())

        assert found.split() == ["65534"]
        assert "build-ca.crt" not in history

    def test_a_models_own_requirements_make_a_derived_image_without_pip(
        self, engine: docker.DockerClient, network: Network, python_image: str
    ) -> None:
        text = ROOT / "configs" / "text" / "1"
        image = build(engine, "Dockerfile.requirements", text / "requirements.txt", PARENT=python_image)
        with replica(engine, network, image, text) as (container, url):
            wait_ready(container, url)

            body = json.loads((ROOT / "configs" / "examples" / "text.json").read_text())
            answer = ask(url, body["inputs"][0])

        assert answer["sentiment"] == ["positive", "negative"]
        assert run(engine, image, "ls /build /opt/pip /opt/venv/bin/pip* 2>/dev/null; id -u").split() == ["65534"]


ROW = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}
