"""What a class of one's own may do beside predict, and pipelines around models, in a real model server under load."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica

RAGGED = """
class Model:
    inputs = [{"name": "tokens", "datatype": "INT64", "shape": [-1]}, {"name": "k", "datatype": "INT64", "shape": [-1]}]
    warmup_example = {"tokens": [1, 2, 3], "k": [1]}
    calls = []

    def load(self, path): ...

    def predict(self, inputs):
        return self.predict_batch([inputs])[0]

    def predict_batch(self, list_of_inputs):
        self.calls.append(len(list_of_inputs))
        if any(-1 in inputs["tokens"] for inputs in list_of_inputs):
            raise ValueError("a token below 0")
        return [{"top": sorted(inputs["tokens"])[-inputs["k"][0]:]} for inputs in list_of_inputs]

    def explain(self, inputs):
        return {"most": [max(self.calls)], "calls": [len(self.calls)]}
"""


def ragged(tokens: list[int], k: int) -> dict[str, Any]:
    sent = {"tokens": tokens, "k": [k]}
    return {
        "inputs": [{"name": n, "datatype": "INT64", "shape": [len(v)], "data": v} for n, v in sent.items()],
    }


def post(replica: Replica, path: str, body: Any) -> httpx.Response:
    return httpx.post(replica.url + path, json=body, timeout=30)


@pytest.mark.parametrize("instances", [1, 2])
class TestPredictBatch:
    def test_takes_requests_of_any_shape_together_and_one_that_is_wrong_fails_alone(
        self, tmp_path: Path, instances: int
    ) -> None:
        settings = json.dumps({"instances": instances, "batching": {"max_size": 64, "max_delay_ms": 50}})
        directory = models.python(tmp_path / "ragged", RAGGED)
        asked = [([-1] if n == 7 else list(range(n + 1)), n % 3 + 1) for n in range(24)]
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica:
            with ThreadPoolExecutor(24) as pool:
                answers = list(pool.map(lambda a: post(replica, "/v2/models/iris/infer", ragged(*a)), asked))
            explained = post(replica, "/v2/models/iris/explain", ragged([1], 1)).json()["outputs"]

        assert [n for n, answer in enumerate(answers) if answer.status_code != 200] == [7]
        assert "a token below 0" in answers[7].json()["error"]
        for (tokens, k), answer in zip(asked, answers, strict=True):
            if answer.status_code == 200:
                assert answer.json()["outputs"][0]["data"] == sorted(tokens)[-k:]
        # At least one call had several requests, whose tokens could not have been joined.
        assert explained[0]["data"][0] > 1


class TestExplain:
    def test_answers_in_both_protocols(self, tmp_path: Path) -> None:
        source = """
            class Model:
                inputs = [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]
                def load(self, path): self.weights = [1, 10]
                def predict(self, inputs): return inputs["x"] @ self.weights
                def explain(self, inputs, parameters):
                    return {"share": inputs["x"] * self.weights, "base": [float(parameters.get("base", 0))]}
            """
        row = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}
        with ready_replica(models.python(tmp_path / "linear", source), backend="python") as replica:
            v1 = post(replica, "/v1/models/iris:explain", {"instances": [[1, 2], [3, 4]]})
            v2 = post(replica, "/v2/models/iris/explain", {"inputs": [row], "parameters": {"base": 5}})
            chosen = post(replica, "/v2/models/iris/explain", {"inputs": [row], "outputs": [{"name": "share"}]})
            wrong = post(replica, "/v1/models/iris:explain", {"instances": [[1, 2, 3]]})

        assert v1.json() == {"explanations": {"share": [[1.0, 20.0], [3.0, 40.0]], "base": [0.0]}}
        assert {o["name"]: o["data"] for o in v2.json()["outputs"]} == {"share": [1.0, 20.0], "base": [5.0]}
        assert [o["name"] for o in chosen.json()["outputs"]] == ["share"]
        assert (wrong.status_code, "each row has 2 numbers" in wrong.json()["error"]) == (400, True)

    def test_a_model_without_one_says_what_to_ask(self, tmp_path: Path) -> None:
        with ready_replica(models.iris(tmp_path / "iris")) as replica:
            answer = post(replica, "/v1/models/iris:explain", {"instances": models.ONE_ROW})

        assert answer.status_code == 400
        assert "has no explain()" in answer.json()["error"]

    def test_is_not_answered_from_the_cache_of_predictions(self, tmp_path: Path) -> None:
        source = """
            class Model:
                def load(self, path): ...
                def predict(self, inputs): return inputs["x"]
                def explain(self, inputs): return inputs["x"] * 100
            """
        settings = json.dumps({"cache": {"ttl_s": 60, "max_bytes": 1_000_000}})
        row = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}]}
        directory = models.python(tmp_path / "m", source)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica:
            answers = [post(replica, f"/v2/models/iris/{verb}", row).json() for verb in ("infer", "explain", "infer")]

        assert [answer["outputs"][0]["data"][0] for answer in answers] == [1.0, 100.0, 1.0]


class TestAsync:
    def test_predictions_that_wait_do_so_at_the_same_time(self, tmp_path: Path) -> None:
        """Each waits for the others: one at a time, none would ever be answered."""
        source = """
            import asyncio

            class Model:
                inputs = [{"name": "x", "datatype": "FP64", "shape": [1]}]
                async def load(self, path): self.barrier = None
                async def predict(self, inputs):
                    if inputs["x"][0] == 0:
                        return inputs["x"]
                    self.barrier = self.barrier or asyncio.Barrier(16)
                    await self.barrier.wait()
                    return inputs["x"] * 2
            """
        directory = models.python(tmp_path / "waiting", source)
        with ready_replica(directory, backend="python") as replica, ThreadPoolExecutor(16) as pool:

            def ask(value: int) -> Any:
                tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}
                return replica.infer(tensor).json()["outputs"][0]["data"][0]

            assert list(pool.map(ask, range(1, 17))) == [value * 2 for value in range(1, 17)]

    def test_one_that_hangs_is_ended_as_any_other(self, tmp_path: Path) -> None:
        source = """
            import asyncio

            class Model:
                def load(self, path): ...
                async def predict(self, inputs): await asyncio.sleep(100)
            """
        settings = json.dumps({"predict_timeout_s": 0.5})
        directory = models.python(tmp_path / "hung", source)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica:
            answer = replica.infer({"name": "x", "datatype": "FP64", "shape": [1], "data": [1]})

            assert (answer.status_code, answer.json()["code"]) == (500, "MODEL_FAILED")
            assert replica.exit_code() == 72


SCALED = """
    import numpy as np

    inputs = [{"name": "tenths", "datatype": "FP64", "shape": [-1, COLUMNS]}]

    def preprocess(inputs):
        if (inputs["tenths"] < 0).any():
            raise ValueError("a length below 0")
        return (inputs["tenths"] / 10).astype(TYPE)

    def postprocess(outputs, inputs):
        scores = next(tensor for name, tensor in outputs.items() if tensor.ndim == 2)
        return {"best": scores.argmax(axis=1), "sure": scores.max(axis=1), "sum": inputs["tenths"].sum(axis=1)}
    """


@pytest.mark.parametrize(
    ("backend", "make", "columns", "head"),
    [
        ("sklearn", models.iris, 4, "model_outputs = ['predict_proba']"),
        ("onnx", models.digits_onnx, 64, ""),
    ],
)
@pytest.mark.parametrize("instances", [1, 2])
class TestPipelines:
    def test_a_batch_through_one_answers_as_each_row_alone(
        self, tmp_path: Path, backend: str, make: Any, columns: int, head: str, instances: int
    ) -> None:
        directory = make(tmp_path / "model")
        source = dedent(SCALED).replace("COLUMNS", str(columns))
        source = source.replace("TYPE", "np.float32" if backend == "onnx" else "np.float64")
        (directory / "pipeline.py").write_text(f"{head}\n{source}")
        rows = np.random.default_rng(1).integers(0, 80, (40, columns)).astype(np.float64)
        settings = json.dumps({"instances": instances, "batching": {"max_size": 16, "max_delay_ms": 20}})

        with ready_replica(directory, backend=backend, MODELFLEET_SETTINGS=settings) as replica:

            def ask(row: Any) -> Any:
                tensor = {"name": "tenths", "datatype": "FP64", "shape": [1, columns], "data": row.tolist()}
                answer = replica.infer(tensor)
                return [output["data"][0] for output in answer.json()["outputs"]] if answer.is_success else answer

            alone = [ask(row) for row in rows]
            with ThreadPoolExecutor(40) as pool:
                together = list(pool.map(ask, [*rows, -rows[0] - 1]))

        assert np.array(together[:-1]) == pytest.approx(np.array(alone), rel=1e-4)
        assert together[-1].status_code == 400
        assert (
            "preprocess() refused the input: ValueError: a length below 0 (pipeline.py:" in together[-1].json()["error"]
        )
        assert [row[2] for row in alone] == rows.sum(axis=1).tolist()
