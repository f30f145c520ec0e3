"""The model server as clients see it: a real process, a really trained model, real HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_iris

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica

LIMIT = 100_000


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    directory = models.iris(tmp_path_factory.mktemp("models") / "iris", named_classes=True)
    with ready_replica(directory, MODELFLEET_SETTINGS=json.dumps({"max_body_bytes": LIMIT})) as running:
        yield running


def matrix(rows: Any, datatype: str = "FP64", name: str = "x") -> dict[str, Any]:
    array = np.asarray(rows)
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


class TestOpenInferenceProtocol:
    def test_answers_class_labels(self, replica: Replica) -> None:
        answer = replica.infer(matrix(models.ONE_ROW), id="42")

        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "model_name": "iris",
            "model_version": "1",
            "id": "42",
            "outputs": [{"name": "predict", "datatype": "BYTES", "shape": [1], "data": ["setosa"]}],
        }

    def test_answers_the_outputs_that_are_asked_for(self, replica: Replica) -> None:
        outputs = [{"name": "predict_proba"}, {"name": "predict"}]

        answer = replica.infer(matrix(models.ONE_ROW), outputs=outputs).json()

        assert [output["name"] for output in answer["outputs"]] == ["predict_proba", "predict"]
        direct = models.iris_estimator(named_classes=True).predict_proba(models.ONE_ROW)
        assert answer["outputs"][0]["data"] == direct[0].tolist()

    def test_answers_the_outputs_of_the_manifest_to_who_names_none(self, tmp_path: Path) -> None:
        directory = models.iris(tmp_path / "iris")
        settings = json.dumps({"outputs": ["predict_proba", "predict"]})
        with ready_replica(directory, MODELFLEET_SETTINGS=settings) as replica:
            unnamed = replica.infer(matrix(models.ONE_ROW)).json()
            named = replica.infer(matrix(models.ONE_ROW), outputs=[{"name": "predict"}]).json()
            rows = httpx.post(f"{replica.url}/v1/models/iris:predict", json={"instances": models.ONE_ROW}).json()

        assert [output["name"] for output in unnamed["outputs"]] == ["predict_proba", "predict"]
        assert [output["name"] for output in named["outputs"]] == ["predict"]
        assert rows["predictions"][0].keys() == {"predict_proba", "predict"}

    def test_shows_what_the_model_takes_and_gives(self, replica: Replica) -> None:
        page = httpx.get(f"{replica.url}/v2/models/iris/versions/1").json()

        assert page.pop("parameters").keys() == {"batching"}
        assert page == {
            "name": "iris",
            "versions": ["1"],
            "platform": "sklearn_LogisticRegression",
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}],
            "outputs": [
                {"name": "predict", "datatype": "BYTES", "shape": [-1]},
                {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
                {"name": "decision_function", "datatype": "FP64", "shape": [-1, 3]},
            ],
        }

    def test_lists_its_one_model(self, replica: Replica) -> None:
        url = f"{replica.url}/v2/repository/index"
        row = {"name": "iris", "version": "1", "state": "READY", "reason": ""}

        assert httpx.get(url).json() == httpx.post(url).json() == [row]
        assert httpx.post(url, json={"ready": True}).json() == [row]
        assert 'it is {"ready": true}' in httpx.post(url, json={"ready": 1}).json()["error"]
        assert httpx.post(url, content=b" " * 5000).status_code == 413

    @pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready"])
    def test_answers_every_page_of_the_protocol(self, replica: Replica, path: str) -> None:
        assert httpx.get(replica.url + path).status_code == 200


class TestTensorflowServing:
    def ask(self, replica: Replica, verb: str, body: Any) -> Any:
        answer = httpx.post(f"{replica.url}/v1/models/iris:{verb}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def test_predicts_rows_and_columns(self, replica: Replica) -> None:
        assert self.ask(replica, "predict", {"instances": models.ONE_ROW}) == {"predictions": ["setosa"]}
        assert self.ask(replica, "predict", {"inputs": models.ONE_ROW}) == {"outputs": ["setosa"]}

    def test_classifies_with_a_score_for_each_label(self, replica: Replica) -> None:
        results = self.ask(replica, "classify", {"examples": [{"x": models.ONE_ROW[0]}]})["results"]

        assert [label for label, _ in results[0]] == ["setosa", "versicolor", "virginica"]
        assert abs(sum(score for _, score in results[0]) - 1) < 1e-9

    def test_says_when_a_model_cannot_regress(self, replica: Replica) -> None:
        answer = httpx.post(f"{replica.url}/v1/models/iris:regress", json={"examples": [{"x": [1, 2, 3, 4]}]})

        assert answer.status_code == 400
        assert "gives no single number" in answer.json()["error"]

    def test_shows_status_and_metadata(self, replica: Replica) -> None:
        status = httpx.get(f"{replica.url}/v1/models/iris").json()
        metadata = httpx.get(f"{replica.url}/v1/models/iris/metadata").json()

        assert status["model_version_status"][0]["state"] == "AVAILABLE"
        assert metadata["model_spec"] == {"name": "iris", "signature_name": "", "version": "1"}


class TestRefusals:
    def refused(self, answer: httpx.Response, status: int, code: str) -> str:
        body = answer.json()
        assert (answer.status_code, body["code"]) == (status, code), body
        assert body["request_id"]
        return str(body["error"])

    @pytest.mark.parametrize(
        ("tensor", "words"),
        [
            (matrix([[1, 2, 3]]), "each row has 4 numbers"),
            (matrix([1, 2, 3, 4]), "one row alone is sent as shape [1, 4]"),
            (matrix(np.zeros((0, 4))), "holds no row"),
            (matrix([["a", "b", "c", "d"]], "BYTES"), "datatype BYTES"),
            (matrix([["a", "b", "c", "d"]]), "Expected `float`, got `str` - at `$[0]`"),
        ],
    )
    def test_say_what_was_sent_and_what_is_wanted(self, replica: Replica, tensor: dict[str, Any], words: str) -> None:
        assert words in self.refused(replica.infer(tensor), 400, "BAD_REQUEST")

    def test_name_the_place_of_nan(self, replica: Replica) -> None:
        body = b'{"instances": [[1, 2, NaN, 4]]}'

        answer = httpx.post(f"{replica.url}/v1/models/iris:predict", content=body)

        assert "nan at [0, 2]; this model takes finite numbers only" in self.refused(answer, 400, "BAD_REQUEST")

    def test_name_the_byte_where_json_ends_to_be_json(self, replica: Replica) -> None:
        answer = httpx.post(f"{replica.url}/v2/models/iris/infer", content=b'{"inputs": oops}')

        assert "(byte 11)" in self.refused(answer, 400, "BAD_REQUEST")

    def test_carry_the_id_of_the_request(self, replica: Replica) -> None:
        answer = httpx.get(f"{replica.url}/nothing", headers={"x-request-id": "r-7"})

        assert answer.json()["request_id"] == "r-7"

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/v2/models/irs", 404, "MODEL_NOT_FOUND"),
            ("GET", "/v2/models/iris/versions/9", 404, "VERSION_NOT_FOUND"),
            ("POST", "/v1/models/iris/versions/9:predict", 404, "VERSION_NOT_FOUND"),
            ("GET", "/v2/models/iris/nothing", 404, "NOT_FOUND"),
            ("GET", "/v2/models/iris/infer", 405, "METHOD_NOT_ALLOWED"),
            ("POST", "/v2/health/live", 405, "METHOD_NOT_ALLOWED"),
        ],
    )
    def test_tell_unknown_paths_apart(self, replica: Replica, method: str, path: str, status: int, code: str) -> None:
        self.refused(httpx.request(method, replica.url + path), status, code)

    def test_refuse_a_large_body_before_it_is_read(self, replica: Replica) -> None:
        with socket.create_connection(("127.0.0.1", replica.port)) as client:
            client.sendall(b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100000001\r\n\r\n")

            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")

    def test_refuse_a_large_body_that_names_no_length(self, replica: Replica) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(30):
                yield b" " * 10_000

        answer = httpx.post(f"{replica.url}/v2/models/iris/infer", content=chunks())

        assert f"at most {LIMIT} are taken" in self.refused(answer, 413, "TOO_LARGE")

    def test_refuse_compressed_bodies_and_binary_ones_where_none_are_read_in_words(self, replica: Replica) -> None:
        binary_field = {"inference-header-content-length": "1"}

        gzip = httpx.post(f"{replica.url}/v2/models/iris/infer", content=b"x", headers={"content-encoding": "gzip"})
        binary = httpx.post(f"{replica.url}/v1/models/iris:predict", content=b"x", headers=binary_field)

        assert "read uncompressed" in self.refused(gzip, 415, "UNSUPPORTED_ENCODING")
        assert "/v1 reads JSON" in self.refused(binary, 400, "BAD_REQUEST")

    def test_a_body_that_is_cut_off_harms_nobody(self, replica: Replica) -> None:
        with socket.create_connection(("127.0.0.1", replica.port)) as client:
            client.sendall(b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")

        assert replica.infer(matrix(models.ONE_ROW)).status_code == 200


class TestBatching:
    def test_many_clients_get_the_answers_to_their_own_rows(self, replica: Replica) -> None:
        features = load_iris().data
        direct = models.iris_estimator(named_classes=True).predict(features).tolist()

        with httpx.Client() as client, ThreadPoolExecutor(16) as pool:

            def ask(row: np.ndarray[Any, Any]) -> Any:
                body = {"instances": [row.tolist()]}
                return client.post(f"{replica.url}/v1/models/iris:predict", json=body).json()["predictions"][0]

            answers = list(pool.map(ask, features))

        assert answers == direct

    def test_metrics_count_rows_and_batches(self, replica: Replica) -> None:
        replica.infer(matrix([models.ONE_ROW[0]] * 3))

        text = httpx.get(f"{replica.url}/metrics").text

        assert 'modelfleet_batch_size_bucket{model="iris",version="1",le="4"}' in text
        assert 'modelfleet_server_load_seconds{model="iris",version="1",phase="loading"}' in text

    def test_shows_what_it_learned_of_the_size_of_batches(self, replica: Replica) -> None:
        for _ in range(20):
            replica.infer(matrix(models.ONE_ROW))

        learned = httpx.get(f"{replica.url}/v2/models/iris").json()["parameters"]["batching"]
        text = httpx.get(f"{replica.url}/metrics").text

        assert learned["max_size"] == "auto"
        assert learned["limit"] >= 1
        assert learned["rows_per_second"]["1"] > 0
        assert 'modelfleet_server_batch_limit{model="iris",version="1"}' in text
        assert 'modelfleet_server_batch_rows_per_second{model="iris",version="1",rows="1"}' in text

    def test_a_caller_that_leaves_is_not_computed_for(self, tmp_path: Path) -> None:
        gate = tmp_path / "go"
        source = f"""
        import pathlib, time
        class Model:
            inputs = [{{"name": "x", "datatype": "FP64", "shape": [-1]}}]
            def load(self, path): ...
            def predict(self, inputs):
                print("asked for", inputs["x"].tolist())
                while inputs["x"][0] == 1 and not pathlib.Path({str(gate)!r}).exists():
                    time.sleep(0.01)
                return inputs["x"]
        """
        one = {"name": "x", "datatype": "FP64", "shape": [1]}
        with (
            ready_replica(models.python(tmp_path / "m", source), backend="python") as replica,
            ThreadPoolExecutor(1) as pool,
        ):
            inside = pool.submit(replica.infer, {**one, "data": [1.0]})
            replica.wait_for_line("asked for [1.0]")
            body = {"inputs": [{**one, "data": [2.0]}]}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{replica.url}/v2/models/iris/infer", json=body, timeout=0.2)
            gate.touch()

            assert inside.result().status_code == 200
            assert replica.infer({**one, "data": [3.0]}).status_code == 200
            assert "asked for [2.0]" not in replica.log
            assert 'code="499"} 1' in httpx.get(f"{replica.url}/metrics").text


class TestOtherBackends:
    def test_onnx_answers_all_its_outputs(self, tmp_path: Path) -> None:
        with ready_replica(models.digits_onnx(tmp_path / "digits"), backend="onnx", model="digits") as replica:
            answer = replica.infer(matrix(np.zeros((2, 64)), "FP32", "X")).json()

        assert [(output["name"], output["shape"]) for output in answer["outputs"]] == [
            ("label", [2]),
            ("probabilities", [2, 10]),
        ]

    def test_lightgbm_takes_missing_values_and_regresses(self, tmp_path: Path) -> None:
        directory = models.iris_lightgbm(tmp_path / "iris", objective="regression")
        with ready_replica(directory, backend="lightgbm") as replica:
            body = b'{"examples": [{"x": [5.1, NaN, 1.4, 0.2]}]}'
            answer = httpx.post(f"{replica.url}/v1/models/iris:regress", content=body).json()

        assert isinstance(answer["results"][0], float)

    def test_python_raises_for_one_request_and_lives_on(self, tmp_path: Path) -> None:
        directory = models.python(
            tmp_path / "words",
            """
            import os

            class Model:
                inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
                outputs = [{"name": "length", "datatype": "INT64", "shape": [-1]}]

                def load(self, path):
                    print("loading with", os.environ["TOKEN"])

                def predict(self, inputs):
                    for text in inputs["text"]:
                        if text == "value":
                            raise ValueError("no values here")
                        if text == "bug":
                            raise KeyError("bug")
                        if text == "exit":
                            raise SystemExit(3)
                    return [len(text) for text in inputs["text"]]
            """,
        )
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "TOKEN").write_text("s3cret\n")
        secrets = str(tmp_path / "secrets")
        with ready_replica(directory, backend="python", model="words", MODELFLEET_SECRETS_DIR=secrets) as replica:
            answers = {
                word: replica.infer({"name": "text", "datatype": "BYTES", "shape": [1], "data": [word]})
                for word in ("value", "bug", "exit", "fine")
            }
            printed = replica.log

        assert [answers[word].status_code for word in ("value", "bug", "exit", "fine")] == [400, 500, 500, 200]
        assert "no values here" in answers["value"].json()["error"]
        assert answers["bug"].json()["code"] == "MODEL_FAILED"
        assert answers["fine"].json()["outputs"][0]["data"] == [4]
        assert "loading with s3cret" in printed
        assert 'raise KeyError(\\"bug\\")' in printed
