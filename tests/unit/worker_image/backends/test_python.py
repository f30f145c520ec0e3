"""Classes of the user's own: what they may leave out, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.fakes import models
from worker_image.server.backends.python import load
from worker_image.server.backends.steps import Steps
from worker_image.server.bfloat16 import BF16
from worker_image.server.errors import ModelFailed

ECHO = """
class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]

    def load(self, path):
        self.path = path

    def predict(self, inputs):
        return inputs["x"]
"""


def refused(directory: Path) -> ModelFailed:
    with pytest.raises(ModelFailed) as failed:
        load(directory, 1)
    return failed.value


class TestPython:
    def test_names_a_single_array_after_the_declared_output(self, tmp_path: Path) -> None:
        model = load(models.python(tmp_path, ECHO), 1)

        assert list(model.predict({"x": np.ones((1, 2), np.float32)}, ("y",))) == ["y"]
        assert model.signature.inputs[0].shape == (-1, 2)

    def test_needs_no_metadata(self, tmp_path: Path) -> None:
        model = load(
            models.python(
                tmp_path,
                """
                class Model:
                    def load(self, path): ...
                    def predict(self, inputs): return {"a": [1], "b": ["text"]}
                """,
            ),
            1,
        )

        assert list(model.predict({}, ())) == ["a", "b"]
        assert model.warmup() is None

    @pytest.mark.parametrize("arguments", ["parameters", "*, parameters", "parameters=None"])
    def test_is_given_the_parameters_that_it_names(self, tmp_path: Path, arguments: str) -> None:
        source = ECHO.replace("predict(self, inputs)", f"predict(self, inputs, {arguments})")
        model = load(models.python(tmp_path, source.replace('inputs["x"]', 'inputs["x"] * parameters["by"]')), 1)

        assert model.signature.takes_parameters
        assert model.predict_with({"x": np.ones((1, 2))}, ("y",), {"by": 3})["y"].tolist() == [[3.0, 3.0]]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
    def test_rounds_what_it_declares_as_bf16(self, tmp_path: Path, dtype: Any) -> None:
        source = ECHO.replace(
            'outputs = [{"name": "y", "datatype": "FP32"', 'outputs = [{"name": "y", "datatype": "BF16"'
        )
        model = load(models.python(tmp_path, source), 1)

        answer = model.predict({"x": np.array([[0.1, 2.0]], dtype)}, ("y",))["y"]

        assert answer.dtype == BF16
        assert answer.tobytes() == np.array([[0.1, 2.0]], ml_dtypes.bfloat16).tobytes()

    def test_keeps_an_optional_argument_of_its_own(self, tmp_path: Path) -> None:
        source = ECHO.replace("predict(self, inputs)", "predict(self, inputs, factor=2)")
        model = load(models.python(tmp_path, source.replace('inputs["x"]', 'inputs["x"] * factor')), 1)

        assert not model.signature.takes_parameters
        assert model.predict({"x": np.ones((1, 2))}, ("y",))["y"].tolist() == [[2.0, 2.0]]

    def test_imports_modules_that_lie_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "beside_model_py.py").write_text("FACTOR = 3")
        source = "from beside_model_py import FACTOR\n" + ECHO.replace('inputs["x"]', 'inputs["x"] * FACTOR')

        model = load(models.python(tmp_path, source), 1)

        assert model.predict({"x": np.ones((1, 2))}, ("y",))["y"].tolist() == [[3.0, 3.0]]

    def test_warms_up_with_its_own_example(self, tmp_path: Path) -> None:
        model = load(models.python(tmp_path, ECHO + "\n    warmup_example = {'x': [[1, 2]]}\n"), 1)

        inputs = model.warmup()

        assert inputs is not None
        assert inputs["x"].dtype == np.float32

    @pytest.mark.parametrize(
        ("source", "code", "words"),
        [
            ("class Model:\n  def load(self", "ARTIFACT_UNREADABLE", "is not Python"),
            ("import no_such_package", "MODULE_MISSING", "needs the Python module 'no_such_package'"),
            ("x = 1", "ARTIFACT_UNREADABLE", "has no class Model"),
            ("class Model:\n  def load(self, path): ...", "ARTIFACT_UNREADABLE", "class Model has no predict()"),
            (
                ECHO.replace("predict(self, inputs)", "predict(self, inputs, options)"),
                "ARTIFACT_UNREADABLE",
                "Model.predict() needs 'inputs', 'options'; it is called as predict(inputs) or predict(inputs, parameters)",
            ),
            (ECHO.replace("FP32", "FLOAT"), "ARTIFACT_UNREADABLE", "datatype 'FLOAT' is not one of"),
            (ECHO.replace('"shape": [-1, 2]', '"size": 2'), "ARTIFACT_UNREADABLE", "Model.inputs"),
            ("class Model:\n  def predict(self, inputs): ...", "ARTIFACT_UNREADABLE", "class Model has no load()"),
            (ECHO.replace("def load(self, path)", "def load(self)"), "ARTIFACT_UNREADABLE", "load() takes no path"),
            (ECHO.replace("return inputs", "yield inputs"), "ARTIFACT_UNREADABLE", "name it predict_stream"),
            (ECHO + "    explain = 3\n", "ARTIFACT_UNREADABLE", "Model.explain is a int; define it as explain(inputs)"),
            (ECHO + "    def predict_batch(self): ...\n", "ARTIFACT_UNREADABLE", "takes no list_of_inputs"),
            (ECHO + "    def predict_stream(self, inputs, n): ...\n", "ARTIFACT_UNREADABLE", "needs 'inputs', 'n'"),
            (ECHO + "    max_streams = 0\n", "ARTIFACT_UNREADABLE", "Model.max_streams is 0"),
            (ECHO + "app = 3\n", "ARTIFACT_UNREADABLE", "app is a int; it is an ASGI application"),
        ],
    )
    def test_says_what_is_wrong_with_model_py(self, tmp_path: Path, source: str, code: str, words: str) -> None:
        failed = refused(models.python(tmp_path, source))

        assert (failed.code, failed.exit_code) == (code, 65)
        assert words in failed.reason

    def test_says_when_model_py_is_missing(self, tmp_path: Path) -> None:
        assert "holds no model.py" in refused(tmp_path).reason


def steps_of(steps: Steps) -> list[Any]:
    taken = []
    while (answer := steps.take()) is not None:
        taken.append({name: tensor.tolist() for name, tensor in answer.items()})
    steps.close()
    return taken


class TestVerbs:
    def test_are_what_the_class_has(self, tmp_path: Path) -> None:
        source = """
            class Model:
                def load(self, path): ...
                def predict_batch(self, list_of_inputs): return [{"n": [len(each["x"])]} for each in list_of_inputs]
                def explain(self, inputs, parameters): return {"why": inputs["x"], "how": [str(parameters)]}
                def predict_stream(self, inputs): yield "a"; yield {"b": 2}
                def unload(self): ...
                app = print
            """

        model = load(models.python(tmp_path, source), 1)

        assert model.signature.verbs == {"batch", "explain", "stream", "http", "unload"}
        assert not model.signature.can_batch
        x = {"x": np.ones(3)}
        assert model.predict(x, ())["n"].tolist() == [3]
        assert [answer["n"].tolist() for answer in model.predict_many([x, {"x": np.ones(5)}], (), {})] == [[3], [5]]
        assert model.explain(x, ("how",), {"k": 1}) == {"how": ["{'k': 1}"]}
        assert steps_of(model.open_stream(x, (), {})) == [{"output": ["a"]}, {"b": [2]}]

    @pytest.mark.parametrize(
        ("returned", "words"),
        [
            ("[{'y': [1]}]", "returned 1 answers for 2 requests"),
            ("{'y': [1]}", "returned a dict; it returns a list"),
            ("[{'y': [[1], [1, 2]]}] * 2", "rows that differ in length"),
            ("[object()] * 2", "is no array of numbers or strings"),
        ],
    )
    def test_a_batch_answers_each_request(self, tmp_path: Path, returned: str, words: str) -> None:
        source = ECHO + f"    def predict_batch(self, list_of_inputs): return {returned}\n"
        model = load(models.python(tmp_path, source), 1)

        with pytest.raises(TypeError) as raised:
            model.predict_many([{"x": np.ones(1)}] * 2, (), {})

        assert words in str(raised.value)

    def test_a_stream_that_is_no_generator_is_an_error(self, tmp_path: Path) -> None:
        model = load(models.python(tmp_path, ECHO + "    def predict_stream(self, inputs): return [1]\n"), 1)

        with pytest.raises(TypeError, match="returned a list; it is a generator"):
            model.open_stream({}, (), {})


ASYNC = """
import asyncio

