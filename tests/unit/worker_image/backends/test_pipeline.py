"""Functions before and after a model: what they get, what they may leave out, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from tests.fakes import models
from worker_image.server.backends import onnx, python, sklearn
from worker_image.server.backends.base import Model
from worker_image.server.backends.pipeline import wrap
from worker_image.server.errors import ModelFailed, RequestError
from worker_image.server.loading import load
from worker_image.server.settings import Settings, Tuning

FLOWERS = """
    import numpy as np

    inputs = [{"name": "cm", "datatype": "BYTES", "shape": [-1]}]
    outputs = [{"name": "flower", "datatype": "BYTES", "shape": [-1]}]
    warmup_example = {"cm": ["5.1 3.5 1.4 0.2"]}
    model_outputs = ["predict_proba"]

    def load(path):
        global NAMES
        NAMES = (path / "names.txt").read_text().split()

    def preprocess(inputs):
        return {"x": np.array([[float(word) for word in row.split()] for row in inputs["cm"]])}

    def postprocess(outputs, inputs):
        best = outputs["predict_proba"].argmax(axis=1)
        return {"flower": [f"{NAMES[i]} of {row}" for i, row in zip(best, inputs["cm"])]}
    """


def pipeline(directory: Path, source: str, make: Callable[[Path], Path] = models.iris) -> Path:
    make(directory)
    (directory / "names.txt").write_text("setosa versicolor virginica")
    (directory / "pipeline.py").write_text(dedent(source))
    return directory


def wrapped(directory: Path, source: str) -> Model:
    pipeline(directory, source)
    return wrap(sklearn.load(directory, 1), directory / "pipeline.py")


def refused(directory: Path, source: str) -> ModelFailed:
    with pytest.raises(ModelFailed) as failed:
        wrapped(directory, source)
    return failed.value


class TestAroundAModel:
    def test_both_functions_and_what_they_declare(self, tmp_path: Path) -> None:
        model = wrapped(tmp_path, FLOWERS)

        answer = model.predict({"cm": np.array(["5.1 3.5 1.4 0.2", "6.3 3.3 6.0 2.5"], object)}, ("flower",))

        assert answer["flower"].tolist() == ["setosa of 5.1 3.5 1.4 0.2", "virginica of 6.3 3.3 6.0 2.5"]
        assert [spec.name for spec in model.signature.inputs] == ["cm"]
        assert model.signature.platform == "sklearn_LogisticRegression"
        assert not model.is_steady

    def test_is_loaded_and_warmed_up_like_a_model(self, tmp_path: Path) -> None:
        directory = pipeline(tmp_path / "iris", FLOWERS)
        settings = Settings("iris", "1", "sklearn", directory, "127.0.0.1", 1, 1, Tuning())

        loaded = load(settings, lambda _: None)

        assert [(spec.name, spec.shape) for spec in loaded.signature.outputs] == [("flower", (-1,))]
        with pytest.raises(RequestError) as failed:
            loaded.predict({"cm": np.array(["5.1 x"], object)}, ("flower",))
        assert failed.value.code == "BAD_REQUEST"
        assert "preprocess() refused the input: ValueError: could not convert string to float" in failed.value.sentence
        assert "(pipeline.py:14)" in failed.value.sentence

    def test_postprocess_alone_leaves_the_inputs_as_they_are(self, tmp_path: Path) -> None:
        model = wrapped(tmp_path, "def postprocess(outputs): return outputs['predict'] * 10")

        assert model.predict({"x": np.array([[6.3, 3.3, 6.0, 2.5]])}, ())["output"].tolist() == [20]
        assert model.signature.matrix is not None
        assert model.warmup() is not None

    def test_preprocess_alone_leaves_the_outputs_as_they_are(self, tmp_path: Path) -> None:
        model = wrapped(tmp_path, "def preprocess(inputs): return inputs['mm'] / 10")

        answer = model.predict({"mm": np.array([[63, 33, 60, 25.0]])}, ("predict", "predict_proba"))

        assert list(answer) == ["predict", "predict_proba"]
        assert model.warmup() is None

    def test_around_a_model_of_ones_own_and_parameters(self, tmp_path: Path) -> None:
        source = """
            class Model:
                def load(self, path): ...
                def predict(self, inputs, parameters): return inputs["x"] * parameters.get("by", 1)
            """
        models.python(tmp_path, source)
        file = tmp_path / "pipeline.py"
        file.write_text("def preprocess(inputs, parameters): return {'x': inputs['x'] + parameters.get('plus', 0)}")
        model: Any = wrap(python.load(tmp_path, 1), file)

        assert model.signature.takes_parameters
        answer = model.predict_with({"x": np.array([1.0])}, (), {"plus": 2, "by": 10})
        assert answer["output"].tolist() == [30.0]

    def test_around_onnx(self, tmp_path: Path) -> None:
        source = """
            import numpy as np
            def preprocess(inputs): return (inputs["pixels"] / 16).astype(np.float32)
            """
        pipeline(tmp_path, source, models.digits_onnx)
        model = wrap(onnx.load(tmp_path, 1), tmp_path / "pipeline.py")
        direct = onnx.load(tmp_path, 1)
        pixels = np.arange(128, dtype=np.float64).reshape(2, 64) % 17
        names = tuple(spec.name for spec in direct.signature.outputs)
        (given,) = direct.signature.inputs

        answer = model.predict({"pixels": pixels}, names)

        expected = direct.predict({given.name: (pixels / 16).astype(np.float32)}, names)
        assert all((answer[name] == expected[name]).all() for name in names)


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("def preprocess(:", "is not Python"),
            ("async def preprocess(inputs): ...", "preprocess() is `async def`"),
            ("def preprocess(inputs): yield 1", "preprocess() yields"),
            ("def preprocess(inputs, extra): ...", "preprocess() needs 'inputs', 'extra'"),
            ("def postprocess(): ...", "postprocess() takes no outputs"),
            ("preprocess = 3", "preprocess is a int"),
            ("inputs = ['x']\ndef preprocess(inputs): ...", "pipeline.py: inputs: ['x']"),
            ("model_outputs = ['nothing']\ndef postprocess(outputs): ...", "model_outputs: ['nothing']"),
            ("import no_such_package\ndef preprocess(inputs): ...", "needs the Python module 'no_such_package'"),
        ],
    )
    def test_is_said_when_it_is_loaded(self, tmp_path: Path, source: str, words: str) -> None:
        assert words in refused(tmp_path, source).reason

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (
                "def preprocess(inputs): return inputs['mm'][:, :3]",
                "gave what the model does not take: input 'x': shape",
            ),
            (
                "def preprocess(inputs): return inputs['nothing']",
                "preprocess() raised KeyError: 'nothing' (pipeline.py:1)",
            ),
            (
                "def postprocess(outputs): return 1 / 0",
                "postprocess() raised ZeroDivisionError: division by zero (pipeline.py:1)",
            ),
            ("def postprocess(outputs): return object()", "postprocess() returned a object that is no array"),
        ],
    )
    def test_is_said_of_a_request(self, tmp_path: Path, source: str, words: str) -> None:
        model = wrapped(tmp_path, source)
        inputs = {"mm" if "preprocess" in source else "x": np.ones((1, 4))}

        with pytest.raises(RequestError) as failed:
            model.predict(inputs, ())

        assert failed.value.code == "MODEL_FAILED"
        assert words in failed.value.sentence

    def test_a_file_with_neither_function_is_somebody_elses_and_is_not_run(self, tmp_path: Path) -> None:
        directory = models.iris(tmp_path / "iris")
        (directory / "pipeline.py").write_text("class Pipeline: ...\nraise SystemExit")
        model = sklearn.load(directory, 1)

        assert wrap(model, directory / "pipeline.py") is model

    def test_a_model_that_streams_does_it_itself(self, tmp_path: Path) -> None:
        source = """
            class Model:
                def load(self, path): ...
                def predict_stream(self, inputs): yield 1
            """
        models.python(tmp_path, source)
        file = tmp_path / "pipeline.py"
        file.write_text("def preprocess(inputs): return inputs")

        with pytest.raises(ModelFailed, match=r"goes around predict\(\) alone, and the model has more \(stream\)"):
            wrap(python.load(tmp_path, 1), file)
