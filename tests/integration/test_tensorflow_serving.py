"""Every example of TensorFlow Serving's REST documentation, asked with `requests` through the real gateway.

https://www.tensorflow.org/tfx/serving/api_rest: the bodies are the page's own.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from router.contract import Endpoint, ModelRoute, VersionRoute
from tests.fakes import models
from tests.fakes.replica import ready_replica
from tests.fakes.serving import gateway

HALF_PLUS_THREE = """
class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1]}]

    def load(self, path): ...
    def predict(self, inputs): return inputs["x"] / 2 + 3
"""
# Says of each input what it is, and gives sums.
NAMED = """
import numpy as np

class Model:
    inputs = [
        {"name": "tag", "datatype": "BYTES", "shape": [-1]},
        {"name": "signal", "datatype": "FP32", "shape": [-1, 5]},
        {"name": "sensor", "datatype": "INT64", "shape": [-1, 2, 2]},
    ]
    outputs = [{"name": "said", "datatype": "BYTES", "shape": [-1]}, {"name": "sum", "datatype": "FP32", "shape": [-1]}]

    def load(self, path): ...

    def predict(self, inputs):
        said = [f"{tag}!" for tag in inputs["tag"]]
        return {"said": np.array(said, object), "sum": inputs["signal"].sum(1) + inputs["sensor"].sum((1, 2))}
"""
OBJECTS = """
import numpy as np

class Model:
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}, {"name": "caption", "datatype": "BYTES", "shape": [-1]}]
    outputs = [{"name": "classify_objects", "datatype": "FP64", "shape": [-1, 2], "labels": ["beach", "hill"]}]
    warmup_example = {"image": [b"image"], "caption": ["seaside"]}

    def load(self, path): ...

    def predict(self, inputs):
        assert all(isinstance(image, bytes) for image in inputs["image"])
        beach = np.array([[caption == "seaside"] for caption in inputs["caption"]], float)
        return np.hstack([beach, 1 - beach])
"""
# Takes what comes, and gives it back; a name that ends in _bytes is of bytes.
ECHO = """
class Model:
    def load(self, path): ...
    def predict(self, inputs): return inputs
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("tfs")
    sources = {"half_plus_three": HALF_PLUS_THREE, "named": NAMED, "objects": OBJECTS, "echo": ECHO}
    paths = {name: models.python(directory / name, source) for name, source in sources.items()}
    with (
        ready_replica(paths["half_plus_three"], backend="python", model="half_plus_three") as half,
        ready_replica(paths["named"], backend="python", model="named") as named,
        ready_replica(paths["objects"], backend="python", model="objects") as objects,
        ready_replica(paths["echo"], backend="python", model="echo") as echo,
        gateway(directory, half, named, objects, echo, several=several_versions(half.port)) as address,
    ):
        yield f"{address}/v1/models"


def several_versions(port: int) -> ModelRoute:
    ready = VersionRoute((Endpoint("r", "127.0.0.1", port),))
    versions = {"1": ready, "2": VersionRoute(state="loading: 1.2 s"), "3": VersionRoute(state="failed: no memory")}
    return ModelRoute(versions, {"1": 1}, {"stable": "1", "next": "3"})


