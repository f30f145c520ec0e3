"""Engines with an empty cluster of their own for each test; whatever a test leaves behind is removed after it.

Worker images and environments are made once a run, by the product's own code, and stay on the engine for the next run
(they are named by content). MODELFLEET_BASE_IMAGE names the base; without it the product finds or makes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters.engine import RuntimeRequest
from orchestrator.adapters.images import ImageBuilder
from tests.fakes.engine_lab import DockerLab, EngineLab, FakeLab, ProcessLab


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    client = docker.from_env(timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image_builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageBuilder]:
    calls = DockerCalls()
    yield ImageBuilder(tmp_path_factory.mktemp("images"), None, calls)
    calls.close()


@pytest.fixture(scope="session")
def python_image(image_builder: ImageBuilder) -> str:
    """The worker image of the `python` backend."""
    return image_builder.ensure(RuntimeRequest(backend="python"), print)


@pytest.fixture
def process_lab(tmp_path: Path, environments: Path) -> Iterator[ProcessLab]:
    lab = ProcessLab(tmp_path, environments)
    yield lab
    lab.engine.teardown()


@pytest.fixture
def docker_lab(tmp_path: Path, python_image: str, docker_client: docker.DockerClient) -> Iterator[DockerLab]:
    lab = DockerLab(tmp_path, python_image, docker_client)
    yield lab
    lab.engine.teardown()
    lab.engine.close()


@pytest.fixture(params=["fake", "process", pytest.param("docker", marks=pytest.mark.docker)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> EngineLab:
    """Each engine in turn."""
    if request.param == "fake":
        return FakeLab(tmp_path)
    found: EngineLab = request.getfixturevalue(f"{request.param}_lab")
    return found
