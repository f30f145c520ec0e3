"""Backends whose frameworks are too heavy for the project's own environment: built, trained, tested and served in their
images.

One image each, with pytest on top as a version's own requirements would be. What is served is hardened as every replica
is, and its answers are those of the framework called directly.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import httpx
import numpy as np
import pytest
from sklearn.datasets import load_digits

from orchestrator.adapters.engine import RuntimeRequest
from orchestrator.adapters.images import ImageBuilder
from tests.integration.worker_containers import TEST_TOOLS, ask, run_unit_tests, served, work

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
KEPT = 200


@pytest.fixture(scope="module")
def pytorch_image(image_builder: ImageBuilder) -> str:
    return image_builder.ensure(RuntimeRequest(backend="pytorch", requirements=TEST_TOOLS), print)


@pytest.fixture(scope="module")
def digits(pytorch_image: str, docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("digits")
    directory.chmod(0o755)
    images, labels = load_digits(return_X_y=True)
    np.savez(
        directory / "digits.npz",
        images=(images / 16).astype(np.float32).reshape(-1, 1, 8, 8),
        labels=labels,
    )
    work(docker_client, pytorch_image, directory, "/project/tests/integration/workshops/train_pytorch.py")
    return directory


class TestPytorch:
    def test_passes_its_unit_tests_in_its_image(
        self, pytorch_image: str, docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        said = run_unit_tests(docker_client, pytorch_image, tmp_path, "worker_image/backends/test_pytorch.py")

        assert " passed" in said
        assert "skipped" not in said

    @pytest.mark.parametrize(("form", "name"), [("exported", "input"), ("script", "image")])
    def test_serves_digits_as_pytorch_answers_them(
        self, pytorch_image: str, docker_client: docker.DockerClient, digits: Path, form: str, name: str
    ) -> None:
        images = np.load(digits / "digits.npz")["images"][-KEPT:]
        labels = np.load(digits / "digits.npz")["labels"][-KEPT:]
        expected = np.load(digits / "expected.npz")["logits"]
        with served(docker_client, pytorch_image, digits / form) as (container, url):
            metadata = httpx.get(f"{url}/v2/models/m").json()
            whole = ask(url, tensor(name, images))["output"]
            with ThreadPoolExecutor(16) as pool:
                rows = list(pool.map(lambda image: ask(url, tensor(name, image[None]))["output"], images[:64]))
            container.stop(timeout=20)
            ended = container.wait()

        assert metadata["inputs"] == [{"name": name, "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
        assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 10]}]
        assert metadata["parameters"]["device"] == "cpu"
        np.testing.assert_allclose(np.reshape(whole, (-1, 10)), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(rows, expected[:64], rtol=1e-4, atol=1e-4)
        assert (np.reshape(whole, (-1, 10)).argmax(-1) == labels).mean() > 0.85
        assert ended["StatusCode"] == 0

    def test_its_image_holds_no_cuda_and_nothing_of_the_build(
        self, pytorch_image: str, docker_client: docker.DockerClient
    ) -> None:
        looked_for = "-name 'libcudnn*' -o -name 'libcublas*' -o -name 'libtorch_cuda*' -o -name '*.whl' -o -name pip"
        found = docker_client.containers.run(
            pytorch_image,
            ["-c", f"find /opt /build /tmp {looked_for} 2>/dev/null; true"],
            entrypoint=["sh"],
            network_mode="none",
            remove=True,
        )

        assert found == b""


def tensor(name: str, array: np.ndarray) -> dict[str, object]:  # type: ignore[type-arg]
    return {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