def ask(url: str, body: str | dict[str, Any]) -> Any:
    answer = requests.post(url, data=body if isinstance(body, str) else json.dumps(body), timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestHalfPlusThree:
    """The page's closing example, as it types it."""

    def test_status(self, url: str) -> None:
        assert requests.get(f"{url}/half_plus_three", timeout=30).json() == {
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        }

    def test_predict(self, url: str) -> None:
        assert ask(f"{url}/half_plus_three:predict", '{"instances": [1.0,2.0,5.0]}') == {"predictions": [3.5, 4.0, 5.5]}

    def test_regress(self, url: str) -> None:
        body = '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}'

        assert ask(f"{url}/half_plus_three:regress", body) == {"results": [3.5, 4.0]}

    def test_another_name_is_not_found(self, url: str) -> None:
        answer = requests.post(f"{url}/half:predict", data='{"instances": [1.0,5.0]}', timeout=30)

        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert "model 'half' is not served here" in answer.json()["error"]

    def test_metadata(self, url: str) -> None:
        page = requests.get(f"{url}/half_plus_three/metadata", timeout=30).json()

        assert page["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "1"}
        definition = page["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert definition["inputs"]["x"] == {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": "x",
        }
        assert definition["method_name"] == "tensorflow/serving/predict"


class TestStatus:
    def states(self, url: str) -> list[tuple[str, str, str, str]]:
        rows = requests.get(url, timeout=30).json()["model_version_status"]
        return [
            (row["version"], row["state"], row["status"]["error_code"], row["status"]["error_message"]) for row in rows
        ]

    def test_is_that_of_all_versions_when_none_is_named(self, url: str) -> None:
        assert self.states(f"{url}/several") == [
            ("1", "AVAILABLE", "OK", ""),
            ("2", "LOADING", "OK", ""),
            ("3", "END", "UNAVAILABLE", "failed: no memory"),
        ]

    @pytest.mark.parametrize(("path", "version"), [("versions/2", "2"), ("labels/stable", "1"), ("labels/next", "3")])
    def test_is_that_of_the_version_or_label_in_the_path(self, url: str, path: str, version: str) -> None:
        assert [row[0] for row in self.states(f"{url}/several/{path}")] == [version]

    @pytest.mark.parametrize("path", ["none", "several/versions/4", "several/labels/x"])
    def test_is_not_found_where_there_is_none(self, url: str, path: str) -> None:
        assert requests.get(f"{url}/{path}", timeout=30).status_code == 404

    def test_of_a_version_that_cannot_answer_comes_at_once(self, url: str) -> None:
        answer = requests.get(f"{url}/several/versions/2", timeout=1)

        assert (answer.status_code, "x-model-version" in answer.headers) == (200, False)


class TestPredict:
    @pytest.mark.parametrize("path", ["echo", "echo/versions/1"])
    def test_rows_of_one_input(self, url: str, path: str) -> None:
        assert ask(f"{url}/{path}:predict", {"instances": ["foo", "bar", "baz"]}) == {
            "predictions": ["foo", "bar", "baz"]
        }
        assert ask(f"{url}/{path}:predict", {"instances": [[[1, 2]], [[3, 4]]]}) == {
            "predictions": [[[1, 2]], [[3, 4]]]
        }

    def test_rows_of_several_named_inputs_with_several_outputs(self, url: str) -> None:
        rows = [
            {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
            {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
        ]

        assert ask(f"{url}/named:predict", {"instances": rows}) == {
            "predictions": [{"said": "foo!", "sum": 25.0}, {"said": "bar!", "sum": 38.0}]
        }

    def test_columns_of_several_named_inputs_with_several_outputs(self, url: str) -> None:
        columns = {
            "tag": ["foo", "bar"],
            "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
            "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
        }

        assert ask(f"{url}/named:predict", {"inputs": columns}) == {
            "outputs": {"said": ["foo!", "bar!"], "sum": [25.0, 38.0]}
        }

    def test_columns_of_different_lengths(self, url: str) -> None:
        assert ask(f"{url}/echo:predict", {"inputs": {"a": [1, 2, 3], "b": [[0.5]]}}) == {
            "outputs": {"a": [1, 2, 3], "b": [[0.5]]}
        }

    def test_a_column_of_one_input_needs_no_name(self, url: str) -> None:
        assert ask(f"{url}/half_plus_three:predict", {"inputs": [1.0, 2.0]}) == {"outputs": [3.5, 4.0]}

    def test_a_signature_names_one_of_several_outputs(self, url: str) -> None:
        row = {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]}

        assert ask(f"{url}/named:predict", {"signature_name": "sum", "instances": [row]}) == {"predictions": [25.0]}

    def test_both_forms_at_once_are_refused(self, url: str) -> None:
        answer = requests.post(f"{url}/echo:predict", json={"instances": [1], "inputs": [1]}, timeout=30)

        assert answer.status_code == 400
        assert "a request has exactly one of them" in answer.json()["error"]


class TestBinaryValues:
    def test_classify_with_images_as_base64(self, url: str) -> None:
        body = {
            "signature_name": "classify_objects",
            "examples": [
                {"image": {"b64": "aW1hZ2UgYnl0ZXM="}, "caption": "seaside"},
                {"image": {"b64": "YXdlc29tZSBpbWFnZSBieXRlcw=="}, "caption": "mountains"},
            ],
        }

        assert ask(f"{url}/objects:classify", body) == {
            "results": [[["beach", 1.0], ["hill", 0.0]], [["beach", 0.0], ["hill", 1.0]]]
        }

    def test_a_context_stands_for_every_example(self, url: str) -> None:
        image = {"b64": "aW1hZ2UgYnl0ZXM="}
        body = {"context": {"image": image}, "examples": [{"caption": "seaside"}, {"caption": "mountains"}]}

        results = ask(f"{url}/objects:classify", body)["results"]

        assert [result[0][1] for result in results] == [1.0, 0.0]

    def test_bytes_come_back_as_base64_and_text_as_text(self, url: str) -> None:
        values = [{"b64": base64.b64encode(b"\xff\x00").decode()}, "text"]

        assert ask(f"{url}/echo:predict", {"inputs": {"a": values}}) == {"outputs": values}

    def test_what_is_named_bytes_comes_back_as_base64_whatever_it_is(self, url: str) -> None:
        answer = ask(f"{url}/echo:predict", {"inputs": {"image_bytes": ["text"]}})

        assert answer == {"outputs": [{"b64": base64.b64encode(b"text").decode()}]}


class TestNumbersThatAreNone:
    def test_nan_and_infinity_come_and_go_as_tokens(self, url: str) -> None:
        answer = requests.post(
            f"{url}/half_plus_three:predict", data='{"instances": [1.0, -3.14, NaN, Infinity, -Infinity]}', timeout=30
        )

        assert answer.text.replace(" ", "").endswith(",NaN,Infinity,-Infinity]}")
        values = answer.json()["predictions"]
        assert math.isnan(values[2])
        assert values[0] == 3.5

    def test_regress_carries_them_too(self, url: str) -> None:
        body = '{"examples": [{"x": NaN}, {"x": Infinity}]}'

        assert [str(value) for value in ask(f"{url}/half_plus_three:regress", body)["results"]] == ["nan", "inf"]

    @pytest.mark.parametrize("token", ["null", "Nan", "nan", '"NaN"'])
    def test_nothing_else_is_taken_for_them(self, url: str, token: str) -> None:
        answer = requests.post(f"{url}/half_plus_three:predict", data=f'{{"instances": [{token}]}}', timeout=30)

        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
