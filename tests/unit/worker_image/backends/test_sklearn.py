"""scikit-learn files with really trained models: what they look like from outside, and which are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orchestrator.manifest.model import ENV_NAME
from tests.fakes import models
from worker_image.server.backends.pickles import pickled_version
from worker_image.server.backends.sklearn import ALLOW_SKEW, TRUSTED_TYPES, load
from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import fit

FEATURES, TARGET = load_iris(return_X_y=True)


def saved(directory: Path, estimator: Any) -> Path:
    joblib.dump(estimator, directory / "model.joblib")
    return directory


def refused(directory: Path, code: str) -> str:
    with pytest.raises(ModelFailed) as failed:
        load(directory, 1)
    assert failed.value.code == code
    return failed.value.reason


class TestSignature:
    def test_a_classifier_gives_labels_and_probabilities(self, tmp_path: Path) -> None:
        model = load(models.iris(tmp_path, named_classes=True), 1)

        answer = model.predict({"x": np.array(models.ONE_ROW)}, ("predict", "predict_proba"))

        assert answer["predict"].tolist() == ["setosa"]
        assert answer["predict_proba"].shape == (1, 3)
        assert model.signature.default_outputs == ("predict",)
        assert model.signature.labels == ("setosa", "versicolor", "virginica")

    def test_a_regressor_gives_a_value(self, tmp_path: Path) -> None:
        model = load(saved(tmp_path, LinearRegression().fit(FEATURES, TARGET)), 1)

        assert model.signature.value == "predict"
        assert model.signature.scores is None

    def test_an_estimator_that_takes_missing_values_may_have_them(self, tmp_path: Path) -> None:
        strict = load(models.iris(tmp_path / "a"), 1)
        (tmp_path / "b").mkdir()
        lenient = load(saved(tmp_path / "b", HistGradientBoostingRegressor(max_iter=2).fit(FEATURES, TARGET)), 1)

        assert strict.signature.inputs[0].finite
        assert not lenient.signature.inputs[0].finite

    def test_computes_only_what_is_asked_for(self, tmp_path: Path) -> None:
        model = load(models.iris(tmp_path), 1)

        assert list(model.predict({"x": np.array(models.ONE_ROW)}, ("predict_proba",))) == ["predict_proba"]


class TestNamedColumns:
    names = ("sl", "sw", "pl", "pw")

    @pytest.fixture
    def estimator(self) -> Any:
        estimator = LogisticRegression(max_iter=500).fit(FEATURES, TARGET)
        estimator.feature_names_in_ = np.array(self.names, dtype=object)
        return estimator

    def test_are_taken_by_name_in_any_order(self, tmp_path: Path, estimator: Any) -> None:
        model = load(saved(tmp_path, estimator), 1)
        columns = {name: FEATURES[:9, index] for index, name in enumerate(self.names)}
        shuffled = dict(reversed(columns.items()))

        answer = model.predict(fit(model.signature, shuffled), ("predict_proba",))

        assert [spec.name for spec in model.signature.inputs] == list(self.names)
        np.testing.assert_array_equal(answer["predict_proba"], estimator.predict_proba(FEATURES[:9]))

    def test_are_taken_as_one_matrix_in_the_order_of_training(self, tmp_path: Path, estimator: Any) -> None:
        model = load(saved(tmp_path, estimator), 1)

        answer = model.predict(fit(model.signature, {"anything": FEATURES[:9]}), ("predict",))

        np.testing.assert_array_equal(answer["predict"], estimator.predict(FEATURES[:9]))


class TestFiles:
    @pytest.mark.parametrize("name", ["model.joblib", "clf.pkl", "model.pickle"])
    def test_are_found_by_their_ending(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(pickle.dumps(models.iris_estimator()))
        (tmp_path / "requirements.txt").write_text("")

        assert load(tmp_path, 1).signature.inputs[0].shape == (-1, 4)

    def test_that_are_not_there_are_named_with_what_is(self, tmp_path: Path) -> None:
        (tmp_path / "notes.md").write_text("")

        assert "holds 'notes.md'; the sklearn backend reads one file" in refused(tmp_path, "ARTIFACT_MISSING")
        assert "no such directory" in refused(tmp_path / "none", "ARTIFACT_MISSING")

    def test_several_are_refused_unless_one_is_named_model(self, tmp_path: Path) -> None:
        for name in ("a.pkl", "b.pkl"):
            (tmp_path / name).write_bytes(pickle.dumps(models.iris_estimator()))
        assert "keep one, or name it model.joblib" in refused(tmp_path, "ARTIFACT_MISSING")

        (tmp_path / "model.pkl").write_bytes(pickle.dumps(models.iris_estimator()))
        assert load(tmp_path, 1)

    @pytest.mark.parametrize("kept", [0, 1, 300, -20])
    def test_that_are_truncated_say_so(self, tmp_path: Path, kept: int) -> None:
        file = models.iris(tmp_path) / "model.joblib"
        file.write_bytes(file.read_bytes()[:kept])

        assert "it may be truncated" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_of_another_format_say_so(self, tmp_path: Path) -> None:
        (tmp_path / "model.joblib").write_text("I am no pickle, I am a poem.")

        assert "is no whole joblib or pickle file (28 bytes" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_that_hold_no_estimator_say_what_they_hold(self, tmp_path: Path) -> None:
        joblib.dump({"model": 1}, tmp_path / "model.joblib")
        reason = refused(tmp_path, "ARTIFACT_UNREADABLE")
        assert "holds a dict, which has none of predict" in reason
        assert "the sklearn backend serves fitted estimators" in reason

        saved(tmp_path, LogisticRegression())
        assert "LogisticRegression that was never fitted" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_that_need_a_missing_module_name_it(self, tmp_path: Path) -> None:
        (tmp_path / "model.pkl").write_bytes(b"cno_such_package.models\nThing\n.")

        assert "needs the Python module 'no_such_package'" in refused(tmp_path, "MODULE_MISSING")

    def test_that_need_a_class_of_the_training_script_say_so(self, tmp_path: Path) -> None:
        (tmp_path / "model.pkl").write_bytes(b"c__main__\nMyTransformer\n.")

        assert "defined in the training script" in refused(tmp_path, "ARTIFACT_UNREADABLE")


class TestSkops:
    """Files that run no code when they are loaded."""

    def test_are_served_like_others(self, tmp_path: Path) -> None:
        pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(FEATURES, TARGET)
        skops.io.dump(pipeline, tmp_path / "model.skops")

        answer = load(tmp_path, 1).predict({"x": FEATURES}, ("predict_proba",))

        np.testing.assert_array_equal(answer["predict_proba"], pipeline.predict_proba(FEATURES))

    def test_with_unknown_types_are_refused_until_the_manifest_trusts_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        skops.io.dump(Halving().fit(FEATURES), tmp_path / "model.skops")
        name = f"{Halving.__module__}.Halving"

        reason = refused(tmp_path, "ARTIFACT_UNREADABLE")
        monkeypatch.setenv(TRUSTED_TYPES, f"other.Thing, {name}")

        assert f"needs types that skops does not know to be safe ({name})" in reason
        assert f"set {TRUSTED_TYPES}: '{name}' in the version's `env`" in reason
        np.testing.assert_array_equal(
            load(tmp_path, 1).predict({"x": FEATURES}, ("transform",))["transform"], FEATURES / 2
        )

    @pytest.mark.parametrize("kept", [0, 10, 700, -30])
    def test_that_are_truncated_say_so(self, tmp_path: Path, kept: int) -> None:
        file = tmp_path / "model.skops"
        skops.io.dump(models.iris_estimator(), file)
        file.write_bytes(file.read_bytes()[:kept])

        assert "is no whole skops file" in refused(tmp_path, "ARTIFACT_UNREADABLE")

    def test_of_another_release_are_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(io.BytesIO(skops.io.dumps(models.iris_estimator()))) as whole:
            members = {name: whole.read(name) for name in whole.namelist()}
        here = json.dumps(sklearn.__version__)[1:-1].encode()
        members["schema.json"] = members["schema.json"].replace(here, b"0.24.2")
        with zipfile.ZipFile(tmp_path / "model.skops", "w") as changed:
            for name, content in members.items():
                changed.writestr(name, content)

        assert "pickled by scikit-learn 0.24.2" in refused(tmp_path, "VERSION_SKEW")


class Halving(TransformerMixin, BaseEstimator):
    """Somebody's own."""

    def fit(self, rows: Any, targets: Any = None) -> Halving:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return rows / 2


