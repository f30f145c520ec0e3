"""XGBoost models, really trained and saved: the answers are XGBoost's own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_iris

from worker_image.server.backends.xgboost import XgboostModel, load
from worker_image.server.errors import ModelFailed
from worker_image.server.loading import Loaded, RequestError
from worker_image.server.tensors import datatype_of, fit

IRIS, SPECIES = load_iris(return_X_y=True)
ALL = ("predict", "predict_proba", "label", "raw_score", "leaf", "contributions")


def saved(directory: Path, model: Any, name: str = "model.ubj") -> XgboostModel:
    model.save_model(directory / name)
    return load(directory, 1)


def classifier(**settings: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, **settings)


def table(rows: int = 60) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    chance = np.random.default_rng(0)
    city = chance.choice(["bonn", "oslo", "rome"], rows)
    size = chance.choice([10, 20], rows)
    age = chance.normal(size=rows)
    frame = pd.DataFrame({"city": pd.Categorical(city), "age": age, "size": pd.Categorical(size)})
    return frame, (city == "oslo") * 2.0 + age + size


def refused(directory: Path, code: str) -> str:
    with pytest.raises(ModelFailed) as failed:
        load(directory, 1)
    assert failed.value.code == code
    return failed.value.reason


class TestAnswers:
    @pytest.mark.parametrize("name", ["model.ubj", "model.json"])
    def test_of_several_classes_are_xgboosts_own(self, tmp_path: Path, name: str) -> None:
        trained = classifier().fit(IRIS, SPECIES)
        model = saved(tmp_path, trained, name)

        answer = model.predict({"x": IRIS[:9]}, ALL)

        booster, rows = trained.get_booster(), xgboost.DMatrix(IRIS[:9])
        np.testing.assert_array_equal(answer["predict"], booster.predict(rows))
        np.testing.assert_array_equal(answer["predict_proba"], trained.predict_proba(IRIS[:9]))
        np.testing.assert_array_equal(answer["label"], trained.predict(IRIS[:9]))
        np.testing.assert_array_equal(answer["raw_score"], booster.predict(rows, output_margin=True))
        np.testing.assert_array_equal(answer["leaf"], booster.predict(rows, pred_leaf=True))
        np.testing.assert_array_equal(answer["contributions"], booster.predict(rows, pred_contribs=True))
        lazy = [spec for spec in model.signature.outputs if spec.lazy]
        assert {name: tensor.shape for name, tensor in answer.items()} == {
            spec.name: (9, *spec.shape[1:]) for spec in model.signature.outputs
        }
        assert [datatype_of(answer[spec.name].dtype) for spec in lazy] == [spec.datatype for spec in lazy]

    def test_of_two_classes_have_a_column_for_each(self, tmp_path: Path) -> None:
        rows, diagnosis = load_breast_cancer(return_X_y=True)
        trained = classifier().fit(rows, diagnosis)
        (tmp_path / "labels.json").write_text('["malignant", "benign"]')
        model = saved(tmp_path, trained)

        answer = model.predict({"x": rows[:9]}, ("predict", "predict_proba", "label"))

        np.testing.assert_array_equal(answer["predict_proba"], trained.predict_proba(rows[:9]))
        np.testing.assert_array_equal(answer["predict"], answer["predict_proba"][:, 1])
        assert answer["label"].tolist() == [["malignant", "benign"][label] for label in trained.predict(rows[:9])]
        assert (model.signature.scores, model.signature.labels) == ("predict_proba", ("malignant", "benign"))

    def test_of_softmax_are_classes_with_probabilities_beside_them(self, tmp_path: Path) -> None:
        settings = {"objective": "multi:softmax", "num_class": 3, "nthread": 1}
        model = saved(tmp_path, xgboost.train(settings, xgboost.DMatrix(IRIS, SPECIES), 3))

        answer = model.predict({"x": IRIS}, ("predict", "predict_proba", "label"))

        np.testing.assert_array_equal(answer["predict"], answer["label"])
        np.testing.assert_allclose(answer["predict_proba"].sum(axis=1), 1, rtol=1e-6)

    @pytest.mark.parametrize("booster", ["gblinear", "dart"])
    def test_of_other_boosters_are_theirs(self, tmp_path: Path, booster: str) -> None:
        trained = xgboost.train({"booster": booster, "nthread": 1}, xgboost.DMatrix(IRIS, SPECIES), 3)
        model = saved(tmp_path, trained)
        names = [spec.name for spec in model.signature.outputs]

        answer = model.predict({"x": IRIS[:5]}, tuple(names))

        np.testing.assert_array_equal(answer["predict"], trained.predict(xgboost.DMatrix(IRIS[:5])))
        assert ("leaf" in names) == (booster == "dart")
        assert model.signature.value == "predict"

    def test_of_several_targets_are_a_row_each(self, tmp_path: Path) -> None:
        model = saved(tmp_path, xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(IRIS[:, :2], IRIS[:, 2:]))

        assert model.predict({"x": IRIS[:5, :2]}, ("predict",))["predict"].shape == (5, 2)
        assert model.signature.value is None

    def test_of_early_stopping_are_the_best_iterations(self, tmp_path: Path) -> None:
        trained = xgboost.XGBClassifier(n_estimators=300, n_jobs=1, early_stopping_rounds=2)
        trained.fit(IRIS[::2], SPECIES[::2], eval_set=[(IRIS[1::2], SPECIES[1::2])], verbose=False)
        model = saved(tmp_path, trained)

        answer = model.predict({"x": IRIS}, ("predict_proba", "leaf"))

        np.testing.assert_array_equal(answer["predict_proba"], trained.predict_proba(IRIS))
        leaf = next(spec for spec in model.signature.outputs if spec.name == "leaf")
        assert answer["leaf"].shape[1] == leaf.shape[1] == 3 * (trained.best_iteration + 1)

    def test_take_missing_values_and_a_base_margin(self, tmp_path: Path) -> None:
        trained = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(IRIS, SPECIES)
        model = saved(tmp_path, trained)
        rows, margin = IRIS[:3].copy(), np.array([0.0, 5.0, 9.0], np.float32)
        rows[0, 2] = np.nan

        answer = model.predict(fit(model.signature, {"x": rows, "base_margin": margin}), ("predict",))

        np.testing.assert_allclose(answer["predict"], trained.predict(rows, base_margin=margin), rtol=1e-6)

    def test_of_several_threads_are_the_same(self, tmp_path: Path) -> None:
        model = saved(tmp_path, classifier().fit(IRIS, SPECIES))
        alone = model.predict({"x": IRIS}, ("predict", "contributions"))

        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda _: model.predict({"x": IRIS}, tuple(alone)), range(40)))

        for answer in together:
            np.testing.assert_array_equal(answer["predict"], alone["predict"])
            np.testing.assert_array_equal(answer["contributions"], alone["contributions"])


class TestColumns:
    def test_are_taken_by_name_with_the_values_of_categories(self, tmp_path: Path) -> None:
        frame, target = table()
        trained = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, enable_categorical=True).fit(frame, target)
        model = saved(tmp_path, trained)
        columns = {
            "age": frame["age"].to_numpy(),
            "size": np.array(frame["size"].tolist()),
            "city": np.array(frame["city"].tolist(), dtype=object),
        }

        answer = model.predict(fit(model.signature, columns), ("predict",))["predict"]

        np.testing.assert_array_equal(answer, trained.predict(frame))
        assert [(spec.name, spec.datatype) for spec in model.signature.inputs] == [
            ("city", "BYTES"),
            ("age", "FP64"),
            ("size", "FP64"),
        ]
        assert model.warmup() is not None
        assert len(set(answer.tolist())) > 10

    def test_of_a_category_that_training_had_not_are_the_callers_mistake(self, tmp_path: Path) -> None:
        frame, target = table()
        trained = xgboost.XGBRegressor(n_estimators=2, n_jobs=1, enable_categorical=True).fit(frame, target)
        model = saved(tmp_path, trained)
        columns = {"city": np.array(["paris"], object), "age": np.array([1.0]), "size": np.array([10])}

        with pytest.raises(RequestError, match="'paris' is no category") as failed:
            Loaded(model, model.signature).predict(columns, ("predict",))

        assert failed.value.status == 400

    def test_without_categories_are_taken_as_a_matrix_too(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(IRIS, columns=["a", "b", "c", "d"])
        trained = classifier().fit(frame, SPECIES)
        model = saved(tmp_path, trained)
        by_name = fit(model.signature, {name: IRIS[:, place] for place, name in enumerate("abcd")})

        named = model.predict(by_name, ("predict",))
        whole = model.predict(fit(model.signature, {"any": IRIS}), ("predict",))

        np.testing.assert_array_equal(named["predict"], whole["predict"])


class TestFiles:
    @pytest.mark.parametrize("name", ["model.ubj", "model.json"])
    @pytest.mark.parametrize("kept", [0, 1, 400, -30])
    def test_that_are_truncated_say_so(self, tmp_path: Path, name: str, kept: int) -> None:
        file = tmp_path / name
        classifier().fit(IRIS, SPECIES).save_model(file)
        file.write_bytes(file.read_bytes()[:kept])

        reason = refused(tmp_path, "ARTIFACT_UNREADABLE")

        assert "it may be truncated" in reason
        assert "workspace" not in reason
        assert "Stack trace" not in reason

    @pytest.mark.parametrize("content", [b"a poem", b"{}", b'{"model": []}', b"binf\x00\x00"])
    def test_of_another_format_say_so(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.json").write_bytes(content)

        assert "is no whole model of XGBoost's JSON or UBJSON" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_that_are_not_there_are_named_with_what_is(self, tmp_path: Path) -> None:
        (tmp_path / "labels.json").write_text("[]")

        assert "holds 'labels.json'; the xgboost backend reads one file" in refused(tmp_path, "ARTIFACT_MISSING")

    @pytest.mark.parametrize("name", ["model.ubj", "model.json"])
    def test_of_a_newer_release_are_refused_with_both_versions(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / name
        classifier().fit(IRIS, SPECIES).save_model(file)
        here = [int(part) for part in xgboost.__version__.split(".")]
        old, new = (_version(name, numbers) for numbers in (here, [here[0], here[1] + 1, 0]))
        content = file.read_bytes()
        assert content.count(old) == 1
        file.write_bytes(content.replace(old, new))

        reason = refused(tmp_path, "VERSION_SKEW")
        monkeypatch.setenv("ALLOW_VERSION_SKEW", "1")

        assert f"saved by XGBoost {here[0]}.{here[1] + 1}, this server has {xgboost.__version__}" in reason
        assert load(tmp_path, 1)

    def test_of_an_older_release_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "model.json"
        classifier().fit(IRIS, SPECIES).save_model(file)
        content = json.loads(file.read_bytes())
        content["version"] = [2, 1, 0]
        file.write_text(json.dumps(content))

        assert load(tmp_path, 1)


def _version(name: str, numbers: list[int]) -> bytes:
    if name.endswith(".json"):
        return b'"version":[' + ",".join(map(str, numbers)).encode() + b"]"
    return b"version[#L" + (3).to_bytes(8, "big") + b"".join(b"i" + bytes([number]) for number in numbers)
