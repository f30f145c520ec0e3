"""signature.json: what an author says of a model that does not say it itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import models
from worker_image.server.declared import Declared, apply, read
from worker_image.server.errors import ModelFailed
from worker_image.server.loading import Loaded, load
from worker_image.server.settings import read as read_settings
from worker_image.server.tensors import Signature, TensorSpec

X = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
SILENT = """
    class Model:
        def load(self, path): ...
        def predict(self, inputs): return inputs["x"].sum(axis=1)
"""


def written(directory: Path, **content: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "signature.json").write_text(json.dumps(content))
    return directory


class TestRead:
    def test_gives_inputs_and_outputs(self, tmp_path: Path) -> None:
        said = read(written(tmp_path, inputs=[X]))

        assert said == Declared(inputs=(TensorSpec("x", "FP32", (-1, 4)),))

    def test_nothing_was_said_where_there_is_no_file(self, tmp_path: Path) -> None:
        assert read(tmp_path) == Declared()

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("{", "Input data was truncated"),
            ('{"input": []}', "unknown field `input`"),
            ('{"inputs": [{"name": "x", "datatype": "FP32"}]}', "missing required field `shape`"),
            (json.dumps({"inputs": [{**X, "datatype": "FLOAT"}]}), "inputs[0].datatype: 'FLOAT' is not one of BOOL,"),
            (json.dumps({"outputs": [{**X, "shape": [0, 4]}]}), "outputs[0].shape: [0, 4] has a length"),
            (json.dumps({"inputs": [X, X]}), "inputs[1].name: 'x' stands there twice"),
        ],
    )
    def test_a_wrong_file_is_refused_with_what_is_wrong_in_it(self, tmp_path: Path, content: str, said: str) -> None:
        (tmp_path / "signature.json").write_text(content)

        with pytest.raises(ModelFailed) as failed:
            read(tmp_path)

        assert failed.value.exit_code == 65
        assert said in failed.value.reason
        assert 'it has the form {"inputs": ' in failed.value.reason


class TestApply:
    KNOWN = Signature("p", (TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1,)),), ("y",))

    def test_says_what_the_model_left_open(self) -> None:
        said = Declared((TensorSpec("x", "FP32", (-1, 4)),))

        assert apply(self.KNOWN, said).inputs == (TensorSpec("x", "FP32", (-1, 4)),)
        assert apply(Signature("p", (), ()), said).inputs == said.inputs

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            (TensorSpec("z", "FP32", (-1, 4)), "inputs: the model has no 'z', but 'x'"),
            (TensorSpec("x", "INT64", (-1, 4)), "inputs: the model wants 'x' as FP32, not INT64"),
            (TensorSpec("x", "FP32", (4,)), "inputs: 'x' has shape [-1, -1], not [4]"),
        ],
    )
    def test_refuses_what_contradicts_the_model(self, spec: TensorSpec, said: str) -> None:
        with pytest.raises(ModelFailed) as failed:
            apply(self.KNOWN, Declared((spec,)))

        assert said in failed.value.reason


def loaded(directory: Path) -> Loaded:
    environ = {
        "MODELFLEET_MODEL": "m",
        "MODELFLEET_VERSION": "1",
        "MODELFLEET_BACKEND": "python",
        "MODELFLEET_MODEL_DIR": str(directory),
    }
    return load(read_settings(environ), lambda _: None)


def test_a_model_that_says_nothing_is_warmed_up_and_checked_by_it(tmp_path: Path) -> None:
    model = loaded(written(models.python(tmp_path, SILENT), inputs=[X]))

    assert model.signature.inputs == (TensorSpec("x", "FP32", (-1, 4)),)
    assert model.signature.outputs == (TensorSpec("output", "FP32", (-1,)),)
    assert model.signature.value == "output"
    assert model.predict({"x": np.ones((2, 4), np.float32)}, ())["output"].tolist() == [4.0, 4.0]


class TestLabels:
    SCORES = SILENT.replace('inputs["x"].sum(axis=1)', 'inputs["x"][:, :2]')
    # The model itself answers FP32: what is declared of an output need not be its type.
    OUTPUT = {"name": "output", "datatype": "FP64", "shape": [-1, 2]}  # noqa: RUF012

    def test_name_the_columns_of_an_output(self, tmp_path: Path) -> None:
        output = {**self.OUTPUT, "labels": ["no", "yes"]}

        signature = loaded(written(models.python(tmp_path, self.SCORES), inputs=[X], outputs=[output])).signature

        assert (signature.scores, signature.labels) == ("output", ("no", "yes"))
        assert signature.outputs[0].datatype == "FP32"

    def test_that_are_too_few_are_refused_before_the_model_is_ready(self, tmp_path: Path) -> None:
        output = {**self.OUTPUT, "labels": ["no"]}

        with pytest.raises(ModelFailed) as failed:
            loaded(written(models.python(tmp_path, self.SCORES), inputs=[X], outputs=[output]))

        assert "outputs: 'output' has shape [-1, 2] and 1 labels" in failed.value.reason