class Model:
    async def load(self, path):
        self.loop = asyncio.get_running_loop()

    async def predict(self, inputs):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        return inputs["x"] * 2

    async def explain(self, inputs):
        raise SystemExit("of my own")

    async def predict_stream(self, inputs):
        assert asyncio.get_running_loop() is self.loop
        for value in inputs["x"]:
            yield [value]

    async def unload(self):
        self.loop = None
"""


class TestAsync:
    def test_runs_on_one_loop_of_its_own(self, tmp_path: Path) -> None:
        model = load(models.python(tmp_path, ASYNC), 1)

        assert model.is_async
        assert model.predict({"x": np.ones(1)}, ())["output"].tolist() == [2.0]
        answers = steps_of(model.open_stream({"x": np.array([1.0, 2.0])}, (), {}))
        assert answers == [{"output": [1.0]}, {"output": [2.0]}]

    def test_outlives_a_coroutine_that_wants_to_exit(self, tmp_path: Path) -> None:
        model = load(models.python(tmp_path, ASYNC), 1)

        with pytest.raises(SystemExit):
            model.explain({"x": np.ones(1)}, (), {})

        assert model.predict({"x": np.ones(1)}, ())["output"].tolist() == [2.0]
        model.unload()

    def test_a_function_that_computes_is_no_async_model(self, tmp_path: Path) -> None:
        assert not load(models.python(tmp_path, ECHO), 1).is_async
