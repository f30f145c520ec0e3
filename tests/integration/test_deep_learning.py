"""Backends whose frameworks are too heavy for the project's own environment: built, trained, tested and served in their
images.

One image each, with pytest on top as a version's own requirements would be. What is served is hardened as every replica
is, and its answers are those of the framework called directly.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import httpx
import numpy as np
import pytest
from sklearn.datasets import load_digits

from orchestrator.adapters._build_context import worker_package
from orchestrator.adapters.engine import RuntimeRequest
from orchestrator.adapters.environments import pins
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


@pytest.fixture(scope="module")
def transformers_image(image_builder: ImageBuilder) -> str:
    return image_builder.ensure(RuntimeRequest(backend="transformers", requirements=TEST_TOOLS), print)


class TestTransformers:
    def test_passes_its_unit_tests_in_its_image(
        self, transformers_image: str, docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        said = run_unit_tests(docker_client, transformers_image, tmp_path, "worker_image/backends/test_transformers.py")

        assert " passed" in said
        assert "skipped" not in said

    def test_serves_labels_as_a_pipeline_answers_them(
        self, transformers_image: str, docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o755)
        work(docker_client, transformers_image, tmp_path, "/project/tests/integration/workshops/train_transformers.py")
        expected = json.loads((tmp_path / "expected.json").read_text())
        texts = {"name": "text", "datatype": "BYTES", "shape": [4], "data": expected["texts"]}
        with served(docker_client, transformers_image, tmp_path / "sentiment", memory="768m") as (_, url):
            metadata = httpx.get(f"{url}/v2/models/m").json()
            answer = ask(url, texts)
            classified = httpx.post(
                f"{url}/v1/models/m:classify", json={"examples": [{"text": expected["texts"][0]}]}
            ).json()

        assert metadata["parameters"]["task"] == "text-classification"
        assert answer["label"] == [each["label"] for each in expected["answers"]]
        assert answer["label"] == ["positive", "negative", "negative", "positive"]
        assert answer["score"] == pytest.approx([each["score"] for each in expected["answers"]], rel=1e-4)
        assert max(classified["results"][0], key=lambda pair: pair[1])[0] == "positive"


@pytest.fixture(scope="module")
def mlflow_requirements() -> list[str]:
    """What the test's model asks for: the releases that the project's images have."""
    wanted = {"mlflow": ["mlflow-skinny"], "sklearn": ["scikit-learn"]}
    locks = {name: dict(pins((worker_package() / "requirements" / f"{name}.lock").read_text())) for name in wanted}
    return [f"{each}=={locks[name][each]}" for name, names in wanted.items() for each in names] + ["pytest>=8.3"]


@pytest.fixture(scope="module")
def mlflow_image(image_builder: ImageBuilder, mlflow_requirements: list[str]) -> str:
    requirements = "\n".join(mlflow_requirements).encode()
    return image_builder.ensure(RuntimeRequest(backend="mlflow", requirements=requirements), print)


class TestMlflow:
    def test_passes_its_unit_tests_in_its_image(
        self, mlflow_image: str, docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        said = run_unit_tests(docker_client, mlflow_image, tmp_path, "worker_image/backends/test_mlflow.py")

        assert " passed" in said
        assert "skipped" not in said

    def test_serves_a_model_with_its_own_requirements_as_mlflow_answers(
        self,
        mlflow_image: str,
        mlflow_requirements: list[str],
        image_builder: ImageBuilder,
        docker_client: docker.DockerClient,
        tmp_path: Path,
    ) -> None:
        tmp_path.chmod(0o755)
        train = "/project/tests/integration/workshops/train_mlflow.py"
        work(docker_client, mlflow_image, tmp_path, train, *mlflow_requirements)
        expected = json.loads((tmp_path / "expected.json").read_text())
        columns = [
            {"name": name, "datatype": "FP64", "shape": [len(values)], "data": values}
            for name, values in expected["rows"].items()
        ]
        # The folder's own requirements.txt names the image, as an apply would.
        own = (tmp_path / "model" / "requirements.txt").read_bytes()
        image = image_builder.ensure(RuntimeRequest(backend="mlflow", requirements=own), print)
        with served(docker_client, image, tmp_path / "model") as (_, url):
            metadata = httpx.get(f"{url}/v2/models/m").json()
            answer = ask(url, *columns)

        assert image == mlflow_image
        assert [each["name"] for each in metadata["inputs"]] == list(expected["rows"])
        assert metadata["platform"] == "mlflow_sklearn"
        assert answer == {"predict": expected["answers"]}


def tensor(name: str, array: np.ndarray) -> dict[str, object]:  # type: ignore[type-arg]
    return {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
