"""Models that MLflow itself has logged, trained here.

Needs mlflow and scikit-learn: skipped where they are not installed, and run in the mlflow image by
tests/integration/test_deep_learning.py.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed here")
pd = pytest.importorskip("pandas", reason="pandas is not installed here")

from mlflow.models import infer_signature  # type: ignore[import-not-found] # noqa: E402
from mlflow.types.schema import (  # type: ignore[import-not-found] # noqa: E402
    ColSpec,
    ParamSchema,
    ParamSpec,
    Schema,
    TensorSpec,
)
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.datasets import load_iris  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder  # noqa: E402

from worker_image.server.errors import ModelFailed, RequestError  # noqa: E402
from worker_image.server.loading import Loaded, load  # noqa: E402
from worker_image.server.settings import read  # noqa: E402

IRIS = load_iris(as_frame=True)
COLUMNS = list(IRIS.data.columns)
PINS = ["scikit-learn"]


def iris(directory: Path, **more: Any) -> Path:
    model = LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target_names[IRIS.target])
    signature = infer_signature(IRIS.data, model.predict(IRIS.data))
    save(model, directory, signature=signature, **more)
    return directory


def save(model: Any, directory: Path, **more: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how = {"serialization_format": "cloudpickle", "pip_requirements": PINS}
        mlflow.sklearn.save_model(model, str(directory), **how | more)


def pyfunc(directory: Path, function: Any, signature: Any = None, **more: Any) -> Path:
    class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return function(model_input, params)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(directory), python_model=Model(), signature=signature, pip_requirements=PINS, **more
        )
    return directory


def ready(directory: Path) -> Loaded:
    environ = {
        "MODELFLEET_MODEL": "m",
        "MODELFLEET_VERSION": "1",
        "MODELFLEET_BACKEND": "mlflow",
        "MODELFLEET_MODEL_DIR": str(directory),
    }
    return load(read(environ), lambda _: None)


def shown(specs: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.datatype, spec.shape) for spec in specs]


class TestColumns:
    def test_are_inputs_by_name_with_their_types(self, tmp_path: Path) -> None:
        model = ready(iris(tmp_path / "m"))

        assert shown(model.signature.inputs) == [(name, "FP64", (-1,)) for name in COLUMNS]
        assert shown(model.signature.outputs) == [("predict", "BYTES", (-1,))]
        assert model.signature.platform == "mlflow_sklearn"
        assert model.signature.can_batch

    def test_answer_as_mlflow_does_by_column_and_as_a_grid(self, tmp_path: Path) -> None:
        model = ready(iris(tmp_path / "m"))

        by_name = model.predict({name: IRIS.data[name].to_numpy() for name in COLUMNS}, ())["predict"]
        as_grid = model.predict({"x": IRIS.data.to_numpy()}, ())["predict"]

        direct = mlflow.pyfunc.load_model(str(tmp_path / "m")).predict(IRIS.data)
        assert by_name.tolist() == as_grid.tolist() == list(direct)

    def test_of_strings_are_warmed_up_with_the_logged_example(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"colour": ["red", "blue", "red", "blue"], "size": [1, 2, 3, 4]})
        encode = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
        model = make_pipeline(encode, LogisticRegression()).fit(frame, [0, 1, 0, 1])
        save(model, tmp_path / "m", signature=infer_signature(frame, [0]), input_example=frame.head(1))

        served = ready(tmp_path / "m")

        assert shown(served.signature.inputs) == [("colour", "BYTES", (-1,)), ("size", "INT64", (-1,))]
        assert shown(served.signature.outputs) == [("predict", "INT64", (-1,))]
        inputs = {"colour": np.array(["blue", "red"], dtype=object), "size": np.array([2, 3], np.int64)}
        assert served.predict(inputs, ())["predict"].tolist() == [1, 0]

    def test_that_need_not_be_there_may_be_left_out(self, tmp_path: Path) -> None:
        columns = [ColSpec("double", "a"), ColSpec("string", "note", required=False)]
        schema = mlflow.models.ModelSignature(Schema(columns))
        model = ready(pyfunc(tmp_path / "m", lambda data, _: [",".join(data.columns)] * len(data), schema))
        note = np.array(["x"], dtype=object)

        assert shown(model.signature.optional) == [("note", "BYTES", (-1,))]
        assert model.predict({"a": np.array([1.0])}, ())["predict"].tolist() == ["a"]
        assert model.predict({"a": np.array([1.0]), "note": note}, ())["predict"].tolist() == ["a,note"]

    def test_a_value_that_does_not_fit_is_the_callers_fault(self, tmp_path: Path) -> None:
        schema = infer_signature(pd.DataFrame({"a": np.array([1], np.int32)}))
        model = ready(pyfunc(tmp_path / "m", lambda data, _: data["a"], schema))

        with pytest.raises(RequestError, match=r"holds a number beyond -2147483648\.\.2147483647") as failed:
            model.predict({"a": np.array([2**40])}, ())

        assert failed.value.status == 400


class TestTensors:
    def test_keep_types_and_shapes(self, tmp_path: Path) -> None:
        example = np.zeros((2, 3), np.float32)
        model = ready(pyfunc(tmp_path / "m", lambda data, _: data.sum(axis=1), infer_signature(example, example[:, 0])))

        answer = model.predict({"any name": np.ones((2, 3), np.float32)}, ())

        assert shown(model.signature.inputs) == [("x", "FP32", (-1, 3))]
        assert {name: values.tolist() for name, values in answer.items()} == {"predict": [3.0, 3.0]}

    def test_with_names_are_given_by_name(self, tmp_path: Path) -> None:
        kinds = [TensorSpec(np.dtype(np.int64), (-1, 2), "a"), TensorSpec(np.dtype(np.float64), (-1,), "b")]
        schema = mlflow.models.ModelSignature(Schema(kinds))
        model = ready(pyfunc(tmp_path / "m", lambda data, _: {"out": data["a"].sum(axis=1) * data["b"]}, schema))

        answer = model.predict({"a": np.array([[1, 2]]), "b": np.array([2.0])}, ("out",))

        assert answer["out"].tolist() == [6.0]


class TestParameters:
    SCHEMA = ParamSchema([ParamSpec("by", "integer", 2)])

    def test_are_those_of_a_request(self, tmp_path: Path) -> None:
        schema = mlflow.models.ModelSignature(Schema([ColSpec("double", "a")]), None, self.SCHEMA)
        model = ready(pyfunc(tmp_path / "m", lambda data, params: data["a"] * params["by"], schema))
        inputs = {"a": np.array([1.5])}

        assert model.signature.takes_parameters
        assert model.predict(inputs, ())["a"].tolist() == [3.0]
        assert model.predict(inputs, (), {"by": 4})["a"].tolist() == [6.0]

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [({"times": 4}, "parameter 'times' is not one of the model's; it takes 'by'"), ({"by": "many"}, "by")],
    )
    def test_that_are_wrong_are_the_callers_fault(self, tmp_path: Path, parameters: dict[str, Any], said: str) -> None:
        schema = mlflow.models.ModelSignature(Schema([ColSpec("double", "a")]), None, self.SCHEMA)
        model = ready(pyfunc(tmp_path / "m", lambda data, params: data["a"], schema))

        with pytest.raises(RequestError) as failed:
            model.predict({"a": np.array([1.5])}, (), parameters)

        assert failed.value.status == 400
        assert said in failed.value.sentence


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "named"),
        [
            (lambda n: pd.DataFrame({"p": [0.5] * n, "q": ["a"] * n}), {"p": [0.5, 0.5], "q": ["a", "a"]}),
            (lambda n: pd.Series([1] * n, name="score"), {"score": [1, 1]}),
            (lambda n: [{"p": 1, "q": "a"}] * n, {"p": [1, 1], "q": ["a", "a"]}),
            (lambda n: ["a"] * n, {"predict": ["a", "a"]}),
            (lambda n: pd.DataFrame({"c": pd.Categorical(["x"] * n)}), {"c": ["x", "x"]}),
            (lambda n: np.array([{"k": 1}] * n, dtype=object), {"predict": ['{"k": 1}', '{"k": 1}']}),
        ],
    )
    def test_of_every_kind_become_tensors(self, tmp_path: Path, answer: Any, named: dict[str, Any]) -> None:
        model = ready(pyfunc(tmp_path / "m", lambda data, _: answer(len(data))))

        given = model.predict({"a": np.array([1.0, 2.0])}, ())

        assert {name: tensor.tolist() for name, tensor in given.items()} == named


class TestRefusals:
    def test_a_folder_without_its_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match="reads a folder with a file MLmodel") as failed:
            ready(tmp_path)

        assert failed.value.code == "ARTIFACT_MISSING"

    @pytest.mark.parametrize(
        ("spoil", "code", "said"),
        [
            (lambda folder: (folder / "MLmodel").write_text("{"), "ARTIFACT_UNREADABLE", "cannot be read by MLflow"),
            (
                lambda folder: (folder / "MLmodel").write_text("flavors: {keras: {}}"),
                "ARTIFACT_UNREADABLE",
                "has no flavour python_function, but keras",
            ),
            (
                lambda folder: (folder / "model.pkl").write_bytes((folder / "model.pkl").read_bytes()[:100]),
                "ARTIFACT_UNREADABLE",
                "is not whole",
            ),
            (lambda folder: (folder / "model.pkl").unlink(), "ARTIFACT_UNREADABLE", "is not whole"),
            (
                lambda folder: (folder / "MLmodel").write_text(
                    (folder / "MLmodel").read_text().replace("mlflow.sklearn", "not_installed_at_all")
                ),
                "MODULE_MISSING",
                "needs the Python module 'not_installed_at_all'",
            ),
        ],
    )
    def test_a_folder_that_cannot_be_served_says_why(self, tmp_path: Path, spoil: Any, code: str, said: str) -> None:
        folder = iris(tmp_path / "m")
        spoil(folder)

        with pytest.raises(ModelFailed) as failed:
            ready(folder)

        assert (failed.value.code, failed.value.exit_code) == (code, 65)
        assert said in failed.value.reason
