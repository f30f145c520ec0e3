"""LightGBM text models, really trained."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from tests.fakes import models
from worker_image.server.backends.lightgbm import load
from worker_image.server.errors import ModelFailed


class TestLightgbm:
    def test_answers_as_the_booster_does_and_takes_missing_values(self, tmp_path: Path) -> None:
        models.iris_lightgbm(tmp_path)
        rows = np.array([[5.1, np.nan, 1.4, 0.2]])

        answer = load(tmp_path, 1).predict({"x": rows}, ("predict",))

        direct = lightgbm.Booster(model_file=tmp_path / "model.txt").predict(rows)
        np.testing.assert_array_equal(answer["predict"], direct)

    def test_scores_classes_by_their_index(self, tmp_path: Path) -> None:
        signature = load(models.iris_lightgbm(tmp_path), 1).signature

        assert (signature.scores, signature.labels) == ("predict", ("0", "1", "2"))

    def test_gives_a_value_for_a_regression(self, tmp_path: Path) -> None:
        signature = load(models.iris_lightgbm(tmp_path, objective="regression"), 1).signature

        assert signature.value == "predict"

    @pytest.mark.parametrize("kept", [0, 40, 1000, -40])
    def test_refuses_a_truncated_file_which_lightgbm_itself_would_take(self, tmp_path: Path, kept: int) -> None:
        file = models.iris_lightgbm(tmp_path) / "model.txt"
        text = file.read_text()
        whole = text[: text.index("end of parameters") + len("end of parameters")]
        file.write_text(whole[:kept])

        with pytest.raises(ModelFailed, match="is no whole LightGBM model") as failed:
            load(tmp_path, 1)

        assert failed.value.exit_code == 65
