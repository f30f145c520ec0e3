"""Small models, really trained or really written, for the tests of the model server. Each writes one artifact directory."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

ONE_ROW = [[5.1, 3.5, 1.4, 0.2]]


def iris_estimator(*, named_classes: bool = False) -> LogisticRegression:
    data = load_iris()
    return LogisticRegression(max_iter=500).fit(
        data.data, data.target_names[data.target] if named_classes else data.target
    )


def iris(directory: Path, *, named_classes: bool = False) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    joblib.dump(iris_estimator(named_classes=named_classes), directory / "model.joblib")
    return directory


def digits_onnx(directory: Path, *, zipmap: bool = False) -> Path:
    from skl2onnx import to_onnx

    directory.mkdir(parents=True, exist_ok=True)
    features, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=2000).fit(features / 16.0, labels)
    exported = to_onnx(model, features[:1].astype(np.float32), options={id(model): {"zipmap": zipmap}}, target_opset=17)
    (directory / "model.onnx").write_bytes(exported.SerializeToString())
    return directory


def iris_lightgbm(directory: Path, *, objective: str = "multiclass") -> Path:
    import lightgbm

    directory.mkdir(parents=True, exist_ok=True)
    features, labels = load_iris(return_X_y=True)
    settings: dict[str, Any] = {"objective": objective, "verbose": -1, "num_leaves": 5, "num_threads": 1}
    if objective == "multiclass":
        settings["num_class"] = 3
    if objective == "binary":
        labels = labels == 0
    lightgbm.train(settings, lightgbm.Dataset(features, labels), num_boost_round=5).save_model(directory / "model.txt")
    return directory


def python(directory: Path, source: str) -> Path:
    """A custom model: `source` is its model.py."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.py").write_text(dedent(source))
    return directory
