"""CatBoost models, really trained and saved: the answers are CatBoost's own."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest
from sklearn.datasets import load_iris

from worker_image.server.backends.catboost import CatboostModel, load
from worker_image.server.errors import ModelFailed, RequestError
from worker_image.server.loading import Loaded
from worker_image.server.tensors import Tensors, datatype_of, fit

IRIS, SPECIES = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
QUIET = {"iterations": 6, "depth": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_seed": 1}


def saved(directory: Path, model: Any) -> CatboostModel:
    model.save_model(str(directory / "model.cbm"))
    return load(directory, 1)


def shop() -> tuple[Tensors, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Columns, the same as CatBoost's rows, and what is to be predicted."""
    chance = np.random.default_rng(0)
    columns: Tensors = {
        "age": chance.normal(size=80),
        "city": chance.choice(["bonn", "oslo", "rome"], 80).astype(object),
        "size": chance.integers(0, 3, 80),
    }
    rows = np.empty((80, 3), dtype=object)
    for place, name in enumerate(columns):
        rows[:, place] = columns[name].tolist()
    return columns, rows, np.where((rows[:, 1] == "oslo") ^ (columns["size"] == 1), "yes", "no")


def refused(directory: Path, code: str) -> str:
    with pytest.raises(ModelFailed) as failed:
        load(directory, 1)
    assert failed.value.code == code
    return failed.value.reason


class TestAnswers:
    def test_of_several_classes_are_their_labels(self, tmp_path: Path) -> None:
        trained = catboost.CatBoostClassifier(**QUIET).fit(IRIS, NAMES[SPECIES])
        model = saved(tmp_path, trained)
        names = tuple(spec.name for spec in model.signature.outputs)

        answer = model.predict({"x": IRIS[:9]}, names)

        assert answer["predict"].tolist() == trained.predict(IRIS[:9]).ravel().tolist()
        np.testing.assert_array_equal(answer["predict_proba"], trained.predict_proba(IRIS[:9]))
        np.testing.assert_array_equal(answer["raw_score"], trained.predict(IRIS[:9], prediction_type="RawFormulaVal"))
        np.testing.assert_array_equal(answer["leaf"], trained.calc_leaf_indexes(IRIS[:9]))
        shares = trained.get_feature_importance(catboost.Pool(IRIS[:9]), type="ShapValues")
        np.testing.assert_array_equal(answer["contributions"], shares)
        lazy = [spec for spec in model.signature.outputs if spec.lazy]
        assert {name: tensor.shape for name, tensor in answer.items()} == {
            spec.name: (9, *spec.shape[1:]) for spec in model.signature.outputs
        }
        assert [datatype_of(answer[spec.name].dtype) for spec in lazy] == [spec.datatype for spec in lazy]
        assert (model.signature.scores, model.signature.labels) == ("predict_proba", tuple(NAMES))

    @pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"]])
    def test_of_two_classes_are_their_labels(self, tmp_path: Path, labels: list[Any]) -> None:
        target = np.array(labels, dtype=object)[(SPECIES == 1).astype(int)]
        trained = catboost.CatBoostClassifier(**QUIET).fit(IRIS, target)
        model = saved(tmp_path, trained)

        answer = model.predict({"x": IRIS}, ("predict", "predict_proba", "raw_score", "contributions"))

        assert answer["predict"].tolist() == trained.predict(IRIS).tolist()
        assert set(answer["predict"].tolist()) == set(labels)
        assert (answer["predict_proba"].shape, answer["raw_score"].shape) == ((150, 2), (150,))
        np.testing.assert_allclose(answer["contributions"].sum(axis=1), answer["raw_score"])

    @pytest.mark.parametrize("loss", ["RMSE", "Poisson"])
    def test_of_a_regressor_are_its_values(self, tmp_path: Path, loss: str) -> None:
        trained = catboost.CatBoostRegressor(loss_function=loss, **QUIET).fit(IRIS, SPECIES)
        model = saved(tmp_path, trained)

        answer = model.predict({"x": IRIS}, ("predict",))["predict"]

        np.testing.assert_array_equal(answer, trained.predict(IRIS))
        assert model.signature.value == "predict"

    def test_of_several_threads_are_the_same(self, tmp_path: Path) -> None:
        model = saved(tmp_path, catboost.CatBoostRegressor(**QUIET).fit(IRIS, SPECIES))
        alone = model.predict({"x": IRIS}, ("predict", "contributions"))

        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda _: model.predict({"x": IRIS}, tuple(alone)), range(40)))

        for answer in together:
            np.testing.assert_array_equal(answer["predict"], alone["predict"])
            np.testing.assert_array_equal(answer["contributions"], alone["contributions"])


