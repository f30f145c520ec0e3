"""ONNX files exported from a really trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.fakes import models
from worker_image.server.backends.onnx import load
from worker_image.server.errors import ModelFailed


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.digits_onnx(tmp_path_factory.mktemp("digits"))


class TestOnnx:
    def test_shows_the_files_own_names_datatypes_and_shapes(self, digits: Path) -> None:
        signature = load(digits, 1).signature

        assert [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs] == [("X", "FP32", (-1, 64))]
        assert [spec.name for spec in signature.outputs] == ["label", "probabilities"]
        assert signature.default_outputs == ("label", "probabilities")

    def test_answers_as_onnxruntime_does(self, digits: Path) -> None:
        image = np.random.default_rng(0).uniform(0, 1, (3, 64)).astype(np.float32)

        answer = load(digits, 1).predict({"X": image}, ("probabilities",))

        direct = ort.InferenceSession(digits / "model.onnx").run(["probabilities"], {"X": image})[0]
        np.testing.assert_array_equal(answer["probabilities"], direct)

    def test_warms_up_with_a_blank_row(self, digits: Path) -> None:
        inputs = load(digits, 1).warmup()

        assert inputs is not None
        assert inputs["X"].shape == (1, 64)

    def test_refuses_outputs_that_are_no_tensors(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match="zipmap") as failed:
            load(models.digits_onnx(tmp_path, zipmap=True), 1)

        assert failed.value.exit_code == 65

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 40])
    def test_refuses_what_is_no_whole_onnx_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.onnx").write_bytes(content)

        with pytest.raises(ModelFailed) as failed:
            load(tmp_path, 1)

        assert failed.value.exit_code == 65

    def test_refuses_a_truncated_file(self, digits: Path, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes((digits / "model.onnx").read_bytes()[:-100])

        with pytest.raises(ModelFailed, match="cannot be read as ONNX"):
            load(tmp_path, 1)
