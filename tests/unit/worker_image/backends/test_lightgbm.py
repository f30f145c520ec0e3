"""LightGBM text models, really trained."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from tests.fakes import models
from worker_image.server.backends.lightgbm import load
from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import datatype_of, fit

IRIS, SPECIES = load_iris(return_X_y=True)


def shop(directory: Path) -> tuple[pd.DataFrame, lightgbm.Booster]:
    """A model of two categorical columns and one of numbers, saved; with what it was trained on."""
    chance = np.random.default_rng(0)
    city, size = chance.choice(["bonn", "oslo", "rome"], 300), chance.choice([10, 20], 300)
    age = chance.normal(size=300)
    frame = pd.DataFrame({"city": pd.Categorical(city), "age": age, "size": pd.Categorical(size)})
    settings = {"verbose": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 1}
    target = (city == "oslo") * 2.0 + age + size
    booster = lightgbm.train(settings, lightgbm.Dataset(frame, target, params=settings), num_boost_round=10)
    booster.save_model(directory / "model.txt")
    return frame, booster


class TestLightgbm:
    def test_answers_as_the_booster_does_and_takes_missing_values(self, tmp_path: Path) -> None:
        models.iris_lightgbm(tmp_path)
        rows = np.array([[5.1, np.nan, 1.4, 0.2]])

        answer = load(tmp_path, 1).predict({"x": rows}, ("predict",))

        direct = lightgbm.Booster(model_file=tmp_path / "model.txt").predict(rows)
        np.testing.assert_array_equal(answer["predict"], direct)

    def test_scores_classes_by_their_index_unless_labels_lie_beside(self, tmp_path: Path) -> None:
        directory = models.iris_lightgbm(tmp_path)
        by_index = load(directory, 1).signature
        (directory / "labels.json").write_text('["setosa", "versicolor", "virginica"]')
        by_name = load(directory, 1)

        answer = by_name.predict({"x": IRIS}, ("predict", "predict_proba", "label"))

        assert (by_index.scores, by_index.labels) == ("predict_proba", ("0", "1", "2"))
        assert by_name.signature.labels == ("setosa", "versicolor", "virginica")
        np.testing.assert_array_equal(answer["predict_proba"], answer["predict"])
        assert answer["label"][[0, -1]].tolist() == ["setosa", "virginica"]

    @pytest.mark.parametrize("objective", ["multiclass", "binary", "regression"])
    def test_gives_scores_leaves_and_contributions_as_the_booster_does(self, tmp_path: Path, objective: str) -> None:
        model = load(models.iris_lightgbm(tmp_path, objective=objective), 1)
        names = tuple(spec.name for spec in model.signature.outputs)

        answer = model.predict({"x": IRIS[:7]}, names)

        booster = lightgbm.Booster(model_file=tmp_path / "model.txt")
        np.testing.assert_array_equal(answer["predict"], booster.predict(IRIS[:7]))
        np.testing.assert_array_equal(answer["raw_score"], booster.predict(IRIS[:7], raw_score=True))
        np.testing.assert_array_equal(answer["leaf"], booster.predict(IRIS[:7], pred_leaf=True))
        shares = booster.predict(IRIS[:7], pred_contrib=True)
        np.testing.assert_array_equal(answer["contributions"].reshape(7, -1), shares)
        lazy = [spec for spec in model.signature.outputs if spec.lazy]
        assert {name: tensor.shape for name, tensor in answer.items()} == {
            spec.name: (7, *spec.shape[1:]) for spec in model.signature.outputs
        }
        assert [datatype_of(answer[spec.name].dtype) for spec in lazy] == [spec.datatype for spec in lazy]

    def test_answers_several_threads_the_same(self, tmp_path: Path) -> None:
        model = load(models.iris_lightgbm(tmp_path), 1)
        alone = model.predict({"x": IRIS}, ("predict", "contributions", "leaf"))

        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda _: model.predict({"x": IRIS}, tuple(alone)), range(40)))

        for answer in together:
            for name, tensor in alone.items():
                np.testing.assert_array_equal(answer[name], tensor)

    def test_of_linear_trees_has_no_contributions(self, tmp_path: Path) -> None:
        settings = {"linear_tree": True, "verbose": -1, "num_threads": 1}
        data = lightgbm.Dataset(IRIS, SPECIES, params={"verbose": -1})
        lightgbm.train(settings, data, num_boost_round=2).save_model(tmp_path / "model.txt")

        model = load(tmp_path, 1)

        assert "contributions" not in {spec.name for spec in model.signature.outputs}
        assert model.predict({"x": IRIS}, ("predict",))["predict"].shape == (150,)

    def test_takes_the_categories_of_a_dataframe_by_their_values(self, tmp_path: Path) -> None:
        frame, booster = shop(tmp_path)
        model = load(tmp_path, 1)
        columns = {name: np.array(frame[name].tolist()) for name in ("size", "age")}
        columns["city"] = np.array(frame["city"].tolist(), dtype=object)

        answer = model.predict(fit(model.signature, columns), ("predict",))["predict"]

        np.testing.assert_array_equal(answer, booster.predict(frame))
        assert len(set(answer.tolist())) > 10
        assert model.signature.matrix is None

    def test_takes_a_category_that_it_has_not_seen_for_a_missing_one_as_lightgbm_does(self, tmp_path: Path) -> None:
        _, booster = shop(tmp_path)
        model = load(tmp_path, 1)
        unseen = pd.DataFrame(
            {"city": pd.Categorical(["paris", None]), "age": [1.0, 1.0], "size": pd.Categorical([10, 10])}
        )
        columns = {"city": np.array(["paris", None], object), "age": np.ones(2), "size": np.array([10, 10])}

        answer = model.predict(columns, ("predict",))["predict"]

        np.testing.assert_array_equal(answer, booster.predict(unseen))

    def test_of_codes_takes_codes(self, tmp_path: Path) -> None:
        codes = np.column_stack([np.arange(200) % 3, IRIS[:, 0].repeat(2)[:200]])
        data = lightgbm.Dataset(codes, codes[:, 0] == 1, categorical_feature=[0], params={"verbose": -1})
        booster = lightgbm.train({"verbose": -1, "num_threads": 1}, data, num_boost_round=3)
        booster.save_model(tmp_path / "model.txt")

        answer = load(tmp_path, 1).predict({"x": codes}, ("predict",))["predict"]

        np.testing.assert_array_equal(answer, booster.predict(codes))

    def test_refuses_categories_that_could_belong_to_several_features(self, tmp_path: Path) -> None:
        shop(tmp_path)
        file = tmp_path / "model.txt"
        file.write_text(file.read_text().replace("[categorical_feature: 0,2]", "[categorical_feature: 0,1,2]"))

        with pytest.raises(ModelFailed, match="which belong together cannot be told") as failed:
            load(tmp_path, 1)

        assert failed.value.exit_code == 65

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