class TestColumns:
    def test_take_categories_as_texts_and_as_whole_numbers(self, tmp_path: Path) -> None:
        columns, rows, target = shop()
        pool = catboost.Pool(rows, target, cat_features=[1, 2], feature_names=list(columns))
        trained = catboost.CatBoostClassifier(**QUIET).fit(pool)
        model = saved(tmp_path, trained)
        asked = tuple(spec.name for spec in model.signature.outputs)

        answer = model.predict(fit(model.signature, dict(reversed(columns.items()))), asked)

        assert answer["predict"].tolist() == trained.predict(rows).tolist()
        assert set(answer["predict"].tolist()) == {"yes", "no"}
        shares = trained.get_feature_importance(pool, type="ShapValues")
        np.testing.assert_allclose(answer["contributions"], shares)
        assert [(spec.name, spec.datatype) for spec in model.signature.inputs] == [
            ("age", "FP64"),
            ("city", "BYTES"),
            ("size", "BYTES"),
        ]
        assert model.predict(model.warmup() or {}, ("predict",))["predict"].shape == (1,)

    def test_without_names_go_by_their_numbers(self, tmp_path: Path) -> None:
        columns, rows, target = shop()
        trained = catboost.CatBoostClassifier(**QUIET).fit(rows, target, cat_features=[1, 2])
        model = saved(tmp_path, trained)
        numbered = {str(place): column for place, column in enumerate(columns.values())}

        answer = model.predict(fit(model.signature, numbered), ("predict",))["predict"]

        assert answer.tolist() == trained.predict(rows).tolist()

    def test_take_texts(self, tmp_path: Path) -> None:
        texts = np.array(["good day", "bad night", "good night", "bad day"] * 10, dtype=object).reshape(-1, 1)
        target = np.array([1, 0, 1, 0] * 10)
        trained = catboost.CatBoostClassifier(**QUIET).fit(texts, target, text_features=[0])
        model = saved(tmp_path, trained)

        answer = model.predict(fit(model.signature, {"0": texts[:4, 0]}), ("predict",))["predict"]

        assert answer.tolist() == [1, 0, 1, 0]

    def test_take_missing_numbers_and_no_missing_category(self, tmp_path: Path) -> None:
        _, rows, target = shop()
        rows[:20, 0] = np.nan
        trained = catboost.CatBoostClassifier(**QUIET).fit(rows, target, cat_features=[1, 2])
        model = saved(tmp_path, trained)
        sent = {"0": np.array([np.nan]), "1": np.array(["oslo"], object), "2": np.array([1])}

        assert model.predict(fit(model.signature, sent, ["0"]), ("predict",))["predict"].shape == (1,)
        with pytest.raises(RequestError, match="input '1': a value is null"):
            fit(model.signature, {**sent, "1": np.array([None], object)}, ["1"])

    def test_refuse_a_category_that_is_a_fraction(self, tmp_path: Path) -> None:
        _, rows, target = shop()
        model = saved(tmp_path, catboost.CatBoostClassifier(**QUIET).fit(rows, target, cat_features=[1, 2]))

        with pytest.raises(RequestError, match="input '2': datatype FP64; the model wants BYTES or INT16"):
            fit(model.signature, {"0": np.ones(1), "1": np.array(["oslo"], object), "2": np.ones(1)})

    def test_that_catboost_refuses_are_the_callers_mistake(self, tmp_path: Path) -> None:
        _, rows, target = shop()
        model = saved(tmp_path, catboost.CatBoostClassifier(**QUIET).fit(rows, target, cat_features=[1, 2]))
        sent = {"0": np.ones(1), "1": np.array(["oslo"], object), "2": np.array([0.5])}

        with pytest.raises(RequestError, match="the model refused the input") as failed:
            Loaded(model, model.signature).predict(sent, ("predict",))

        assert failed.value.status == 400


class TestWithoutPandas:
    """As in the image, which has none. In a process of its own: these tests have imported it."""

    CODE = """
import sys, pathlib, numpy as np
from worker_image.server.backends.catboost import load
model = load(pathlib.Path(sys.argv[1]), 1)
names = tuple(spec.name for spec in model.signature.outputs)
answer = model.predict(model.warmup(), names)
assert sorted(answer) == sorted(names)
assert "pandas" not in sys.modules
"""

    @pytest.mark.parametrize("categorical", [False, True])
    def test_predicts_all_the_same(self, tmp_path: Path, categorical: bool) -> None:
        _, rows, target = shop()
        if categorical:
            saved(tmp_path, catboost.CatBoostClassifier(**QUIET).fit(rows, target, cat_features=[1, 2]))
        else:
            saved(tmp_path, catboost.CatBoostClassifier(**QUIET).fit(IRIS, SPECIES))

        done = subprocess.run([sys.executable, "-c", self.CODE, str(tmp_path)], capture_output=True, check=False)

        assert done.returncode == 0, done.stderr.decode()


class TestFiles:
    @pytest.mark.parametrize("kept", [0, 3, 200, -30])
    def test_that_are_truncated_say_so(self, tmp_path: Path, kept: int) -> None:
        file = tmp_path / "model.cbm"
        catboost.CatBoostRegressor(**QUIET).fit(IRIS, SPECIES).save_model(str(file))
        file.write_bytes(file.read_bytes()[:kept])

        assert "it may be truncated" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_of_another_format_say_so(self, tmp_path: Path) -> None:
        (tmp_path / "model.cbm").write_text("I am a poem.")

        assert "is no CatBoost model (12 bytes)" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_of_a_format_that_comes_later_name_this_release(self, tmp_path: Path) -> None:
        file = tmp_path / "model.cbm"
        catboost.CatBoostRegressor(**QUIET).fit(IRIS, SPECIES).save_model(str(file))
        content = file.read_bytes()
        assert b"FlabuffersModel_v1" in content
        file.write_bytes(content.replace(b"FlabuffersModel_v1", b"FlabuffersModel_v9"))

        assert f"CatBoost {catboost.__version__} does not read it" in refused(tmp_path, "VERSION_SKEW")
