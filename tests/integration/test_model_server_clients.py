"""Clients that we did not write, through the real gateway: tritonclient over HTTP, plain and asyncio, JSON and binary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.fakes import models
from tests.fakes.replica import ready_replica
from tests.fakes.serving import gateway

ROOT = Path(__file__).parents[2]

# Gives back what it gets.
ECHO = """
class Model:
    def load(self, path): ...
    def predict(self, inputs): return inputs
"""
DOUBLE = """
class Model:
    inputs = [{"name": "x", "datatype": "BF16", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "BF16", "shape": [-1]}]

    def load(self, path): ...
    def predict(self, inputs): return inputs["x"] * 2
"""
DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a gateway before three models."""
    directory = tmp_path_factory.mktemp("clients")
    with (
        ready_replica(models.iris(directory / "iris", named_classes=True)) as iris,
        ready_replica(models.python(directory / "echo", ECHO), backend="python", model="echo") as echo,
        ready_replica(models.python(directory / "double", DOUBLE), backend="python", model="double") as double,
        gateway(directory, iris, echo, double) as url,
    ):
        yield url.removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as client:
        yield client


def tensor(name: str, values: Any, datatype: str, **arguments: Any) -> Any:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, **arguments)
    return made


def rows(count: int = 5) -> Any:
    return np.random.default_rng(0).uniform(0, 8, (count, 4))


class TestTritonClient:
    def test_reads_health_and_metadata(self, client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("iris")
        assert client.is_model_ready("iris", "1")
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata()["name"] == "modelfleet-gateway"
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("iris")["inputs"][0]["shape"] == [-1, 4]

    def test_lists_all_models(self, client: Any) -> None:
        index = client.get_model_repository_index()

        assert [(each["name"], each["version"], each["state"]) for each in index] == [
            (name, "1", "READY") for name in ("double", "echo", "iris")
        ]

    @pytest.mark.parametrize("is_binary_in", [True, False])
    @pytest.mark.parametrize("is_binary_out", [True, False])
    def test_predicts(self, client: Any, is_binary_in: bool, is_binary_out: bool) -> None:
        wanted = [triton.InferRequestedOutput(name, binary_data=is_binary_out) for name in ("predict", "predict_proba")]

        answer = client.infer(
            "iris", [tensor("x", rows(), "FP64", binary_data=is_binary_in)], outputs=wanted, request_id="7"
        )

        direct = models.iris_estimator(named_classes=True)
        assert answer.get_response()["id"] == "7"
        labels = [each.decode() if is_binary_out else each for each in answer.as_numpy("predict")]
        assert labels == direct.predict(rows()).tolist()
        np.testing.assert_array_equal(answer.as_numpy("predict_proba"), direct.predict_proba(rows()))
        assert ("parameters" in answer.get_output("predict")) == is_binary_out

    def test_predicts_with_all_its_defaults(self, client: Any) -> None:
        answer = client.infer("iris", [tensor("x", rows(), "FP64")], "1")

        assert answer.as_numpy("predict").astype(str).tolist() == direct_labels()

    def test_predicts_for_parameters_that_the_model_does_not_take(self, client: Any) -> None:
        answer = client.infer(
            "iris", [tensor("x", rows(), "FP64")],
            sequence_id=7, sequence_start=True, priority=1, timeout=1_000_000, parameters={"threshold": 0.5},
        )  # fmt: skip

        assert answer.as_numpy("predict").astype(str).tolist() == direct_labels()

    def test_sends_many_requests_at_one_time(self, address: str) -> None:
        blocks = [rows(count) for count in range(1, 41)]
        with triton.InferenceServerClient(address, concurrency=8) as client:
            requests = [client.async_infer("iris", [tensor("x", block, "FP64")]) for block in blocks]
            answers = [request.get_result().as_numpy("predict").astype(str).tolist() for request in requests]

        direct = models.iris_estimator(named_classes=True)
        assert answers == [direct.predict(block).tolist() for block in blocks]

    @pytest.mark.parametrize("count", [1_000, 100_000])
    def test_carries_large_bodies(self, client: Any, count: int) -> None:
        values = np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)

        answer = client.infer("echo", [tensor("x", values, "FP32")])

        assert answer.as_numpy("x").tobytes() == values.tobytes()

    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_carries_every_datatype_of_numpy_bit_for_bit(self, client: Any, datatype: str) -> None:
        bits = np.random.default_rng(0).integers(0, 2 if datatype == "BOOL" else 256, 48, np.uint8)
        values = bits.view(DATATYPES[datatype]).reshape(2, 3, -1)

        answer = client.infer("echo", [tensor("x", values, datatype)])

        assert answer.get_output("x")["datatype"] == datatype
        assert answer.as_numpy("x").dtype == values.dtype
        assert answer.as_numpy("x").tobytes() == values.tobytes()

    def test_carries_bytes(self, client: Any) -> None:
        values = np.array(["", "é", b"\xff\x00", "x" * 70_000], dtype=object).reshape(2, 2)

        answer = client.infer("echo", [tensor("x", values, "BYTES")]).as_numpy("x")

        assert answer.tolist() == [[b"", "é".encode()], [b"\xff\x00", b"x" * 70_000]]

    def test_sends_bf16_and_gets_it(self, client: Any) -> None:
        values = np.array([1.5, -0.1, np.inf], ml_dtypes.bfloat16)

        answer = client.infer("double", [tensor("x", values, "BF16")])

        assert client.get_model_metadata("double")["outputs"][0]["datatype"] == "BF16"
        assert answer.get_output("y")["datatype"] == "BF16"
        assert answer.as_numpy("y").tobytes() == (values * 2).tobytes()

    def test_is_told_in_words_what_is_wrong(self, client: Any) -> None:
        with pytest.raises(InferenceServerException, match="each row has 4 numbers") as failed:
            client.infer("iris", [tensor("x", np.zeros((1, 3)), "FP64")])

        assert failed.value.status() == "400"

    def test_refuses_what_only_a_server_on_the_same_machine_could_read(self, client: Any) -> None:
        shared = triton.InferInput("x", [1, 4], "FP64")
        shared.set_shared_memory("region", 32)

        with pytest.raises(InferenceServerException, match="share no memory"):
            client.infer("iris", [shared])

    def test_refuses_classification_in_words(self, client: Any) -> None:
        wanted = triton.InferRequestedOutput("predict", class_count=2)

        with pytest.raises(InferenceServerException, match="labels with scores are not made here"):
            client.infer("iris", [tensor("x", rows(), "FP64")], outputs=[wanted])


def test_the_readmes_own_example_prints_what_it_says(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = next(block for block in blocks if "tritonclient" in block)

    exec(example.replace("localhost:8080", address), {})

    assert capsys.readouterr().out.strip() == example.rpartition("# ")[2].strip()


class TestTritonClientOfAsyncio:
    async def test_predicts_and_reads_metadata(self, address: str) -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("iris")
            assert (await client.get_model_metadata("iris"))["name"] == "iris"
            answer = await client.infer("iris", [tensor("x", rows(), "FP64")])

        assert answer.as_numpy("predict").astype(str).tolist() == direct_labels()


def direct_labels() -> list[str]:
    return [str(label) for label in models.iris_estimator(named_classes=True).predict(rows())]
