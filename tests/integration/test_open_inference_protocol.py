"""Each path of the Open Inference Protocol's REST specification, through the real gateway, as the specification has it.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes import models
from tests.fakes.replica import ready_replica
from tests.fakes.serving import gateway

# Gives a request's parameters back, and numbers that JSON has not.
SAYS = """
import json
import numpy as np

class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}, {"name": "told", "datatype": "BYTES", "shape": [-1]}]

    def load(self, path): ...

    def predict(self, inputs, parameters):
        told = json.dumps(parameters, sort_keys=True)
        with np.errstate(divide="ignore"):
            return {"y": 1 / inputs["x"], "told": [told] * len(inputs["x"])}
"""
MODEL = pytest.mark.parametrize("model", ["iris", "iris/versions/1"])
X = {"name": "x", "datatype": "FP64", "shape": [1, 4], "data": models.ONE_ROW[0]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("oip")
    with (
        ready_replica(models.iris(directory / "iris", named_classes=True)) as iris,
        ready_replica(models.python(directory / "says", SAYS), backend="python", model="says") as says,
        gateway(directory, iris, says) as url,
        httpx.Client(base_url=url, timeout=40) as client,
    ):
        yield client


class TestHealthAndMetadata:
    @pytest.mark.parametrize(
        ("path", "body"), [("/v2/health/live", {"live": True}), ("/v2/health/ready", {"ready": True})]
    )
    def test_of_the_server(self, client: httpx.Client, path: str, body: Any) -> None:
        answer = client.get(path)

        assert (answer.status_code, answer.json()) == (200, body)

    def test_names_the_server_and_its_extensions(self, client: httpx.Client) -> None:
        page = client.get("/v2").json()

        assert page.keys() == {"name", "version", "extensions"}
        assert page["extensions"] == ["binary_tensor_data"]

    @MODEL
    def test_says_whether_a_model_is_ready(self, client: httpx.Client, model: str) -> None:
        assert client.get(f"/v2/models/{model}/ready").json() == {"name": "iris", "ready": True}

    @MODEL
    def test_says_what_a_model_takes_and_gives(self, client: httpx.Client, model: str) -> None:
        answer = client.get(f"/v2/models/{model}")

        page = answer.json()
        assert (page["name"], page["versions"], page["platform"]) == ("iris", ["1"], "sklearn_LogisticRegression")
        assert page["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}]
        assert page["outputs"][0] == {"name": "predict", "datatype": "BYTES", "shape": [-1]}
        assert answer.headers["x-model-version"] == "1"


class TestInference:
    @MODEL
    def test_answers_with_the_names_and_the_id(self, client: httpx.Client, model: str) -> None:
        answer = client.post(f"/v2/models/{model}/infer", json={"id": "42", "inputs": [X]})

        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
        assert answer.json() == {
            "model_name": "iris",
            "model_version": "1",
            "id": "42",
            "outputs": [{"name": "predict", "datatype": "BYTES", "shape": [1], "data": ["setosa"]}],
        }

    def test_the_version_may_stand_in_a_field(self, client: httpx.Client) -> None:
        answer = client.post("/v2/models/iris/infer", json={"inputs": [X]}, headers={"x-model-version": "2"})

        assert (answer.status_code, answer.json()["code"]) == (404, "VERSION_NOT_FOUND")

    def test_gives_the_outputs_that_are_asked_for(self, client: httpx.Client) -> None:
        asked = {"inputs": [X], "outputs": [{"name": "predict_proba"}, {"name": "predict"}]}

        outputs = client.post("/v2/models/iris/infer", json=asked).json()["outputs"]

        assert [output["name"] for output in outputs] == ["predict_proba", "predict"]

    def test_hands_parameters_that_are_not_the_protocols_to_a_model_that_takes_them(self, client: httpx.Client) -> None:
        x = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2]}
        sent = {"k": 3, "word": "a", "is": True, "half": 0.5, "list": [1], "sequence_id": 7, "timeout": 9}

        answer = client.post("/v2/models/says/infer", json={"inputs": [x], "parameters": sent}).json()

        told = next(output["data"][0] for output in answer["outputs"] if output["name"] == "told")
        assert json.loads(told) == {"k": 3, "word": "a", "is": True, "half": 0.5, "list": [1]}

    @pytest.mark.parametrize("rows", [1, 400_000])
    def test_what_json_cannot_carry_binary_data_does(self, client: httpx.Client, rows: int) -> None:
        """In answers that the gateway holds and in those that it streams."""
        values = np.zeros((rows, 1), np.float32)
        values[0] = np.nan
        head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 1]}], "outputs": [{"name": "y"}]}
        head["inputs"][0]["parameters"] = {"binary_data_size": values.nbytes}

        in_json, _ = ask_binary(client, head, values.tobytes())
        head["outputs"][0]["parameters"] = {"binary_data": True}
        in_bytes, tail = ask_binary(client, head, values.tobytes())

        assert (in_json.status_code, in_json.json()["code"]) == (422, "NOT_FINITE")
        assert "ask for binary data" in in_json.json()["error"]
        assert in_bytes.headers["content-type"] == "application/octet-stream"
        with np.errstate(divide="ignore"):
            assert tail == (1 / values).tobytes()


class TestErrors:
    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("POST", "/v2/models/none/infer", {"inputs": [X]}, 404),
            ("GET", "/v2/models/none/ready", None, 404),
            ("GET", "/v2/models/iris/versions/9", None, 404),
            ("GET", "/v2/models/iris/nothing", None, 404),
            ("GET", "/v2/models/iris/infer", None, 405),
            ("POST", "/v2/models/iris/infer", {}, 400),
            ("POST", "/v2/models/iris/infer", {"inputs": []}, 400),
            ("POST", "/v2/models/iris/infer", {"inputs": [{**X, "datatype": "FP128"}]}, 400),
            ("POST", "/v2/models/iris/infer", {"inputs": [X], "outputs": [{"name": "none"}]}, 400),
        ],
    )
    def test_say_in_a_sentence_what_is_wrong(
        self, client: httpx.Client, method: str, path: str, body: Any, status: int
    ) -> None:
        answer = client.request(method, path, json=body)

        said = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
        assert isinstance(said["error"], str)
        assert said["request_id"] == answer.headers["x-request-id"]


def ask_binary(client: httpx.Client, head: dict[str, Any], content: bytes) -> tuple[httpx.Response, bytes]:
    """The answer, and what stands behind its JSON."""
    text = json.dumps(head).encode()
    fields = {"inference-header-content-length": str(len(text))}
    answer = client.post("/v2/models/says/infer", content=text + content, headers=fields)
    return answer, answer.content[int(answer.headers.get("inference-header-content-length", len(answer.content))) :]