class TestVersionSkew:
    """A pickle of another scikit-learn is refused with both versions and what to do."""

    def write(self, directory: Path, version: str, estimator: Any | None = None) -> Path:
        here = sklearn.__version__.encode()
        raw = pickle.dumps(estimator or models.iris_estimator(), protocol=2)
        old, new = (b"X" + len(text).to_bytes(4, "little") + text for text in (here, version.encode()))
        assert old in raw
        (directory / "model.pkl").write_bytes(raw.replace(old, new))
        return directory

    def test_another_release_is_refused_with_both_versions(self, tmp_path: Path) -> None:
        reason = refused(self.write(tmp_path, "0.24.2"), "VERSION_SKEW")

        assert f"pickled by scikit-learn 0.24.2, this server has {sklearn.__version__}" in reason
        assert "scikit-learn==0.24.2` into a requirements.txt" in reason

    def test_a_pipeline_of_another_release_is_refused_too(self, tmp_path: Path) -> None:
        pipeline = make_pipeline(StandardScaler(), DummyClassifier()).fit(FEATURES, TARGET)

        assert "1.2.1" in refused(self.write(tmp_path, "1.2.1", pipeline), "VERSION_SKEW")

    def test_a_patch_release_is_only_a_warning(self, tmp_path: Path) -> None:
        patch = ".".join([*sklearn.__version__.split(".")[:2], "99"])

        assert load(self.write(tmp_path, patch), 1)

    def test_the_risk_can_be_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ALLOW_SKEW, "1")

        assert load(self.write(tmp_path, "0.24.2"), 1)

    @pytest.mark.parametrize("variable", [ALLOW_SKEW, TRUSTED_TYPES])
    def test_what_the_errors_advise_can_be_written_in_a_manifest(self, variable: str) -> None:
        assert ENV_NAME.matches(variable)

    def test_a_file_that_another_release_makes_unreadable_names_that_release(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "0.19.1") / "model.pkl"
        file.write_bytes(
            file.read_bytes().replace(b"sklearn.linear_model._logistic", b"sklearn.linear_model._vanished")
        )

        assert "0.19.1" in refused(tmp_path, "VERSION_SKEW")

    def test_the_version_is_found_in_compressed_files(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "1.0.2") / "model.pkl"
        file.write_bytes(zlib.compress(file.read_bytes()))

        assert pickled_version(file) == "1.0.2"
